"""The first wrong token of a completion, known without a judge: its gold is the only right text (digit_chain).

An oracle gating and the localisation study ask for it. Nothing that is a method may.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dgpo_cli.data.digit_chain import first_wrong_index
from dgpo_cli.evidence.localisation import token_at
from dgpo_cli.records.token_spelling import token_speller
from dgpo_cli.types import Rollout, Verdict


class FirstErrors:
    """Finds the token, by one tokenizer."""

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int]) -> None:
        self._spell, self._stop_ids = token_speller(tokenizer), stop_ids

    def tokens(self, rollout: Rollout) -> tuple[str, ...]:
        """[T] the text of each token; that of a stop token is empty."""
        return tuple("" if one in self._stop_ids else self._spell(one) for one in rollout.token_ids)

    def place(self, rollout: Rollout) -> int | None:
        """0 <= place < T; None if the completion is its gold, was cut off before a mistake, or is spelled otherwise."""
        character = first_wrong_index(rollout.text, rollout.request.prompt.problem.gold)
        tokens = self.tokens(rollout)
        if character is None or "".join(tokens) != rollout.text:
            return None
        return token_at(tokens, character)

    def places(self, rollouts: Sequence[Rollout], verdicts: Sequence[Verdict]) -> list[int | None]:
        """[B] the place of each; None for a rollout that the grader calls right."""
        pairs = zip(rollouts, verdicts, strict=True)
        return [None if verdict.correct else self.place(rollout) for rollout, verdict in pairs]
