"""Weights pushed to a real vLLM server: taken over whole, or refused while the old ones go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from model_factory import save_random_model
from spoilt_updates import SPOILT, UP, Update, flipped, greedy
from torch import Tensor
from vllm_process import served

from dgpo_cli.engines.vllm.conversation import Conversation
from dgpo_cli.engines.vllm.differences import different
from dgpo_cli.engines.vllm.files_sync import FilesSync
from dgpo_cli.engines.vllm.group_sync import GroupSync
from dgpo_cli.engines.vllm.probe import probe_gap, too_far
from dgpo_cli.engines.vllm.updates import Stamp, WeightSync
from dgpo_cli.errors import RunError
from dgpo_cli.models.export import exported
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model


@dataclass(frozen=True)
class Running:
    """A server, and two models of its shape: it was started with the first."""

    url: str
    first: LanguageModel
    other: LanguageModel

    def weights(self, model: LanguageModel | None = None) -> dict[str, Tensor]:
        return dict(exported(model or self.first, torch.float32))

    def gap(self, model: LanguageModel) -> float:
        return probe_gap([self.url], model, torch.float32)[0]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from _running(tmp_path_factory.mktemp("tied"), tied=True)


def _running(folder: Path, *, tied: bool, workers: int = 1) -> Iterator[Running]:
    paths = [save_random_model(folder / str(seed), seed=seed, tied=tied, hidden_size=128) for seed in (0, 5)]
    with served(paths[0], folder / "log", workers=workers) as url:
        yield Running(url, *(load_model(str(path)) for path in paths))


@pytest.mark.parametrize("kind", ["files", "group"])
def test_a_push_replaces_all_weights_and_names_their_version(kind: str, running: Running, tmp_path: Path) -> None:
    sync: WeightSync = FilesSync(tmp_path) if kind == "files" else GroupSync(patience_seconds=60.0)
    sync.init([running.url])
    try:
        for version, model in enumerate((running.other, running.first), start=3):
            pushed = sync.push(version, exported(model, torch.float32))
            pushed.check()
            assert pushed.bytes == sum(weight.nbytes for weight in running.weights().values())
            assert greedy(running.url)[1] == str(version)
            gap, limit = probe_gap([running.url], model, torch.float32)
            assert gap < limit / 4  # a head that is tied to the embedding was packed anew
            assert different([running.url], exported(model, torch.float32)) == []
        assert running.gap(running.other) > 1.0
    finally:
        sync.close()
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def loaded(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, FilesSync]]:
    """The server with version 7 of the first model."""
    sync = FilesSync(tmp_path_factory.mktemp("loaded"))
    sync.init([running.url])
    sync.push(7, exported(running.first, torch.float32)).check()
    yield running, sync
    sync.close()


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_update_is_refused_and_the_old_weights_go_on(
    name: str, loaded: tuple[Running, FilesSync], tmp_path: Path
) -> None:
    running, sync = loaded
    assert sync._servers is not None
    spoil, reason = SPOILT[name]
    before = greedy(running.url)
    folder = tmp_path / "update"
    folder.mkdir()
    update = Update(folder, Stamp(sync._servers.session, 8), running.weights(running.other))
    spoil(update)
    update.write()
    talk = Conversation(running.url, timeout_seconds=60.0)
    refusal = talk.refusal("dgpo_verify", **update.request())
    assert refusal is not None
    assert reason in refusal.reason
    assert not refusal.touched
    asked = {"session": sync._servers.session, "version": 8}
    assert "no verified update" in str(talk.refusal("dgpo_load", **asked))  # nor can it be loaded all the same
    assert greedy(running.url) == before
    assert before[1] == "7"


def test_files_that_change_after_they_were_verified_are_not_loaded(
    loaded: tuple[Running, FilesSync], tmp_path: Path
) -> None:
    running, sync = loaded
    assert sync._servers is not None
    before = greedy(running.url)
    update = Update(tmp_path, Stamp(sync._servers.session, 8), running.weights(running.other))
    update.write()
    talk = Conversation(running.url, timeout_seconds=60.0)
    assert talk.refusal("dgpo_verify", **update.request()) is None
    (tmp_path / "1.st").write_bytes(flipped((tmp_path / "1.st").read_bytes()))
    refusals = sync._servers.load(update.stamp)
    assert "changed after it was verified" in refusals[running.url].reason
    assert not refusals[running.url].touched
    assert greedy(running.url) == before


def test_after_refusals_a_good_update_is_taken(running: Running, tmp_path: Path) -> None:
    sync = FilesSync(tmp_path, bucket_bytes=100_000)  # in many files
    sync.init([running.url])
    bad = iter([*exported(running.other, torch.float32)][1:])
    refused = sync.push(1, bad)
    assert "lacks model.embed_tokens.weight" in refused.refusals[running.url].reason
    with pytest.raises(RunError, match="refused them: the update lacks"):
        refused.check()
    sync.push(2, exported(running.other, torch.float32)).check()
    assert greedy(running.url)[1] == "2"
    assert running.gap(running.other) < 1e-3
    sync.push(3, exported(running.first, torch.float32)).check()
    sync.close()


def test_a_value_corrupted_before_it_was_hashed_is_found_by_the_probe_and_named(
    running: Running, tmp_path: Path
) -> None:
    sync = FilesSync(tmp_path)
    sync.init([running.url])
    weights = running.weights()
    weights[UP] = weights[UP].clone()
    weights[UP][3, 4] += 2.0
    sync.push(1, iter(weights.items())).check()  # every hash is right
    gap, limit = probe_gap([running.url], running.first, torch.float32)
    assert gap > limit
    names = different([running.url], exported(running.first, torch.float32))
    assert names == [UP]
    assert UP in str(too_far(gap, limit, names))
    sync.push(2, exported(running.first, torch.float32)).check()
    sync.close()


def test_one_stale_layer_is_found_by_the_probe_and_named(running: Running, tmp_path: Path) -> None:
    sync = FilesSync(tmp_path)
    sync.init([running.url])
    stale_layer = "model.layers.0.self_attn."
    weights = running.weights(running.other)
    weights |= {name: one for name, one in running.weights().items() if name.startswith(stale_layer)}
    sync.push(1, iter(weights.items())).check()
    gap, limit = probe_gap([running.url], running.other, torch.float32)
    assert gap > limit
    names = different([running.url], exported(running.other, torch.float32))
    # biases are 0 in both
    assert names == [f"{stale_layer}{part}_proj.weight" for part in ("q", "k", "v", "o")]
    sync.push(2, exported(running.first, torch.float32)).check()
    sync.close()


def test_a_full_folder_is_one_error_and_the_old_weights_go_on(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = FilesSync(tmp_path)
    sync.init([running.url])
    sync.push(1, exported(running.first, torch.float32)).check()
    before = greedy(running.url)
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(RunError, match="no room for") as caught:
        sync.push(2, exported(running.other, torch.float32))
    assert "engine.sync_folder" in caught.value.problems[0].hint
    assert greedy(running.url) == before
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".lock"]
    sync.close()


KILLED = """
import sys, torch
from pathlib import Path
from dgpo_cli.engines.vllm.files_sync import FilesSync
from dgpo_cli.models.export import exported
from dgpo_cli.models.loading import load_model

sync = FilesSync(Path(sys.argv[2]), bucket_bytes=100_000)
sync.init([sys.argv[1]])
def slowly():
    for number, item in enumerate(exported(load_model(sys.argv[3]), torch.float32)):
        if number == 8:
            print("amid", flush=True)
            sys.stdin.read()
        yield item
sync.push(9, slowly())
"""


def test_a_trainer_killed_amid_a_push_leaves_the_old_weights_and_nothing_that_stays(
    running: Running, tmp_path: Path
) -> None:
    sync = FilesSync(tmp_path)
    sync.init([running.url])
    sync.push(1, exported(running.first, torch.float32)).check()
    sync.close()
    before = greedy(running.url)
    line = [sys.executable, "-c", KILLED, running.url, str(tmp_path), running.other.path]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == b"amid\n"
        trainer.send_signal(signal.SIGKILL)
    assert list(tmp_path.rglob("*.safetensors"))  # what it had written
    assert greedy(running.url) == before
    again = FilesSync(tmp_path)
    again.init([running.url])
    assert not list(tmp_path.rglob("*.safetensors"))
    again.push(1, exported(running.first, torch.float32)).check()
    again.close()
    assert not list(tmp_path.iterdir())


def test_a_worker_that_never_comes_is_an_error_after_the_patience(running: Running) -> None:
    sync = GroupSync(patience_seconds=3.0)
    sync.init([running.url])
    sync.push(1, exported(running.first, torch.float32)).check()
    assert sync._servers is not None
    [talk] = sync._servers.talks
    talk.calls("dgpo_leave")
    started = time.monotonic()
    pushed = sync.push(2, exported(running.other, torch.float32))
    assert "in no group" in pushed.refusals[running.url].reason
    assert time.monotonic() - started < 60
    assert greedy(running.url)[1] == "1"
    sync.push(3, exported(running.other, torch.float32)).check()  # they meet anew
    assert greedy(running.url)[1] == "3"
    sync.push(4, exported(running.first, torch.float32)).check()
    sync.close()


def test_a_server_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    sync = FilesSync(tmp_path)
    with pytest.raises(RunError, match=r"127\.0\.0\.1:1"):
        sync.init(["http://127.0.0.1:1"])
    sync.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("tied", "workers"), [(True, 2), (False, 1), (False, 2)])
def test_heads_of_both_kinds_and_two_workers(tied: bool, workers: int, tmp_path: Path) -> None:
    for running in _running(tmp_path, tied=tied, workers=workers):
        for sync in (FilesSync(), GroupSync(patience_seconds=60.0)):
            sync.init([running.url])
            for version, model in enumerate((running.other, running.first)):
                sync.push(version, exported(model, torch.float32)).check()
                gap, limit = probe_gap([running.url], model, torch.float32)
                assert gap < limit / 4
                assert different([running.url], exported(model, torch.float32)) == []
                assert greedy(running.url)[1] == str(version)
            wrong = different([running.url], exported(running.other, torch.float32))
            assert {"lm_head.weight", "model.layers.0.self_attn.k_proj.weight", UP} <= set(wrong)
            sync.close()
