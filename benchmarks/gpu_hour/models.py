"""Models of random weights in the shapes of Qwen2.5, made on the device, and rollouts for them."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from dgpo_cli.bundled import bundled_path
from dgpo_cli.commands.plan import architecture_of
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.planning.architecture import Architecture
from dgpo_cli.training.step import StepBatch
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest
from gpu_hour.checks import Hour

HUB = {name: f"Qwen/Qwen2.5-{name}" for name in ("0.5B", "1.5B", "7B", "32B")}
SMALL = Architecture(
    hidden_size=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate_size=128,
    vocab_rows=512,
    tied_embeddings=True,
    max_positions=32768,
    qkv_bias=True,
    family="qwen2",
)


def shape(hour: Hour, name: str) -> Architecture:
    """The sizes of that Qwen2.5, from its model option; small: tiny ones, tied or not as the model's are."""
    real = architecture_of("model", HUB[name])
    return replace(SMALL, tied_embeddings=real.tied_embeddings) if hour.small else real


def model_of(sizes: Architecture, device: str, dtype: torch.dtype = torch.float32, *, spread: float = 0.02) -> Any:
    """A Qwen2ForCausalLM; `spread` is the standard deviation of its weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        vocab_size=sizes.vocab_rows,
        tie_word_embeddings=sizes.tied_embeddings,
        max_position_embeddings=sizes.max_positions,
        initializer_range=spread,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return Qwen2ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def language_model(
    sizes: Architecture, device: str, dtype: torch.dtype = torch.float32, *, spread: float = 0.02
) -> LanguageModel:
    return LanguageModel(model_of(sizes, device, dtype, spread=spread), tokenizer(), "random", has_head=True)


def tokenizer() -> Any:
    """The bundled one: what ids of a larger vocabulary stand for does not matter here."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(bundled_path("tiny"))


def save(sizes: Architecture, folder: Path, hour: Hour) -> None:
    """The model in a folder that `model.path` can name, in bfloat16."""
    model_of(sizes, hour.device, torch.bfloat16).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    tidy()


def asked_for(count: int, prompt: int, vocabulary: int, *, uneven: bool = True) -> list[SampleRequest]:
    """Requests with prompts of their own; `uneven`: of different lengths, so that there is padding."""
    chance, requests = random.Random(0), []
    for number in range(count):
        length = max(1, prompt - (number % 4 if uneven else 0))
        ids = tuple(chance.randrange(2, vocabulary) for _ in range(length))
        asked = Prompt(Problem(number, str(number), (("user", ""),), ""), "", ids)
        requests.append(SampleRequest(asked, 0, seed=number))
    return requests


def made_up(count: int, prompt: int, completion: int, vocabulary: int) -> list[Rollout]:
    chance = random.Random(1)
    return [
        Rollout(asked, tuple(chance.randrange(2, vocabulary) for _ in range(completion)), "", "length")
        for asked in asked_for(count, prompt, vocabulary)
    ]


def batch_of(rollouts: list[Rollout]) -> StepBatch:
    """Advantages of +1 and -1 in turn, in groups of two."""
    lengths = [len(one.token_ids) for one in rollouts]
    advantages = torch.tensor([1.0 if row % 2 else -1.0 for row in range(len(rollouts))])
    return StepBatch(rollouts, lengths, advantages, 2, list(range(len(rollouts))))


def tidy() -> None:
    """Give back what is no longer used, so that the next measurement begins with nothing."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time, until the GPU is done."""
    finish()
    started = time.perf_counter()
    work()
    finish()
    return time.perf_counter() - started


def interleaved(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each side; they take turns, after a turn that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, work in sides.items():
            taken = seconds_of(work)
            if turn:
                times[name].append(taken)
    return {name: median(values) for name, values in times.items()}


def finish() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
