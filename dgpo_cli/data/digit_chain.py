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
"""

import functools
import random
from collections.abc import Collection
from dataclasses import dataclass

STEPS = 5
MAX_OPERAND = 5
PROBLEM_COUNT = 10 * (2 * MAX_OPERAND) ** STEPS
HELD_OUT_COUNT = 512
TRAINING_COUNT = PROBLEM_COUNT - HELD_OUT_COUNT  # the most distinct training problems that exist


@dataclass(frozen=True)
class Problem:
    """One problem: what the model reads, the only right continuation, and the digit after `#`."""

    prompt: str
    completion: str
    answer: str


def apply_step(digit: int, sign: str, operand: int) -> int:
    """The fact behind one slot: digit + operand or digit - operand, kept mod 10 (9 + 1 = 0, 2 - 4 = 8)."""
    return (digit + operand if sign == "+" else digit - operand) % 10


def problem_from_number(number: int) -> Problem:
    """The problem with this number, 0 <= number < PROBLEM_COUNT; a one-to-one map (see the module's docstring)."""
    if not 0 <= number < PROBLEM_COUNT:
        raise ValueError(f"digit_chain numbers its problems from 0 to {PROBLEM_COUNT - 1}, got {number}")
    digits = [int(char) for char in f"{number:0{STEPS + 1}d}"]
    result = digits[0]
    prompt = completion = str(result)
    for code in digits[1:]:
        sign = "+" if code < MAX_OPERAND else "-"
        operand = code % MAX_OPERAND + 1
        result = apply_step(result, sign, operand)
        prompt += f" {sign}{operand}=?"
        completion += f" {sign}{operand}={result}"
    return Problem(prompt, f"{completion} #{result}", str(result))


def training_problems(seed: int, count: int) -> list[Problem]:
    """`count` distinct problems drawn from `seed`, none of them held out.

    A shorter list of the same seed is a prefix of a longer one. Raises ValueError when `count` is negative or there
    are not that many problems.
    """
    if not 0 <= count <= TRAINING_COUNT:
        raise ValueError(f"digit_chain has {TRAINING_COUNT} training problems, asked for {count}")
    numbers = _distinct_numbers(f"digit_chain training {seed}", count, excluded=_held_out_numbers())
    return [problem_from_number(number) for number in numbers]


def held_out_problems() -> list[Problem]:
    """The 512 problems kept for evaluation, the same in every run; no seed trains on them."""
    return [problem_from_number(number) for number in _held_out_numbers()]


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
def _held_out_numbers() -> tuple[int, ...]:
    return tuple(_distinct_numbers("digit_chain held out", HELD_OUT_COUNT, excluded=()))


def _distinct_numbers(stream: str, count: int, excluded: Collection[int]) -> list[int]:
    # A stream is named by text, so that no training seed can coincide with the held-out one. Rejection keeps shorter
    # lists prefixes of longer ones, which random.sample does not promise.
    generator = random.Random(stream)
    seen = set(excluded)
    numbers: list[int] = []
    while len(numbers) < count:
        number = generator.randrange(PROBLEM_COUNT)
        if number not in seen:
            seen.add(number)
            numbers.append(number)
    return numbers
