"""rich's console, with nothing in it that a terminal would act on but what rich itself draws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from dgpo_cli.terminal import BLOCK, visible


class CleanConsole(Console):
    """The only console of the program. It has no markup and no highlighting: text is shown as it is."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Colours are styles and movements are controls, so that all text may be cleaned."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text, BLOCK), style, control)
