"""model.quantization: what is refused before anything heavy is imported, in one line each."""

from __future__ import annotations

import sys

import pytest

from dgpo_cli.config.checks import validate
from dgpo_cli.config.compose import compose

LORA = ("model.quantization=nf4", "model.lora.rank=4")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.quantization=int8"], "model.quantization=int8: quantised weights take no gradient"),
        ([*LORA, "model.lora.merge=true"], "another policy"),
        ([*LORA, "strategy=fsdp"], "strategy=fsdp shards weights"),
        ([*LORA, "strategy=fsdp_offload"], "strategy=fsdp_offload shards weights"),
        ([*LORA, "strategy.compile=true"], "strategy.compile=true: not tried"),
        ([*LORA, "engine=vllm", "engine.urls=[http://127.0.0.1:8000]"], "engine=vllm: the servers would compute"),
    ],
)
def test_what_cannot_be_exact_is_refused_in_one_line(overrides: list[str], says: str) -> None:
    [problem] = validate(compose("train", overrides), "train")
    assert says in problem.message
    assert problem.hint


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("strategy", ["single", "ddp"])
def test_adapters_train_on_either_kind_with_whole_models(kind: str, strategy: str) -> None:
    overrides = [f"model.quantization={kind}", "model.lora.rank=4", f"strategy={strategy}"]
    assert validate(compose("train", overrides), "train") == []


@pytest.mark.parametrize("command", ["eval", "rollout"])
def test_commands_that_train_nothing_take_it_without_adapters_but_from_no_server(command: str) -> None:
    asked = ["model=tiny", "model.quantization=nf4"]
    assert validate(compose(command, asked), command) == []
    [problem] = validate(compose(command, [*asked, "engine=vllm", "engine.urls=[http://127.0.0.1:8000]"]), command)
    assert "engine=transformers" in problem.hint


def test_without_bitsandbytes_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed: importing it raises
    for command, overrides in (("train", list(LORA)), ("eval", ["model=tiny", "model.quantization=nf4"])):
        [problem] = validate(compose(command, overrides), command)
        assert problem.message == "model.quantization=nf4 needs bitsandbytes, which is not installed"
        assert problem.hint == "pip install 'dgpo[quantization]'"
