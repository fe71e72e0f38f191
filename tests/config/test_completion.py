"""Completion: commands, groups, options and keys, as far as they are typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from interactive_shell import require, words_after_tab

from dgpo_cli.config.completion import SCRIPTS, candidates, script
from dgpo_cli.errors import UsageError


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], ["train"]),
        (["train", "alg"], ["algo=", "algo."]),
        (["train", "engine="], ["engine=openai", "engine=transformers", "engine=vllm"]),
        (["train", "-m", "algo=grpo,da"], ["algo=grpo,dapo"]),
        (["train", "reference=ti"], ["reference=tiny"]),
        (["train", "gating.signa"], ["gating.signal="]),
        (["train", "gating.noise_gate="], ["gating.noise_gate=true", "gating.noise_gate=false"]),
        (["train", "gating.score_policy=c"], ["gating.score_policy=current"]),
        (["train", "--cfg", ""], ["job", "hydra", "all"]),
        (["train", "data.path=x"], []),
        (["eval", "alg"], []),
        (["help", "optim.sch"], ["optim.schedule"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["nothing", "x"], []),
    ],
    ids=" ".join,
)
def test_candidates(words: list[str], expected: list[str]) -> None:
    assert candidates(words) == expected


def test_options_of_the_user_are_completed(tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "mine.yaml").touch()
    assert candidates(["train", "--config-dir", str(tmp_path), "algo=m"]) == ["algo=mine"]


def test_a_shell_without_a_script_is_refused() -> None:
    for words in ([], ["csh"], ["bash", "zsh"]):
        with pytest.raises(UsageError) as raised:
            script(words)
        assert "bash|zsh|fish" in raised.value.problems[0].hint


def test_every_script_asks_for_candidates() -> None:
    assert all("dgpo _complete" in text for text in SCRIPTS.values())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dgpo tr", ["train"]),
        ("dgpo train algo=da", ["dapo"]),
        ("dgpo train gating.signa", ["gating.signal="]),
        ("dgpo train ", []),
    ],
)
def test_the_bash_script_completes(line: str, expected: list[str], tmp_path: Path) -> None:
    """Bash cuts words at `=`, so only what follows it is replaced."""
    (tmp_path / "dgpo").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dgpo_cli "$@"\n')
    (tmp_path / "dgpo").chmod(0o755)
    call = f"COMP_LINE={line!r} COMP_POINT={len(line)} _dgpo 2>/dev/null"
    test = f'{script(["bash"])}\n{call}\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", test], capture_output=True, text=True, env=environment, check=True)
    replies = done.stdout.split()
    assert replies == expected or (not expected and "algo=" in replies)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs, rows, a reward and an experiment file."""
    for folder in ("outputs/train/a", "o/panel", "o/.hidden"):
        (tmp_path / folder).mkdir(parents=True)
    for name, text in (
        ("my_reward.py", "import os\ndef score(): ...\ndef _help(): ...\n"),
        ("rows.jsonl", ""),
        ("my.yaml", ""),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


PATHS = [
    ("train", "resume=outp", ["resume=outputs/"]),
    ("train", "resume=", ["resume=latest", "resume=o/", "resume=outputs/"]),
    ("compare", "runs=[o/", ["runs=[o/panel/"]),
    ("compare", "runs=[o/panel,outputs/t", ["runs=[o/panel,outputs/train/"]),
    ("compare", "runs=[la", ["runs=[latest"]),
    ("train", "reward.path=my_r", ["reward.path=my_reward.py:"]),
    ("train", "reward.path=my_reward.py:", ["reward.path=my_reward.py:score"]),
    ("train", "data.path=r", ["data.path=rows.jsonl"]),
    ("train", "data.path=my", []),
    ("train", "my", ["my.yaml"]),
    ("train", "model.path=nowhere/", []),
]


@pytest.mark.parametrize(("verb", "word", "expected"), PATHS)
def test_paths_are_completed(files: Path, verb: str, word: str, expected: list[str]) -> None:
    assert candidates([verb, word]) == expected


def test_a_folder_of_options_is_completed(files: Path) -> None:
    assert candidates(["train", "--config-dir", "o/p"]) == ["o/panel/"]


@pytest.mark.parametrize("shell", SCRIPTS)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dgpo train resume=outp", ["train", "resume=outputs/"]),
        ("dgpo compare runs=[o/", ["compare", "runs=[o/panel/"]),
        ("dgpo train reward.path=my_r", ["train", "reward.path=my_reward.py:"]),
        ("dgpo train data.path=ro", ["train", "data.path=rows.jsonl"]),
        ("dgpo train algo=da", ["train", "algo=dapo"]),
    ],
)
def test_an_interactive_shell_completes(files: Path, shell: str, line: str, words: list[str]) -> None:
    require(shell)
    assert words_after_tab(shell, line, script([shell]), files) == words
