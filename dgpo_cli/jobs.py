"""Running one job of a command, here or in a process of its own, with its errors turned into lines and an exit code.

Training jobs of a sweep run in processes of their own: device memory and process groups would leak from job to job
otherwise. Such a process is given the composed configuration in the job's folder and never composes again.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from dgpo_cli.environment import end_with_parent, end_with_sweep, is_follower, place
from dgpo_cli.errors import DgpoError, Problem
from dgpo_cli.large_imports import imported
from dgpo_cli.terminal import phase, say, say_block

JOB_FILE = "job.yaml"  # in a sweep job's folder: the command, what was typed, the configurations, the exit code
BUG_HINT = "this is a bug in dgpo; HYDRA_FULL_ERROR=1 shows where it happened"


class Stopped(KeyboardInterrupt):
    """A signal ended a sweep. A KeyboardInterrupt, as a library that waits in compiled code lets no other pass."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def report(problems: tuple[Problem, ...]) -> None:
    """One `error:` line a problem and its `hint:` line, on stderr."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    error, hint = ("\033[1;31merror:\033[0m", "\033[36mhint:\033[0m") if colour else ("error:", "hint:")
    here = place()
    if here is not None and here.rank and not here.own_worker:
        error = f"rank {here.rank}: {error}"  # a launcher mixes what its processes print
    for problem in problems:
        say(_one_line(problem.message), label=error)
        if problem.hint:
            say(_one_line(problem.hint), label=hint)


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def guarded(action: Callable[[], None]) -> int:
    """The exit code of an action, its errors reported."""
    try:
        action()
        sys.stdout.flush()
    except DgpoError as error:
        _trace()
        report(error.problems)
        return error.exit_code
    except Stopped as stop:
        return stop.exit_code
    except KeyboardInterrupt:
        _trace()
        report((Problem("interrupted"),))
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough, as in `dgpo compare ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        _trace()
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        report((Problem(f"internal error: {text}", BUG_HINT),))
        return 1
    return 0


def _trace() -> None:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        say_block(traceback.format_exc())


def run_here(command: str, configs: list[Any], folder: Path) -> None:
    """Call the command's module: `run(config, folder)`, and `run(configs, folder)` for eval."""
    with nullcontext() if is_follower() else phase("starting torch and transformers"):
        module = imported(f"dgpo_cli.commands.{_module(command, configs[0])}")
    module.run(configs if command == "eval" else configs[0], folder)


def _module(command: str, config: Any) -> str:
    """The file in commands/ that runs a command with these settings."""
    if command == "rollout" and config.grade is not None:
        return "grading"
    if command == "eval" and config.study.name != "none":
        return str(config.study.name)
    return "swap_test" if command == "eval" and config.swap.path else command


def run_without_folder(command: str, configs: list[Any]) -> None:
    """`run_here` for what leaves nothing behind: its folder, of worker processes' logs, is dropped afterwards."""
    with tempfile.TemporaryDirectory(prefix="dgpo_") as folder:
        run_here(command, configs, Path(folder))


def write_job(folder: Path, content: dict[str, Any]) -> None:
    """Write the job file whole or not at all."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{JOB_FILE}.partial"
    partial.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    partial.replace(folder / JOB_FILE)


def read_job(file: Path) -> dict[str, Any]:
    import yaml

    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def run_job_file(command: str, file: str, folder: str) -> None:
    """What a sweep's child or a run's worker does: the configurations of the job file, never composed again."""
    end_with_parent()
    end_with_sweep()
    content = read_job(Path(file))
    sys.argv = ["dgpo", command, *content["overrides"]]  # what stands for the job in its records
    run_here(command, typed_configs(command, content), Path(folder))


def typed_configs(command: str, content: dict[str, Any]) -> list[Any]:
    """The configurations of a job file as the command's dataclass."""
    from omegaconf import OmegaConf

    from dgpo_cli.config.commands import COMMANDS

    schema = OmegaConf.structured(COMMANDS[command])
    return [OmegaConf.to_object(OmegaConf.merge(schema, stored)) for stored in content["configs"]]


def accuracy(folder: Path) -> float | None:
    """What a finished job reached: avg@k (or the mean reward) of its evaluation; None of none.

    In training that of the last one on the first benchmark, whose row is the first of eval.jsonl.
    """
    import json

    for name in ("results.json", "eval.jsonl"):
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8")
            rows = [json.loads(line) for line in ([text] if name == "results.json" else text.strip().splitlines())]
            last = next(row for row in reversed(rows) if row.get("benchmark") == rows[0].get("benchmark"))
            average, reward = last["avg_at_k"], last.get("reward")
            if average is None:
                return None if reward is None else float(reward["mean"])
            return float(average["value"])
    return None
