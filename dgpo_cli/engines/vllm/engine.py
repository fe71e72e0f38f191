"""The Engine of vLLM servers: completions by them, and the policy's weights pushed to them before each step.

It owns the promises of `types.Engine`. Which step's weights drew a token is what the server says of that token, and
nothing else is believed. Starting servers, asking for one completion, dealing out and pushing have files of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from dgpo_cli.crew import Crew
from dgpo_cli.engines.vllm.client import FIRST_WEIGHTS, STALE, Drawn, Limits, VllmClient
from dgpo_cli.engines.vllm.fleet import Dealt, Fleet
from dgpo_cli.engines.vllm.turns import Turns
from dgpo_cli.errors import RunError, ServerError
from dgpo_cli.models.policy import Policy
from dgpo_cli.processes import SOLO
from dgpo_cli.terminal import say
from dgpo_cli.types import EngineFacts, Rollout, SampleRequest, Sampling, Unanswered

RESTARTS = 1  # of dead servers, within one call of `load` or `generate`


class PushRefused(RunError):
    """Servers did not take weights. dead: the positions of those whose model was touched, and that are lost by it."""

    def __init__(self, message: str, hint: str, dead: Sequence[int]) -> None:
        super().__init__(message, hint)
        self.dead = set(dead)


class Hosts(Protocol):
    """The servers, as the main process has them: its own, or those that somebody else runs."""

    restartable: bool

    def start(self, longest: int) -> Mapping[str, Any]:
        """Have them ready for sequences of up to `longest` tokens. What they say of themselves, for a manifest.

        Raises:
            DgpoError: one cannot be started, or is not what the configuration says.
        """
        ...

    def restart(self, dead: Sequence[int]) -> None:
        """Start those anew, by their positions. Raises RunError: one does not come up, or they are not ours."""
        ...

    def last_words(self, numbers: Sequence[int]) -> str:
        """The line of its log that tells why the first dead one among these has ended; empty if none is ours."""
        ...

    @property
    def urls(self) -> list[str]: ...

    def close(self) -> None: ...


class Weights(Protocol):
    """The way of the policy's weights to the servers. All processes of a run use it together."""

    def connect(self, urls: list[str]) -> None:
        """Before the first push, and after a server has been started anew."""
        ...

    def push(self, version: int, clients: Sequence[VllmClient]) -> Mapping[str, float]:
        """The servers have the policy's weights from here on, called `version`; what was measured of it.

        clients: of the servers, in the main process; empty in the others.

        Raises:
            PushRefused: servers did not take them. In all processes alike.
            RunError: a server does not compute what the trainer computes.
        """
        ...

    def check_owned(self) -> None:
        """Hold that the servers still take the weights of this run. In the main process.

        Versions are numbers of steps. Another run that pushes to the same servers has the same ones, so its weights
        could draw under a name that is expected here.

        Raises:
            RunError: a server has been taken over.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Asking:
    """How servers are asked, as `engine=` says it. batch_size: of an evaluation's units."""

    batch_size: int
    concurrency: int
    retries: int
    timeout_seconds: float


class VllmEngine:
    """Draws with servers of vLLM. weights: None if the servers keep those that they were started with."""

    def __init__(
        self,
        policy: Policy,
        hosts: Hosts | None,
        weights: Weights | None,
        asking: Asking,
        crew: Crew | None = None,
        turns: Turns | None = None,
    ) -> None:
        """hosts: of the main process; None in the others. crew: the processes of a run; None: this one alone.

        turns: with the trainer on its GPUs; None if the servers have devices of their own.
        """
        self.turns = turns
        self.policy = policy
        self.hosts = hosts
        self.weights = weights
        self.asking = asking
        self.crew = crew
        self.processes = SOLO if crew is None else crew.processes
        self.version: int | None = None
        self.fleet = Fleet([], concurrency=asking.concurrency, retries=asking.retries)
        self._connected = self._asleep = False
        self._said: Mapping[str, Any] = {}
        self._measured: dict[str, float] = {}
        # What the others do while the main process draws: they learn of signals, and push again if all servers died.
        self._go_on = None if crew is None else crew.share(partial(crew.go_on, True))
        self._load_again = self._load if crew is None else crew.share(self._load)

    @property
    def facts(self) -> EngineFacts:
        return EngineFacts(
            depends_on_unit=False,
            units_at_once=max(1, len(self.fleet.clients) * self.asking.concurrency // self.asking.batch_size),
            gives_logprobs=True,
            shares_devices=self.turns is not None,
            computes_as_trained=False,  # other kernels, often another dtype
            manifest={"engine": "vllm", "stop_ids": sorted(self.policy.stop_ids), **self._said},
        )

    def prepare(self, longest: int) -> None:
        """Start the servers, or reach them. For the main process, before the first `load` and `generate`.

        Raises:
            DgpoError: as `Hosts.start` does.
        """
        assert self.hosts is not None
        self._said = self.hosts.start(longest)
        self._meet_servers()

    def load(self, version: int) -> None:
        """Push the policy's weights, as they are after step `version`. All processes call it together.

        A push that fails is tried once more. Servers whose model it has touched are started anew for it.

        Raises:
            RunError: these do not take the weights either, or they are not ours to start.
        """
        if self.weights is None:
            raise RunError("these servers keep the weights that they were started with", "engine=vllm in dgpo train")
        if self.processes.from_main(self.version == version and not self._asleep and not self.fleet.dead):
            return
        self._load(version)

    def generate(self, requests: list[SampleRequest], sampling: Sampling) -> list[Rollout | Unanswered]:
        """A completion a request, in order, or why there is none. For the main process.

        If all servers die, ours are started anew once, and what was open is asked again.

        Raises:
            RunError: a server goes on to draw by weights that are not those loaded, or belongs to another run by now.
        """
        assert not self._asleep
        if not self.fleet.clients:
            self.prepare(max(len(one.prompt.token_ids) for one in requests) + sampling.max_tokens)
        total: Dealt[Drawn] = Dealt()
        open_requests = list(range(len(requests)))
        restarts = 0
        while open_requests:
            dealt = self._deal(requests, sampling, open_requests)
            total.found |= dealt.found
            total.failed |= dealt.failed
            open_requests = total.open(open_requests)
            if open_requests and not self._revive(restarts, dealt.lost):
                lost = self._with_log(dealt.lost)
                return [self._answer(one, total, position, lost) for position, one in enumerate(requests)]
            restarts += 1
        if self.weights is not None and self.hosts is not None and not self.hosts.restartable:
            self.weights.check_owned()
        return [self._answer(one, total, position, None) for position, one in enumerate(requests)]

    def rest(self) -> None:
        """Servers that share the trainer's GPUs sleep from here on; others stay as they are.

        Raises:
            RunError: one does not sleep.
        """
        if self.turns is not None and not self._asleep:
            self.turns.sleep([] if self.hosts is None else self.hosts.urls)
            self._asleep = True

    def measured(self) -> dict[str, float]:
        """What the pushes since the last call took and found, for the metrics of a step."""
        found, self._measured = self._measured, {}
        return found if self.turns is None else {**found, "engine/turn_seconds": self.turns.spent()}

    def close(self) -> None:
        """End the servers that were started here."""
        self.fleet.close()
        if self.weights is not None:
            self.weights.close()
        if self.hosts is not None:
            self.hosts.close()

    def _deal(self, requests: list[SampleRequest], sampling: Sampling, positions: list[int]) -> Dealt[Drawn]:
        version = None if self.version is None else str(self.version)
        if self.weights is None:  # nobody here replaces them; a training that did since the start would be noticed
            version = FIRST_WEIGHTS

        def ask(client: VllmClient, position: int) -> Drawn:
            one = requests[position]
            return client.complete(one.prompt.token_ids, seed=one.seed, sampling=sampling, version=version)

        return self.fleet.deal(positions, ask, size=lambda drawn: len(drawn.token_ids), tick=self._tick, tell=say)

    def _with_log(self, lost: ServerError | None) -> ServerError | None:
        if lost is None:
            return None
        message = f"{lost}{self._last_words(range(len(self.fleet.clients)))}"
        return ServerError(message, lost.problems[0].hint, cause=lost.cause, whole_server=lost.whole_server)

    def _tick(self) -> None:
        """Whether a signal ends the run: of several processes, all have to stop at one place."""
        if self._go_on is not None and not self.processes.alone and not _is_beside_training():
            self._go_on()

    def _answer(
        self, request: SampleRequest, total: Dealt[Drawn], position: int, lost: ServerError | None
    ) -> Rollout | Unanswered:
        drawn = total.found.get(position)
        if drawn is not None:
            return self._rollout(request, drawn)
        error = total.failed.get(position, lost)
        assert error is not None
        [problem] = error.problems
        if error.cause == STALE:  # never trained on, never counted
            raise RunError(problem.message, problem.hint)
        return Unanswered(request, error.cause, problem.message, problem.hint, ends=position not in total.failed)

    def _rollout(self, request: SampleRequest, drawn: Drawn) -> Rollout:
        """Text by our own tokenizer, as the engine in this process spells it."""
        stopped = drawn.finish_reason == "stop"
        text = self.policy.model.tokenizer.decode(
            drawn.token_ids[:-1] if stopped else drawn.token_ids,
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        reason, logprobs = drawn.finish_reason, drawn.logprobs
        return Rollout(request, drawn.token_ids, text, reason, logprobs=logprobs, policy_step=self.version)

    def _revive(self, restarts: int, lost: ServerError | None) -> bool:
        """Start the dead servers anew and push the weights again; False if that is not ours to do, or was done.

        Nor beside training: the weights that drew so far are being updated, and the other processes do not listen.
        """
        assert self.hosts is not None
        if _is_beside_training() or lost is None or restarts >= RESTARTS or not self.hosts.restartable:
            return False
        if self.version is not None:
            self._load_again(self.version)
        else:
            self._restart_dead()
        return True

    def _load(self, version: int) -> None:
        if self.turns is not None:
            self.turns.give_back()
        for attempt in range(RESTARTS + 1):
            self.processes.agreed(self._restart_dead)
            if not self.processes.from_main(self._connected):
                self._connect()
            try:
                self._push(version)
                return
            except PushRefused as refused:
                if self.processes.main:
                    self.fleet.dead |= refused.dead
                mend = self.hosts is not None and (not refused.dead or self.hosts.restartable)
                if attempt == RESTARTS or not self.processes.from_main(mend):
                    raise self._explained(refused) from refused
                if self.processes.main:
                    say(f"warning: {refused}; step {version} is pushed once more")

    def _explained(self, refused: PushRefused) -> PushRefused:
        """With what the servers' logs say, which go with the servers."""
        [problem] = refused.problems
        message = f"{problem.message}{self._last_words(range(len(self.fleet.clients)))}"
        return PushRefused(message, problem.hint, sorted(refused.dead))

    def _last_words(self, numbers: Sequence[int]) -> str:
        """What the log of a dead server among these says, as the end of a sentence; nothing in the other processes."""
        words = "" if self.hosts is None else self.hosts.last_words(numbers)
        return f"; its log says: {words}" if words else ""

    def _connect(self) -> None:
        assert self.weights is not None
        urls = self.processes.from_main([] if self.hosts is None else self.hosts.urls)
        self.processes.agreed(partial(self.weights.connect, urls))
        self._connected = True

    def _push(self, version: int) -> None:
        assert self.weights is not None
        found = self.weights.push(version, self.fleet.clients)
        for name, value in found.items():  # several pushes in one step: the times and bytes of all, the largest gap
            before = self._measured.get(name, 0.0)
            self._measured[name] = max(before, value) if name.endswith("_gap") else before + value
        self.version, self._asleep = version, False

    def _restart_dead(self) -> None:
        """In the main process: servers that are dead come up again, with the weights of their folder."""
        if self.hosts is None:
            return
        self.fleet.dead |= {number for number, client in enumerate(self.fleet.clients) if not client.is_up()}
        if not self.fleet.dead:
            return
        dead = sorted(self.fleet.dead)
        say(
            f"warning: {len(dead)} of {len(self.fleet.clients)} vLLM servers are gone, and are started anew"
            f"{self._last_words(dead)}"
        )
        self.hosts.restart(dead)
        self._connected = False
        self._meet_servers()

    def _meet_servers(self) -> None:
        assert self.hosts is not None
        clients = [self._client(url) for url in self.hosts.urls]
        self.fleet = Fleet(clients, concurrency=self.asking.concurrency, retries=self.asking.retries)

    def _client(self, url: str) -> VllmClient:
        limits = Limits(self.policy.model.vocabulary_size, self.policy.stop_ids)
        return VllmClient(url, limits, timeout_seconds=self.asking.timeout_seconds)


def _is_beside_training() -> bool:
    """Whether a thread draws while the main one trains (training/supply.py)."""
    return threading.current_thread() is not threading.main_thread()
