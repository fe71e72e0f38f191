"""The rows of a generation unit while it is decoded: a prompt is computed once, and a completion until it has ended.

Which rows are computed together follows from the unit's prompts and tokens alone. So a unit gives the same last bits
whoever draws it. How a token is chosen from logits, and when a completion ends, is decided in transformers_engine.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.models.cached_rows import keep_rows, reserve, rows_can_move
from dgpo_cli.models.language_model import NextLogits

# Rows that have ended are let go as soon as they are this share of those computed. To move the others costs about what
# the attention of one token does, and a pass over one row less may cost hardly less.
ENDED_SHARE = 1 / 8


class UnitBatch:
    """The completions of a unit, left-padded: the next token of each stands in the same column.

    completions: [b] the number in the unit of each row's completion, on the device.
    running: (row, number in the unit) of those that have not ended.
    """

    def __init__(self, prompts: Sequence[tuple[int, ...]], *, max_tokens: int, pad_id: int, device: Any) -> None:
        distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        width = max(len(prompt) for prompt in distinct)
        ids = torch.full((len(distinct), width), pad_id, dtype=torch.long)
        mask = torch.zeros((len(distinct), width + max_tokens), dtype=torch.long)
        mask[:, width:] = 1
        for prompt, row in distinct.items():
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) : width] = 1
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        self._ids, self._mask, self._positions = ids.to(device), mask.to(device), positions.to(device)
        self._padded = bool((mask[:, :width] == 0).any())
        self._end = width  # columns that have been fed
        self._room = max_tokens - 1  # the last token is never fed
        self._cache: Any = None
        self._prompts = torch.tensor([distinct[prompt] for prompt in prompts], device=device)  # [b] row in `_ids`
        self.completions = torch.arange(len(prompts), device=device)
        self.running = [(number, number) for number in range(len(prompts))]

    def first(self, next_logits: NextLogits) -> Tensor:
        """Logits [b, V] of the first token of each completion."""
        logits = self._fed(next_logits, self._ids)
        self._mask, self._positions = self._mask[self._prompts], self._positions[self._prompts]
        if rows_can_move(self._cache):
            reserve(self._cache, self._prompts, self._room)
            return logits[self._prompts]
        self._cache = None  # what is in it cannot be repeated: each completion has its prompt computed
        return self._fed(next_logits, self._ids[self._prompts])

    def following(self, next_logits: NextLogits, tokens: Tensor) -> Tensor:
        """Logits [b, V] after `tokens` [b], one a row."""
        self._end += 1
        return self._fed(next_logits, tokens[:, None])

    def end(self, ended: set[int], tokens: Tensor) -> Tensor:
        """Draw no more of the completions `ended`. Of `tokens` [b], those of the rows that are still computed."""
        self.running = [(row, number) for row, number in self.running if number not in ended]
        rows = len(self.completions)
        if not self.running or rows - len(self.running) < max(1, ENDED_SHARE * rows) or not rows_can_move(self._cache):
            return tokens
        kept = torch.tensor([row for row, _ in self.running], device=tokens.device)
        keep_rows(self._cache, kept)
        self._mask, self._positions = self._mask[kept], self._positions[kept]
        self.completions = self.completions[kept]
        self.running = [(row, number) for row, (_, number) in enumerate(self.running)]
        return tokens[kept]

    def _fed(self, next_logits: NextLogits, ids: Tensor) -> Tensor:
        logits, self._cache = next_logits(
            input_ids=ids,
            attention_mask=self._mask[:, : self._end] if self._padded else None,
            position_ids=self._positions[:, self._end - ids.shape[1] : self._end],
            past_key_values=self._cache,
        )
        return logits
