"""`dgpo rollout rollouts=RUN report=true`, and the page that `dgpo train` keeps writing: the same from files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from record_factory import made_up, page_data, write_rollouts

from dgpo_cli.cli import main
from dgpo_cli.config.compose import compose
from dgpo_cli.config.stored import save

SHORT = ["logger=none", "rollout.prompts_per_step=2", "rollout.group_size=4", "rollout.save=all", "benchmark=null"]


def run_with(folder: Path, steps: list[int]) -> Path:
    (folder / "rollouts").mkdir(parents=True)
    save(compose("train", ["gating=surprisal"]), folder / "config.yaml")
    for step in steps:
        write_rollouts(folder / f"rollouts/step_{step:06d}.jsonl", made_up(4, 4, group_size=2, seed=step))
    return folder


def test_all_stored_steps_of_a_run_are_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with(tmp_path / "run", [1, 10, 20])
    out = tmp_path / "out"
    assert main(["rollout", f"rollouts={run}", "report=true", f"hydra.run.dir={out}"]) == 0
    captured = capsys.readouterr()
    summary = {"run": str(run), "steps": [1, 10, 20], "stored_steps": 3, "report": str(out / "report.html")}
    assert json.loads(captured.out) == summary
    data = page_data((out / "report.html").read_text())
    assert [step["step"] for step in data["steps"]] == [1, 10, 20]
    assert data["gatings"][0]["label"] == "surprisal"  # the run's own
    assert len(data["rollouts"]) == 12
    assert (data["live"], data["notes"]) == (False, [])


def test_a_page_of_many_steps_is_thinned_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with(tmp_path / "run", list(range(1, 31)))
    assert main(["rollout", f"rollouts={run}", "report=true", f"hydra.run.dir={tmp_path / 'out'}"]) == 0
    data = page_data((tmp_path / "out/report.html").read_text())
    assert len(data["steps"]) == 12
    assert data["notes"][0].startswith("12 of the run's 30 stored steps")
    assert capsys.readouterr().err.endswith("report.html: 12 of 30 stored steps\n")


@pytest.mark.parametrize("overrides", [[], ["report=true", "export=weights.npz"]])
def test_a_run_without_a_page_to_make_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str]
) -> None:
    run = run_with(tmp_path / "run", [1])
    assert main(["rollout", f"rollouts={run}", *overrides]) == 2
    assert "is a run, of which report=true makes one page" in capsys.readouterr().err


def test_training_writes_the_page_after_each_stored_step_and_a_resumed_run_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dgpo_cli.training.run_folder import RunFolder

    run, pages, write = tmp_path / "run", list[dict[str, Any]](), RunFolder.save_page

    def save_page(folder: RunFolder, page: str) -> Path:
        pages.append(page_data(page))
        return write(folder, page)

    monkeypatch.setattr(RunFolder, "save_page", save_page)
    assert main(["train", f"hydra.run.dir={run}", "steps=2", "checkpoint.every=2", *SHORT]) == 0
    assert [([step["step"] for step in page["steps"]], page["live"]) for page in pages] == [
        ([1], True),
        ([1, 2], False),
    ]
    assert f"page: {run / 'report.html'}" in capsys.readouterr().err
    assert page_data((run / "report.html").read_text()) == pages[-1]
    pages.clear()
    resumed = [f"resume={run}", "steps=3", "resume_allow=[steps]"]
    assert main(["train", *resumed]) == 0
    assert [[step["step"] for step in page["steps"]] for page in pages] == [[1, 2, 3]]
    # The same as from all its files.
    assert main(["rollout", f"rollouts={run}", "report=true", f"hydra.run.dir={tmp_path / 'out'}"]) == 0
    made = page_data((tmp_path / "out/report.html").read_text())
    assert {**made, "source": ""} == {**pages[-1], "source": ""}


def test_no_page_is_written_where_none_is_wanted(tmp_path: Path) -> None:
    for name, off in (("off", "report=false"), ("none", "rollout.save=none")):
        run = tmp_path / name
        assert main(["train", f"hydra.run.dir={run}", "steps=1", *SHORT, off]) == 0
        assert not (run / "report.html").exists()
