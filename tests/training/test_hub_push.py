"""Uploads: one commit of the folder's files and the card; errors in one line, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_stand_in import hub_stand_in

from dgpo_cli.errors import ConfigError, RunError
from dgpo_cli.training.hub_push import push, require_repository


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")


def test_files_keep_their_places_and_the_card_is_the_one_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/a.json").write_bytes(b"{}")
    (tmp_path / "README.md").write_text("peft's own")
    with hub_stand_in() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        address = push(tmp_path, "# Card\n", "me/model", message="first", again="again")
    assert address.startswith(f"{hub.url}/me/model/commit/")
    assert hub.files == {"inner/a.json": b"{}", "README.md": b"# Card\n"}


def test_a_server_that_refuses_is_one_line_at_the_start_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_stand_in(refuses=("/api/",)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(ConfigError, match="the repository cannot be written: 403"):
            require_repository("me/model")
        with pytest.raises(RunError, match="its upload failed") as raised:
            push(tmp_path, "# Card\n", "me/model", message="first", again="once more")
    assert raised.value.problems[0].hint == "once more"
