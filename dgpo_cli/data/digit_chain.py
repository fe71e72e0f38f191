"""The bundled task `digit_chain`: five additions or subtractions of one digit, kept mod 10.

    prompt       9 -5=? +4=? +1=? +1=? -4=?
    completion   9 -5=4 +4=8 +1=9 +1=0 -4=6 #6
    answer       6

It owns the grammar, the generator and the exact place of the first mistake; grading is in `dgpo_cli.rewards`.

Why this shape. Prompt and completion have slots of equal width, so each completion character is either a copy from 26
characters back or one of 100 facts (digit, sign, operand). That is what a very small model learns within a minute.
The gold completion is unique: any other text has a first wrong character, and it is known without a judge.

The completion follows the prompt directly, without a separator. Every prompt is 26 characters long and every gold
completion 29.

There are 10 * 10^5 problems, numbered by their decimal digits: the first is the start, each later digit d is the
step "+ (d + 1)" for d < 5 and "- (d - 4)" above.

`Form` says how many steps, and how many dots of filler stand before each space. A filler is a copy like any other: it
puts tokens that decide nothing between those that do. With `Form(steps=3, filler=2)`:

    prompt       9.. -5=?.. +4=?.. +1=?
    completion   9.. -5=4.. +4=8.. +1=9.. #9

The bundled model has read the default form alone; another needs a model of its own (recipes/build_tiny.py).
"""

import functools
import random
from collections.abc import Collection
from dataclasses import dataclass

MAX_OPERAND = 5
FILLER = "."
HELD_OUT_COUNT = 512


@dataclass(frozen=True)
class Form:
    """How a chain is written: its steps, at least 3 (two have fewer problems than it takes), and its filler."""

    steps: int = 5
    filler: int = 0  # dots before each space

    @property
    def problem_count(self) -> int:
        return 10 * int((2 * MAX_OPERAND) ** self.steps)

    @property
    def training_count(self) -> int:
        """The most distinct training problems that exist."""
        return self.problem_count - HELD_OUT_COUNT


DEFAULT_FORM = Form()


@dataclass(frozen=True)
class Problem:
    """One problem: what the model reads, the only right continuation, and the digit after `#`."""

    prompt: str
    completion: str
    answer: str


def apply_step(digit: int, sign: str, operand: int) -> int:
    """The fact behind one slot: digit + operand or digit - operand, kept mod 10 (9 + 1 = 0, 2 - 4 = 8)."""
    return (digit + operand if sign == "+" else digit - operand) % 10


def problem_from_number(number: int, form: Form = DEFAULT_FORM) -> Problem:
    """The problem with this number, 0 <= number < form.problem_count; a one-to-one map (see the module's docstring)."""
    if not 0 <= number < form.problem_count:
        raise ValueError(f"digit_chain numbers its problems from 0 to {form.problem_count - 1}, got {number}")
    digits = [int(char) for char in f"{number:0{form.steps + 1}d}"]
    gap = FILLER * form.filler + " "
    result = digits[0]
    prompt = completion = str(result)
    for code in digits[1:]:
        sign = "+" if code < MAX_OPERAND else "-"
        operand = code % MAX_OPERAND + 1
        result = apply_step(result, sign, operand)
        prompt += f"{gap}{sign}{operand}=?"
        completion += f"{gap}{sign}{operand}={result}"
    return Problem(prompt, f"{completion}{gap}#{result}", str(result))


def training_problems(seed: int, count: int, form: Form = DEFAULT_FORM) -> list[Problem]:
    """`count` distinct problems drawn from `seed`, none of them held out.

    A shorter list of the same seed is a prefix of a longer one. Raises ValueError when `count` is negative or there
    are not that many problems.
    """
    if not 0 <= count <= form.training_count:
        raise ValueError(f"digit_chain has {form.training_count} training problems, asked for {count}")
    held_out = _held_out_numbers(form.steps)
    numbers = _distinct_numbers(f"digit_chain training {seed}", count, form.problem_count, excluded=held_out)
    return [problem_from_number(number, form) for number in numbers]


def held_out_problems(form: Form = DEFAULT_FORM) -> list[Problem]:
    """The 512 problems kept for evaluation, the same in every run of that many steps; no seed trains on them."""
    return [problem_from_number(number, form) for number in _held_out_numbers(form.steps)]


def first_wrong_index(completion: str, gold: str) -> int | None:
    """Index of the first wrong character of `completion`, None if it equals `gold`.

    A completion that stops early is wrong at its end (where the stop token stands: index len(completion)); one that
    goes on too long is wrong at index len(gold).
    """
    if completion == gold:
        return None
    for index, (written, right) in enumerate(zip(completion, gold, strict=False)):
        if written != right:
            return index
    return min(len(completion), len(gold))


@functools.cache
def _held_out_numbers(steps: int) -> tuple[int, ...]:
    return tuple(_distinct_numbers("digit_chain held out", HELD_OUT_COUNT, Form(steps).problem_count, excluded=()))


def _distinct_numbers(stream: str, count: int, below: int, excluded: Collection[int]) -> list[int]:
    # A stream is named by text, so that no training seed can coincide with the held-out one. Rejection keeps shorter
    # lists prefixes of longer ones, which random.sample does not promise.
    generator = random.Random(stream)
    seen = set(excluded)
    numbers: list[int] = []
    while len(numbers) < count:
        number = generator.randrange(below)
        if number not in seen:
            seen.add(number)
            numbers.append(number)
    return numbers
