"""A measured value beside the one that is expected, written down as soon as it is there. No torch in here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Check:
    """`ok` None: told, and not judged (a speed on a CPU, or a figure that nothing is expected of)."""

    name: str
    measured: float | str
    expected: str = ""
    ok: bool | None = None
    unit: str = ""
    note: str = ""

    @property
    def line(self) -> str:
        shown = self.measured if isinstance(self.measured, str) else f"{self.measured:.4g}"
        value = f"{shown} {self.unit}".strip()
        expected = f"expected {self.expected}" if self.expected else ""
        verdict = {True: "ok", False: "NOT OK", None: ""}[self.ok]
        return "  ".join(part for part in (f"{self.name}: {value}", expected, verdict, self.note) if part)


@dataclass(frozen=True)
class Hour:
    """What a section is told. `found`: the numbers of the sections before it, by "section/name"."""

    section: str
    device: str  # cuda | cpu
    small: bool
    scratch: str  # a folder of this section's own
    file: str  # where its checks go, one JSON object a line
    found: dict[str, float] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def folder(self) -> Path:
        return Path(self.scratch)

    def tell(self, name: str, measured: float | str, unit: str = "", note: str = "") -> None:
        """A figure that nothing is expected of."""
        self._write(Check(name, measured, unit=unit, note=note))

    def expect(
        self,
        name: str,
        measured: float,
        *,
        least: float | None = None,
        most: float | None = None,
        unit: str = "",
        note: str = "",
        judged: bool = True,
    ) -> None:
        """A value that should lie within [least, most]; NaN never does. Not `judged`: told beside it all the same."""
        bounds = {"at least": least, "at most": most}
        expected = " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)
        if least == most:
            expected = f"{least:g}"
        held = (least is None or measured >= least) and (most is None or measured <= most)
        self._write(Check(name, measured, expected, held if judged else None, unit, note))

    def _write(self, check: Check) -> None:
        with Path(self.file).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(check)) + "\n")


def read_checks(file: Path) -> list[Check]:
    """What a section has written so far; a line that a kill cut short is left out."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            content: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        found.append(Check(**content))
    return found
