"""How large a tile of logits is, by kind of device: ids of the vocabulary, and tokens.

In float32 it takes 9.8 MB on a CPU and 134 MB on a GPU. The plan of a run counts with these sizes before torch is
imported, so it is not imported here either.
"""

TILE_IDS = {"cpu": 4800, "cuda": 16384}
TILE_TOKENS = {"cpu": 512, "cuda": 2048}
