"""Prompts computed once for their completions: the states and gradients of whole sequences, for every architecture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from model_factory import ARCHITECTURES
from torch import Tensor

from dgpo_cli.models import shared_prompts
from dgpo_cli.models.adapted_layers import adapt_layers
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import MicroBatch, make_microbatches
from dgpo_cli.models.scoring import predictive_states
from dgpo_cli.models.shared_prompts import shared_states
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

PROMPTS = [(5, 6, 7, 8, 9, 10, 11), (12, 13, 14), (5, 6, 7, 8, 9, 10, 12)]
LENGTHS = [4, 6, 6, 1, 5, 3]


class _Tokenizer:
    pad_token_id, eos_token_id = 0, 0


def random_model(architecture: str) -> LanguageModel:
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[architecture]()).double().eval()
    return LanguageModel(model, _Tokenizer(), "random", has_head=True)


def batch_of(prompts: list[tuple[int, ...]], lengths: list[int]) -> MicroBatch:
    generator = torch.Generator().manual_seed(1)
    rollouts = []
    for sample, length in enumerate(lengths):
        prompt = Prompt(Problem(0, "0", (("user", ""),), ""), "", prompts[sample % len(prompts)])
        ids = torch.randint(20, 500, (length,), generator=generator).tolist()
        rollouts.append(Rollout(SampleRequest(prompt, sample, 0), tuple(ids), "", "length"))
    [batch] = make_microbatches(rollouts, list(range(len(rollouts))), lengths, tokens=1000, pad_id=0)
    return batch


def apart(one: Tensor, other: Tensor) -> float:
    """Relative. In some models norms and rotations are float32, whatever the weights."""
    return float((one - other).norm() / other.norm())


def states_and_gradient(model: LanguageModel, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """States [n, D] and the gradient of all weights."""
    model.model.zero_grad()
    states = predictive_states(model, batch)
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (states * weights).sum().backward()
    grads = [one.grad.flatten() for one in model.model.parameters() if one.grad is not None]
    return states.detach(), torch.cat(grads)


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1]], ids=["padded", "one"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_and_gradients_are_those_of_whole_sequences(
    architecture: str, prompts: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = random_model(architecture), batch_of(prompts, LENGTHS)
    windowed = "gemma2" in architecture
    assert (shared_states(model, batch) is None) == windowed
    states, gradient = states_and_gradient(model, batch)
    monkeypatch.setattr(shared_prompts, "SAVED_SHARE", 1.0)
    assert shared_states(model, batch) is None
    whole, whole_gradient = states_and_gradient(model, batch)
    assert apart(states, whole) < 1e-6
    assert apart(gradient, whole_gradient) < 1e-6


def test_gradients_of_repeated_prompts_are_added_up_by_whole_rows() -> None:
    """A sum of rows that lie in pieces takes ten times as long."""
    model, batch = random_model("llama"), batch_of(PROMPTS, LENGTHS)
    states = predictive_states(model, batch)
    sums, found, left = [], set(), [states.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in found:
            continue
        found.add(node)
        left += [above for above, _ in node.next_functions]
        if node.name() == "IndexSelectBackward0":
            node.register_prehook(lambda grads: sums.append(grads[0].is_contiguous()))
    states.sum().backward()
    assert sums == [True] * 2 * model.model.config.num_hidden_layers, "keys and values of each layer"


def test_completions_of_one_token_need_their_prompts_alone() -> None:
    model, batch = random_model("llama"), batch_of(PROMPTS, [1] * 6)
    found = shared_states(model, batch)
    whole = model.hidden_states(batch.input_ids)[batch.at]
    assert found is not None
    assert apart(found.detach(), whole.detach()) < 1e-6


def test_prompts_that_nobody_shares_are_computed_with_their_completions() -> None:
    assert shared_states(random_model("llama"), batch_of(PROMPTS, [4, 4, 4])) is None


@pytest.mark.parametrize("change", ["checkpointed", "sharded"])
def test_layers_that_run_twice_and_sharded_weights_are_left_whole(change: str) -> None:
    model: Any = random_model("llama")
    if change == "checkpointed":
        adapt_layers(model.model, checkpointing=True, compiled=False)
    else:
        from dgpo_cli.models.sharding import ShardSettings

        model = replace(model, shards=ShardSettings(torch.device("cpu"), torch.float32, False, True))
    assert shared_states(model, batch_of(PROMPTS, LENGTHS)) is None
