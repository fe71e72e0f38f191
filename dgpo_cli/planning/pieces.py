"""Sizes of pieces that training works in and the plan counts. Whatever works in them takes them from here.

Those of the output head's tiles are in `core/tile_sizes.py`.
"""

GRADIENTS_AT_ONCE = 2**24  # gradients that processes with a whole model each send together: 64 MiB in float32
WATCHED_WEIGHTS = 65_536  # weights of each tensor that an update compares before and after, up to twice as many
NOISE_ROLLOUTS = 8  # that the noise floor is measured on
