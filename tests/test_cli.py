"""The surface of `dgpo`: a command line, its exit code, what it prints on stdout and stderr, what it leaves behind.

Commands are replaced by small stand-ins here, so that the program around them is what is tested. In a child process
they are put in place by a sitecustomize module.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dgpo_cli
from dgpo_cli.cli import VERBS, main
from dgpo_cli.config.compose import hydra_ready
from dgpo_cli.config.overrides import prepare
from dgpo_cli.config.plan import claim_folder, plan
from dgpo_cli.config.stored import load
from dgpo_cli.errors import Problem
from dgpo_cli.jobs import report

Dgpo = Callable[..., tuple[int, str, str]]
Start = Callable[..., subprocess.Popen[str]]

STAND_INS = """
import json, signal, sys, time, types
from pathlib import Path

def train(config, folder):
    from dgpo_cli.config.stored import save
    from dgpo_cli.errors import DataError, Interrupted, RunError

    assert isinstance(folder, Path) and folder.is_dir()
    if config.seed == 13:
        raise RunError("seed 13 is unlucky", "take another")
    if config.seed == 14:
        raise ValueError("two\\nlines")
    if config.seed == 15:
        raise DataError("data.jsonl line 3: no key 'prompt'", "data.prompt_key=KEY")
    save(config, folder / "config.yaml")
    (folder / "argv.json").write_text(json.dumps(sys.argv))
    if config.seed == 16:
        received = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: received.append(number))
        (folder / "started").touch()
        while not received:
            time.sleep(0.01)
        time.sleep(0.2)
        (folder / "saved").write_text(str(received))
        raise Interrupted("stopped after it was saved", exit_code=128 + received[0])
    print("progress of the library", file=sys.stderr)
    (folder / "eval.jsonl").write_text(json.dumps({"avg_at_k": {"value": 0.5}}) + "\\n")
    print(folder)

def evaluate(configs, folder):
    print(json.dumps([[c.benchmark.name, c.benchmark.reward, c.reward.name] for c in configs]))

def other(config, folder):
    print(type(config).__name__, folder)

for name, run in {"train": train, "eval": evaluate, "rollout": other, "compare": other}.items():
    module = types.ModuleType(f"dgpo_cli.commands.{name}")
    module.run = run
    sys.modules[module.__name__] = module
"""


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for verb in VERBS:  # put back by monkeypatch at the end
        monkeypatch.setitem(sys.modules, f"dgpo_cli.commands.{verb}", types.ModuleType(verb))
    exec(STAND_INS, {})


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def dgpo(capfd: pytest.CaptureFixture[str]) -> Dgpo:
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(list(argv))
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start `python -m dgpo_cli` with the stand-ins."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(STAND_INS)
    paths = [str(tmp_path / "path"), str(Path(dgpo_cli.__file__).parent.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("HYDRA_FULL_ERROR", None)

    def run(*argv: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "dgpo_cli", *argv]
        pipe = subprocess.PIPE
        return subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True)

    return run


SURFACE = [
    # command line, exit code, in stdout, in stderr
    ([], 0, ["Distribution-Guided Policy Optimization (arXiv 2605.03327)", "dgpo train  ", "compare  "], []),
    (["-h"], 0, ["dgpo help KEY", "dgpo completion SHELL"], []),
    (["--version"], 0, [f"dgpo {dgpo_cli.__version__}"], []),
    (["train", "-h"], 0, ["Groups", "optim.lr"], []),
    (["train", "algo=grpo", "--help"], 0, ["Groups"], []),
    (["help"], 0, ["dgpo help KEY"], []),
    (["help", "optim.lr"], 0, ["peak learning rate"], []),
    (["help", "optim.lrr"], 2, [], ["error: unknown key 'optim.lrr'", "hint: did you mean optim.lr?"]),
    (["completion", "fish"], 0, ["complete -c dgpo"], []),
    (["completion"], 2, [], ["hint: dgpo completion bash|zsh|fish"]),
    (["trian"], 2, [], ["error: unknown command 'trian'", "hint: did you mean dgpo train?"]),
    (["steps=3"], 2, [], ["error: expected a command, got 'steps=3'", "hint: did you mean: dgpo train steps=3"]),
    (["train", "--mulitrun"], 2, [], ["error: unrecognized arguments: --mulitrun", "hint: dgpo train -h"]),
    (["train", "--config-name", "x"], 2, [], ["error: the primary configuration", "--config-dir FOLDER"]),
    (["train", "--config-dir", "nowhere"], 2, [], ["error: --config-dir: no folder 'nowhere'"]),
    (["train", "-sc", "install=bash"], 2, [], ["hint: dgpo completion bash|zsh|fish"]),
    (["compare", "runs=[.]", "-m"], 2, [], ["error: -m is for dgpo train and dgpo eval"]),
    (
        ["train", "optim.lrr=1", "algo=x", "rollout.group_size=1"],
        2,
        [],
        ["optim.lrr", "algo=x:", "group_size: 1"],
    ),
    (["train", "hydra.run.dirr=x"], 2, [], ["error: unknown key 'hydra.run.dirr'"]),
    (["train", "hydra/launcher=x"], 2, [], ["error: ", "'hydra/launcher/x'", "hint: options: basic"]),
    (["train", "resume=nowhere"], 2, [], ["error: resume=nowhere: there is no such folder"]),
    (["train", "-m", "resume=.,nowhere"], 2, [], ["error: "]),
    (["train", "sweep.retries=1"], 2, [], ["error: sweep.retries=1 changes nothing: without -m there is one job"]),
    (["train", "-m", "sweep.jobs_at_once=0"], 2, [], ["error: sweep.jobs_at_once: expected at least 1, got 0"]),
    (["train", "-m", "seed=interval(0,1)"], 2, [], ["hint: list the values: dgpo train -m"]),
    (["train", "-m", "rollout.group_size=4,1"], 2, [], ["error: job 1 (rollout.group_size=1): rollout.group_size: 1"]),
    (["train", "-m", "--cfg", "job"], 2, [], ["error: -m runs jobs"]),
    (["train", "--cfg", "job", "--package", "optim"], 0, ["lr: 0.0005"], []),
    (["train", "--cfg", "job", "--package", "nothing"], 2, [], ["error: --package"]),
    (["train", "--cfg", "hydra", "--package", "hydra.run"], 0, ["dir: outputs/train/${run_folder:${name},${now:"], []),
    (["train", "--info", "searchpath"], 0, ["Search path"], []),
    (["eval", "--cfg", "job", "benchmark=[aime2024,math500]"], 0, ["name: aime2024", "---\n", "name: math500"], []),
    (["eval", "benchmark.pass_at=[8]"], 2, [], ["error: benchmark.pass_at: [8] is more than benchmark.k=1"]),
    (["compare"], 2, [], ["error: runs: no folder is given"]),
]


@pytest.mark.parametrize(("argv", "code", "in_stdout", "in_stderr"), SURFACE, ids=lambda value: str(value)[:40])
def test_surface(dgpo: Dgpo, tmp_path: Path, argv: str, code: int, in_stdout: list[str], in_stderr: list[str]) -> None:
    got, out, err = dgpo(*argv)
    assert got == code, err
    assert all(text in out for text in in_stdout), out
    assert all(text in err for text in in_stderr), err
    assert in_stdout or not out, "errors leave stdout empty"
    assert "Traceback" not in err
    assert "to your config use +" not in err
    assert not list(tmp_path.iterdir()), "nothing is left behind where nothing was started"


def test_every_line_of_an_error_says_what_it_is(dgpo: Dgpo) -> None:
    _, _, err = dgpo("train", "optim.lrr=1", "algo=x", "steps=abc")
    lines = err.splitlines()
    assert [line.split()[0] for line in lines] == ["error:", "hint:"] * 3


def test_a_run_prints_its_folder_and_leaves_no_hydra_files(dgpo: Dgpo, tmp_path: Path) -> None:
    code, out, err = dgpo("train", "seed=3")
    assert code == 0
    folder = Path(out.strip())
    assert folder.parent == tmp_path / "outputs" / "train"
    assert err == f"run: {folder.relative_to(tmp_path)}\nloading tiny ...\nprogress of the library\n"
    assert sorted(path.name for path in folder.iterdir()) == ["argv.json", "config.yaml", "eval.jsonl"]
    assert json.loads((folder / "argv.json").read_text()) == ["dgpo", "train", "seed=3"]
    assert load("train", folder / "config.yaml").seed == 3


def test_a_named_run_has_a_folder_of_its_name_and_a_second_one_another(dgpo: Dgpo, tmp_path: Path) -> None:
    folders = [Path(dgpo("train", "name=my run")[1].strip()).relative_to(tmp_path) for _ in range(2)]
    assert folders == [Path("outputs/train/my-run"), Path("outputs/train/my-run_2")]
    _, out, _ = dgpo("train", "name=my run", "overwrite=true")
    assert Path(out.strip()).name == "my-run"
    code, out, err = dgpo("train", "resume=latest", "steps=99")
    assert (code, Path(out.strip()).parent) == (0, tmp_path / "outputs" / "train")
    assert "note: resume: latest is outputs/train/my-run" in err


def test_an_experiment_file_and_a_runs_configuration_start_runs(dgpo: Dgpo) -> None:
    Path("my.yaml").write_text("seed: 3\noptim:\n  lr: 0.25\n")
    assert dgpo("train", "my.yaml", "hydra.run.dir=a")[0] == 0
    assert dgpo("train", "a/config.yaml", "seed=4", "hydra.run.dir=b")[0] == 0
    config = load("train", Path("b/config.yaml"))
    assert (config.seed, config.optim.lr) == (4, 0.25)
    assert json.loads(Path("b/argv.json").read_text())[2] == "a/config.yaml"


def test_runs_started_in_the_same_second_have_folders_of_their_own() -> None:
    request, problems = prepare("rollout", [])
    with hydra_ready(request):
        planned = plan(request, problems)
        claimed = [claim_folder(planned) for _ in range(3)]
    assert len({folder for folder, _ in claimed}) == 3
    assert all(folder.is_dir() for folder, _ in claimed)


def test_output_of_hydra_goes_to_stderr(dgpo: Dgpo) -> None:
    code, out, err = dgpo("rollout", "hydra.verbose=true", "hydra.run.dir=x")
    assert code == 0
    assert out.startswith("RolloutConfig")
    assert len(out.splitlines()) == 1
    assert err


@pytest.mark.parametrize(
    ("seed", "code", "error", "hint"),
    [
        (13, 1, "error: seed 13 is unlucky", "hint: take another"),
        (14, 1, "error: internal error: ValueError: two lines", "HYDRA_FULL_ERROR=1"),
        (15, 2, "error: data.jsonl line 3: no key 'prompt'", "hint: data.prompt_key=KEY"),
    ],
)
def test_an_error_of_the_job_is_a_line_and_an_exit_code(
    dgpo: Dgpo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, code: int, error: str, hint: str
) -> None:
    got, out, err = dgpo("train", f"seed={seed}", "hydra.run.dir=a/b")
    assert (got, out) == (code, "")
    assert error in err
    assert hint in err
    assert err.startswith("run: a/b\nloading tiny ...\n"), "the folder is the first line"
    assert len(err.splitlines()) == 4
    assert not list(tmp_path.iterdir()), "an empty folder does not stay"
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    got, _, err = dgpo("train", f"seed={seed}")
    assert got == code
    assert "Traceback" in err


def test_a_folder_that_holds_a_run_is_refused(dgpo: Dgpo) -> None:
    Path("run").mkdir()
    for name in ("run.json", "config.yaml"):
        (Path("run") / name).touch()
        code, _, err = dgpo("train", "hydra.run.dir=run")
        assert code == 2
        assert "error: 'run' already holds a run" in err
        assert "resume=run" in err
        assert "overwrite=true" in err
        (Path("run") / name).unlink()
    assert dgpo("train", "hydra.run.dir=run", "seed=1")[0] == 0
    assert dgpo("train", "hydra.run.dir=run", "seed=2", "overwrite=true")[0] == 0
    assert load("train", Path("run/config.yaml")).seed == 2


def test_a_run_is_continued_in_its_folder(dgpo: Dgpo, tmp_path: Path) -> None:
    dgpo("train", "hydra.run.dir=run", "optim.lr=0.25")
    code, out, _ = dgpo("train", "resume=run", "steps=99")
    assert (code, out.strip()) == (0, str(tmp_path / "run"))
    config = load("train", tmp_path / "run" / "config.yaml")
    assert (config.optim.lr, config.steps) == (0.25, 99)
    code, _, err = dgpo("train", "resume=run", "seed=4", "optim.lr=1")
    assert code == 2
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 2
    code, _, err = dgpo("train", "resume=run", "hydra.run.dir=other")
    assert code == 2
    assert "its own folder 'run'" in err


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/nowhere/run"])
def test_a_folder_that_cannot_be_written_is_refused(dgpo: Dgpo, place: str) -> None:
    Path("file").touch()
    code, out, err = dgpo("train", f"hydra.run.dir={place}")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: cannot write the run's folder '{place}': ")
    assert "hint: choose a folder that can be written: hydra.run.dir=FOLDER" in err


def test_several_benchmarks_reach_one_evaluation(dgpo: Dgpo) -> None:
    code, out, _ = dgpo("eval", "benchmark=[aime2024,digit_chain]")
    assert code == 0
    assert json.loads(out) == [["aime2024", "robust", "robust"], ["digit_chain", "exact", "exact"]]
    _, out, _ = dgpo("eval", "benchmark=[aime2024,digit_chain]", "reward=exact")
    assert json.loads(out) == [["aime2024", "exact", "exact"], ["digit_chain", "exact", "exact"]]


def test_colour_is_for_terminals_without_no_color(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    report((Problem("wrong", "right"),))
    assert "\033[" in capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    report((Problem("wrong", "right"),))
    assert capsys.readouterr().err == "error: wrong\nhint: right\n"


def test_a_job_of_ones_own_callbacks_or_place_is_run_as_hydra_does(dgpo: Dgpo, tmp_path: Path) -> None:
    (tmp_path / "job_notes.py").write_text(
        "from hydra.experimental.callback import Callback\n"
        "class Notes(Callback):\n"
        "    def on_job_end(self, config, job_return, **more):\n"
        "        print('noted', job_return.status.name)\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        code, out, err = dgpo("rollout", "+hydra.callbacks.notes._target_=job_notes.Notes", "hydra.run.dir=a")
    finally:
        sys.path.remove(str(tmp_path))
    assert (code, out.splitlines()) == (0, [f"RolloutConfig {tmp_path / 'a'}", "noted COMPLETED"]), err
    code, out, _ = dgpo("train", "hydra.run.dir=b", "hydra.job.chdir=true")
    assert (code, Path.cwd()) == (0, tmp_path)
    assert out.splitlines() == [str(tmp_path / "b")]


def test_the_task_function_can_be_sent_to_another_process() -> None:
    from dgpo_cli.hydra_app import job

    assert pickle.loads(pickle.dumps(job)) is job


def test_a_sweep_runs_each_job_in_a_process_and_goes_on_after_a_failure(start: Start, tmp_path: Path) -> None:
    process = start("train", "-m", "algo=grpo", "seed=13,1", "hydra.sweep.dir=sweep", "sweep.jobs_at_once=1")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert out == f"{tmp_path / 'sweep'}\n", "only the sweep's folder"
    folders = sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert folders == ["0_seed-13", "1_seed-1"], "named by what is swept"
    table = err[err.index("job  status") :].splitlines()
    assert [line.split() for line in table[1:3]] == [
        ["0", "failed", "1", "-", "seed=13", "0_seed-13"],
        ["1", "done", "0", "50.0%", "seed=1", "1_seed-1"],
    ]
    assert table[3:5] == ["next: dgpo compare runs=sweep", "error: 1 of 2 jobs failed: 0"]
    assert "job 1 of 2: seed=13 -> sweep/0_seed-13" in err
    assert re.search(r"job 2 of 2: done in \d+:\d\d, accuracy 50.0% \(2 ended\)", err)
    assert err.count("error: seed 13 is unlucky") == 1
    folder = tmp_path / "sweep" / "1_seed-1"
    config = load("train", folder / "config.yaml")
    assert (config.algo.name, config.gating.name, config.seed) == ("grpo", "uniform", 1)
    assert json.loads((folder / "argv.json").read_text()) == ["dgpo", "train", "algo=grpo", "seed=1"]
    again = start("train", "-m", "seed=1,2", "hydra.sweep.dir=sweep")
    _, err = again.communicate(timeout=60)
    assert again.returncode == 2
    assert "error: 'sweep' already holds a sweep" in err


def test_a_sweep_of_evaluations_keeps_several_benchmarks(start: Start, tmp_path: Path) -> None:
    process = start("eval", "-m", "benchmark=[aime2024,math500]", "seed=2", "hydra.sweep.dir=sweep")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, f"{tmp_path / 'sweep'}\n"), err
    assert "job 1 of 1: benchmark=[aime2024,math500] seed=2" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_a_signal_ends_a_sweep_after_its_job_has_saved(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = start("train", "-m", "seed=16,1", "hydra.sweep.dir=sweep", "sweep.jobs_at_once=1")
    started = tmp_path / "sweep" / "0_seed-16" / "started"
    wait_for(started, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert (started.parent / "saved").read_text() == f"[{int(number)}]", "the job gets the signal once"
    assert not (tmp_path / "sweep" / "1_seed-1").exists()
    assert "stopped after it was saved" in err
    assert out == f"{tmp_path / 'sweep'}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_the_exit_code_of_an_interrupted_run(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = start("train", "seed=16", "hydra.run.dir=run")
    wait_for(tmp_path / "run" / "started", process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (
        128 + number,
        "run: run\nloading tiny ...\nerror: stopped after it was saved\n",
    )


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
