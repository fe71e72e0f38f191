r"""Where a completion's final answer stands: after the thinking, on the last `Answer:` line or in the last box.

It reads text only; `robust` decides what is right. Every scan is one pass, whatever a completion holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dgpo_cli.core.answers import Box, find_boxes, integer_of


@dataclass(frozen=True)
class FinalAnswers:
    """The candidates, None for one that is missing. `box_first`: the prompt asked for a box, else for an `Answer:`."""

    line: str | None
    box: str | None
    box_first: bool

    @property
    def in_order(self) -> list[str]:
        """The answers, the one that the prompt asked for first."""
        found = [self.box, self.line] if self.box_first else [self.line, self.box]
        return [answer for answer in found if answer is not None]


# Bounded spaces: two unbounded runs side by side would be quadratic in a completion of blanks.
_ANSWER_MARK = re.compile(r"(?i)(?<![A-Za-z])answer[*_ \t]{0,8}[:：][*_ \t]{0,8}")
_MARKUP_ONLY = re.compile(r"(?:[\s*_$`]|\\[\[\]()]|[:：])*")
_LATEX_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{2,}")
_CONNECTIVES = frozenset({"and", "or"})


def final_answers(prompt: str, completion: str, *, truncated: bool) -> FinalAnswers:
    """The final answers of a completion.

    A line that reaches the end of a truncated completion may be half a number (`Answer: 7` of 73), and is none.
    """
    text = _after_thinking(prompt, completion)
    boxes = find_boxes(text)
    asks_box, asks_line = prompt.rfind("\\boxed"), prompt.lower().replace("：", ":").rfind("answer:")
    return FinalAnswers(_answer_line(text, boxes, truncated), _last_box(boxes, text), asks_box >= asks_line)


def _after_thinking(prompt: str, completion: str) -> str:
    """The text after the last </think>; nothing of a <think> that never ends, even if the prompt opened it."""
    _, closed, text = completion.rpartition("</think>")
    if not closed and prompt.rstrip().endswith("<think>"):
        return ""
    return text.partition("<think>")[0]


def _answer_line(text: str, boxes: list[Box], truncated: bool) -> str | None:
    """The text behind the last `Answer:` on its line, or on the next line that holds more than markup."""
    start = None
    for mark in _ANSWER_MARK.finditer(text):
        start = mark.end()
    if start is None:
        return None
    blank = _MARKUP_ONLY.match(text, start)
    content = blank.end() if blank else start
    end_of_line = text.find("\n", content)
    end = len(text) if end_of_line < 0 else end_of_line
    on_line = [box for box in boxes if start <= box.start < end]
    if on_line:
        return _last_box(on_line, text)
    if content == len(text) or (truncated and end == len(text)):
        return None
    return text[_same_line(text, start, content) : end].strip()


def _same_line(text: str, start: int, content: int) -> int:
    """The start of the answer with its own markup, `$` or `**`, which belongs to it on its line."""
    return max(start, text.rfind("\n", start, content) + 1)


def _last_box(boxes: list[Box], text: str) -> str | None:
    """The last box. If different boxes stand in a row without a word between them, all of them as a list."""
    if not boxes:
        return None
    in_a_row = [boxes[-1].content]
    for former, latter in zip(reversed(boxes[:-1]), reversed(boxes), strict=False):
        if _holds_word(text[former.end : latter.start]):
            break
        in_a_row.append(former.content)
    different = {integer_of(content) or content.replace(" ", "") for content in in_a_row}
    return boxes[-1].content if len(different) == 1 else ", ".join(reversed(in_a_row))


def _holds_word(gap: str) -> bool:
    """A word of two letters or more; `and` and `or` make a list of what they join."""
    return any(word[0].lower() not in _CONNECTIVES for word in _WORD.finditer(_LATEX_COMMAND.sub(" ", gap)))
