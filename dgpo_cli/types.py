"""The records that travel through a step, and the letters of their shapes.

    N prompts             G rollouts a prompt (the group)       B = N * G rollouts
    T completion tokens   V rows of the output head             D hidden size

prompts -> rollouts -> verdicts -> rewards -> advantages -> credit -> loss -> step. Each stage returns a new record and
none writes into an earlier one. A mask is True where a token counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Problem:
    """A row of a data set or benchmark, before any template."""

    index: int  # 0-based row
    problem_id: str
    messages: tuple[tuple[str, str], ...]  # (role, content) turns; a text prompt is one user turn
    gold: str


@dataclass(frozen=True)
class Prompt:
    """What the model is given: tokenised once, it travels as ids. A server of its own gets text or turns."""

    problem: Problem
    text: str  # the exact text that the model sees, template applied; the turns' text where a server puts it together
    token_ids: tuple[int, ...]
    messages: tuple[tuple[str, str], ...] = ()  # (role, content) turns for a server that applies its chat template


@dataclass(frozen=True)
class SampleRequest:
    """One completion to draw. `seed` fixes its randomness, whatever else is in the batch."""

    prompt: Prompt
    sample: int  # 0-based within the group
    seed: int
    draw: int = 0  # running number of the prompt since the run's first step


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn; nothing of a model's generation_config is used. temperature 0 is greedy."""

    temperature: float
    top_p: float
    max_tokens: int


@dataclass(frozen=True)
class Rollout:
    """A completion: its counted tokens run up to and including the first stop token.

    logprobs: of each token, by whoever drew it, under the distribution that it was drawn from: at the sampling
    temperature, cut to the nucleus where top_p < 1, and 0 where decoding is greedy. None from a server that gives none.
    policy_step: the training step whose weights drew it, 0 before the first. None if whoever drew it does not say.
    """

    request: SampleRequest
    token_ids: tuple[int, ...]
    text: str  # without the stop token
    finish_reason: str  # "stop" | "length"
    reported_tokens: int | None = None  # counted by a server, which gives no ids
    logprobs: tuple[float, ...] | None = None
    policy_step: int | None = None

    @property
    def completion_tokens(self) -> int | None:
        """Counted tokens; None where a server does not say."""
        return len(self.token_ids) or self.reported_tokens

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"


@dataclass(frozen=True)
class Unanswered:
    """A request that a server gave no usable answer to, for good: no completion, so nothing that could be graded.

    cause: a word to count by (`timeout`, `status_500`, ...). ends: so many failed in a row that no more were asked.
    """

    request: SampleRequest
    cause: str
    message: str
    hint: str
    ends: bool = False


@dataclass(frozen=True)
class Verdict:
    """What a grader says of a completion. `error` is its cause (no_answer, timeout, ...): wrong, but counted."""

    score: float  # 1.0 right, 0.0 wrong; a user's own float otherwise
    correct: bool | None  # None: a float reward without a notion of correct
    answer: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class ScoresGiven:
    """What a user's function has given to completions so far, as far as the score of a late call depends on it."""

    least: float | None = None
    has_worse: bool = False  # one of them was wrong, or scored less than another: `least` is not what a right one gets
    says_right: bool = False  # it gave (score, correct)


@dataclass(frozen=True)
class GradeRequest:
    """What a grader is shown."""

    prompt: str
    completion: str
    gold: str
    truncated: bool = False


class Grader(Protocol):
    """Grades completions. A grader that works in processes of its own is closed at the end."""

    name: str

    def grade(self, requests: list[GradeRequest]) -> list[Verdict]:
        """One verdict a request, in order. A user's function that crashes raises RewardError."""
        ...

    def gold_problems(self, golds: list[str]) -> list[str | None]:
        """For each gold why it can never be matched, or None."""
        ...

    def check(self, sample: GradeRequest) -> Verdict:
        """A trial before anything starts. A user's function that raises or is late raises RewardError."""
        ...

    def close(self) -> None: ...


class Engine(Protocol):
    """Draws completions: `completions[i]` answers `requests[i]`.

    units_at_once: generation units that are computed side by side, so that fewer would leave processes without work.
    """

    units_at_once: int

    def generate(
        self, requests: list[SampleRequest], sampling: Sampling, lengths: Sequence[int] | None = None
    ) -> list[Rollout]:
        """`lengths`: of the units that the requests are cut into; None leaves that to the engine."""
        ...


class Sampler(Protocol):
    """What an evaluation draws from: an engine, or a server, which may leave requests unanswered."""

    units_at_once: int

    def generate(
        self, requests: list[SampleRequest], sampling: Sampling, lengths: Sequence[int] | None = None
    ) -> Sequence[Rollout | Unanswered]:
        """As `Engine.generate`."""
        ...
