"""What a push says to servers, to small ones of ours: who owns them, and which of them may be half new."""

from __future__ import annotations

import json
from typing import Any

import pytest
from small_server import Reply, Request, serving

from dgpo_cli.engines.vllm.sync_base import Servers
from dgpo_cli.engines.vllm.updates import Refusal, Stamp
from dgpo_cli.errors import RunError

FACTS = {"workers": 2, "dtype": "float32", "device": "cpu", "broken": False}


class Plugin:
    """The calls that a server's two workers get, answered as the plugin does; `loading` is what loading gives."""

    def __init__(self, loading: Any = None) -> None:
        self.session = ""
        self.broken = [False, False]
        self.loading = loading or [{}, {}]

    def __call__(self, request: Request, number: int) -> Reply:
        if not request.path.endswith("/collective_rpc"):
            return Reply({"weight_version": "default"})
        assert request.payload is not None
        method, asked = request.payload["method"], json.loads(request.payload["kwargs"]["text"])
        if method == "dgpo_load":
            return self.loading if isinstance(self.loading, Reply) else Reply({"results": self.loading})
        if method == "dgpo_begin":
            self.session = asked["session"]
        return Reply({"results": [{**FACTS, "session": self.session, "broken": one} for one in self.broken]})


def test_servers_are_ours_until_another_run_begins_with_them() -> None:
    with serving(Plugin()) as one:
        url = one.url.removesuffix("/v1")
        first = Servers([url], timeout_seconds=5.0)
        first.check_owned()
        second = Servers([url], timeout_seconds=5.0)
        second.check_owned()
        with pytest.raises(RunError, match="another run has pushed its weights") as raised:
            first.check_owned()
        assert "servers of its own" in raised.value.problems[0].hint


def test_a_server_that_is_gone_is_nobodys() -> None:
    with serving(Plugin()) as one:
        servers = Servers([one.url.removesuffix("/v1")], timeout_seconds=5.0)
    servers.check_owned()


def test_a_server_is_broken_if_any_of_its_workers_is() -> None:
    plugin = Plugin()
    plugin.broken = [False, True]
    with serving(plugin) as one, pytest.raises(RunError, match="an update has failed half-way there"):
        Servers([one.url.removesuffix("/v1")], timeout_seconds=5.0)


@pytest.mark.parametrize(
    ("loading", "touched"),
    [
        ([{"refused": "no update is here"}, {"refused": "no update is here"}], False),
        ([{}, {"refused": "its files were changed"}], True),
        ([{}, {"error": "RuntimeError: torn", "touched": True}], True),
        (Reply({"error": "EngineCore is dead"}, status=500), True),
    ],
    ids=["all refuse", "one has loaded", "one is torn", "no answer"],
)
def test_a_model_is_touched_unless_all_workers_say_that_it_is_not(loading: Any, touched: bool) -> None:
    with serving(Plugin(loading)) as one:
        url = one.url.removesuffix("/v1")
        refusals = Servers([url], timeout_seconds=5.0).load(Stamp("s", 3))
        said = [json.dumps(request.payload) for request in one.requests if "version" in request.path]
    assert isinstance(refusals[url], Refusal)
    assert refusals[url].touched is touched
    named = [text for text in said if "new_version" in text]
    assert ("default" in named[-1]) is not touched  # half new weights never go by the name of the old ones
