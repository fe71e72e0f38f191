"""Loading models: their heads told apart from their bodies, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_factory import save_random_model
from safetensors.torch import load_file, save_file

from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.errors import DataError
from dgpo_cli.models.frozen import frozen_copy
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.scoring import score_rollouts
from dgpo_cli.types import Problem, Prompt, SampleRequest, Sampling


def test_a_head_that_cannot_be_told_apart_falls_back_and_says_so(
    tmp_path: Path, halved_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = load_model(str(save_random_model(tmp_path / "plain")))
    assert "warning" not in capsys.readouterr().err
    halved = load_model(str(halved_folder))
    assert capsys.readouterr().err.count("could not be told apart") == 1
    assert plain.has_head
    assert not halved.has_head
    prompt = Prompt(Problem(0, "0", (("user", "x"),), ""), "x", (5, 9, 11))
    made = TransformersEngine(plain, stop_ids=frozenset(), batch_size=1).generate(
        [SampleRequest(prompt, 0, 0)], Sampling(1.0, 1.0, 5)
    )
    flatter = score_rollouts(halved, None, made, [5], temperature=1.0, tokens=4096)
    warmer = score_rollouts(plain, None, made, [5], temperature=2.0, tokens=4096)
    assert torch.allclose(flatter.entropy, warmer.entropy, atol=1e-4)


def refused(path: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        load_model(str(path))
    assert caught.value.exit_code == 2
    assert caught.value.problems[0].hint
    return str(caught.value)


def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refused(tmp_path / "empty")
    weightless = save_random_model(tmp_path / "weightless")
    (weightless / "model.safetensors").unlink()
    (weightless / "pytorch_model.bin").write_bytes(b"pickle")
    assert "no .safetensors weights" in refused(weightless)
    torn = save_random_model(tmp_path / "torn")
    content = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "cannot be loaded" in refused(torn)
    other = save_random_model(tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert "does not hold every weight" in refused(other)


def test_a_model_that_is_loaded_lies_in_memory_as_its_copy_does(random_model: Path) -> None:
    """Where weights begin decides how products are rounded: reloaded references would differ from copied ones."""
    model = load_model(str(random_model))
    for one in (model, frozen_copy(model)):
        assert not any(weight.data_ptr() % 64 for weight in one.model.parameters())
