"""`dgpo eval engine=openai` against `transformers serve`, and against a server that dies on the way."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_server import Reply, Request, completion, serving

from dgpo_cli.bundled import bundled_path
from dgpo_cli.cli import main
from dgpo_cli.commands import eval as command
from dgpo_cli.config.commands import EvalConfig
from dgpo_cli.config.engine_groups import EngineConfig, MaxTokensKey
from dgpo_cli.config.groups import BenchmarkConfig, RewardConfig
from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.errors import ConfigError, RunError

# Renders the turns' bare content, so that chat and text show the model the same characters.
BARE_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

# Else the server takes the answers of every Qwen2 for ChatML. A prompt of digit_chain ends in "=?".
BARE_RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "=?",
    "fields": {"content": {"close": "<eos>", "content": "text"}},
}


@dataclass
class Served:
    url: str
    model: Path

    def overrides(self, *more: str) -> list[str]:
        return ["eval", "engine=openai", f"engine.url={self.url}", f"engine.model={self.model}", *more]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The bundled model with a chat template, behind `transformers serve`."""
    folder = tmp_path_factory.mktemp("served")
    model = folder / "tiny"
    shutil.copytree(bundled_path("tiny"), model)
    (model / "chat_template.jinja").write_text(BARE_TEMPLATE)
    tokenizer = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"response_template": BARE_RESPONSE}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    line = [str(program), "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(line, env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, folder / "log")
            yield Served(f"http://127.0.0.1:{port}/v1", model)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with opener.open(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"transformers serve does not answer: {log.read_text()}")


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("chat", "problems"), [(False, 32), (True, 8)], ids=["text", "chat"])
def test_a_server_and_this_process_give_the_same_greedy_completions(
    served: Served, tmp_path: Path, chat: bool, problems: int
) -> None:
    settings = ["benchmark=digit_chain", f"benchmark.limit={problems}", "benchmark.temperature=0"]
    settings.append(f"model.chat_template={str(chat).lower()}")
    there, here = tmp_path / "there", tmp_path / "here"
    assert main(served.overrides(*settings, f"hydra.run.dir={there}")) == 0
    assert main(["eval", f"model.path={served.model}", *settings, f"hydra.run.dir={here}"]) == 0
    assert len(samples(there)) == problems
    assert samples(there) == samples(here)  # every field: completions, finish reasons, counts of tokens, verdicts
    manifest = json.loads((there / "manifest.json").read_text())
    assert (manifest["engine"], manifest["model"]) == ("openai", {"name": str(served.model)})
    assert served.url not in json.dumps(manifest)


def test_a_server_of_transformers_samples_at_a_temperature(served: Served, tmp_path: Path) -> None:
    """Without generation_config.do_sample it would draw greedily at every temperature, and say nothing."""
    settings = ["benchmark=digit_chain", "benchmark.limit=2", "benchmark.temperature=1.5", "benchmark.k=4"]
    assert main(served.overrides(*settings, f"hydra.run.dir={tmp_path}")) == 0
    by_problem: dict[int, set[str]] = {}
    for sample in samples(tmp_path):
        by_problem.setdefault(sample["index"], set()).add(sample["completion"])
    assert max(map(len, by_problem.values())) > 1


def test_an_evaluation_by_a_server_imports_no_torch(tmp_path: Path) -> None:
    def right(request: Request, _: int) -> Reply:
        return completion("#1")

    with serving(right) as server:
        argv = ["eval", "engine=openai", f"engine.url={server.url}", "engine.model=m", "benchmark=digit_chain"]
        argv += ["benchmark.limit=2", f"hydra.run.dir={tmp_path}"]
        code = (
            "import sys; from dgpo_cli.cli import main; assert main(sys.argv[1:]) == 0; print('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return problems(tmp_path, 6)


def problems(folder: Path, count: int) -> Path:
    path = folder / "benchmark.jsonl"
    path.write_text("".join(json.dumps({"problem": f"count {i}", "answer": str(i)}) + "\n" for i in range(count)))
    return path


def config(rows: Path, url: str, *, k: int = 2, **changes: Any) -> EvalConfig:
    settings: dict[str, Any] = {"model": "m", "batch_size": 4, "retries": 0} | changes
    return EvalConfig(
        model=ModelConfig(template="plain"),
        reward=RewardConfig(name="exact"),
        benchmark=BenchmarkConfig(
            name="small", path=str(rows), template="plain", reward="exact", k=k, pass_at=[1], max_tokens=4
        ),
        engine=EngineConfig(name="openai", url=url, **settings),
    )


def counting(request: Request, _: int) -> Reply:
    """Right for an even seed."""
    assert request.payload is not None
    number = request.payload["prompt"].split()[-1]
    return completion(number if request.payload["seed"] % 2 == 0 else "?")


def test_a_server_that_dies_leaves_an_evaluation_that_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One trial and 13 answers: 2 units of 8, of which the second is stored as far as it came."""
    rows, broken, whole = problems(tmp_path, 24), tmp_path / "broken", tmp_path / "whole"

    def dying(request: Request, number: int) -> Reply:
        return counting(request, number) if number <= 14 else Reply({"error": "out of memory"}, 500)

    with serving(dying) as server, pytest.raises(RunError, match="status 500: out of memory"):
        command.run([config(rows, server.url, batch_size=8, concurrency=1)], broken)
    assert len(server.requests) <= 14 + 8 + 1  # 8 failures in a row say enough; 48 samples were wanted
    assert "continues it" in capsys.readouterr().err
    assert not (broken / "results.json").exists()
    assert len(samples(broken)) == 13
    with serving(counting) as server:
        command.run([config(rows, server.url, batch_size=8)], broken)  # the address is no part of the evaluation
        assert len(server.requests) == 1 + 48 - 13
    with serving(counting) as server:
        command.run([config(rows, server.url, batch_size=8)], whole)
    assert samples(broken) == samples(whole)
    assert {sample["correct"] for sample in samples(whole)} == {True, False}


FAILING = {
    "count 1": Reply({"error": {"message": "engine overloaded"}}),
    "count 3": Reply({"choices": []}),
    "count 4": Reply({"message": "maximum context length is 4"}, 400),
}


def partly(request: Request, number: int) -> Reply:
    assert request.payload is not None
    return FAILING.get(request.payload["prompt"].strip(), counting(request, number))


def results(folder: Path) -> dict[str, Any]:
    return {**json.loads((folder / "results.json").read_text()), "seconds": None}


def test_bad_answers_are_counted_by_their_cause_and_asked_again_on_the_next_start(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    with serving(partly) as server, pytest.raises(RunError) as caught:
        command.run([config(rows, server.url)], broken)
    [problem] = caught.value.problems
    causes = "server_error 2, server_no_completion 2, server_status_400 2"
    assert f"6 of 12 samples have no answer from the server ({causes}); they count as wrong" in problem.message
    assert str(broken) in problem.hint
    err = capsys.readouterr().err
    assert "on 6 problems, 6 of 12 unanswered, T=1" in err
    assert err.count("has no answer and is asked again") == 3  # the first of each cause, in the server's words
    assert "maximum context length is 4" in err
    assert results(broken)["errors"] == {"server_error": 2, "server_no_completion": 2, "server_status_400": 2}
    assert results(broken)["n_samples"] == 12
    assert {(row["index"], row["correct"]) for row in results(broken)["problems"] if row["index"] in (1, 3, 4)} == {
        (1, 0),
        (3, 0),
        (4, 0),
    }
    assert {sample["index"] for sample in samples(broken)} == {0, 2, 5}  # no record stands for what was not answered

    with serving(counting) as server:
        command.run([config(rows, server.url)], broken)
        asked = sorted(payload["prompt"] for payload in server.posts()[1:])
    assert asked == ["count 1", "count 1", "count 3", "count 3", "count 4", "count 4"]
    with serving(counting) as server:
        command.run([config(rows, server.url)], whole)
    assert (broken / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    assert results(broken) == results(whole)


def test_a_result_with_unanswered_samples_exits_1_with_its_numbers_on_stdout(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that a script notices; and `dgpo compare` says it of such a result."""
    line = [
        "eval",
        "engine=openai",
        "engine.model=m",
        "benchmark=aime2024",
        f"benchmark.path={rows}",
        "engine.retries=0",
    ]
    line += ["benchmark.k=1", "benchmark.template=plain", f"hydra.run.dir={tmp_path / 'out'}"]
    with serving(partly) as server:
        assert main([*line, f"engine.url={server.url}"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["errors"]["server_status_400"] == 1
    assert "error: aime2024: 3 of 6 samples have no answer from the server" in shown.err
    assert main(["compare", f"runs=[{tmp_path / 'out'},{tmp_path / 'out'}]", f"hydra.run.dir={tmp_path / 'c'}"]) == 0
    assert "3 samples have no answer from the server and count as wrong" in capsys.readouterr().err


def test_a_server_that_answers_nothing_leaves_no_result(rows: Path, tmp_path: Path) -> None:
    """The trial passes; then all 12 samples of 6 problems fail, too few in a row to stop before the end."""

    def trial_alone(_: Request, number: int) -> Reply:
        return completion("1") if number == 1 else Reply({"choices": []})

    with serving(trial_alone) as server, pytest.raises(RunError, match="holds no completion"):
        command.run([config(rows, server.url)], tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_first_problem_that_is_too_long_is_an_error_of_its_samples_alone(rows: Path, tmp_path: Path) -> None:
    def first_too_long(request: Request, number: int) -> Reply:
        assert request.payload is not None
        too_long = request.payload["prompt"].endswith("count 0")
        return Reply({"message": "too long"}, 400) if too_long else counting(request, number)

    with serving(first_too_long) as server, pytest.raises(RunError, match=r"2 of 12 samples .*server_status_400 2"):
        command.run([config(rows, server.url)], tmp_path / "out")


def test_the_name_of_the_limit_is_a_key_and_no_part_of_the_evaluation(rows: Path, tmp_path: Path) -> None:
    with serving(counting) as server:
        command.run([config(rows, server.url, k=1)], tmp_path / "out")
        key = MaxTokensKey.max_completion_tokens
        command.run([config(rows, server.url, k=2, max_tokens_key=key)], tmp_path / "out")
        assert [payload.get("max_completion_tokens") for payload in server.posts()[7:]] == [1] + [4] * 6


def test_no_sample_beyond_k_is_asked_of_a_server(rows: Path, tmp_path: Path) -> None:
    """In blocks of 1, 1, 2, 4 samples k=5 would draw 8 a problem."""
    with serving(counting) as server:
        command.run([config(rows, server.url, k=5, batch_size=48)], tmp_path / "out")
        assert len(server.requests) == 1 + 6 * 5


def test_another_model_on_the_server_does_not_continue_an_evaluation(rows: Path, tmp_path: Path) -> None:
    with serving(counting) as server:
        command.run([config(rows, server.url)], tmp_path / "out")
        with pytest.raises(ConfigError, match="name is m there and other here"):
            command.run([config(rows, server.url, model="other")], tmp_path / "out")


def test_a_key_comes_from_the_environment_and_goes_nowhere_but_to_the_server(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SERVER_KEY", "sk-secret-42\n")
    with serving(counting) as server:
        command.run([config(rows, server.url, api_key_env="SERVER_KEY")], tmp_path / "out")
        assert {request.headers["Authorization"] for request in server.requests} == {"Bearer sk-secret-42"}
    written = "".join(file.read_text() for file in (tmp_path / "out").iterdir())
    assert "sk-secret" not in written + "".join(capsys.readouterr())
    with pytest.raises(ConfigError, match="NOT_SET is not set"):
        command.run([config(rows, "http://127.0.0.1:1/v1", api_key_env="NOT_SET")], tmp_path / "other")
