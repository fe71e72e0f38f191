"""Names that W&B refuses are refused before a run starts, by the rules of the installed wandb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.cli import main
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.groups import LoggerConfig, LoggerMode
from dgpo_cli.config.wandb_checks import wandb_names

NAMES = [
    "a/b",
    "a\\b",
    "a#b",
    "a?b",
    "a%b",
    "a:b",
    "x" * 129,
    "x" * 128,
    "dgpo",
    "a b",
    "算 ü",
    "123",
    "a'b",
    "a.b-c_d",
]


def problems(**settings: Any) -> list[tuple[str, str]]:
    found = wandb_names(TrainConfig(logger=LoggerConfig(**{"mode": LoggerMode.offline} | settings)))
    return [(problem.message, problem.hint) for problem in found]


@pytest.mark.parametrize("name", NAMES)
def test_a_project_name_is_refused_exactly_if_wandb_refuses_it(name: str) -> None:
    from wandb import Settings

    try:
        Settings(project=name)
        taken = True
    except Exception:
        taken = False
    found = problems(project=name)
    assert (not found) == taken
    if found:
        mended = found[0][1].partition("=")[2].partition(";")[0]
        assert not problems(project=mended)
        Settings(project=mended)


@pytest.mark.parametrize("tag", ["", "x" * 65, "x" * 64, "a/b"])
def test_a_tag_is_refused_exactly_if_wandb_refuses_it(tag: str) -> None:
    from wandb import Settings

    try:
        Settings(run_tags=[tag])
        taken = True
    except Exception:
        taken = False
    assert (not problems(tags=[tag])) == taken


def test_names_that_are_none_and_teams_with_a_slash_are_refused() -> None:
    assert "without a character" in problems(project="  ")[0][0]
    assert "without a character" in problems(project="")[0][0]
    assert "with control characters" in problems(project="a\x1bb")[0][0]
    assert problems(entity="team/project") == [
        ("logger.entity: W&B takes no team or user with /, got 'team/project'", "logger.entity=team-project")
    ]
    assert not problems(entity="team")


@pytest.mark.parametrize("mode", ["auto", "online", "offline"])
def test_the_command_refuses_it_in_one_line_before_anything_starts(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "logger.project='a/b'", f"logger.mode={mode}", "steps=1"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: logger.project: W&B takes no project name with /, got 'a/b'"
    assert hint == "hint: logger.project=a-b; logger.mode=disabled records nothing"
    assert not list(tmp_path.iterdir())


def test_where_nothing_is_recorded_any_name_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not problems(project="a/b", mode=LoggerMode.disabled)
    assert not problems(project="a/b", name="none")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not problems(project="a/b", mode=LoggerMode.auto)
