"""What is drawn in place on a terminal, on stderr: where there is none, lines are said and nothing is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from dgpo_cli.reporting.clean_console import CleanConsole
from dgpo_cli.terminal import say, visible


class LiveView(ABC):
    """Draws what `_render` gives while it is entered. A view that draws itself has `refresh_per_second=None`."""

    def __init__(self, *, transient: bool = False, refresh_per_second: float | None = None) -> None:
        self.console = CleanConsole(stderr=True)
        self._transient, self._refresh_per_second = transient, refresh_per_second
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.is_live:
            self._live = Live(  # drawn anew each time, so that it follows the size of the terminal
                get_renderable=self._render,
                console=self.console,
                transient=self._transient,
                auto_refresh=self._refresh_per_second is not None,
                refresh_per_second=self._refresh_per_second or 1,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def is_live(self) -> bool:
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def note(self, text: str) -> None:
        """A line that stays, above what is drawn."""
        if self.is_live:
            self.console.print(Text(visible(text, "")), soft_wrap=True)
        else:
            say(text)

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.refresh()

    @abstractmethod
    def _render(self) -> RenderableType:
        """What is drawn."""
