"""The first wrong token: of the gold alone, by a tokenizer whose tokens are characters, and only if it is known."""

from __future__ import annotations

import pytest

from dgpo_cli.evidence.first_errors import FirstErrors
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest, Verdict

GOLD = "1 +1=2 #2"
STOP = 0


class Characters:
    """A tokenizer of characters, as far as spelling asks it."""

    def get_vocab(self) -> dict[str, int]:
        return {chr(one): one for one in range(128)}

    def decode(self, ids: list[int], **_: bool) -> str:
        return "".join(map(chr, ids))

    def convert_ids_to_tokens(self, one: int) -> str:
        return chr(one)


FINDER = FirstErrors(Characters(), frozenset({STOP}))


def rollout(text: str, *, stops: bool = True, spelled: str | None = None, gold: str = GOLD) -> Rollout:
    request = SampleRequest(Prompt(Problem(0, "0", (), gold), "", ()), 0, 0)
    ids = tuple(map(ord, text if spelled is None else spelled)) + ((STOP,) if stops else ())
    return Rollout(request, ids, text, "stop" if stops else "length")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (GOLD, None),
        ("1 +1=3 #3", 5),
        ("1 +1=2", 6),  # the stop token came too early
        ("1 +1=2 #2 ", 9),
        ("", 0),
    ],
)
def test_the_first_wrong_token_of_a_completion(text: str, place: int | None) -> None:
    assert FINDER.place(rollout(text)) == place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("1.. +1=3.. #3", 7),  # 1, two dots, a space, +, 1, =: seven tokens before the result
        ("1.. +1=2. #2", 9),  # the second dot after the result is missing
        ("1.. +1=2..", 10),  # the stop token came too early
        ("1.. +1=2.. #3", 12),
    ],
)
def test_filler_counts_as_any_token(text: str, place: int) -> None:
    assert FINDER.place(rollout(text, gold="1.. +1=2.. #2")) == place


def test_a_completion_that_was_cut_before_a_mistake_has_none() -> None:
    assert FINDER.place(rollout("1 +1=", stops=False)) is None
    assert FINDER.place(rollout("1 +1=3", stops=False)) == 5


def test_tokens_that_spell_another_text_have_no_place() -> None:
    assert FINDER.place(rollout("1 +1=3", spelled="1+1=3")) is None


def test_a_rollout_that_the_grader_calls_right_has_no_wrong_token() -> None:
    """A grader of the answer alone takes a chain whose mistakes cancel."""
    pair = [rollout("1 +1=3 #2")] * 2
    assert FINDER.places(pair, [Verdict(1.0, True), Verdict(0.0, False)]) == [None, 5]
