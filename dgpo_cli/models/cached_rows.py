"""The cache of a batch that decodes: rows repeated for the completions of one prompt, rows let go when they have ended.

A prompt's keys and values are computed once. `reserve` copies them to the rows of all its completions, into memory
that holds every token to come: a token is then written in its place, where transformers' own layers copy all that was
there before. Layers that cannot grow beyond a window, and states of linear attention, stay transformers' own.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import DynamicLayer

# Layers of which `reorder_cache` moves all that they hold. A layer that a model brings itself may hold more. No version
# of transformers has all of them: DummyLayer came after 5.17.
MOVABLE = tuple(
    getattr(cache_utils, name)
    for name in (
        "DynamicSlidingWindowLayer",
        "DynamicIndexedLayer",
        "LinearAttentionLayer",
        "LinearAttentionAndFullAttentionLayer",
        "LinearAttentionAndSlidingWindowAttentionLayer",
        "DummyLayer",
    )
    if hasattr(cache_utils, name)
)


class ReservedLayer(DynamicLayer):
    """Keys and values [b, heads, L, d] of a layer, seen as the first L tokens of memory for all tokens to come.

    Args:
        prompts: what the prompts' pass left; it is emptied.
        rows: [b] the row of each completion's prompt there.
        room: tokens that may follow.
    """

    def __init__(self, prompts: DynamicLayer, rows: Tensor, room: int) -> None:
        super().__init__()
        self.dtype, self.device = prompts.dtype, prompts.device
        self.is_initialized = True
        tokens = prompts.get_seq_length()
        self._keys, prompts.keys = _with_room(prompts.keys, rows, room), None
        self._values, prompts.values = _with_room(prompts.values, rows, room), None
        self._see(tokens)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the next tokens' states; all keys and values so far."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        self._keys[:, :, start:end] = key_states
        self._values[:, :, start:end] = value_states
        return self._see(end)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`, no more than there are, in their order."""
        tokens = self.get_seq_length()
        self._keys = _kept(self._keys, beam_idx, tokens)
        self._values = _kept(self._values, beam_idx, tokens)
        self._see(tokens)

    def _see(self, tokens: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = self._keys[:, :, :tokens], self._values[:, :, :tokens]
        return self.keys, self.values


def rows_can_move(cache: Any) -> bool:
    """Whether all that a cache holds is known by row, so that `reserve` and `keep_rows` may be used."""
    known = (DynamicLayer, ReservedLayer, *MOVABLE)
    return isinstance(cache, cache_utils.DynamicCache) and all(type(layer) in known for layer in cache.layers)


def reserve(cache: Any, rows: Tensor, room: int) -> None:
    """Turn the cache of prompts into that of their completions, in place.

    rows: [b] the row of each completion's prompt. room: tokens that each completion may still be fed.
    """
    for place, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[place] = ReservedLayer(layer, rows, room)
        else:
            layer.reorder_cache(rows)


def keep_rows(cache: Any, rows: Tensor) -> None:
    """Let go of all rows but `rows`, ascending, in place."""
    cache.reorder_cache(rows)


def _with_room(states: Tensor, rows: Tensor, room: int) -> Tensor:
    _, heads, tokens, width = states.shape
    memory = states.new_empty((len(rows), heads, tokens + room, width))
    memory[:, :, :tokens] = states.index_select(0, rows)
    return memory


def _kept(memory: Tensor, rows: Tensor, tokens: int) -> Tensor:
    """The same memory with the rows that are kept at its beginning."""
    fewer = memory[: len(rows)]
    fewer[:, :, :tokens] = memory[:, :, :tokens].index_select(0, rows)
    return fewer
