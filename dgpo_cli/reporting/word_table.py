"""Tables that break their lines between words, for a terminal of any width.

rich folds a word where its column ends. Here columns give up room only down to their longest word; where even that does
not fit, each row becomes a block of lines, one a column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import rich.console
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from dgpo_cli.terminal import visible

FRAME = 3  # columns of the terminal that a column takes beside its text; one more for the last line
PIECE = re.compile(r"[^/=]*[/=]*")  # a path or a setting may end its line after these
LONGEST = 24  # a word that is longer may be cut into such pieces
SHORT = 10  # a line of no more than this is one word: "3 min 31 s"
WORD = re.compile(r"(?<!\S)\[[^\[\]]*\](?!\S)|\S+")  # an interval is one


@dataclass(frozen=True)
class WordTable:
    """Cells are shown as they are, as by `tables.make_table`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def __rich_console__(self, console: rich.console.Console, options: rich.console.ConsoleOptions) -> Iterator[Table]:
        yield self.fitted(options.max_width)

    def fitted(self, width: int) -> Table:
        """The table for a terminal of that many columns."""
        lines = [[visible(cell) for cell in row] for row in (self.columns, *self.rows)]
        widths = _widths(list(zip(*lines, strict=True)), width - 1 - FRAME * len(self.columns))
        if widths is None:
            return self._blocks(lines, width)
        table = self._table(show_header=True)
        for number, (name, room) in enumerate(zip(lines[0], widths, strict=True)):
            justify = "left" if number == 0 else "right"
            table.add_column(wrapped(name, room), overflow="fold", width=room, justify=justify)  # type: ignore[arg-type]
        for row in lines[1:]:
            table.add_row(*(wrapped(cell, room) for cell, room in zip(row, widths, strict=True)))
        return table

    def _blocks(self, lines: list[list[str]], width: int) -> Table:
        """A section a row: the columns' names, and beside them its cells."""
        names, *rows = lines
        longest = max(map(cell_len, names))
        room = max(1, width - 1 - 2 * FRAME - longest)
        table = self._table(show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for row in rows:
            for place, (name, cell) in enumerate(zip(names, row, strict=True)):
                table.add_row(Text(name), wrapped(cell, room), end_section=place == len(names) - 1)
        return table

    def _table(self, *, show_header: bool) -> Table:
        title = Text(visible(self.title)) if self.title else None
        return Table(title=title, title_justify="left", header_style="bold", show_header=show_header)


def _widths(columns: list[tuple[str, ...]], room: int) -> list[int] | None:
    """What each column gets of the room: as wide as its longest line, or less, down to its longest word."""
    widths = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
    least = [max(cell_len(piece) for cell in column for piece in _pieces(cell)) for column in columns]
    if sum(least) > room:
        return None
    while sum(widths) > room:
        slack = [width - minimum for width, minimum in zip(widths, least, strict=True)]
        widths[slack.index(max(slack))] -= 1
    return widths


def _pieces(text: str) -> list[str]:
    """What stands between two places where a line may end."""
    return [part for line in text.split("\n") for word in _words(line) for part in _parts(word)] or [""]


def _words(line: str) -> list[str]:
    return [line] if cell_len(line) <= SHORT else WORD.findall(line)


def _parts(word: str) -> list[str]:
    return [word] if cell_len(word) <= LONGEST or " " in word else [part for part in PIECE.findall(word) if part]


def wrapped(text: str, width: int) -> Text:
    """Lines of at most `width`, ended between words or after / and = of a long one; a longer piece is left whole."""
    lines = []
    for line in text.split("\n"):
        current = ""
        for word in _words(line):
            for place, part in enumerate(_parts(word)):
                gap = " " if current and place == 0 else ""
                if current and cell_len(current + gap + part) > width:
                    lines.append(current)
                    current = part
                else:
                    current += gap + part
        lines.append(current)
    return Text("\n".join(lines))
