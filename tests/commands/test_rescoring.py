"""`dgpo rollout rollouts=FILE`, the real command: credit again from what is stored, with no model at hand."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from model_factory import save_random_model
from record_factory import made_up, page_credit, page_data, write_rollouts
from said import problem_lines

from dgpo_cli.cli import main
from dgpo_cli.config.compose import compose
from dgpo_cli.config.stored import save
from dgpo_cli.records.record_checks import SIGNALS


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rescore(file: Path, folder: Path, *overrides: str) -> list[dict[str, Any]]:
    assert main(["rollout", f"rollouts={file}", f"hydra.run.dir={folder}", *overrides]) == 0
    return lines(folder / "rollouts.jsonl")


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rollouts.jsonl of a random policy against another as reference, by calibrated."""
    folder = tmp_path_factory.mktemp("sampled")
    policy = save_random_model(folder / "policy", seed=1, scale=0.3)
    reference = save_random_model(folder / "reference", seed=2, scale=0.3)
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{i} + 1 =", "answer": str(i + 1)}) + "\n" for i in range(2)))
    overrides = [f"model.path={policy}", f"reference.path={reference}", f"data.path={data}", "gating=calibrated"]
    sizes = ["limit=2", "rollout.group_size=3", "rollout.max_completion_tokens=9", "report=true", "mixed_rounds=0"]
    assert main(["rollout", f"hydra.run.dir={folder / 'out'}", *overrides, *sizes]) == 0
    return folder / "out/rollouts.jsonl"


def test_the_same_gating_gives_the_file_again_byte_for_byte(sampled: Path, tmp_path: Path) -> None:
    rescore(sampled, tmp_path / "same", "gating=calibrated")
    assert (tmp_path / "same/rollouts.jsonl").read_bytes() == sampled.read_bytes()


def test_another_gating_changes_score_and_credit_alone(
    sampled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = lines(sampled)
    after = rescore(sampled, tmp_path / "other", "gating=hellinger", "gating.temperature=0.01", "gatings=[paper]")
    for old, new in zip(before, after, strict=True):
        assert new["score"] == old["hellinger"]  # kappa 0
        assert new["credit"] != old["credit"]
        assert sum(new["credit"]) == pytest.approx(len(new["credit"]), rel=1e-5)
        assert {name for name in old if old[name] != new[name]} == {"score", "credit"}
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "other/credit.json").read_text())
    assert list(summary["gatings"]) == ["hellinger temperature=0.01", "paper"]
    assert (
        summary["gatings"]["hellinger temperature=0.01"]["credit/ess"] < summary["gatings"]["paper"]["credit/ess"] < 1
    )
    assert (summary["n_rollouts"], summary["n_scored"]) == (6, 6)


def test_a_report_is_written_beside_the_rollouts_and_from_the_file_alone(sampled: Path, tmp_path: Path) -> None:
    rescore(sampled, tmp_path / "out", "gating=calibrated", "report=true")

    first, again = (page_data((folder / "report.html").read_text()) for folder in (sampled.parent, tmp_path / "out"))
    assert {**first, "source": ""} == {**again, "source": ""}
    controls = ["calibrated control=permute", "calibrated control=invert"]  # what the first gating has to beat
    assert [item["label"] for item in first["gatings"]] == ["calibrated", "paper", *controls]


def test_permuted_credit_is_permuted_as_it_was(sampled: Path, tmp_path: Path) -> None:
    permuted = rescore(sampled, tmp_path / "a", "gating=random")
    assert permuted == rescore(sampled, tmp_path / "b", "gating=random", "seed=5")
    plain = lines(sampled)
    assert [sorted(record["credit"]) for record in permuted] == [sorted(record["credit"]) for record in plain]
    assert [record["credit"] for record in permuted] != [record["credit"] for record in plain]


def test_a_step_of_a_run_is_scored_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["steps=1", "rollout.prompts_per_step=4", "rollout.group_size=4", "benchmark=none", "logger=none"]
    assert (
        main(["train", f"hydra.run.dir={tmp_path / 'run'}", "gating=top_entropy", "optim.warmup_steps=1", *quick]) == 0
    )
    step = tmp_path / "run/rollouts/step_000001.jsonl"
    before = lines(step)
    scored = [record for record in before if record["logprobs"] is not None]
    assert 0 < len(scored) <= len(before) == 16
    assert rescore(step, tmp_path / "same", "gating=top_entropy") == before
    capsys.readouterr()
    assert rescore(step, tmp_path / "own", "report=true") == before
    assert f"gating: top_entropy, that of {tmp_path / 'run/config.yaml'}\n" in capsys.readouterr().err
    shown = page_credit((tmp_path / "own/report.html").read_text())["top_entropy"]
    assert shown == [record["credit"] for record in before]
    surprisal = rescore(step, tmp_path / "other", "gating=surprisal", "gating.noise_gate=false")
    for record in surprisal:
        assert (record["score"] is None) == (record["logprobs"] is None)
        if record["score"] is not None:
            assert record["score"] == [-value for value in record["logprobs"]]


def run_of(folder: Path, records: list[dict[str, Any]], *overrides: str) -> Path:
    """A step in the folder of a run with this configuration."""
    (folder / "rollouts").mkdir(parents=True)
    save(compose("train", list(overrides)), folder / "config.yaml")
    return write_rollouts(folder / "rollouts/step_000002.jsonl", records)


def test_a_run_is_shown_by_its_own_gating_and_that_of_a_file_by_the_config_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = run_of(tmp_path / "run", made_up(4, 4, group_size=2), "gating=surprisal", "gating.temperature=0.3")
    first = rescore(step, tmp_path / "first", "report=true")
    data = page_data((tmp_path / "first/report.html").read_text())
    own = "surprisal temperature=0.3"
    controls = [f"{own} control=permute", f"{own} control=invert"]
    assert [item["label"] for item in data["gatings"]] == [own, "paper", "calibrated", *controls]
    assert rescore(tmp_path / "first/rollouts.jsonl", tmp_path / "again") == first
    captured = capsys.readouterr().err
    assert f"gating: surprisal temperature=0.3, that of {tmp_path / 'run/config.yaml'}\n" in captured
    assert f"gating: surprisal temperature=0.3, that of {tmp_path / 'first/config.yaml'}\n" in captured
    assert "warning" not in captured
    sharper = rescore(step, tmp_path / "sharper", "gating.temperature=0.1")
    assert sharper == rescore(step, tmp_path / "typed", "gating=surprisal", "gating.temperature=0.1")
    write_rollouts(tmp_path / "first/rollouts.jsonl", first[:2])  # half of it has other percentiles
    capsys.readouterr()
    rescore(tmp_path / "first/rollouts.jsonl", tmp_path / "half")
    assert "warning: " in (warned := capsys.readouterr().err)
    assert "the credit stored in it is not that of gating surprisal temperature=0.3 over this file" in warned


@pytest.mark.parametrize(
    ("overrides", "lost", "said"),
    [
        (["algo=dapo"], ("ref_logprobs", "hellinger"), "gating: uniform, that of "),
        (["gating=calibrated"], SIGNALS, "no rollout in it was scored"),
        (["gating=paper"], ("vocabulary_size",), "no vocabulary_size"),
        (None, ("ref_logprobs", "hellinger"), "line 1: no hellinger: gating paper needs it"),
    ],
    ids=["a run without a reference", "a step of groups all wrong", "an older file", "no config.yaml that can be read"],
)
def test_what_is_stored_can_always_be_looked_at(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str] | None,
    lost: tuple[str, ...],
    said: str,
) -> None:
    records = [record | dict.fromkeys(lost) for record in made_up(4, 4, group_size=2)]
    step = run_of(tmp_path / "run", records, *(overrides or []))
    if overrides is None:
        (tmp_path / "run/config.yaml").write_text("gating: {signal: [}")
    shown = rescore(step, tmp_path / "out", "report=true")
    assert [record["credit"] for record in shown] == [None if "logprobs" in lost else [1.0] * 4] * 4
    assert page_credit((tmp_path / "out/report.html").read_text())["uniform"] == [r["credit"] for r in shown]
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gating: ")]
    assert line.startswith("gating: uniform, ")
    assert said in line


@pytest.mark.parametrize(
    ("lost", "overrides", "said", "hint"),
    [
        ("hellinger", ["gating=paper"], "line 1: no hellinger: gating paper needs it", "reference="),
        ("hellinger", ["gating=uniform", "gatings=[calibrated]"], "no hellinger: gating calibrated", "reference="),
        ("entropy", ["gating=top_entropy"], "line 1: no entropy: gating top_entropy needs it", "gating=uniform"),
        ("vocabulary_size", ["gating=paper"], "no vocabulary_size", "vocabulary_size=N"),
        ("tokens", ["gating=uniform"], "tokens: expected a list of texts", "rollouts.jsonl"),
    ],
)
def test_what_the_file_lacks_is_refused_where_it_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: str, overrides: list[str], said: str, hint: str
) -> None:
    records = made_up(2, 4, group_size=2)
    for record in records:
        del record[lost]
    file = write_rollouts(tmp_path / "rollouts.jsonl", records[:1] if lost == "tokens" else records)
    assert main(["rollout", f"rollouts={file}", f"hydra.run.dir={tmp_path / 'out'}", *overrides]) != 0
    captured = capsys.readouterr()
    [error, advice] = problem_lines(captured.err)
    assert said in error
    assert hint in advice
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("field", "value", "overrides", "said"),
    [
        ("reward", float("nan"), ["gating=paper"], "line 3: reward: expected a finite number or null, found NaN"),
        ("prompt", ["a"], ["gating=uniform"], "line 3: prompt: expected a text or null"),
        ("control_seed", -5, ["gating=random"], "line 3: control_seed: expected an integer from 0"),
        ("logprobs", [None, -1.0, -1.0, -1.0], ["gating=surprisal"], "line 3: a null in logprobs"),
    ],
)
def test_a_value_that_cannot_be_is_one_line_and_no_bug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: Any, overrides: list[str], said: str
) -> None:
    records = made_up(4, 4, group_size=2)
    records[2][field] = value
    file = write_rollouts(tmp_path / "rollouts.jsonl", records)
    folder = tmp_path / "out"
    assert main(["rollout", f"rollouts={file}", f"hydra.run.dir={folder}", "report=true", *overrides]) == 2
    [error, _] = problem_lines(capsys.readouterr().err)
    assert said in error
    assert not folder.exists()


def test_a_batch_with_numbers_that_are_not_finite_can_be_looked_at(tmp_path: Path) -> None:
    """As nonfinite_step_000007.jsonl, which a run that stopped leaves behind, holds them: as null."""
    records = made_up(4, 4, group_size=2)
    for name in ("logprobs", "ref_logprobs", "entropy", "hellinger"):
        records[1][name] = [None] * 4
    file = write_rollouts(tmp_path / "rollouts.jsonl", records)
    [_, damaged, *_] = rescore(file, tmp_path / "out", "gating=uniform", "report=true")
    assert damaged["entropy"] == [None] * 4
    assert damaged["credit"] == [1.0] * 4
    assert list(page_data((tmp_path / "out/report.html").read_text())["signals"]) == [
        "logprobs",
        "ref_logprobs",
        "entropy",
        "hellinger",
    ]


def test_a_file_of_unscored_rollouts_is_refused_but_can_be_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = SIGNALS
    file = write_rollouts(tmp_path / "step.jsonl", [record | dict.fromkeys(names) for record in made_up(2, 4)])
    assert main(["rollout", f"rollouts={file}", f"hydra.run.dir={tmp_path / 'out'}", "gating=paper"]) == 2
    refused = capsys.readouterr().err
    assert "no rollout in it was scored: gating paper needs entropy, hellinger" in refused
    assert "gating=uniform" in refused
    rescore(file, tmp_path / "plain", "gating=uniform", "report=true")
    assert (tmp_path / "plain/report.html").is_file()


def test_a_vocabulary_that_is_typed_serves_a_file_that_does_not_say(tmp_path: Path) -> None:
    records = made_up(2, 4, group_size=2)
    named = rescore(write_rollouts(tmp_path / "a.jsonl", records), tmp_path / "a", "gating=paper")
    for record in records:
        del record["vocabulary_size"]
    file = write_rollouts(tmp_path / "b.jsonl", records)
    typed = rescore(file, tmp_path / "b", "gating=paper", "vocabulary_size=151936")
    assert [record["credit"] for record in typed] == [record["credit"] for record in named]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["rollouts=nowhere.jsonl"], "rollouts: no file 'nowhere.jsonl'"),
        (["rollouts=."], "rollouts: expected a file, got the folder '.'"),
        (["vocabulary_size=5"], "vocabulary_size: the model says it"),
        (["rollouts=rows.jsonl", "prompt=hello"], "rollouts= and prompt="),
        (["rollouts=rows.jsonl", "dry_run=true"], "nothing to plan"),
        (["gatings=[papr]"], "gating=papr: there is no such option"),
        (["shade=creditt"], "shade: expected"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], overrides: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rollouts(tmp_path / "rows.jsonl", made_up(1, 2))
    assert main(["rollout", *overrides]) == 2
    assert said in capsys.readouterr().err


def test_a_terminal_gets_tokens_and_a_table_without_any_model(tmp_path: Path) -> None:
    """On a pseudo-terminal; transformers, which would load a model, is never imported."""
    records = made_up(4, 4, group_size=2, texts=["a", " b", "\n", "\x1b[31m"])
    records[0]["advantage"] = 0.0
    file = write_rollouts(tmp_path / "rollouts.jsonl", records)
    code = (
        "import sys; from dgpo_cli.cli import main; "
        f"code = main(['rollout', 'rollouts={file}', 'limit=1', 'hydra.run.dir={tmp_path / 'out'}']); "
        "assert 'transformers' not in sys.modules; sys.exit(code)"
    )
    outer, inner = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=inner, stderr=subprocess.PIPE, env=environment)
    os.close(inner)
    shown = b""
    while True:
        try:
            piece = os.read(outer, 65_536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    text = shown.decode()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "prompt problem 0" in plain
    assert "prompt problem 1" not in plain
    assert "and 2 more rollouts" in plain
    assert "\\x1b[31m" in plain  # the token, not a colour
    assert "credit over 3 of 4 rollouts, those with A != 0 (ess 1 is uniform)" in plain
    assert re.search(r"paper\s+│\s+[01]\.\d+", plain)
    assert re.search(r"calibrated\s+│\s+0\.\d+", plain)
    assert re.search(r"\x1b\[[0-9;]*48;", text)  # some token is shaded


def test_credit_that_is_a_mean_over_updates_is_shown_as_it_trained_beside_what_is_computed_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = made_up(4, 4, group_size=2)
    for row, record in enumerate(records):
        record |= {"credit": [2.5, 0.5, 0.5, 0.5], "score": [0.3, 0.1, 0.1, 0.1], "credit_updates": 2, "advantage": 1.0}
        if row == 3:
            record |= {"credit": None, "score": None, "credit_updates": 0}
    file = write_rollouts(tmp_path / "rollouts.jsonl", records)
    written = rescore(file, tmp_path / "out", "gating=uniform", "gatings=[]", "report=true")
    told = capsys.readouterr()
    assert "the mean over a step's updates" in told.err
    assert [record["credit"] for record in written] == [[1.0] * 4] * 4
    assert not any("credit_updates" in record for record in written)
    diagnostics = json.loads(told.out)["gatings"]["as trained"]
    assert diagnostics["credit/ess"] == pytest.approx(4.0**2 / (4 * (2.5**2 + 3 * 0.5**2)))  # of the three that trained
    assert diagnostics["credit/max"] == 2.5
    shown = page_credit((tmp_path / "out/report.html").read_text())["as trained"]
    assert shown[:3] == [[2.5, 0.5, 0.5, 0.5]] * 3
    assert shown[3] is not None
    assert all(math.isnan(value) for value in shown[3])
    assert main(["rollout", f"rollouts={tmp_path / 'out/rollouts.jsonl'}", f"hydra.run.dir={tmp_path / 'again'}"]) == 0
    assert "mean over" not in capsys.readouterr().err
