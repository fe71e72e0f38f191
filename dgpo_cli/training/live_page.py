"""The credit page of a run that goes on: report.html in its folder, written again after each stored step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dgpo_cli.config.groups import GatingConfig
from dgpo_cli.records.stored_rollouts import StoredRollouts, read_stored, rollouts_at_hand
from dgpo_cli.reporting.credit_page import PageStep
from dgpo_cli.reporting.run_page import page_gatings, page_step, run_page, shown_prompts, stored_steps, thinned


class LivePage:
    """What the page holds, bounded. Steps from before a resume are read from their files."""

    def __init__(self, run: Path, gating: GatingConfig) -> None:
        self._run, self._gatings = run, page_gatings(gating)
        self._steps: dict[int, PageStep] = {}

    def after(self, step: int, records: list[dict[str, Any]], *, last: bool) -> str:
        """The page's HTML after a step, whose records are all of its rollouts; they are in its file already.

        Raises:
            DataError: credit that is not finite, or a stored step that cannot be read.
        """
        files = {number: file for number, file in stored_steps(self._run).items() if number <= step}
        kept = thinned({*files, step})
        for number in kept:
            if number not in self._steps and number != step:
                self._add(number, read_stored(files[number]))
        self._add(step, rollouts_at_hand(records, f"step {step}"))
        self._steps = {number: self._steps[number] for number in kept}
        return run_page(self._run.name, self._steps, {*files, step}, live=not last)

    def _add(self, step: int, stored: StoredRollouts) -> None:
        others = {number: made for number, made in self._steps.items() if number != step}
        self._steps[step] = page_step(step, stored, self._gatings, shown_prompts(others))
