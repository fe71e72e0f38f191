"""A reward function of the user's own: what it may return, and what happens when it raises, hangs or dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from dgpo_cli.errors import ConfigError, RewardError
from dgpo_cli.rewards.function import FunctionGrader
from dgpo_cli.types import ColumnsAsked, GradeRequest, ScoresGiven, Verdict

Make = Callable[..., FunctionGrader]
SAMPLE = GradeRequest("1 + 1?", "2", "2")
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[FunctionGrader] = []

    def make_one(
        body: str, timeout_seconds: float = 20.0, parameters: str = "prompt, completion, answer"
    ) -> FunctionGrader:
        path = tmp_path / "reward.py"
        path.write_text(f"import os, time, sys\n\ndef score({parameters}):\n    {body}\n")
        made.append(FunctionGrader(f"{path}:score", timeout_seconds=timeout_seconds))
        return made[-1]

    yield make_one
    for grader in made:
        grader.close()


def test_a_float_or_a_pair_is_a_reward(make: Make) -> None:
    grader = make("print('to stderr'); return (0.5, completion == answer) if completion else 0.25")
    grader.check(SAMPLE)
    requests = [SAMPLE, GradeRequest("p", "3", "2"), GradeRequest("p", "", "2")]
    assert grader.grade(requests) == [Verdict(0.5, True), Verdict(0.5, False), Verdict(0.25, None)]


def test_a_dict_has_parts_beside_the_score(make: Make) -> None:
    grader = make("return {'score': 0.5, 'correct': completion == answer, 'brief': True}")
    assert grader.check(SAMPLE) == Verdict(0.5, True, parts={"brief": 1.0})


def test_columns_and_lengths_arrive_by_name(make: Make) -> None:
    grader = make("return level['of'][0] - completion_tokens", parameters="completion, level, completion_tokens, odd=1")
    assert grader.columns_asked() == ColumnsAsked(required=frozenset({"level"}), optional=frozenset({"odd"}))
    request = GradeRequest("p", "c", "a", completion_tokens=2, columns={"level": {"of": [2.5]}})
    assert grader.grade([request]) == [Verdict(0.5, None)]


def test_a_late_call_has_no_parts(make: Make) -> None:
    grader = make("time.sleep(60 * (completion == 'slow')); return {'score': 1.0, 'brief': 1}", timeout_seconds=0.7)
    assert [one.parts for one in grader.grade([SAMPLE, GradeRequest("", "slow", "")])] == [{"brief": 1.0}, None]


def test_text_arrives_whole_whatever_it_holds(make: Make) -> None:
    odd = "\x00\ud800\n\u2028" + "x" * 300_000
    grader = make("return len(completion), completion[:4] == '\\x00\\ud800\\n\\u2028'")
    assert grader.grade([GradeRequest("", odd, "")]) == [Verdict(300_004.0, True)]


def test_a_file_can_import_its_neighbours(make: Make, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("VALUE = 0.75\n")
    assert make("import neighbour; return neighbour.VALUE").grade([SAMPLE]) == [Verdict(0.75, None)]


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("return float('nan')", "returned float nan"),
        ("return float('inf'), True", "returned tuple (inf, True)"),
        ("return None", "returned NoneType None"),
        ("return '1.0'", "returned str '1.0'"),
        ("return 1.0, True, 3", "returned tuple"),
        ("return 1.0, 'yes'", "returned tuple"),
        ("return [1.0, True]", "returned list"),
        ("return {'score': 1.0, 'part': 'good'}", "returned a part 'part' that is no finite number: str 'good'"),
        ("raise ValueError('odd')", "raised ValueError: odd (reward.py line 4)"),
        ("sys.exit(0)", "raised SystemExit: 0"),
        ("return undefined", "raised NameError"),
        ("os._exit(3)", "its process died"),
    ],
)
def test_what_is_no_reward_stops_the_run_and_shows_prompt_and_completion(make: Make, body: str, shown: str) -> None:
    with pytest.raises(RewardError) as caught:
        make(body).check(SAMPLE)
    assert shown in str(caught.value)
    assert "prompt '1 + 1?' and completion '2'" in str(caught.value)


def test_a_late_function_is_refused_at_the_start(make: Make) -> None:
    with pytest.raises(RewardError, match=r"not back within 0\.3 s on a sample"):
        make("time.sleep(60)", timeout_seconds=0.3).check(SAMPLE)


def test_a_late_call_is_killed_scores_as_wrong_and_the_next_ones_go_on(make: Make) -> None:
    grader = make("time.sleep(60 if completion == 'slow' else 0); return 1.0, True", timeout_seconds=0.7)
    grader.check(SAMPLE)
    started = time.monotonic()
    verdicts = grader.grade([SAMPLE, GradeRequest("", "slow", ""), SAMPLE])
    assert verdicts == [Verdict(1.0, True), Verdict(0.0, False, None, "timeout"), Verdict(1.0, True)]  # not as right
    assert time.monotonic() - started < 20


GRADED = "time.sleep(60 if completion == 'slow' else 0); return float(completion), {correct}"
SLOW = GradeRequest("", "slow", "")


def graded(grader: FunctionGrader, *scores: str) -> list[float]:
    return [verdict.score for verdict in grader.grade([GradeRequest("", score, "") for score in scores])]


def test_a_late_call_scores_the_least_given_whatever_the_order(make: Make) -> None:
    grader = make(GRADED.format(correct="float(completion) > 0"), timeout_seconds=0.7)
    grader.check(SAMPLE)
    assert graded(grader, "slow", "1", "-1", "0.5") == [-1.0, 1.0, -1.0, 0.5]
    assert graded(grader, "1", "slow", "1") == [1.0, -1.0, 1.0]  # of earlier batches
    assert graded(grader, "-3", "slow") == [-3.0, -3.0]


def test_a_late_call_of_a_run_that_goes_on_scores_as_in_one_that_never_stopped(make: Make) -> None:
    whole = make(GRADED.format(correct="float(completion) > 0"), timeout_seconds=0.7)
    whole.grade([GradeRequest("", "-2", "")])
    resumed = make(GRADED.format(correct="float(completion) > 0"), timeout_seconds=0.7)
    resumed.given = ScoresGiven(**json.loads(json.dumps(asdict(whole.given))))
    assert resumed.grade([SLOW]) == whole.grade([SLOW]) == [Verdict(-2.0, False, None, "timeout")]


def test_a_score_for_late_calls_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("import time\ndef score(prompt, completion, answer):\n    time.sleep(60)\n")
    grader = FunctionGrader(f"{tmp_path / 'reward.py'}:score", timeout_seconds=0.3, timeout_score=-5.0)
    assert grader.grade([SLOW]) == [Verdict(-5.0, None, None, "timeout")]
    grader.close()


def test_whole_numbers_truth_values_and_minus_zero_are_numbers(make: Make) -> None:
    verdicts = make("return {'int': 2, 'bool': True, 'zero': -0.0}[completion]").grade(
        [GradeRequest("", kind, "") for kind in ("int", "bool", "zero")]
    )
    assert verdicts == [Verdict(2.0, None), Verdict(1.0, True), Verdict(0.0, None)]
    assert str(verdicts[2].score) == "0.0"


def test_a_process_that_dies_later_stops_the_run(make: Make) -> None:
    grader = make("os._exit(3) if completion == 'dies' else 0; return 1.0, True")
    grader.check(SAMPLE)
    with pytest.raises(RewardError, match="its process died"):
        grader.grade([SAMPLE, GradeRequest("", "dies", "")])


def test_a_raise_after_the_start_stops_the_run(make: Make) -> None:
    grader = make("return 1.0 / len(completion)")
    grader.check(SAMPLE)
    with pytest.raises(RewardError, match="ZeroDivisionError"):
        grader.grade([SAMPLE, GradeRequest("p", "", "2")])
    assert grader.grade([SAMPLE]) == [Verdict(1.0, None)]


def test_paths_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected file\.py:function"):
        FunctionGrader("reward.py", timeout_seconds=1)
    with pytest.raises(ConfigError, match="there is no file"):
        FunctionGrader(f"{tmp_path}/none.py:score", timeout_seconds=1)
    (tmp_path / "other.py").write_text("def scored(prompt, completion, answer):\n    return 1.0\n")
    grader = FunctionGrader(f"{tmp_path}/other.py:score", timeout_seconds=1)
    with pytest.raises(RewardError, match="has no function score; it defines scored"):
        grader.check(SAMPLE)
    grader.close()


def test_a_file_that_cannot_be_imported_says_where(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    grader = FunctionGrader(f"{tmp_path}/broken.py:score", timeout_seconds=1)
    with pytest.raises(RewardError, match=r"nothing_of_this_name.*broken\.py line 1"):
        grader.check(SAMPLE)
    with pytest.raises(RewardError, match=r"broken\.py:score: .*nothing_of_this_name"):
        grader.columns_asked()
    grader.close()


def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(
        "import os, time\n\ndef score(prompt, completion, answer):\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n    time.sleep(300)\n"
    )
    program = (
        "from dgpo_cli.rewards.function import FunctionGrader; from dgpo_cli.types import GradeRequest; "
        f"FunctionGrader({str(tmp_path / 'reward.py') + ':score'!r}, timeout_seconds=200)"
        ".check(GradeRequest('', '', ''))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    try:
        _wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        pid = int((tmp_path / "pid").read_text())
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert _wait_for(lambda: not _is_alive(pid))


def _wait_for(condition: Callable[[], object], seconds: float = 60.0) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def _is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
