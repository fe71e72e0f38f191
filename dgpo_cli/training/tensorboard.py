"""TensorBoard's event files in a run's folder, by torch's own writer. Whatever happens to them, training goes on."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from dgpo_cli.terminal import say

FOLDER = "tensorboard"


class TensorBoard:
    """Event files in `folder/tensorboard`. `after`: the step that a resumed run goes on from; later events go."""

    def __init__(self, folder: Path, config: dict[str, Any], *, after: int) -> None:
        import yaml

        self._writer: Any = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / FOLDER), purge_step=after + 1 if after else None)
            self._writer.add_text("config", "    " + yaml.safe_dump(config, sort_keys=False).replace("\n", "\n    "), 0)
        except Exception as error:
            self._stop(error)

    def log(self, row: dict[str, Any]) -> None:
        """The finite numbers of a row, each a curve by its name, over `step`."""
        numbers = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, int | float) and math.isfinite(value) and name not in ("step", "time")
        }
        self._do(lambda: [self._writer.add_scalar(name, value, row["step"]) for name, value in numbers.items()])

    def show(self, step: int, columns: tuple[str, ...], rows: list[list[Any]]) -> None:
        """A step's completions as a table."""

        def line(cells: Any) -> str:
            texts = (str(cell).replace("|", "&#124;").replace("<", "&lt;").replace("\n", "<br>") for cell in cells)
            return f"|{'|'.join(texts)}|"

        table = [line(columns), line("-" for _ in columns), *map(line, rows)]
        self._do(lambda: self._writer.add_text("completions", "\n".join(table), step))

    def close(self) -> None:
        """Write what waits."""
        self._do(lambda: self._writer.close())
        self._writer = None

    def _do(self, action: Any) -> None:
        if self._writer is None:
            return
        try:
            action()
            self._writer.flush()
        except Exception as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        self._writer = None
        reason = " ".join(str(error).split())[:200]
        say(f"warning: TensorBoard stopped ({type(error).__name__}: {reason}); the local files go on")
