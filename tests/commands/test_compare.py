"""`dgpo compare` on folders of runs, sweeps and evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_factory import SAMPLING, evaluation, results, suite, training

from dgpo_cli.cli import main
from dgpo_cli.commands import compare as command
from dgpo_cli.config.commands import CompareConfig, CompareSettings
from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.reporting.runs import find_runs


def compared(tmp_path: Path, runs: list[str], **changes: Any) -> dict[str, Any]:
    command.run(CompareConfig(runs=runs, **changes), tmp_path / "out")
    record: dict[str, Any] = json.loads((tmp_path / "out" / "compare.json").read_text())
    return record


def test_two_evaluations_are_paired_by_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Seven problems, each one sample better of four: difference 1/4, p = 2 / 2^7
    a, b = evaluation(tmp_path / "a", [0, 1, 2, 3, 0, 1, 2]), evaluation(tmp_path / "b", [1, 2, 3, 4, 1, 2, 3])
    record = compared(tmp_path, [a, b])
    (pair,) = record["pairs"]
    assert (pair["a"], pair["b"], pair["unit"], pair["verdict"]) == (a, b, "problem", "better")
    assert pair["difference"] == 0.25
    assert pair["p_value"] == pytest.approx(1 / 64)
    assert (pair["wins"], pair["ties"], pair["losses"]) == (7, 0, 0)
    assert (pair["ci95"], pair["minimum_detectable"]) == (None, None)  # all differences are equal
    assert json.loads(capsys.readouterr().out) == record  # JSON in a pipe
    (other_way,) = compared(tmp_path, [b, a])["pairs"]
    assert (other_way["difference"], other_way["verdict"]) == (-0.25, "worse")


def test_problems_are_matched_by_index_and_id_not_by_place(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", [0, 4])
    turned = results([0, 4])["problems"][::-1]
    b = evaluation(tmp_path / "b", [], problems=turned)
    assert compared(tmp_path, [a, b])["pairs"][0]["ties"] == 2


def test_alpha_decides_the_verdict(tmp_path: Path) -> None:
    a, b = evaluation(tmp_path / "a", [0] * 7), evaluation(tmp_path / "b", [1] * 7)
    assert compared(tmp_path, [a, b], compare=CompareSettings(alpha=0.01))["pairs"][0]["verdict"] == "indistinguishable"


def test_no_verdict_stands_beside_an_interval_that_says_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # b is 1 to 7 samples of 8 ahead: p = 2/2^7 = 0.0156. c is behind b by more and by less: p = 2/2^7 against b too
    monkeypatch.setenv("COLUMNS", "400")
    rights = {"a": [0] * 7, "b": [0, 2, 3, 4, 5, 6, 7], "c": [1, 3, 2, 5, 4, 7, 6]}
    runs = [evaluation(tmp_path / name, right, k=8) for name, right in rights.items()]
    (alone,) = compared(tmp_path, runs[:2])["pairs"]  # 0 and six of one sign: p = 4/2^7 = 0.031
    assert (alone["verdict"], alone["confidence"], alone["ci_verdict"]) == ("better", 0.95, alone["ci95"])
    first, second, third = compared(tmp_path, runs)["pairs"]
    assert first["ci95"] == alone["ci95"]
    assert first["ci95"][0] > 0
    assert [pair["confidence"] for pair in (first, second, third)] == pytest.approx([0.975, 1 - 0.05 / 3, 0.975])
    assert first["verdict"] == "indistinguishable"
    assert first["ci_verdict"][0] == 0
    assert second["verdict"] == "better"
    assert second["ci_verdict"][0] > 0
    assert third["ci_verdict"][0] < 0 < third["ci_verdict"][1]
    page = " ".join((tmp_path / "out" / "compare.html").read_text().split())
    assert '<span class="soft">97.5%</span> [0.0, +' in page
    assert '<span class="soft">98.3%</span> [+' in page
    capsys.readouterr()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    compared(tmp_path, runs)
    assert "97.5% [0.0, +" in capsys.readouterr().out


def test_three_runs_give_three_pairs_after_holm(tmp_path: Path) -> None:
    runs = [evaluation(tmp_path / name, [right] * 7) for name, right in (("a", 0), ("b", 1), ("c", 1))]
    pairs = compared(tmp_path, runs)["pairs"]
    assert [(Path(pair["a"]).name, Path(pair["b"]).name) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair["p_value"] for pair in pairs] == pytest.approx([1 / 64, 1 / 64, 1.0])
    assert [pair["p_holm"] for pair in pairs] == pytest.approx([3 / 64, 3 / 64, 1.0])
    assert [pair["verdict"] for pair in pairs] == ["better", "better", "indistinguishable"]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"k": 8}, "k differs: 4 in"),
        ({"sampling": {**SAMPLING, "temperature": 0.6}}, "sampling temperature differs: 1.0 in"),
        ({"sampling": {**SAMPLING, "top_p": 0.95}}, "sampling top_p differs: 0.7 in"),
        ({"benchmark": "c"}, "benchmark differs: b in"),
        ({"correct": [1, 2, 3]}, "the set of problems differs: 2 problems, 0 of them alone in"),
        ({"manifest": {"grader": "answer_only"}}, "grader differs: exact in"),
        ({"manifest": {"template": "plain"}}, "prompt template differs: dapo in"),
    ],
)
def test_what_cannot_be_compared_is_named_and_force_compares_it(
    tmp_path: Path, other: dict[str, Any], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a = evaluation(tmp_path / "a", [1, 2], manifest={"grader": "exact", "template": "dapo"})
    b = evaluation(tmp_path / "b", **{"correct": [1, 2], **other})
    with pytest.raises(ConfigError, match=named) as caught:
        compared(tmp_path, [a, b])
    assert "force=true" in caught.value.problems[-1].hint
    assert not (tmp_path / "out").exists()
    (pair,) = compared(tmp_path, [a, b], force=True)["pairs"]
    assert pair["wins"] + pair["ties"] + pair["losses"] == 2
    assert f"note: forced: {named}" in capsys.readouterr().err


def test_another_seed_of_the_samples_may_be_compared(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", [1, 2])
    b = evaluation(tmp_path / "b", [1, 2], sampling={**SAMPLING, "seed": 1})
    assert len(compared(tmp_path, [a, b])["pairs"]) == 1


def test_changed_golds_are_seen_where_the_manifest_says_so(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", [1, 2], manifest={"data_sha256": "1"})
    b = evaluation(tmp_path / "b", [1, 2], manifest={"data_sha256": "2"})
    with pytest.raises(ConfigError, match="the text of the problems or golds differs: 1 in"):
        compared(tmp_path, [a, b])


def test_forced_seeds_are_compared_on_the_problems_that_all_of_their_runs_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # a: ten easy problems 4/4 and ten hard ones 0/4, so 50%; b: the easy ones alone at 3/4, so 75%, 25 points behind
    runs = [training(tmp_path / f"a{seed}", [4] * 10 + [0] * 10, seed=seed) for seed in range(4)]
    runs += [training(tmp_path / f"b{seed}", [3] * 10, seed=seed, algo="dapo") for seed in range(4)]
    (pair,) = compared(tmp_path, runs, force=True)["pairs"]
    assert (pair["difference"], pair["verdict"], pair["unit"]) == (-0.25, "worse", "seed")
    assert "algo=grpo and algo=dapo: compared on the 10 problems that all of their runs have" in capsys.readouterr().err
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count(">100.0%</span>") == 4  # of the runs of a, on the same problems

    (Path(runs[7]) / "evals" / "step_000002" / "results.json").unlink()
    assert compared(tmp_path, runs, force=True)["pairs"] == []
    assert "their problems differ, and of " + runs[7] + " only the average is known" in capsys.readouterr().err


def test_forced_seeds_whose_own_runs_have_different_problems_are_compared_on_what_is_common(tmp_path: Path) -> None:
    # problem 0 alone is common: a has 4/4 in each run, b 1/4
    runs = [training(tmp_path / f"a{seed}", [4] + [0] * seed, seed=seed) for seed in range(4)]
    runs += [training(tmp_path / f"b{seed}", [1] + [4] * seed, seed=seed, algo="dapo") for seed in range(4)]
    (pair,) = compared(tmp_path, runs, force=True)["pairs"]
    assert (pair["difference"], pair["losses"], pair["verdict"]) == (-0.75, 16, "worse")


def test_as_many_problems_that_are_others_are_another_set(tmp_path: Path) -> None:
    rows = results([1, 2, 3])["problems"]
    a, b = (evaluation(tmp_path / name, [], problems=own) for name, own in (("a", rows[:2]), ("b", rows[1:])))
    with pytest.raises(ConfigError, match="the set of problems differs: 2 problems, 1 of them alone in"):
        compared(tmp_path, [a, b])


def manifests(tmp_path: Path, *manifest: object) -> list[str]:
    return [evaluation(tmp_path / f"m{number}", [1, 2], manifest=one) for number, one in enumerate(manifest)]


@pytest.mark.parametrize(
    ("a", "b", "differs"),
    [
        (
            {"template": "t.txt", "template_sha256": "1"},
            {"template": "t.txt", "template_sha256": "2"},
            r"t.txt \(1\) in",
        ),
        ({"template": "t.txt", "template_sha256": "1"}, {"template": "copy.txt", "template_sha256": "1"}, None),
        (
            {"grader": "function", "reward": {"path": "r.py:score", "sha256": "1"}},
            {"grader": "function", "reward": {"path": "r.py:score", "sha256": "2"}},
            "grader differs: function r.py:score",
        ),
        (
            {"grader": "function", "reward": {"path": "r.py:score", "sha256": "1"}},
            {"grader": "function", "reward": {"path": "r.py:other", "sha256": "1"}},
            "grader differs: function r.py:score in",
        ),
        ({"grader": "exact", "template": "dapo"}, None, None),  # another program's results say nothing of it
        ({"grader": "exact", "template": "dapo"}, "by hand", None),
    ],
)
def test_graders_and_templates_are_told_by_their_text(
    tmp_path: Path, a: object, b: object, differs: str | None
) -> None:
    runs = manifests(tmp_path, a, b)
    if differs is None:
        assert len(compared(tmp_path, runs)["pairs"]) == 1
        return
    with pytest.raises(ConfigError, match=differs):
        compared(tmp_path, runs)


def test_a_fact_that_the_first_run_lacks_is_held_against_the_next(tmp_path: Path) -> None:
    runs = manifests(tmp_path, None, {"grader": "exact"}, {"grader": "robust"})
    with pytest.raises(ConfigError, match=r"grader differs: exact in .*m1, robust in .*m2"):
        compared(tmp_path, runs)


def test_training_runs_tell_their_template_by_their_configuration(tmp_path: Path) -> None:
    a = training(tmp_path / "a", [1, 2], benchmark={"template": None}, model={"template": "dapo"})
    b = training(tmp_path / "b", [1, 2], benchmark={"template": "plain"}, model={"template": "dapo"})
    with pytest.raises(ConfigError, match="prompt template differs: dapo in"):
        compared(tmp_path, [a, b])
    (c,) = manifests(tmp_path, {"template": "dapo", "template_sha256": "1"})
    assert len(compared(tmp_path, [a, c])["pairs"]) == 1


def test_evaluations_without_a_common_problem_cannot_be_forced(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", [1])
    b = evaluation(tmp_path / "b", [], problems=[{"index": 9, "id": "x", "correct": 1, "n": 4}])
    with pytest.raises(DataError, match="no problem in common"):
        compared(tmp_path, [a, b], force=True)


def test_one_training_run_a_side_is_compared_by_problem_at_its_last_evaluation(tmp_path: Path) -> None:
    a, b = training(tmp_path / "a", [0] * 7), training(tmp_path / "b", [2] * 7, algo="dapo")
    record = compared(tmp_path, [a, b])
    (pair,) = record["pairs"]
    assert (pair["unit"], pair["difference"], pair["verdict"]) == ("problem", 0.5, "better")
    first, second = record["runs"]
    assert first["run"] == a
    assert first["differences"] == {"algo.clip_high": 0.2, "algo.name": "grpo"}
    assert second["differences"] == {"algo.clip_high": 0.28, "algo.name": "dapo"}
    assert first["final"] == {"step": 2, "accuracy": 0.5, "loss": 0.1}
    assert first["best"]["accuracy"] == {"value": 0.75, "step": 1}
    assert (first["status"], first["wall_seconds"]) == ("done", 61.5)
    assert (second["accuracy"]["value"], second["accuracy"]["step"], second["accuracy"]["k"]) == (0.5, 2, 4)
    assert second["accuracy"]["ci95"] is not None


def test_seeds_are_the_unit_where_a_side_has_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [training(tmp_path / f"g{seed}", [seed % 2, 1], seed=seed) for seed in range(4)]
    runs += [training(tmp_path / f"d{seed}", [seed % 2 + 2, 3], seed=seed, algo="dapo") for seed in range(4)]
    record = compared(tmp_path, runs)
    (pair,) = record["pairs"]
    assert (pair["a"], pair["b"], pair["unit"]) == ("algo=grpo", "algo=dapo", "seed")
    assert pair["runs_a"] == runs[:4]
    assert pair["p_value"] == pytest.approx(2 / 70)
    assert pair["difference"] == pytest.approx(0.5)
    assert (pair["wins"], pair["verdict"], pair["seeds_needed"]) == (16, "better", None)
    assert [run["side"] for run in record["runs"]] == ["algo=grpo"] * 4 + ["algo=dapo"] * 4


def test_too_few_seeds_say_how_many_are_needed(tmp_path: Path) -> None:
    runs = [training(tmp_path / f"g{seed}", [1, seed], seed=seed) for seed in range(2)]
    runs += [training(tmp_path / f"d{seed}", [4, 4], seed=seed, algo="dapo") for seed in range(2)]
    (pair,) = compared(tmp_path, runs)["pairs"]
    assert (pair["verdict"], pair["seeds_needed"]) == ("not enough seeds", 4)


def test_runs_that_differ_in_what_decides_nothing_are_seeds_of_one_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = training(tmp_path / "a", [1, 2], seed=0, logger={"mode": "offline"})
    b = training(tmp_path / "b", [1, 2], seed=1)
    assert compared(tmp_path, [a, b])["pairs"] == []
    assert "differ in their seed alone" in capsys.readouterr().err


def test_two_runs_of_one_configuration_and_seed_are_still_a_pair(tmp_path: Path) -> None:
    """Another version of the program, say: nothing in the configuration tells them apart."""
    (pair,) = compared(tmp_path, [training(tmp_path / "a", [1]), training(tmp_path / "b", [2])])["pairs"]
    assert pair["unit"] == "problem"


def test_a_sweep_folder_stands_for_its_runs_in_the_order_of_the_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep"
    for number in (10, 9, 2):
        training(sweep / f"{number}_seed-{number}", [1, 2], seed=number, algo="dapo" if number == 9 else "grpo")
    (sweep / "3_failed").mkdir()
    (sweep / "3_failed" / "job.yaml").write_text("exit_code: 1\n")
    record = compared(tmp_path, [str(sweep)])
    assert [Path(run["run"]).name for run in record["runs"]] == ["2_seed-2", "9_seed-9", "10_seed-10"]
    assert "3_failed: holds no run, left out" in capsys.readouterr().err


def test_evaluations_on_several_benchmarks_are_compared_on_each(tmp_path: Path) -> None:
    a = suite(tmp_path / "a", easy=[0] * 8, hard=[0] * 8)
    b = suite(tmp_path / "b", easy=[1] * 8, hard=[0] * 8)
    record = compared(tmp_path, [a, b])
    assert [(Path(pair["a"]).parent.name, pair["benchmark"], pair["verdict"]) for pair in record["pairs"]] == [
        ("a", "easy", "better"),
        ("a", "hard", "indistinguishable"),
    ]
    assert record["pairs"][0]["p_holm"] == pytest.approx(2 * 2 / 2**8)  # both count
    assert len(record["runs"]) == 4


def test_a_folder_without_one_of_the_benchmarks_is_refused_unless_forced(tmp_path: Path) -> None:
    a, b = suite(tmp_path / "a", easy=[0, 1], hard=[0, 1]), suite(tmp_path / "b", easy=[1, 1])
    with pytest.raises(ConfigError, match=r"benchmark differs: easy, hard in .*a, easy in .*b"):
        compared(tmp_path, [a, b])
    (pair,) = compared(tmp_path, [a, b], force=True)["pairs"]
    assert pair["benchmark"] == "easy"


def test_evaluations_of_checkpoints_of_several_seeds_have_the_seed_as_unit(tmp_path: Path) -> None:
    evaluations = []
    for algo, right in (("grpo", 1), ("dapo", 3)):
        for seed in range(4):
            run = Path(training(tmp_path / f"{algo}{seed}", [1, 2], seed=seed, algo=algo))
            model = str(run / "checkpoints" / "step_000002" / "model")
            evaluations.append(evaluation(tmp_path / f"e_{algo}{seed}", [right, seed % 2], model=model))
    record = compared(tmp_path, evaluations)
    (pair,) = record["pairs"]
    assert (pair["a"], pair["b"], pair["unit"], pair["verdict"]) == ("algo=grpo", "algo=dapo", "seed", "better")
    differing = [run["differences"]["model"] for run in record["runs"]]
    assert len(set(differing)) == 8


def checkpoint_evaluation(tmp_path: Path, seed: int, step: int, correct: list[int]) -> str:
    """Of one configuration's run with that seed, after that step."""
    run = tmp_path / f"run{seed}"
    if not run.exists():
        training(run, [1, 2], seed=seed)
    model = str(run / "checkpoints" / f"step_{step:06d}" / "model")
    return evaluation(tmp_path / f"e{seed}_{step}", correct, model=model)


def test_checkpoints_of_one_run_or_configuration_after_different_steps_are_different_sides(tmp_path: Path) -> None:
    runs = [
        checkpoint_evaluation(tmp_path, 0, 20, [0, 1]),
        checkpoint_evaluation(tmp_path, 1, 60, [2, 3]),
    ]
    record = compared(tmp_path, runs)
    (pair,) = record["pairs"]
    assert (pair["unit"], pair["difference"]) == ("problem", 0.5)
    assert [run["differences"]["step"] for run in record["runs"]] == [20, 60]


def test_several_seeds_after_one_step_are_compared_with_the_same_seeds_after_another(tmp_path: Path) -> None:
    of_step = {20: [0, 1], 60: [2, 3]}
    runs = [checkpoint_evaluation(tmp_path, seed, step, right) for seed in range(4) for step, right in of_step.items()]
    (pair,) = compared(tmp_path, runs)["pairs"]
    assert (pair["a"], pair["b"], pair["unit"], pair["verdict"]) == ("step=20", "step=60", "seed", "better")
    assert pair["p_value"] == pytest.approx(2 / 70)


def test_seeds_that_come_again_are_a_side_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another version of the program, say: nothing in the configuration tells the two sets of seeds apart."""
    runs = [training(tmp_path / f"{old}{seed}", [1, seed], seed=seed) for old in "ab" for seed in range(4)]
    (pair,) = compared(tmp_path, runs)["pairs"]
    assert (pair["runs_a"], pair["runs_b"], pair["unit"]) == (runs[:4], runs[4:], "seed")
    assert f"the same seeds came again with one configuration: runs are on the sides {runs[0]}" in (
        capsys.readouterr().err
    )


def test_evaluations_of_other_models_name_them(tmp_path: Path) -> None:
    runs = [evaluation(tmp_path / name, [1, 2], model=f"hub/{name}") for name in "ab"]
    assert [run["differences"] for run in compared(tmp_path, runs)["runs"]] == [{"model": "hub/a"}, {"model": "hub/b"}]


def test_settings_that_only_another_version_has_do_not_part_the_seeds(tmp_path: Path) -> None:
    a, b = training(tmp_path / "a", [1, 2]), training(tmp_path / "b", [1, 2], seed=1, new={"key": 1})
    record = compared(tmp_path, [a, b])
    assert record["pairs"] == []
    assert record["runs"][0]["differences"] == {"seed": 0}


def test_so_few_problems_that_nothing_could_be_shown_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [evaluation(tmp_path / "a", [0] * 5), evaluation(tmp_path / "b", [4] * 5)]
    assert compared(tmp_path, runs)["pairs"][0]["verdict"] == "indistinguishable"  # 2 / 2^5 = 0.0625
    assert "no result of so few problems (5) could reach p < 0.05" in capsys.readouterr().err


def test_a_run_that_was_never_evaluated_is_listed_and_stands_in_no_pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = training(tmp_path / "a", [1, 2]), tmp_path / "b"
    b.mkdir()
    (b / "metrics.jsonl").write_text('{"step": 1, "accuracy": 0.5}\n{"step": 2, "acc')  # cut short by a kill
    record = compared(tmp_path, [a, str(b)])
    assert [run["accuracy"] is None for run in record["runs"]] == [False, True]
    assert record["runs"][1]["final"]["step"] == 1
    assert record["pairs"] == []
    assert "it was never evaluated" in capsys.readouterr().err


def test_averages_without_problems_cannot_be_paired_but_serve_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [training(tmp_path / f"g{seed}", [1, seed], seed=seed) for seed in range(4)]
    runs += [training(tmp_path / f"d{seed}", [4, 4 - seed % 2], seed=seed, algo="dapo") for seed in range(4)]
    for run in runs:
        (Path(run) / "evals" / "step_000002" / "results.json").unlink()
    (pair,) = compared(tmp_path, runs)["pairs"]
    assert (pair["unit"], pair["verdict"]) == ("seed", "better")
    assert compared(tmp_path, [runs[0], runs[4]])["pairs"] == []
    assert "only averages are known" in capsys.readouterr().err


def test_final_evaluations_at_different_steps_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = training(tmp_path / "a", [1, 2]), training(tmp_path / "b", [1, 2], algo="dapo", status="interrupted")
    (Path(b) / "evals" / "step_000002").rename(Path(b) / "evals" / "step_000001")
    (Path(b) / "eval.jsonl").write_text("")
    compared(tmp_path, [a, b])
    assert "the final evaluations stand at different steps: 1, 2" in capsys.readouterr().err


def steps(count: int, samples: int = 100) -> list[dict[str, Any]]:
    return [{"step": step, "accuracy": 0.5, "samples/generated": samples} for step in range(1, count + 1)]


def test_runs_that_ended_before_their_first_evaluation_get_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    a = training(tmp_path / "a", [1] * 8, rows=steps(12), evaluated=0, status="interrupted")
    b = training(tmp_path / "b", [2] * 8, rows=steps(6), evaluated=0, status="interrupted", algo="dapo")
    assert compared(tmp_path, [a, b])["pairs"] == []
    told = capsys.readouterr()
    assert f"{a} and {b}: no verdict, since all of their evaluations are of step 0, before any training" in told.err
    assert f"{a}: the accuracy is that of step 0 of 12" in told.err
    assert f"{b}: the accuracy is that of step 0 of 6" in told.err
    assert "different numbers of samples" not in told.err  # both had drawn none
    assert "after step 0, measured by b @4" in told.out

    c = training(tmp_path / "c", [3] * 8, algo="dapo")
    (pair,) = compared(tmp_path, [a, c])["pairs"]  # untrained against trained is a question that one may ask
    assert pair["verdict"] == "better"


def test_samples_are_counted_up_to_the_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = training(tmp_path / "a", [1, 2], rows=steps(12), evaluated=10, status="interrupted")
    b = training(tmp_path / "b", [1, 2], rows=steps(10), evaluated=10, algo="dapo")
    c = training(tmp_path / "c", [1, 2], rows=steps(10, samples=300), evaluated=10, algo="dapo", other=1)
    assert len(compared(tmp_path, [a, b])["pairs"]) == 1
    told = capsys.readouterr().err
    assert f"note: {a}: the accuracy is that of step 10 of 12" in told
    assert f"note: {b}" not in told
    assert "different numbers of samples" not in told  # 1,000 each; the two steps after the evaluation do not count
    compared(tmp_path, [a, c])
    assert f"after different numbers of samples: {a} 1,000, {c} 3,000" in capsys.readouterr().err
    page = " ".join((tmp_path / "out" / "compare.html").read_text().split())
    assert "All runs: after step 10, measured by b @4, T=1 top_p=0.7 max_tokens=8." in page
    assert '<td data-name="steps" class="whole"><span>12</span></td>' in page


def test_numbers_that_are_none_become_null(tmp_path: Path) -> None:
    a, b = training(tmp_path / "a", [1, 2]), training(tmp_path / "b", [1, 2], algo="dapo")
    (Path(a) / "metrics.jsonl").write_text('{"step": 1, "accuracy": NaN, "loss": Infinity}\n')
    final = compared(tmp_path, [a, b])["runs"][0]["final"]
    assert final == {"step": 1, "accuracy": None, "loss": None}


def test_folders_that_hold_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, message in (("missing", "there is no folder"), ("empty", "holds no run")):
        with pytest.raises(DataError, match=message) as caught:
            compared(tmp_path, [str(tmp_path / folder)])
        assert caught.value.exit_code == 2
        assert caught.value.problems[0].hint
    with pytest.raises(ConfigError, match="none is given"):
        compared(tmp_path, [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", "{", "cannot be read as JSON"),
        ("results.json", '{"benchmark": "b"}', "no key 'problems'"),
        ("results.json", json.dumps(results([5])), "expected 0 <= right samples <= samples"),
        (
            "results.json",
            json.dumps(results([], problems=[{"index": 3, "id": "x", "correct": right, "n": 4} for right in (0, 4)])),
            r"results.json: the problem with index 3 and id x comes twice",
        ),
        ("metrics.jsonl", '{"step": 1}\nnot json\n', "line 2: not JSON"),
        ("metrics.jsonl", "", "without a finished step"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(DataError, match=message):
        find_runs([str(tmp_path / "run")])


def test_a_folder_that_is_given_twice_counts_once(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", [1, 2])
    runs, notes = find_runs([a, a + "/"])
    assert len(runs) == 1
    assert notes


def test_the_real_command_answers_with_files_json_and_exit_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        training(tmp_path / f"{algo}{seed}", [1, 2], seed=seed, algo=algo)
        for algo in ("grpo", "dapo")
        for seed in (0, 1)
    ]
    assert main(["compare", f"runs=[{','.join(runs)}]", f"hydra.run.dir={tmp_path / 'out'}"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == json.loads((tmp_path / "out" / "compare.json").read_text())
    files = {"compare.html", "compare.json", "curves.png", "differences.png"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == files
    other = evaluation(tmp_path / "other", [1, 2], k=8)
    assert main(["compare", f"runs=[{runs[0]},{other}]", f"hydra.run.dir={tmp_path / 'refused'}"]) == 2
    assert "error: k differs: 4 in" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()


def test_a_terminal_gets_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    runs = [training(tmp_path / f"g{seed}", [1, seed], seed=seed) for seed in range(2)]
    runs += [training(tmp_path / f"d{seed}", [4, 4], seed=seed, algo="dapo") for seed in range(2)]
    compared(tmp_path, runs)
    out = capsys.readouterr().out
    assert "algo=dapo seed=1" in out  # clip_high follows from the algo
    assert "clip_high" not in out
    assert "not enough seeds (need 4 a side)" in out
    assert "100.0%" in out
    assert "1 min 02 s" in out
    assert "\x1b[3" not in out  # no colour


def test_a_pair_without_an_interval_shows_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    compared(tmp_path, [evaluation(tmp_path / "a", [0] * 7), evaluation(tmp_path / "b", [1] * 7)])
    assert "+25.0 - " in capsys.readouterr().out
    assert (tmp_path / "out" / "differences.png").stat().st_size > 0
    page = " ".join((tmp_path / "out" / "compare.html").read_text().split())
    assert 'by 25.0 points<span class="soft"> · p 0.0156 · <a' in page
    assert '<span>+25.0</span></td><td data-name="95%"><span>-</span></td> <td data-name="p"><span>0.0156' in page


def test_six_evaluations_of_500_problems_are_compared_quickly(tmp_path: Path) -> None:
    import time

    generator = np.random.default_rng(0)
    runs = [evaluation(tmp_path / str(n), generator.integers(0, 33, size=500).tolist(), k=32) for n in range(6)]
    started = time.process_time()
    record = compared(tmp_path, runs)
    assert len(record["pairs"]) == 15
    assert time.process_time() - started < 10
