"""What every way of pushing weights does alike: talk to all servers, verify everywhere, then load everywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from dgpo_cli.engines.vllm.conversation import Conversation, Facts
from dgpo_cli.engines.vllm.updates import Named, Pushed, Refusal, Stamp, new_session
from dgpo_cli.errors import RunError, ServerError
from dgpo_cli.processes import Processes

LOADING = "loading"  # the version of a server whose weights are being replaced: no step has it


class Servers:
    """The servers of a run, spoken to side by side by its main process."""

    def __init__(self, urls: Sequence[str], *, timeout_seconds: float) -> None:
        """Raises RunError: one can't be reached or has not the plugin."""
        self.session = new_session()
        self.talks = [Conversation(url, timeout_seconds=timeout_seconds) for url in urls]
        self.facts: list[Facts] = [talk.begin(self.session) for talk in self.talks]

    def all(self, ask: Callable[[Conversation], Refusal | None]) -> dict[str, Refusal]:
        """The refusals by address of what all servers are asked for at the same time."""
        if not self.talks:
            return {}
        with ThreadPoolExecutor(len(self.talks)) as pool:
            answers = list(pool.map(ask, self.talks))
        return {talk.url: answer for talk, answer in zip(self.talks, answers, strict=True) if answer is not None}

    def load(self, stamp: Stamp) -> dict[str, Refusal]:
        """Have every server replace its weights by the verified ones. Until it has, its tokens say `loading`."""
        return self.all(lambda talk: _load(talk, stamp))

    def check_owned(self) -> None:
        """Raises RunError: another trainer has made one of them its own. One that is gone has nobody's weights."""
        for talk in self.talks:
            try:
                taken = any(answer.get("session") != self.session for answer in talk.calls("dgpo_state"))
            except ServerError:
                continue
            if taken:
                raise RunError(
                    f"{talk.url}: another run has pushed its weights to this server, and may have drawn with them here",
                    "a run needs servers of its own; resume= continues from the last checkpoint",
                )

    def forget(self) -> None:
        """Have every server drop what it verified."""
        self.all(lambda talk: talk.refusal("dgpo_forget"))


class MainSends(ABC):
    """What the ways of a push share: the main process sends, the others help it to gather a sharded model."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self._servers: Servers | None = None  # in the main process, once there are some

    def push(self, version: int, tensors: Named) -> Pushed:
        """As `WeightSync.push`."""

        def share() -> Pushed:
            return self._pushed(version, tensors) if self.processes.main else gone_through(tensors)

        return self.processes.from_main(self.processes.agreed(share))

    def check_owned(self) -> None:
        """As `WeightSync.check_owned`."""
        if self._servers is not None:
            self._servers.check_owned()

    @abstractmethod
    def _pushed(self, version: int, tensors: Named) -> Pushed:
        """In the main process: send all of `tensors`, and go through them to the end also after an error."""


def _load(talk: Conversation, stamp: Stamp) -> Refusal | None:
    try:
        talk.pause()
        before = talk.version()
        talk.name_version(LOADING)
        refusal = talk.refusal("dgpo_load", True, session=stamp.session, version=stamp.version)
        if refusal is not None and refusal.touched:
            return refusal  # it stays paused: a model that was taken apart can't compute
        talk.name_version(str(stamp.version) if refusal is None else before)
        talk.resume()
    except RunError as error:
        return Refusal(str(error), touched=True)
    return refusal


def gone_through(tensors: Named) -> Pushed:
    """Take part in what is left of `tensors`, and keep nothing: a sharded model is gathered by all processes."""
    for _ in tensors:
        pass
    return Pushed(0.0, 0)
