"""What comes from outside reaches a real terminal without its control characters, whichever way it takes there."""

from __future__ import annotations

import ast
import io
import json
import math
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from real_terminal import typed
from run_factory import evaluation
from small_server import Reply, serving

import dgpo_cli
from dgpo_cli import terminal
from dgpo_cli.reporting.clean_console import CleanConsole
from dgpo_cli.reporting.tables import make_table
from dgpo_cli.terminal import (
    CleanStream,
    FirstPhases,
    current_phase,
    phase,
    put,
    say,
    say_block,
    showing_phases,
    tell_progress,
    visible,
)
from dgpo_cli.training.tracker import _warn

PACKAGE = Path(dgpo_cli.__file__).parent
# Sets the title, clears the screen, moves up, rings, one-byte CSI, turns text round, parts lines.
EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[1A\x9b31mred\u202eright\u2066to left\u2028line\x7f"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x1b[1A\x9b31mred\u202eright\u2066to left\u2028line\x7f"
NAME = "e\x1b]0;owned\x07v[bold]i\u202el"  # of a file
COLOUR = re.compile(r"\x1b\[[0-9;]*m|\x1b\]8;[^\x1b]*\x1b\\")  # all that the program itself writes where nothing moves


def assert_clean(written: str) -> None:
    found = COLOUR.sub("", written)
    assert not [char for char in found if not char.isprintable() and char not in "\n\t"], repr(found)


def test_what_acts_on_a_terminal_becomes_its_escape() -> None:
    assert visible(EVIL) == SHOWN
    assert visible("a\tb\nc\r", "\n\t") == "a\tb\nc\\r"
    assert visible("a\nb", "") == r"a\nb"
    assert visible("ünï 算 🙂 \\x1b") == "ünï 算 🙂 \\x1b"
    assert visible("\ud800\ufeff\u200f") == r"\ud800\ufeff\u200f"


def test_a_message_is_one_line_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    say("ended\nerror: forged\r")
    say("told", label="\x1b[1merror:\x1b[0m")
    say_block(f"one\n\ttwo {EVIL}")
    assert capsys.readouterr().err == f"ended\\nerror: forged\\r\n\x1b[1merror:\x1b[0m told\none\n\ttwo {SHOWN}\n"


def test_data_are_exact_in_a_pipe_and_visible_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(EVIL)
    assert capsys.readouterr().out == EVIL + "\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    put(EVIL)
    assert capsys.readouterr().out == SHOWN + "\n"


def test_a_file_name_that_is_no_text_goes_through_a_pipe_as_it_is() -> None:
    code = r"from dgpo_cli.terminal import put; put('out/\udcff')"
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", code], capture_output=True, check=True)
    assert done.stdout == b"out/\xff\n"


def test_what_rich_draws_is_clean_and_no_markup() -> None:
    stream = io.StringIO()
    console = CleanConsole(file=stream, width=200, force_terminal=True)
    console.print(make_table((EVIL,), [[f"[red]{EVIL}[/] :smile:"]], title=EVIL))
    console.print(f"[/nothing] {EVIL}", style="bold")
    assert_clean(stream.getvalue())
    drawn = COLOUR.sub("", stream.getvalue())
    assert drawn.count(SHOWN) == 3
    assert f"[red]{SHOWN}[/] :smile:" in drawn
    assert f"[/nothing] {SHOWN}".replace(r"\x07", "") in drawn  # rich itself leaves a bell out


def test_what_other_code_prints_is_clean() -> None:
    stream = io.StringIO()
    print(EVIL, "\n", file=CleanStream(stream))
    assert stream.getvalue() == SHOWN + " \n\n"


def test_warnings_and_logs_of_libraries_are_clean() -> None:
    code = (
        "import logging, sys, warnings; from dgpo_cli.cli import main; main(['--version'])\n"
        "warnings.warn(sys.argv[1]); logging.getLogger('some.library').warning(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, EVIL], capture_output=True, text=True, check=True)
    assert done.stderr.count(SHOWN) == 2
    assert_clean(done.stderr)


def test_a_message_of_wandb_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    _warn(ValueError(f"refused {EVIL}"))
    said = capsys.readouterr().err
    assert_clean(said)
    assert r"refused \x1b]0;owned\x07" in said


def test_what_was_typed_is_clean(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.jsonl"
    path.write_text(json.dumps({"problem": "1+1", "answer": None}) + "\n")
    for argv in (
        [NAME],
        ["train", f"algo='{NAME}'"],
        ["train", f"{NAME}=1"],
        ["eval", f"--{NAME}"],
        ["train", "data=file", f"data.path='missing {path.name}'"],
        ["train", "data=file", f"data.path='{path.name}'", "steps=1", "logger=none"],
    ):
        code, written = typed(*argv, folder=tmp_path)
        assert code == 2, written
        assert_clean(written)
        assert r"\x1b]0;owned\x07v[bold]i\u202el" in written, written


def test_the_configuration_is_clean_on_a_terminal(tmp_path: Path) -> None:
    code, written = typed("train", f"logger.tags=['{NAME}']", "--cfg", "job", "--package", "logger", folder=tmp_path)
    assert code == 0, written
    assert_clean(written)
    assert "owned" in written


def test_names_of_runs_and_folders_are_clean_on_a_terminal_and_exact_in_a_pipe(tmp_path: Path) -> None:
    runs = [evaluation(tmp_path / f"{letter}{NAME}", [right] * 7) for letter, right in (("a", 1), ("b", 2))]
    quoted = ",".join(f"'{Path(run).name}'" for run in runs)
    argv = ["compare", f"runs=[{quoted}]", f"hydra.run.dir='out{NAME}'"]
    code, written = typed(*argv, folder=tmp_path)
    assert code == 0, written
    assert_clean(written)
    for letter in ("a", "b", "out"):
        assert rf"{letter}e\x1b]0;owned\x07v[bold]i\u202el" in written
    piped = subprocess.run(
        [sys.executable, "-m", "dgpo_cli", *argv], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert [run["run"] for run in json.loads(piped.stdout)["runs"]] == [Path(run).name for run in runs]


def test_an_error_of_a_server_is_clean(tmp_path: Path) -> None:
    with serving(lambda request, number: Reply({"error": {"message": f"no such model {EVIL}"}}, 400)) as server:
        code, written = typed(
            *("eval", "engine=openai", f"engine.url={server.url}", "engine.model=m", "benchmark.limit=1"),
            folder=tmp_path,
        )
    assert code != 0
    assert_clean(re.sub(r"\x1b\[\??[0-9]*[hlAK]|\r", "", written))  # the live table came and went
    assert r"no such model \x1b]0;owned\x07" in written


REWARD = """
def score(prompt, completion, answer):
    print("graded", {evil!r})
    raise ValueError({evil!r})
"""


def test_a_reward_function_is_clean_in_what_it_prints_and_raises(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(REWARD.format(evil=EVIL))
    argv = ("rollout", "reward=function", "reward.path=reward.py:score", "limit=1")
    code, written = typed(*argv, folder=tmp_path)
    assert code == 2, written
    assert_clean(written)
    assert f"graded {SHOWN}" in written
    assert r"ValueError: \x1b]0;owned\x07" in written


def test_a_completion_is_clean_on_a_terminal_and_exact_in_a_file(tmp_path: Path) -> None:
    prompt = "'" + EVIL.replace("\x7f", "") + "'"
    code, written = typed("rollout", f"prompt={prompt}", "limit=1", "hydra.run.dir=out", folder=tmp_path)
    assert code == 0, written
    assert_clean(written)
    (first, *_) = (tmp_path / "out" / "rollouts.jsonl").read_text().split("\n")
    record = json.loads(first)
    assert "\x1b]0;owned\x07" in record["prompt"]
    lines = [json.dumps(record | {"tokens": [EVIL] * len(record["tokens"]), "completion": EVIL})]
    (tmp_path / "stored.jsonl").write_text("\n".join(lines) + "\n")
    code, written = typed("rollout", "rollouts=stored.jsonl", "hydra.run.dir=again", folder=tmp_path)
    assert code == 0, written
    assert_clean(written)
    assert r"\x1b]0;owned\x07\x1b[2J" in written
    assert json.loads((tmp_path / "again" / "rollouts.jsonl").read_text())["completion"] == EVIL


def test_nothing_else_prints() -> None:
    """`print` stands in terminal.py alone, a console of rich's is made by clean_console.py alone."""
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        place = str(file.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call | ast.ImportFrom):
                continue
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            prints = called in ("print", "traceback.print_exc") or re.fullmatch(
                r"sys\.(__)?std(out|err)(__)?\.write(lines)?", called
            )
            draws = (
                isinstance(node, ast.ImportFrom)
                and node.module == "rich.console"
                and "Console" in [name.name for name in node.names]
            )
            if (prints and place != "terminal.py") or (draws and place != "reporting/clean_console.py"):
                wrong.append(f"{place} line {node.lineno}")
    assert not wrong


def test_work_that_comes_again_is_said_while_it_is_done_for_the_first_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PATIENCE", 0.0)
    phases = FirstPhases()
    said = ""
    with phases("draw", "step 1: drawing"):
        deadline = time.monotonic() + 60
        while not said and time.monotonic() < deadline:
            said = capsys.readouterr().err
    assert said == "step 1: drawing ...\n"
    with phases("draw", "step 2: drawing"):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_the_current_phase_tells_how_far_it_is_and_a_view_says_it_instead_of_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert current_phase() is None
    tell_progress("nowhere")
    with showing_phases(), phase("outer", after=0.01), phase("inner", after=math.inf):
        tell_progress("30/120, 4 s left")
        assert str(current_phase()) == "inner: 30/120, 4 s left"
        beside = threading.Thread(target=tell_progress, args=("another thread's",))
        beside.start()
        beside.join()
        assert str(current_phase()) == "inner: 30/120, 4 s left"
        time.sleep(0.1)  # outer's patience is over
    assert current_phase() is None
    assert capsys.readouterr().err == ""


def test_a_phase_is_said_only_if_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    with phase("short", after=60):
        pass
    assert not capsys.readouterr().err
    said = ""
    with phase("long", after=0.01):
        while not said:
            time.sleep(0.01)
            said = capsys.readouterr().err
    assert said == "long ...\n"
