"""Checkpoints: whole or not there, loadable as models, and damage is found."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from model_factory import save_random_model
from several_processes import together
from transformers import AutoModelForCausalLM, AutoTokenizer

from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.errors import RunError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.training.checkpoint import Checkpoints, RunState, load_state
from dgpo_cli.training.optimizer import Optimizer


@pytest.fixture
def parts(random_model: Path) -> tuple[LanguageModel, Optimizer]:
    model = load_model(str(random_model))
    optimizer = Optimizer(model.model, OptimConfig())
    for parameter in optimizer.parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.update(1e-3)
    return model, optimizer


def test_a_checkpoint_is_a_model_and_a_state(parts: tuple[LanguageModel, Optimizer], tmp_path: Path) -> None:
    model, optimizer = parts
    state = RunState(step=7, next_draw=112, noise_floor=1e-9, warned=["truncated"], tracker_id="abc")
    path = Checkpoints(tmp_path, keep=2).save(state, model, optimizer, None)
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step_000007"
    loaded = AutoModelForCausalLM.from_pretrained(path / "model")
    AutoTokenizer.from_pretrained(path / "model")
    for left, right in zip(loaded.parameters(), model.model.parameters(), strict=True):
        assert torch.equal(left, right)
    assert load_state(path) == state
    fresh = Optimizer(load_model(str(path / "model")).model, OptimConfig())
    fresh.load(path / "state")
    assert torch.equal(
        fresh.adam.state_dict()["state"][0]["exp_avg"], optimizer.adam.state_dict()["state"][0]["exp_avg"]
    )
    assert not list(path.rglob("*.bin"))


def test_the_newest_are_kept_and_the_best(parts: tuple[LanguageModel, Optimizer], tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        checkpoints.save(RunState(step=step), *parts, None)
        if step == 1:
            checkpoints.name_best(1)
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*"))
    assert names == ["step_000001", "step_000003", "step_000004"]


@pytest.mark.parametrize(
    "part", ["model/model.safetensors", "state/optimizer-00000-of-00001.safetensors", "state/counters.json"]
)
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damage_is_found_and_the_one_before_is_used(
    parts: tuple[LanguageModel, Optimizer], tmp_path: Path, part: str, damage: str
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2):
        checkpoints.save(RunState(step=step), *parts, None)
    file = tmp_path / "checkpoints" / "step_000002" / part
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    newest, warnings = checkpoints.newest_intact()
    assert newest is not None
    assert newest.name == "step_000001"
    assert len(warnings) == 1
    assert part in warnings[0]


@pytest.fixture
def two(parts: tuple[LanguageModel, Optimizer], tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2):
        checkpoints.save(RunState(step=step), *parts, None)
    return checkpoints


def test_no_bit_of_a_manifest_can_flip_unseen(two: Checkpoints) -> None:
    manifest = two.folder / "step_000002" / "manifest.json"
    content = manifest.read_bytes()
    for at in range(0, len(content), 5):
        manifest.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        newest, warnings = two.newest_intact()
        assert newest == two.folder / "step_000001", (at, warnings)
        assert len(warnings) == 1
    manifest.write_bytes(content)
    assert two.newest_intact() == (two.folder / "step_000002", [])


@pytest.mark.parametrize(
    "manifest",
    [
        "[]",
        "null",
        '{"files": []}',
        '{"files": {}}',
        '{"files": {"state/counters.json": null}}',
        '{"files": {"state/counters.json": {"bytes": "many", "sha256": ""}}}',
        '{"files": {"state/counters.json": {"bytes": 1e999, "sha256": ""}}}',
        '{"files": {"../latest": {"bytes": 11, "sha256": ""}, "state/counters.json": {"bytes": 2, "sha256": ""}}}',
        '{"files": {"\\u0000": {"bytes": 11, "sha256": ""}, "state/counters.json": {"bytes": 2, "sha256": ""}}}',
        "[" * 100_000,
    ],
)
def test_a_manifest_that_is_none_is_damage(two: Checkpoints, manifest: str) -> None:
    (two.folder / "step_000002" / "manifest.json").write_text(manifest)
    newest, warnings = two.newest_intact()
    assert newest == two.folder / "step_000001"
    assert "damaged" in warnings[0]


@pytest.mark.parametrize("garbage", [b"\xf3tep_000002", b"step_00\x00002", b"../step_000002", b"..", b""])
def test_names_that_are_none_are_unknown_and_put_right(
    two: Checkpoints, parts: tuple[LanguageModel, Optimizer], garbage: bytes
) -> None:
    for name in ("latest", "best"):
        (two.folder / name).write_bytes(garbage)
    assert two.newest_name() is None
    two.rewind(two.newest_intact()[0])
    assert two.newest_name() == "step_000002"
    assert not (two.folder / "best").exists()
    (two.folder / "best").write_bytes(garbage)
    two.save(RunState(step=3), *parts, None)
    assert two.newest_name() == "step_000003"


def test_a_half_written_checkpoint_is_no_checkpoint(parts: tuple[LanguageModel, Optimizer], tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    (tmp_path / "checkpoints" / ".tmp_step_000009" / "model").mkdir(parents=True)
    assert checkpoints.newest_intact() == (None, [])
    checkpoints.save(RunState(step=9), *parts, None)
    assert not (tmp_path / "checkpoints" / ".tmp_step_000009").exists()


def test_a_reference_that_was_renewed_is_saved(parts: tuple[LanguageModel, Optimizer], tmp_path: Path) -> None:
    reference = load_model(str(save_random_model(tmp_path / "other", seed=5)))
    path = Checkpoints(tmp_path, keep=1).save(RunState(step=1), *parts, reference)
    again = load_model(str(path / "state" / "reference"))
    assert torch.equal(again.head().weight, reference.head().weight)


def test_a_run_that_went_back_behind_a_damaged_checkpoint_writes_it_anew(
    parts: tuple[LanguageModel, Optimizer], tmp_path: Path
) -> None:
    """With keep=1 the damaged one must not be what is kept, nor `latest` and `best` go on naming it."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (4, 6):
        checkpoints.save(RunState(step=step), *parts, None)
    checkpoints.name_best(6)
    (checkpoints.folder / "step_000006" / "state" / "counters.json").write_text("{")
    (checkpoints.folder / ".tmp_step_000008").mkdir()
    checkpoints.keep = 1
    newest, _ = checkpoints.newest_intact()
    checkpoints.rewind(newest)
    assert (checkpoints.folder / "latest").read_text() == "step_000004"
    assert not (checkpoints.folder / "best").exists()
    checkpoints.save(RunState(step=5), *parts, None)
    assert [path.name for path in sorted(checkpoints.folder.iterdir())] == ["latest", "step_000005"]
    checkpoints.save(RunState(step=6), *parts, None)
    assert [path.name for path in sorted(checkpoints.folder.iterdir())] == ["latest", "step_000006"]
    assert checkpoints.newest_intact()[0] == checkpoints.folder / "step_000006"


def test_what_is_written_beside_is_the_state_at_its_step_and_stands_once_settled(
    parts: tuple[LanguageModel, Optimizer], tmp_path: Path
) -> None:
    model, optimizer = parts
    plain = Checkpoints(tmp_path / "plain", keep=2).save(RunState(step=3), model, optimizer, None)
    checkpoints = Checkpoints(tmp_path / "beside", keep=2, beside=True)
    path = checkpoints.save(RunState(step=3), model, optimizer, None)
    for parameter in optimizer.parameters:  # training goes on meanwhile
        parameter.grad = torch.full_like(parameter, -3.0)
    optimizer.update(1.0)
    checkpoints.settle()
    assert checkpoints.newest_name() == "step_000003"
    assert checkpoints.newest_intact() == (path, [])
    assert (path / "manifest.json").read_text() == (plain / "manifest.json").read_text()  # every byte is the same
    assert not list(checkpoints.folder.glob(".tmp_*"))


def test_a_failure_beside_is_raised_when_it_is_settled_and_the_one_before_stands(
    parts: tuple[LanguageModel, Optimizer], tmp_path: Path
) -> None:
    """Files cannot be larger than 100 kB here: the weights take 132."""
    checkpoints = Checkpoints(tmp_path, keep=2, beside=True)
    checkpoints.save(RunState(step=1), *parts, None)
    checkpoints.settle()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        checkpoints.save(RunState(step=2), *parts, None)
        with pytest.raises(RunError, match="step_000002 could not be written: File too large"):
            checkpoints.settle()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    checkpoints.settle()  # said once
    assert checkpoints.newest_intact() == (checkpoints.folder / "step_000001", [])
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["latest", "step_000001"]


def test_two_processes_write_a_checkpoint_together_and_read_it_again_together(tmp_path: Path) -> None:
    model = save_random_model(tmp_path / "model")
    program = Path(__file__).with_name("checkpoint_program.py")
    records = together(program, 2, tmp_path, str(model), str(tmp_path / "run"))
    apart = records.pop()
    for shared, own in apart["said"]:
        assert not shared
        assert own.startswith("rank 1 on ")
        assert "does not see the run's folder" in own
    assert not apart["left"]
    assert [record["beside"] for record in records] == [False, True]
    for record in records:
        assert len(record["files"]) > 1, record
        assert record["whole"], record
        for moments, intact, none_left, warnings in record["everywhere"]:
            assert (moments, intact, none_left, len(warnings)) == (True, True, True, 1), record
            assert "model/config.json has another SHA-256" in warnings[0], record
        # The half of each weight goes to the one process that writes it, and a few lines about files.
        weights = 4 * (512 * 32 + 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64 + 64 + 32 * 2) + 32)
        assert weights / 2 <= record["traffic"] < weights / 2 + 4000, (record, weights)
