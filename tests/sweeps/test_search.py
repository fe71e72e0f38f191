"""`hydra/sweeper=optuna`: the space that overrides say, what is proposed, what is ended, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sweep_program import Start, ended, starts, table

from dgpo_cli.errors import ConfigError, UsageError
from dgpo_cli.sweeps.search import Search, Settings, best_text, space_of
from dgpo_cli.sweeps.sweep_record import DONE, FAILED, PRUNED, RUNNING, SweepRecord

optuna = pytest.importorskip("optuna")
SEARCHED = ["algo=grpo,dgpo", "optim.lr=tag(log,interval(1e-5,1e-3))", "optim.epochs=range(1,4)", "steps=2"]


def search(folder: Path, record: SweepRecord | None = None, **changes: Any) -> Search:
    settings = Settings(**{"n_trials": 8, "sampler": "tpe", "seed": 0, "prune": True, "startup_trials": 2, **changes})
    fixed, space = space_of(SEARCHED)
    known = record or SweepRecord("train", [])
    return Search(known, folder, {}, settings, fixed, space, lambda overrides: [overrides])


def evaluated(made: Search, number: int, *accuracies: float) -> None:
    folder = made.folder / made.record.jobs[number].folder
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"step": step, "benchmark": "b", "avg_at_k": {"value": one}} for step, one in enumerate(accuracies)]
    (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_space_is_what_the_overrides_say() -> None:
    fixed, space = space_of(SEARCHED)
    assert fixed == ["steps=2"]
    assert space["algo"].choices == ("grpo", "dgpo")
    assert (space["optim.lr"].low, space["optim.lr"].high, space["optim.lr"].log) == (1e-5, 1e-3, True)
    assert (space["optim.epochs"].low, space["optim.epochs"].high) == (1, 3), "a range ends before its stop"
    with pytest.raises(UsageError, match="nothing to search over"):
        space_of(["steps=2"])


def test_as_many_jobs_as_places_are_proposed_until_the_trials_are_spent(tmp_path: Path) -> None:
    made = search(tmp_path, n_trials=3)
    assert made.propose(2, 0)
    assert made.propose(2, 1)
    assert not made.propose(2, 1)
    assert len(made.record.jobs) == 3
    job = made.record.jobs[2]
    assert job.overrides[0] == "steps=2"
    assert [text.partition("=")[0] for text in job.overrides[1:]] == ["algo", "optim.lr", "optim.epochs"]
    assert 1e-5 <= float(job.overrides[2].partition("=")[2]) <= 1e-3
    assert made.configs[2] == [job.overrides]


def test_a_job_below_the_median_of_those_before_it_is_ended(tmp_path: Path) -> None:
    """After two jobs with 0.5 and 0.7 at step 1, 0.2 is below their median, and 0.9 is not."""
    made = search(tmp_path)
    made.propose(4, 0)
    for number, accuracy in ((0, 0.5), (1, 0.7)):
        evaluated(made, number, 0.0, accuracy)
        assert not made.is_hopeless(made.record.jobs[number]), "there is nothing to compare with yet"
        made.record.jobs[number].status, made.record.jobs[number].accuracy = DONE, accuracy
        made.ended(made.record.jobs[number])
    evaluated(made, 2, 0.0)
    assert not made.is_hopeless(made.record.jobs[2]), "an evaluation before training says nothing"
    evaluated(made, 2, 0.0, 0.2)
    assert made.is_hopeless(made.record.jobs[2])
    evaluated(made, 3, 0.0, 0.9)
    assert not made.is_hopeless(made.record.jobs[3])


def test_a_search_that_was_cut_off_knows_what_was_tried(tmp_path: Path) -> None:
    first = search(tmp_path)
    first.propose(4, 0)
    reached = ((DONE, 0.5), (PRUNED, 0.1), (FAILED, None), (RUNNING, None))
    for job, (status, accuracy) in zip(first.record.jobs, reached, strict=True):
        job.status, job.accuracy = status, accuracy
    again = search(tmp_path, first.record)
    states = [trial.state.name for trial in again._study.trials]
    assert sorted(states) == ["COMPLETE", "PRUNED", "RUNNING", "RUNNING"], "the failed one is tried again"
    running = again._trials[3]
    assert f"algo={running.params['algo']}" in first.record.jobs[3].overrides
    assert again.propose(9, 0)
    assert len(again.record.jobs) == 8


def test_values_that_make_no_job_are_said_and_fail(tmp_path: Path) -> None:
    made = search(tmp_path, n_trials=1)
    said: list[str] = []

    def refuse(_: list[str]) -> list[Any]:
        raise ConfigError("optim.epochs: too many", "fewer")

    made.compose, made.say = refuse, said.append
    made.propose(1, 0)
    assert (made.record.jobs[0].status, said) == (FAILED, ["job 1: optim.epochs: too many"])
    assert best_text(made.record.jobs) is None


def test_the_best_is_said(tmp_path: Path) -> None:
    made = search(tmp_path)
    made.propose(2, 0)
    for job, accuracy in zip(made.record.jobs, (0.5, 0.75), strict=True):
        job.status, job.accuracy = DONE, accuracy
    assert best_text(made.record.jobs) == f"best: job 1, 75.0%: {made.record.jobs[1].folder}"


@pytest.mark.slow
def test_a_sweep_is_searched_and_what_is_hopeless_is_ended_and_saved(start: Start) -> None:
    """The sampler draws 5, 9, 30, 30. Seed 30 evaluates to 0 at step 1, below the median, and would go on for ever."""
    how = ["hydra.sweeper.n_trials=4", "hydra.sweeper.sampler=random", "hydra.sweeper.seed=1"]
    how += ["hydra.sweeper.startup_trials=1", "sweep.jobs_at_once=1", "hydra.sweep.dir=sweep"]
    code, err = ended(start("hydra/sweeper=optuna", "seed=9,5,30", *how))
    assert code == 0, err
    assert [row[1:5] for row in table(err)] == [
        ["done", "0", "5.0%", "seed=5"],
        ["done", "0", "9.0%", "seed=9"],
        ["pruned", "143", "0.0%", "seed=30"],
        ["pruned", "143", "0.0%", "seed=30"],
    ]
    assert Path("sweep", "2_seed-30", "saved").read_text() == "[15]"
    assert "best: job 1, 9.0%: 1_seed-9" in err
    code, err = ended(start("resume=sweep", "hydra.sweeper.n_trials=5"))
    assert code == 0, err
    assert len(table(err)) == 5
    assert len(starts("0_seed-5")) == 1


def test_an_unknown_sampler_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected tpe or random, got annealing"):
        search(tmp_path, sampler="annealing")
