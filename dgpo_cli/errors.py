"""Every error that a user can act on, and the exit code each one ends the program with.

    DgpoError                 exit 1   base; a run failed for a reason that the user can act on
    ├── UsageError            exit 2   bad usage or configuration; nothing was started
    │   ├── ConfigError                a key, an option or a combination of settings
    │   └── DataError                  a data, benchmark or model file that cannot be used
    ├── RunError              exit 1   the run started and could not go on
    │   ├── RewardError                a reward function that raised or returned what is no reward
    │   └── ServerError                a server that gave no usable answer to one request
    └── Interrupted           exit 130 (SIGINT) or 143 (SIGTERM), after saving

A real bug is none of these: it propagates, and the program reports it as a bug.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `message` says what was expected and what was given, `hint` what to type or change."""

    message: str
    hint: str = ""


class DgpoError(Exception):
    """An error with one or more problems to print, one `error:` line (and `hint:` line) for each."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "", *, problems: tuple[Problem, ...] = ()) -> None:
        self.problems = problems or (Problem(message, hint),)
        super().__init__("; ".join(problem.message for problem in self.problems))

    @classmethod
    def of(cls, problems: list[Problem]) -> DgpoError:
        """One error that reports every problem of a non-empty list."""
        return cls("", problems=tuple(problems))


class UsageError(DgpoError):
    """Bad usage or configuration: nothing was started."""

    exit_code = 2


class ConfigError(UsageError):
    """A key, an option or a combination of settings that cannot be run."""


class DataError(UsageError):
    """A data, benchmark or model file that cannot be used: names the file, the line and the key."""


class RunError(DgpoError):
    """The run started and could not go on."""


class RewardError(RunError):
    """A reward function raised, or returned something that is not a reward."""


class ServerError(RunError):
    """A server gave no usable answer to one request, for good.

    cause: one of a few words to count by (`timeout`, `status_500`, ...). whole_server: the fault is not the request's,
    so that others can expect the same.
    """

    def __init__(self, message: str, hint: str, *, cause: str, whole_server: bool) -> None:
        super().__init__(message, hint)
        self.cause = cause
        self.whole_server = whole_server


class Interrupted(DgpoError):
    """A signal ended the run after it was saved."""

    def __init__(self, message: str, hint: str = "", *, exit_code: int = 130) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code
