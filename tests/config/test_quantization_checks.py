"""model.quantization and optim.states: what is refused before anything heavy is imported, in one line each."""

from __future__ import annotations

import sys

import pytest

from dgpo_cli.config.checks import validate
from dgpo_cli.config.compose import compose
from dgpo_cli.errors import ConfigError

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


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp_offload"])
def test_moments_of_8_bits_are_not_sharded(strategy: str) -> None:
    [problem] = validate(compose("train", ["optim.states=8bit", f"strategy={strategy}"]), "train")
    assert f"strategy={strategy} shards moments" in problem.message
    assert "strategy=ddp" in problem.hint


@pytest.mark.parametrize("also", [[], ["strategy=ddp"], ["model.lora.rank=4"], list(LORA)])
def test_whole_weights_and_adapters_take_moments_of_8_bits(also: list[str]) -> None:
    assert validate(compose("train", ["optim.states=8bit", *also]), "train") == []


def test_another_kind_of_moments_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"float32.*8bit"):
        compose("train", ["optim.states=4bit"])


def test_without_bitsandbytes_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed: importing it raises
    cases = (
        ("train", list(LORA), "model.quantization=nf4"),
        ("train", ["optim.states=8bit"], "optim.states=8bit"),
        ("eval", ["model=tiny", "model.quantization=nf4"], "model.quantization=nf4"),
    )
    for command, overrides, asked in cases:
        [problem] = validate(compose(command, overrides), command)
        assert problem.message == f"{asked} needs bitsandbytes, which is not installed"
        assert problem.hint == "pip install 'dgpo[quantization]'"
