"""The rewards of recipes/rewards, each through its own processes; the judge against a small real server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_server import Reply, Request, completion, serving

from dgpo_cli.errors import RewardError
from dgpo_cli.rewards import make_grader
from dgpo_cli.types import Grader, GradeRequest, Verdict

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "rewards"
Make = Callable[..., Grader]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Grader] = []

    def make_one(recipe: str, seconds: float = 30.0, workers: int = 1) -> Grader:
        made.append(make_grader("function", path=f"{RECIPES / recipe}", timeout_seconds=seconds, workers=workers))
        return made[-1]

    yield make_one
    for grader in made:
        grader.close()


def test_exact_answer(make: Make) -> None:
    texts = ("so 1,234 pens", "12 and 1234.0", "it is 123", "none")
    verdicts = make("exact_answer.py:score").grade([GradeRequest("", text, "1234") for text in texts])
    assert verdicts == [Verdict(1.0, True), Verdict(1.0, True), Verdict(0.0, False), Verdict(0.0, False)]


def test_graded(make: Make) -> None:
    texts = ("We get 10.\nAnswer: 10", "10", "Answer: 8", "about 25", "no idea")
    verdicts = make("graded.py:score").grade([GradeRequest("", text, "10") for text in texts])
    assert [one.score for one in verdicts] == pytest.approx([1.2, 1.0, 0.5 * 0.8 + 0.2, 0.0, 0.0])
    assert [one.correct for one in verdicts] == [True, True, False, False, False]
    assert [(one.parts or {})["format"] for one in verdicts] == [1, 0, 1, 0, 0]


def test_brevity(make: Make) -> None:
    lengths = (10, 256, 640, 1024, 5000, None)
    requests = [GradeRequest("", "three words here", "", completion_tokens=length) for length in lengths]
    assert [one.score for one in make("brevity.py:brevity").grade(requests)] == [0, 0, -0.5, -1, -1, 0]


def code(body: str, tests: list[str] | None = None) -> GradeRequest:
    tests = ["assert f(1) == 2", "assert f(2) == 3"] if tests is None else tests
    return GradeRequest("", f"Here:\n```python\n{body}\n```\n", "", columns={"tests": tests})


def test_code_is_run_and_scored_by_its_tests(make: Make) -> None:
    requests = [code("def f(x):\n    return x + 1"), code("def f(x):\n    return 2"), code("def f(x) return")]
    requests.append(GradeRequest("", "x + 1", "", columns={"tests": ["assert True"]}))
    verdicts = make("run_code.py:score", workers=2).grade(requests)
    assert [(one.score, one.correct) for one in verdicts] == [(1, True), (0.5, False), (0, False), (0, False)]
    assert [one.parts for one in verdicts][2:] == [{"has_code": 1, "finished": 0}, {"has_code": 0, "finished": 0}]


ESCAPES = {
    "time": "import time\ntime.sleep(60)",
    "CPU": "while True:\n    pass",
    "memory": "x = bytearray(2 << 30)",
    "a large file": "open('x', 'wb').write(b'x' * (8 << 20))",
    "leaving before the tests": "import os\nos._exit(0)",
    "the environment": "import os\nassert 'PATH' in os.environ",
}


@pytest.mark.parametrize("what", ESCAPES)
def test_code_that_goes_beyond_a_limit_passes_nothing(make: Make, what: str) -> None:
    body = ESCAPES[what] + "\ndef f(x):\n    return x + 1"
    [verdict] = make("run_code.py:score").grade([code(body)])
    assert (verdict.score, verdict.parts) == (0.0, {"has_code": 1, "finished": 0})


def test_code_has_no_network(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        call = f"import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', {port}), 2)\n    return x + 1"
        [verdict] = make("run_code.py:score").grade([code(call)])
        assert verdict.score == 0
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_what_code_prints_is_no_result(make: Make) -> None:
    [verdict] = make("run_code.py:score").grade([code("print(2)\ndef f(x):\n    print(2)\n    return 0")])
    assert (verdict.score, verdict.parts) == (0.0, {"has_code": 1, "finished": 1})


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def at(url: str) -> None:
        monkeypatch.setenv("JUDGE_URL", url)
        monkeypatch.setenv("JUDGE_CACHE", str(tmp_path / "cache.sqlite3"))
        monkeypatch.delenv("JUDGE_MODEL", raising=False)
        monkeypatch.delenv("JUDGE_KEY", raising=False)

    return at


def questions(*texts: str) -> list[GradeRequest]:
    return [GradeRequest("2 + 2?", text, "4") for text in texts]


def points(request: Request, _: int) -> Reply:
    if request.payload is None:
        return Reply({"data": [{"id": "the judge"}]})
    asked = request.payload["messages"][0]["content"]
    assert request.payload["model"] == "the judge"
    assert "reference answer is 4" in asked
    return completion("Sound.\nPoints: 9" if "It is 4" in asked else "Points: 1/10", chat=True)


def test_the_judge_is_asked_once_for_each_completion(make: Make, judge: Callable[[str], None]) -> None:
    with serving(points) as server:
        judge(server.url)
        for _ in range(2):
            verdicts = make("judge.py:score").grade(questions("It is 4", "It is 5", "It is 4"))
            assert [one.score for one in verdicts] == [0.9, 0.1, 0.9]
        assert 2 <= len(server.posts()) <= 3  # two equal questions may be under way at once
        again = len(server.posts())
        make("judge.py:score").grade(questions("It is 4", "It is 5"))
        assert len(server.posts()) == again


def test_a_busy_judge_is_asked_again_and_a_silent_one_gives_no_score(make: Make, judge: Callable[[str], None]) -> None:
    def reply(request: Request, number: int) -> Reply:
        if request.payload is None:
            return Reply({"data": [{"id": "the judge"}]})
        if "never" in request.payload["messages"][0]["content"]:
            return completion("I would rather not.", chat=True)
        return Reply({"error": "busy"}, status=429) if number == 2 else points(request, number)

    with serving(reply) as server:
        judge(server.url)
        verdicts = make("judge.py:score").grade(questions("It is 4"))
        assert [one.score for one in verdicts] == [0.9]
        assert len(server.posts()) == 2
        [verdict] = make("judge.py:score").grade(questions("never"))
        assert (verdict.error, verdict.score) == ("no_score", 0.0)
        assert len(server.posts()) == 6


def test_a_judge_that_refuses_the_key_ends_the_run(make: Make, judge: Callable[[str], None]) -> None:
    with serving(lambda *_: Reply({"error": "who are you"}, status=401)) as server:
        judge(server.url)
        with pytest.raises(RewardError, match="HTTP Error 401"):
            make("judge.py:score").grade(questions("It is 4"))
