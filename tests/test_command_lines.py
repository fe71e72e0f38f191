"""What is printed to be typed is typed here: by a real bash, in a folder whose name nobody would choose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dgpo_cli.cli import main
from dgpo_cli.command_lines import command, override, quoted, shell_word
from dgpo_cli.config.overrides import parse
from dgpo_cli.config.stored import load

# One folder with all that Hydra, OmegaConf and a shell read in their own way; `${seed}` is even a key that there is.
NASTY = "-lr=1e-3,#{x}'\"üß🎈 ${x}interp${seed}[1](b)!;&|~%@+*?`id`$(id)$HOME\\ "
NAMES = [
    *("a=b", "a#b", "{x}", "a{b", "b}", "it's", 'say"hi', "back\\slash", "end\\", "two\\\\", "a b", "ü", "ß", "🎈"),
    *("$HOME", "${x}", "interp${x}", "\\${x}", "\\\\${x}", "${x", "a,b", "[1]", "a[1", "(x)", "a!b", "a;b", "a&b"),
    *("a|b", "~", "~a", "-lead", "+p", "%d", "@h", "new\nline", "trail ", " lead", "null", "true", "1e-3", "1_000"),
    *("007", "NaN", "inf", "-inf", "tab\t", "a:b", "*", "?", "`id`", "$(id)", "\u2028", "'\"", "\\'", '\\"', "0"),
    *("${seed}", "${now:%Y}", "<x>", "^", NASTY),
]
UNFINISHED = "${x"
QUICK = ["steps=1", "rollout.prompts_per_step=2", "rollout.group_size=2", "data.size=16", "benchmark.limit=4"]
QUICK += ["logger=none", "rollout.save=all"]


def typed(line: str) -> list[str]:
    """The words after `dgpo` that bash makes of a printed line."""
    script = "dgpo() { printf '%s\\0' \"$@\"; }\n" + line
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout, f"no command: {line}"
    return done.stdout.split("\0")[:-1]


def hydra_reads(text: str) -> Any:
    """The value that a job gets from an override."""
    return OmegaConf.create({"key": parse(text).value()}).key


def test_every_name_comes_back_through_bash_hydra_and_omegaconf() -> None:
    words = typed("dgpo " + " ".join(override("key", name) for name in NAMES))
    assert [hydra_reads(word) for word in words] == NAMES
    assert [hydra_reads(f"key={quoted(name)}") for name in NAMES] == NAMES


def test_plain_values_stay_as_they_are() -> None:
    assert command("eval", model__path="outputs/train/2026-01-01_12-00-00") == (
        "dgpo eval model.path=outputs/train/2026-01-01_12-00-00"
    )
    assert override("reference.path", "bundled:tiny") == "reference.path=bundled:tiny"
    assert override("resume", "my run") == "'resume=\"my run\"'"


def test_a_command_with_a_line_break_is_one_line() -> None:
    assert shell_word("a\nb'c\\") == "$'a\\x0ab\\'c\\\\'"


@pytest.fixture
def nasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: also what is relative to it has its name."""
    folder = tmp_path / NASTY
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def printed(capsys: pytest.CaptureFixture[str], *marks: tuple[str, str]) -> list[str]:
    """The commands on stderr that stand between two marks each."""
    err = capsys.readouterr().err
    return [err.partition(start)[2].partition(end)[0] for start, end in marks]


def test_what_training_prints_can_be_typed(nasty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = nasty / NASTY
    run.mkdir()
    assert main(["train", f"hydra.run.dir={run}", *QUICK]) == 0
    assert (run / "metrics.jsonl").is_file(), "the folder is the one that was typed"
    evaluate, rollout = printed(capsys, ("next: ", "   or: "), ("   or: ", "\n"))
    assert main([*typed(evaluate), "benchmark.limit=4", "hydra.run.dir=e"]) == 0
    assert json.loads((nasty / "e" / "results.json").read_text())["model"].startswith(str(run))
    assert main([*typed(rollout), "limit=1", "hydra.run.dir=r"]) == 0
    assert load("rollout", nasty / "r" / "config.yaml").model.path.startswith(str(run))
    capsys.readouterr()
    assert main(["train", f"hydra.run.dir={run}", *QUICK]) == 2
    [resume] = printed(capsys, ("hint: ", " continues it"))
    assert main([*typed(resume), "steps=2"]) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    capsys.readouterr()
    stored = run / "rollouts" / "step_000001.jsonl"
    assert main(["rollout", f"rollouts={stored.parent}"]) == 2
    [rollouts] = printed(capsys, ("hint: ", "\n"))
    assert main(["rollout", *typed(f"dgpo {rollouts}"), "hydra.run.dir=again"]) == 0
    assert main(["compare", f"runs=[{run},{nasty / 'e'}]", "hydra.run.dir=c"]) == 0
    (run / "checkpoints" / "latest").unlink()
    capsys.readouterr()
    assert main(["eval", f"model.path={run}"]) == 2
    [resume] = printed(capsys, ("hint: ", " continues it"))
    assert typed(resume) == ["train", f"resume={quoted(str(run), chr(39))}"]


def test_what_an_interrupted_evaluation_prints_goes_on_with_it(nasty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nasty / NASTY).mkdir()  # a folder that is there is taken by its name
    line = [sys.executable, "-m", "dgpo_cli", "eval", "overwrite=true", "engine.batch_size=2", "benchmark.limit=80"]
    process = subprocess.Popen(
        [*line, f"hydra.run.dir={NASTY}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    samples = nasty / NASTY / "samples.jsonl"
    while not (samples.is_file() and samples.stat().st_size):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.terminate()
    _, err = process.communicate(timeout=240)
    assert process.returncode == 143, err
    drawn = samples.read_bytes()
    words = typed(err.partition("hint: ")[2].partition(" continues it")[0])
    assert not [word for word in words if word.startswith("overwrite")], "it would delete what was drawn"
    assert main(words) == 0
    assert samples.read_bytes().startswith(drawn)
    assert len(samples.read_bytes().splitlines()) == 80


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_every_name_holds_a_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(["train", f"hydra.run.dir={tmp_path / 'x'}/{name}", *QUICK])
    if name == UNFINISHED:
        assert code == 2
        assert "'${' has no end" in capsys.readouterr().err
        assert not (tmp_path / "x").exists()
        return
    assert code == 0
    run = tmp_path / "x" / name
    if not run.is_dir():  # an interpolation of a key that there is, or two backslashes, which Hydra reads as one
        assert "${" in name or hydra_reads(f"key={name}") != name
        return
    evaluate, rollout = printed(capsys, ("next: ", "   or: "), ("   or: ", "\n"))
    assert main([*typed(evaluate), "benchmark.limit=2"]) == 0
    assert main([*typed(rollout), "limit=1"]) == 0
    assert main(["train", f"resume={run}", "steps=2"]) == 0
