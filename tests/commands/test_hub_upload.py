"""push_to_hub: the real command against a stand-in for the hub on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands.test_train import train
from hub_stand_in import hub_stand_in

from dgpo_cli.cli import main

TOKEN = "hf_of_nobody"
RUN = ["steps=1", "benchmark.limit=8", "model.lora.rank=2", "push_to_hub=me/model"]


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def test_a_run_ends_with_its_model_and_card_on_the_hub_and_no_secret_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_stand_in() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert train(tmp_path / "run", *RUN) == 0
    assert hub.created == [{"name": "model", "organization": "me", "visibility": "private"}]
    assert f"Bearer {TOKEN}" in hub.tokens
    saved = tmp_path / "run/checkpoints/step_000001/model"
    assert set(hub.files) == {path.name for path in saved.iterdir()} | {"README.md"}
    for path in saved.iterdir():
        assert hub.files[path.name] == path.read_bytes()
    card = hub.files["README.md"].decode()
    assert "| seed | 0 |" in card
    assert "| digit_chain | 1 | 8 | avg@1 " in card
    assert hub.messages == ["Step 1 of a run of dgpo"]
    assert f"{hub.url}/me/model/commit/" in (tmp_path / "run/run.json").read_text()
    for content in (*hub.files.values(), *(path.read_bytes() for path in (tmp_path / "run").glob("*.*"))):
        assert TOKEN.encode() not in content
    assert str(tmp_path) not in card


def test_an_upload_that_fails_leaves_a_finished_run_which_sends_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with hub_stand_in(refuses=("/commit/",)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert train(tmp_path, *RUN) == 1
    assert not hub.files
    assert '"status": "done"' in (tmp_path / "run.json").read_text()
    said = capsys.readouterr().err
    assert "error: push_to_hub=me/model: the run is done and saved, and its upload failed: 403" in said
    assert f"hint: dgpo train resume={tmp_path} push_to_hub=me/model sends it again" in said
    with hub_stand_in() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert main(["train", f"resume={tmp_path}", "push_to_hub=me/model"]) == 0
    assert "adapter_model.safetensors" in hub.files


def test_a_token_that_may_not_write_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with hub_stand_in(refuses=("/api/repos/create",)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert train(tmp_path, *RUN) == 2
    said = capsys.readouterr().err
    assert "error: push_to_hub=me/model: the repository cannot be written: 403" in said
    assert "hint: hf auth login" in said
    assert not (tmp_path / "run.json").exists()


def test_a_name_without_a_user_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "push_to_hub=model") == 2
    assert "push_to_hub: expected USER/NAME, got 'model'" in capsys.readouterr().err
