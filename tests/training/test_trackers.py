"""W&B and TensorBoard, one, both or neither: what they are handed, read back from what they wrote."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.config.compose import compose
from dgpo_cli.config.groups import LoggerConfig, LoggerMode
from dgpo_cli.training.tensorboard import TensorBoard
from dgpo_cli.training.trackers import Trackers


def events(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def test_numbers_are_curves_over_steps_and_completions_a_table(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, {"seed": 3}, after=0)
    board.log({"step": 1, "time": 9.0, "reward/mean": 0.5, "kl": None, "loss": float("nan")})
    board.log({"step": 2, "time": 9.5, "reward/mean": 0.75, "kl": None, "loss": 0.25})
    board.show(2, ("prompt", "completion"), [["1|2", "<b>\nx"]])
    board.close()
    found = events(tmp_path)
    assert found.Tags()["scalars"] == ["reward/mean", "loss"]
    assert [(event.step, event.value) for event in found.Scalars("reward/mean")] == [(1, 0.5), (2, 0.75)]
    [table] = found.Tensors("completions/text_summary")
    assert table.tensor_proto.string_val[0].decode().splitlines()[2] == "|1&#124;2|&lt;b><br>x|"


def test_a_resumed_run_takes_back_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    for after, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        board = TensorBoard(tmp_path, {}, after=after)
        for step in steps:
            board.log({"step": step, "loss": float(10 * after + step)})
        board.close()
    assert [(event.step, event.value) for event in events(tmp_path).Scalars("loss")] == [
        (1, 1),
        (2, 2),
        (3, 23),
        (4, 24),
    ]


def test_a_failure_costs_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    board = TensorBoard(tmp_path, {}, after=0)
    board.log({"step": 1, "loss": 1.0})
    board.close()
    assert capsys.readouterr().err.count("warning: TensorBoard stopped") == 1


@pytest.mark.parametrize(
    ("name", "mode", "wandb", "board"),
    [
        ("wandb", LoggerMode.offline, True, False),
        ("tensorboard", LoggerMode.offline, False, True),
        ("wandb+tensorboard", LoggerMode.offline, True, True),
        ("wandb+tensorboard", LoggerMode.disabled, False, True),
        ("none", LoggerMode.auto, False, False),
    ],
)
def test_a_run_is_logged_where_its_logger_says(
    tmp_path: Path, name: str, mode: LoggerMode, wandb: bool, board: bool
) -> None:
    trackers = Trackers(LoggerConfig(name=name, mode=mode), tmp_path, {}, run_id=None, name="run")
    trackers.log({"step": 1, "loss": 1.0})
    trackers.close(0)
    assert ((tmp_path / "wandb").is_dir(), (tmp_path / "tensorboard").is_dir()) == (wandb, board)
    assert trackers.shows == (wandb or board)


def test_two_loggers_are_a_list() -> None:
    assert compose("train", ["logger=[wandb,tensorboard]"]).logger.name == "wandb+tensorboard"
    assert compose("train", ["logger=tensorboard"]).logger.name == "tensorboard"
    assert compose("train", ["logger=[tensorboard]"]).logger.name == "tensorboard"
