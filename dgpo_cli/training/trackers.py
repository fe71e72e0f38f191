"""Where a run is logged beside its files: W&B, TensorBoard, both or neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dgpo_cli.config.groups import GatingConfig, LoggerConfig
from dgpo_cli.config.wandb_checks import goes_to_tensorboard, goes_to_wandb
from dgpo_cli.training.showcase import COLUMNS, completion_rows
from dgpo_cli.training.tensorboard import TensorBoard
from dgpo_cli.training.tracker import Tracker


class Trackers:
    """The trackers that `logger=` names. `run_id` is W&B's; `shows`: whether a step's rollouts are wanted."""

    def __init__(
        self,
        settings: LoggerConfig,
        folder: Path,
        config: dict[str, Any],
        *,
        run_id: str | None,
        name: str,
        after: int = 0,
    ) -> None:
        wandb = goes_to_wandb(settings)
        self._wandb = Tracker(settings, folder, config, run_id=run_id, name=name) if wandb else None
        self._board = TensorBoard(folder, config, after=after) if goes_to_tensorboard(settings) else None
        self.run_id = self._wandb.run_id if self._wandb else None

    @property
    def shows(self) -> bool:
        return self.run_id is not None or self._board is not None

    def log(self, row: dict[str, Any]) -> None:
        """Hand over the values of a row."""
        if self._wandb is not None:
            self._wandb.log(row)
        if self._board is not None:
            self._board.log(row)

    def show(
        self, step: int, records: list[dict[str, Any]], *, table: bool = True, gating: GatingConfig | None = None
    ) -> None:
        """Hand over a step's rollouts: a table of some and, to W&B, with a gating the credit page."""
        if self._wandb is not None:
            self._wandb.show(step, records, table=table, gating=gating)
        if self._board is not None and table:
            self._board.show(step, COLUMNS, completion_rows(step, records))

    def close(self, exit_code: int) -> None:
        """End them; what cannot be sent to W&B within seconds stays in the run's folder."""
        if self._wandb is not None:
            self._wandb.close(exit_code)
        if self._board is not None:
            self._board.close()
