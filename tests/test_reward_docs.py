"""The commands of docs/rewards.md and docs/evaluation.md run as they stand, from a checkout."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dgpo_cli.cli import main

ROOT = Path(__file__).resolve().parents[1]
DOCS = ("rewards.md", "evaluation.md")
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    texts = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in DOCS]
    lines = [line for text in texts for block in BLOCK.findall(text) for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("dgpo ")]


def test_commands_are_found() -> None:
    assert len(commands()) >= 6


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_command_runs(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    assert main([*command, *(["logger=none"] if command[0] == "train" else [])]) == 0
    assert capsys.readouterr().out.strip()


def test_links_to_files_hold() -> None:
    for name in DOCS:
        for link in re.findall(r"\]\(([^)#]+)", (ROOT / "docs" / name).read_text(encoding="utf-8")):
            assert (ROOT / "docs" / link).exists(), link
