"""What padding masks cost, and packing: a pass and its gradient on the CPU, as ratios of CPU seconds in one run.

python benchmarks/packing.py [--hidden 256] [--repeats 3]
"""

from __future__ import annotations

import argparse
import math

import torch
from check import ratio_of
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import make_microbatches
from dgpo_cli.models.packed_attention import pack_attention
from dgpo_cli.models.scoring import predictive_states
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

MASKED = ((64, 64), (16, 512), (4, 2048))  # rows x tokens
PACKED = ((128, 30, 60), (64, 150, 600), (16, 800, 4000))  # sequences, median and longest completion
BUDGET = 4096
PROMPT = 19  # tokens, other ones for each completion: what prompts have in common is computed once if they are equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=1000,
            hidden_size=asked.hidden,
            intermediate_size=3 * asked.hidden,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=2,
            max_position_embeddings=8192,
        )
    ).eval()
    print("| rows x tokens | without over with a mask |\n|---|---|")
    for rows, width in MASKED:
        print(f"| {rows} x {width} | {masks(model, rows, width, asked.repeats):.2f} |", flush=True)
    pack_attention(model)
    print("\n| sequences, median tokens | micro-batches padded, packed | packed over padded |\n|---|---|---|")
    for count, median, longest in PACKED:
        ratio, passes = packing(model, rollouts(count, median, longest), asked.repeats)
        print(f"| {count}, {median} | {passes[False]}, {passes[True]} | {ratio:.2f} |", flush=True)


def masks(model: Qwen2ForCausalLM, rows: int, width: int, repeats: int) -> float:
    ids = torch.randint(0, 1000, (rows, width))
    mask = torch.ones(rows, width, dtype=torch.long)
    mask[1, -width // 10 :] = 0

    def states(mask: Tensor | None) -> Tensor:
        hidden: Tensor = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return hidden

    def without() -> None:
        states(None).square().mean().backward()

    def with_mask() -> None:
        states(mask).square().mean().backward()

    return ratio_of((without, with_mask), repeats)


def packing(model: Qwen2ForCausalLM, made: list[Rollout], repeats: int) -> tuple[float, dict[bool, int]]:
    language_model = LanguageModel(model, None, "", has_head=True)
    lengths = [len(rollout.token_ids) for rollout in made]
    batches = {
        packed: make_microbatches(made, list(range(len(made))), lengths, tokens=BUDGET, pad_id=0, packed=packed)
        for packed in (False, True)
    }

    def work(packed: bool) -> None:
        for batch in batches[packed]:
            predictive_states(language_model, batch).square().sum().backward()

    ratio = ratio_of((lambda: work(True), lambda: work(False)), repeats)
    return ratio, {packed: len(found) for packed, found in batches.items()}


def rollouts(count: int, median: int, longest: int) -> list[Rollout]:
    """Completions of log-normal lengths, each after a prompt of its own."""
    generator = torch.Generator().manual_seed(1)
    sizes = ((math.log(median) + 0.7 * torch.randn(count, generator=generator)).exp().long() + 1).clamp(max=longest)
    made = []
    for size in sizes.tolist():
        ids = tuple(torch.randint(1000, (PROMPT + size,), generator=generator).tolist())
        prompt = Prompt(Problem(0, "0", (), ""), "", ids[:PROMPT])
        made.append(Rollout(SampleRequest(prompt, 0, 0), ids[PROMPT:], "", "stop"))
    return made


if __name__ == "__main__":
    main()
