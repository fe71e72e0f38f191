"""Sizes of pieces that training works in and the plan counts. Whatever works in them takes them from here.

Those of the output head's tiles are in `core/tile_sizes.py`.
"""

GRADIENTS_AT_ONCE = 2**24  # gradients that processes with a whole model each send together: 64 MiB in float32
WATCHED_WEIGHTS = 65_536  # weights of each tensor that an update compares before and after, up to twice as many
NOISE_ROLLOUTS = 8  # that the noise floor is measured on
CODED_FROM = 4096  # weights that a tensor must have for moments of 8 bits (optim.states=8bit)
CODES_TO_A_SCALE = 256


def heads_divide(heads: int, of_keys: int, processes: int) -> bool:
    """Whether attention can be shared out over processes by its heads; several may take the same head of keys."""
    return heads % processes == 0 and (of_keys % processes == 0 or processes % of_keys == 0)


def moment_bytes(elements: int, states: str) -> int:
    """AdamW's two moments of a tensor. states: float32 | 8bit, which are codes and a float32 scale a block."""
    if states == "float32" or elements < CODED_FROM:
        return 2 * 4 * elements
    return 2 * (elements + 4 * -(-elements // CODES_TO_A_SCALE))
