"""One process of a team that shares sequences, started by test_sequence_parallel.py.

Rank 0 prints a JSON object a case: how far states and gradients of the parts are from those of whole sequences.
"""

from __future__ import annotations

import json
import sys

import torch
import torch.distributed as dist
from model_factory import byte_level_tokenizer
from rollout_factory import LENGTHS, uneven_rollouts
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from dgpo_cli.environment import place
from dgpo_cli.meeting import meet
from dgpo_cli.models.adapted_layers import adapt_layers
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import Held, MicroBatch, dealt, make_microbatches, shares
from dgpo_cli.models.packed_attention import pack_attention
from dgpo_cli.models.scoring import predictive_states, score_rollouts
from dgpo_cli.models.sequence_parallel import ALONE, Team, team_of
from dgpo_cli.processes import SOLO, Processes, join, leave
from dgpo_cli.traffic import SEQUENCES, TRAFFIC

FAMILIES = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config),
    "llama": (LlamaForCausalLM, LlamaConfig),
}
SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}


def model_of(family: str, of_keys: int, *, checkpointing: bool, team: Team, seed: int = 0) -> LanguageModel:
    make, config = FAMILIES[family]
    torch.manual_seed(seed)
    model = make(config(**SIZES, num_key_value_heads=of_keys)).double().eval()
    pack_attention(model)
    adapt_layers(model, checkpointing=checkpointing, compiled=False)
    return LanguageModel(model, byte_level_tokenizer(), "", has_head=True, packs=True, team=team)


def weighted(held: Held, width: int) -> Tensor:
    """[n, D] a weight for each number of the held tokens, that no two of them share."""
    return torch.arange(1 + held.start * width, 1 + held.stop * width).view(-1, width).double() + 1000 * held.row


def states_and_gradient(model: LanguageModel, batches: list[MicroBatch]) -> tuple[dict[int, Tensor], Tensor]:
    """The states [T, D] of each row, 0 where this process holds none, and the gradient of a sum over them."""
    states = {row: torch.zeros(LENGTHS[row], 32, dtype=torch.float64) for row, length in enumerate(LENGTHS) if length}
    model.model.zero_grad()
    for batch in batches:
        found = predictive_states(model, batch)
        pieces = found.split([held.stop - held.start for held in batch.held])
        total = found.sum() * 0.0
        for held, piece in zip(batch.held, pieces, strict=True):
            states[held.row][held.start : held.stop] = piece.detach()
            total = total + (piece.sin() * weighted(held, piece.shape[1])).sum()
        total.backward()
    return states, torch.cat([weight.grad.flatten() for weight in model.model.base_model.parameters()])


def compared(processes: Processes, team: Team, family: str, of_keys: int, tokens: int, *, checkpointing: bool) -> None:
    whole = make_microbatches(uneven_rollouts(), list(range(5)), LENGTHS, tokens=1000, pad_id=0, packed=True)
    alone = model_of(family, of_keys, checkpointing=checkpointing, team=ALONE)
    expected, gradient = states_and_gradient(alone, whole)
    batches = make_microbatches(
        uneven_rollouts(), list(range(5)), LENGTHS, tokens=tokens, pad_id=0, processes=processes.size, packed=True,
        team=team.size,
    )  # fmt: skip
    shared = model_of(family, of_keys, checkpointing=checkpointing, team=team)
    mine = [batch for batch, counts in dealt(batches, processes, team) if counts]
    assert [held for batch in mine for held in batch.held if held.start < held.stop] == shares(
        batches, processes.size, team.size
    )[processes.rank]
    TRAFFIC.taken()
    found, parts = states_and_gradient(shared, mine)
    exchanged = TRAFFIC.taken()[SEQUENCES]
    for row in found:
        dist.all_reduce(found[row])
    dist.all_reduce(parts)
    empty = processes.gathered(sum(not len(batch.targets) for batch in mine))
    if processes.main:
        record = {
            "family": family,
            "of_keys": of_keys,
            "tokens": tokens,
            "checkpointing": checkpointing,
            "empty_parts": sum(empty),
            "states": max(float((found[row] - states).abs().max()) for row, states in expected.items()),
            "gradient": float((parts - gradient).norm() / gradient.norm()),
            "exchanged": exchanged,
            "positions": sum(batch.input_ids.numel() for batch in mine),
        }
        print(json.dumps(record), flush=True)


def scored(processes: Processes, team: Team) -> None:
    """The signals of a batch, put together from the parts of all teams, against those of whole sequences."""
    results = []
    for one, these in ((ALONE, SOLO), (team, processes)):
        policy, reference = (model_of("qwen2", 2, checkpointing=False, team=one, seed=seed) for seed in (0, 1))
        results.append(
            score_rollouts(policy, reference, uneven_rollouts(), LENGTHS, temperature=0.9, tokens=10, processes=these)
        )
    expected, found = results
    assert torch.equal(found.mask, expected.mask)
    assert expected.hellinger is not None
    assert bool((expected.hellinger[expected.mask] > 0).all())  # policy and reference are two models
    names = ("logprobs", "entropy", "ref_logprobs", "hellinger", "grad_norm")
    off = max(float((getattr(found, name) - getattr(expected, name)).abs().max()) for name in names)
    if processes.main:
        print(json.dumps({"signals": off}), flush=True)


def main() -> None:
    torch.set_num_threads(1)
    here = place()
    assert here is not None
    processes = join(meet(here, 120), device="cpu", connect_seconds=120)
    team = team_of(processes, int(sys.argv[1]))
    for family in FAMILIES:
        compared(processes, team, family, 2, 1000, checkpointing=family == "qwen2")
    compared(processes, team, "qwen2", 1, 1000, checkpointing=False)  # fewer heads of keys than processes
    compared(processes, team, "qwen2", 4, 1, checkpointing=True)  # each sequence by itself: some parts count nothing
    scored(processes, team)
    leave()


if __name__ == "__main__":
    main()
