"""recipes/verl_advantage.py, called with tensors of verl's signature; verl itself is not run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "verl_advantage.py"


@pytest.fixture(scope="module")
def recipe() -> Any:
    spec = importlib.util.spec_from_file_location("verl_advantage", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def batch(*, reference: bool = False) -> dict[str, torch.Tensor]:
    """Four responses of two groups; the second has a tool's tokens between its own."""
    draw = torch.Generator().manual_seed(1)
    found = {
        "token_level_rewards": torch.zeros(4, 6),
        "response_mask": torch.tensor([[1] * 6, [1, 1, 0, 0, 1, 1], [1, 1, 1, 0, 0, 0], [1] * 6]),
        "old_log_probs": -torch.rand(4, 6, generator=draw) * 3,
    }
    found["token_level_rewards"][:, -1] = torch.tensor([1.0, 0.0, 0.5, 0.0])
    if reference:
        found["ref_log_prob"] = found["old_log_probs"] - torch.rand(4, 6, generator=draw)
    return found


def computed(recipe: Any, tensors: dict[str, torch.Tensor], config: Any = None) -> torch.Tensor:
    """As verl's compute_advantage calls an estimator that is not one of its own."""

    def compute_advantage(data: Any) -> Any:
        return recipe.dgpo_credit(
            token_level_rewards=data.batch["token_level_rewards"],
            response_mask=data.batch["response_mask"],
            config=config,
            index=np.array(["a", "b", "a", "b"], dtype=object),
        )

    advantages, returns = recipe.with_batch(compute_advantage)(SimpleNamespace(batch=tensors))
    assert torch.equal(advantages, returns)
    return torch.as_tensor(advantages)


@pytest.mark.parametrize("reference", [False, True])
def test_a_response_keeps_its_advantage_on_average_and_its_tokens_share_it(recipe: Any, reference: bool) -> None:
    tensors = batch(reference=reference)
    advantages, mask = computed(recipe, tensors), tensors["response_mask"].bool()
    a = 0.25 / (2**0.5 / 4 + 1e-4)  # rewards 1 and 0.5: mean 0.75, std of two values |1 - 0.5| / sqrt 2
    for row, expected in ((0, a), (2, -a), (1, 0.0), (3, 0.0)):
        assert float(advantages[row][mask[row]].mean()) == pytest.approx(expected, abs=1e-5)
    assert bool((advantages[~mask] == 0).all())
    score = -tensors["old_log_probs"]
    if reference:
        difference = tensors["ref_log_prob"] - tensors["old_log_probs"]
        score = difference.expm1() - difference
    assert int(advantages[0].argmax()) == int(score[0].argmax())  # the most surprising token earns the most
    assert int(advantages[2][:3].argmin()) == int(score[2][:3].argmax())


def test_tokens_between_those_of_a_response_change_nothing(recipe: Any) -> None:
    tensors = batch()
    tensors["token_level_rewards"][1, -1] = 1.0
    before = computed(recipe, tensors)
    tensors["old_log_probs"][1, 2:4] = -50.0
    assert torch.equal(computed(recipe, tensors), before)


def test_advantages_are_not_divided_where_verl_is_told_not_to(recipe: Any) -> None:
    advantages = computed(recipe, batch(), {"norm_adv_by_std_in_grpo": False})
    assert float(advantages[0].mean()) == pytest.approx(0.25)


def test_without_log_probs_it_says_what_to_do(recipe: Any) -> None:
    tensors = batch()
    with pytest.raises(ValueError, match="with_batch"):
        recipe.dgpo_credit(tensors["token_level_rewards"], tensors["response_mask"], index=np.arange(4))
