"""The records that travel through a step, and the letters of their shapes.

    N prompts             G rollouts a prompt (the group)       B = N * G rollouts
    T completion tokens   V rows of the output head             D hidden size

prompts -> rollouts -> verdicts -> rewards -> advantages -> credit -> loss -> step. Each stage returns a new record and
none writes into an earlier one. A mask is True where a token counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Problem:
    """A row of a data set or benchmark, before any template."""

    index: int  # 0-based row
    problem_id: str
    messages: tuple[tuple[str, str], ...]  # (role, content) turns; a text prompt is one user turn
    gold: str
    # The columns of its row that the grader asks for (`ColumnsAsked`), as JSON has them. They are no part of what a
    # problem is: two that differ in them alone are equal, and hash alike.
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False)
    chat: bool = field(default=False, compare=False)  # the row's prompt is a list of messages, not text


@dataclass(frozen=True)
class Prompt:
    """The input of the model. It is tokenised once and travels as ids; a server that tokenises gets text or turns."""

    problem: Problem
    text: str  # the exact text that the model sees, template applied; the turns' text if a server applies it
    token_ids: tuple[int, ...]
    messages: tuple[tuple[str, str], ...] = ()  # (role, content) turns for a server that applies its chat template


@dataclass(frozen=True)
class SampleRequest:
    """One completion to draw. `seed` fixes its randomness, whatever else is in the batch.

    unit: requests that stand together and name the same one are drawn in one batch; None leaves that to the engine.
    """

    prompt: Prompt
    sample: int  # 0-based within the group
    seed: int
    draw: int = 0  # running number of the prompt since the run's first step
    unit: int | None = None


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
    temperature, cut to the nucleus if top_p < 1, and 0 if decoding is greedy. None from a server that gives none.
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
        """Counted tokens; None if a server does not say."""
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
    """What a grader says of a completion.

    error: why it could not be graded (no_answer, timeout, ...). Such a completion is wrong, and is counted.
    parts: numbers that the grader reports beside the score, by name. They are logged and stored, never trained on.
    """

    score: float  # 1.0 right, 0.0 wrong; a user's own float otherwise
    correct: bool | None  # None: a float reward without a notion of correct
    answer: str | None = None
    error: str | None = None
    parts: Mapping[str, float] | None = field(default=None, hash=False)


@dataclass(frozen=True)
class ScoresGiven:
    """What a user's function has given to completions so far, as far as the score of a late call depends on it."""

    least: float | None = None
    has_worse: bool = False  # one of them was wrong, or scored less than another: `least` is not what a right one gets
    says_right: bool = False  # it gave (score, correct)


@dataclass(frozen=True)
class GradeRequest:
    """What a grader is shown of one completion; `rewards.requests` makes it.

    All of it is held by reference. A grader with processes of its own sends them what it reads, and no more.
    """

    prompt: str  # the text that the model saw, template applied
    completion: str
    gold: str
    truncated: bool = False
    completion_tokens: int | None = None  # the stop token included; None if a server or a file does not say
    messages: tuple[tuple[str, str], ...] = ()  # (role, content) turns of the row, before any template
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)  # of the row, those that the grader asks for
    token_ids: tuple[int, ...] = ()  # of the completion, the stop token included; empty if a server or a file has none
    chat: bool = False  # the row's prompt is a list of messages


@dataclass(frozen=True)
class ColumnsAsked:
    """The columns of the data that a grader is to be shown. Rows keep these alone: a large data set may have others.

    required: refused if no row has it; None in a row without it. optional: left out in a row without it.
    """

    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    every: bool = False  # the whole row


NO_COLUMNS = ColumnsAsked()


class Grader(Protocol):
    """Grades completions. A grader that works in processes of its own is closed at the end."""

    name: str

    def columns_asked(self) -> ColumnsAsked:
        """What is to be kept of the data's rows. A user's function that cannot be loaded raises RewardError."""
        ...

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


@dataclass(frozen=True)
class EngineFacts:
    """What an engine says of itself, so that nobody has to know which one it is."""

    # Its samples differ in their last bits with the batch that they are drawn in. Whoever wants the same samples again
    # has to ask for the same whole unit again.
    depends_on_unit: bool
    units_at_once: int  # units that it draws side by side: if it gets fewer in one call, a part of it has no work
    gives_logprobs: bool  # whether rollouts bring the log-probs that they were drawn with
    shares_devices: bool  # with the policy that trains: it cannot draw while that one is updated
    computes_as_trained: (
        bool  # with the trainer's weights it gives the trainer's log-probs, so there is nothing to correct
    )
    manifest: Mapping[str, Any]  # what its samples depend on beside weights, prompts, sampling and units


class Engine(Protocol):
    """Draws completions with the policy's weights.

    If a run has several processes, each has an engine: `load`, `rest` and `close` are called by all of them together,
    `generate` by the main one alone.
    """

    @property
    def facts(self) -> EngineFacts: ...

    def prepare(self, longest: int) -> None:
        """Get ready for sequences of up to `longest` tokens, prompt and completion together. The main process says so.

        It is called before the first `load` and `generate`, once it is known, and may be left out.

        Raises:
            DgpoError: what it is to start does not start.
        """
        ...

    def generate(self, requests: list[SampleRequest], sampling: Sampling) -> Sequence[Rollout | Unanswered]:
        """What answers each request, in order: a completion, or why there will be none."""
        ...

    def load(self, version: int) -> None:
        """From now on draw with the policy's weights as they are after training step `version`; 0 is before the first.

        All rollouts that it draws then say so (`Rollout.policy_step`; None before the first `load`). If it has that
        version already, nothing is to be done.

        Raises:
            RunError: the engine holds weights of its own, which nobody here can replace.
        """
        ...

    def rest(self) -> None:
        """Nothing is drawn until the next `load`, which may have to bring the same version again.

        An engine that takes turns with the trainer on its devices gives back their memory. All processes call it.

        Raises:
            RunError: it cannot.
        """
        ...

    def measured(self) -> Mapping[str, float]:
        """What `load` has measured since the last call, by the names of docs/metrics.md."""
        ...

    def close(self) -> None:
        """End what it has started: threads, processes. It draws nothing afterwards; to close it twice is harmless."""
        ...
