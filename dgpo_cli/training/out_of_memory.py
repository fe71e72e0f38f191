"""A micro-batch that memory does not hold: half of it from there on, and the work is done again.

How a minibatch is cut into micro-batches changes nothing but rounding, so a step goes on from where it was: the weights
move only once the whole gradient of a minibatch is there. On several processes all take the same decision, after the
share of each (Processes.all_or_none); with a sharded model they wait for each other within it, and the run ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from dgpo_cli.allocation import is_out_of_memory, reason
from dgpo_cli.errors import RunError

Result = TypeVar("Result")


def out_of_memory(error: BaseException) -> RunError:
    """The line for an allocation that no smaller micro-batch can avoid."""
    return RunError(
        f"out of memory: {reason(error)}",
        "engine.batch_size (generation), optim.tokens_per_microbatch (training) and rollout.max_completion_tokens take "
        "less; resume= continues from the last checkpoint",
    )


class MicrobatchBudget:
    """Positions of a micro-batch: the setting, halved for the rest of the run where memory does not hold so many."""

    def __init__(self, setting: int, say: Callable[[str], None]) -> None:
        self.tokens = self._setting = setting
        self._say = say

    @property
    def halved(self) -> int | None:
        """The budget where it is no longer the setting: to be kept in the checkpoint, for the same numbers after it."""
        return self.tokens if self.tokens < self._setting else None

    def continue_with(self, halved: int | None) -> None:
        """Take over what a checkpoint kept."""
        self.tokens = min(self._setting, halved or self._setting)

    def fitted(
        self, action: Callable[[], Result], *, clean_up: Callable[[], None], in_use: Callable[[], tuple[int, int]]
    ) -> Result:
        """The result of `action`, which cuts its work by `tokens`, tried again with half as long as memory is short.

        clean_up: drops what a failed try left (gradients). in_use: (positions of the largest micro-batch, and of the
        longest sequence), for the budget as it stands.

        Raises:
            RunError: not even one sequence at a time fits.
        """
        before = self.tokens
        while True:
            try:
                result = action()
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                largest, longest = in_use()
                if largest <= longest:
                    raise out_of_memory(error) from error
            # Outside of the handler, whose traceback holds the tensors of the failed try.
            self.tokens = max(longest, min(self.tokens, largest) // 2)
            clean_up()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if self.tokens != before:
            self._say(
                f"warning: out of memory with micro-batches of {before} tokens; the step was done again and the run "
                f"goes on with {self.tokens} (optim.tokens_per_microbatch={self.tokens} starts like that)"
            )
        return result
