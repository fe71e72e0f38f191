"""Whole steps on models of random weights: rollouts, then updates; decoding and torch.compile by themselves.

Useful operations of a trained token: 6 a weight of the body (4 of frozen ones under LoRA), 2 more for the reference,
8 an entry of the head for a counted token (6 of a frozen one), and attention's. What activation checkpointing computes
a second time is not useful, so it lowers the MFU: a share of the 989 TFLOP/s in the datasheets of H100 and H200.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.commands.probe import MEASURED_PHASES
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.groups import StrategyConfig
from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.models.frozen import frozen_copy
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.placement import Placement, prepare_device
from dgpo_cli.models.scoring import score_rollouts
from dgpo_cli.planning.architecture import Architecture
from dgpo_cli.planning.batches import Data
from dgpo_cli.planning.hours import ASSUMED
from dgpo_cli.planning.layout import Machine
from dgpo_cli.planning.plan import plan_training
from dgpo_cli.planning.plan_record import Plan
from dgpo_cli.processes import SOLO
from dgpo_cli.training.engine_gap import logprob_gap
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.probe import PeakMemory
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.training.update import Updater
from dgpo_cli.types import Rollout, Sampling
from gpu_hour.checks import Hour
from gpu_hour.models import asked_for, batch_of, interleaved, language_model, made_up, seconds_of, shape, tidy
from gpu_hour.scoring import GIB, SHEET_FLOPS

FITS = 0.85  # of the GPU's memory, by the plan
RANK = 16


@dataclass(frozen=True)
class Work:
    """A step: so many rollouts of prompt and completion tokens, in micro-batches of so many tokens."""

    rollouts: int
    prompt: int
    completion: int
    tokens: int

    def overrides(self) -> list[str]:
        return [
            f"rollout.prompts_per_step={self.rollouts // 2}",
            "rollout.group_size=2",
            f"rollout.max_completion_tokens={self.completion}",
            f"optim.tokens_per_microbatch={self.tokens}",
            f"engine.batch_size={self.rollouts}",
            "logger=none",
        ]


TINY = Work(4, 12, 8, 128)


def step_small(hour: Hour) -> None:
    """Qwen2.5-0.5B's shape, all of it trained, as `model=qwen0_5b` has it but for the lengths."""
    whole_step(hour, shape(hour, "0.5B"), TINY if hour.small else Work(64, 256, 256, 16384))


def step_large(hour: Hour) -> None:
    """Qwen2.5-7B's widths, all trained with checkpointing, and as many of its layers as the plan puts on this GPU."""
    work = TINY if hour.small else Work(32, 256, 128, 8192)
    whole_step(hour, shape(hour, "7B"), work, "strategy.activation_checkpointing=true", cut=True)


def step_lora(hour: Hour) -> None:
    """Qwen2.5-32B's shape: frozen bfloat16 weights, adapters of rank 16, checkpointing."""
    work = TINY if hour.small else Work(32, 192, 64, 8192)
    lora = [f"model.lora.rank={RANK}", "model.dtype=bfloat16", "strategy.activation_checkpointing=true"]
    whole_step(hour, shape(hour, "32B"), work, *lora, least_mfu=0.25)


def whole_step(
    hour: Hour, sizes: Architecture, work: Work, *overrides: str, cut: bool = False, least_mfu: float = 0.3
) -> None:
    from dgpo_cli.config.compose import compose

    config = compose(
        "train", ["model.path=bundled:tiny", *work.overrides(), f"strategy.device={hour.device}", *overrides]
    )
    if cut and hour.on_gpu:
        sizes = replace(sizes, layers=layers_that_fit(config, sizes, work))
    lora = bool(config.model.lora.rank)
    hour.tell("layers", sizes.layers)
    hour.tell("parameters", round(sizes.parameters / 1e9, 3), "billion")
    memory = PeakMemory(hour.device)
    policy, updater = updater_of(config, sizes, hour.device)
    engine = TransformersEngine(policy, stop_ids=frozenset(), batch_size=work.rollouts)
    requests = asked_for(work.rollouts, work.prompt, sizes.vocab_rows)
    engine.generate(requests[:2], Sampling(1.0, 1.0, 2))
    drawn: list[Rollout] = []
    rollout = seconds_of(lambda: drawn.extend(engine.generate(requests, Sampling(1.0, 1.0, work.completion))))
    update = update_on(drawn, updater)
    update()
    memory.reset()
    training = median(seconds_of(update) for _ in range(1 if hour.small else 3))
    peak = memory.peak()
    tokens = work.rollouts * (work.prompt + work.completion)
    hour.tell("step", rollout + training, "s", f"rollout {rollout:.2f} s, training {training:.2f} s")
    hour.tell("rollout", work.rollouts * work.completion / rollout, "tokens/s", f"{work.rollouts} together")
    hour.tell("training", tokens / training, "tokens/s")
    flops = useful_flops(sizes, work, lora=lora)
    share = flops / training / SHEET_FLOPS
    note = f"{flops / training / 1e12:.1f} TFLOP/s; of this GPU's own product {of_product(hour, flops / training):.2f}"
    hour.expect("MFU of training", share, least=least_mfu, judged=hour.on_gpu, note=f"{note}; the plan assumes 0.3")
    planned = planned_peak(config, sizes, work)
    hour.expect(
        "planned over measured", planned / peak, least=0.9, most=1.15, judged=hour.on_gpu, note=f"{peak / GIB:.1f} GiB"
    )


def updater_of(config: TrainConfig, sizes: Architecture, device: str) -> tuple[LanguageModel, Updater]:
    """The policy where it computes, and what trains it, by a configuration but for the weights, which are random."""
    placement = prepare_device(config.strategy, config.model)
    dtype = getattr(torch, config.model.dtype.name)
    made = language_model(sizes, device, dtype)
    if config.model.lora.rank:
        from dgpo_cli.models.lora import add_adapter

        options: dict[str, Any] = {"base": "random", "revision": None, "seed": 0}
        made.adapter = add_adapter(made.model, rank=RANK, alpha=None, target_modules=None, **options)
    policy = placement.policy(made)
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=config.rollout.max_completion_tokens)
    reference = frozen_copy(policy) if algorithm.needs_reference else None
    optimizer = Optimizer(policy.model, config.optim)
    return policy, Updater(policy, reference, algorithm, optimizer, config.optim, temperature=1.0)


def plan_for(config: TrainConfig, sizes: Architecture, work: Work) -> Plan:
    return plan_training(config, sizes, Machine(gpus=int(torch.cuda.is_available())), Data(longest_prompt=work.prompt))


def planned_peak(config: TrainConfig, sizes: Architecture, work: Work) -> int:
    """Of the phases of an update."""
    phases = plan_for(config, sizes, work).phases
    return max(phase.total for name, phase in phases.items() if name in MEASURED_PHASES)


def layers_that_fit(config: TrainConfig, sizes: Architecture, work: Work) -> int:
    room = FITS * torch.cuda.get_device_properties(0).total_memory
    fits = [
        n for n in range(1, sizes.layers + 1) if plan_for(config, replace(sizes, layers=n), work).peak_bytes <= room
    ]
    return max(fits, default=1)


def useful_flops(sizes: Architecture, work: Work, *, lora: bool) -> float:
    """Of the updates of a step with its reference, as this file's docstring counts them."""
    width = work.prompt + work.completion
    tokens, counted = work.rollouts * width, work.rollouts * work.completion
    passes = 6 if lora else 8
    body = passes * sizes.body_parameters * tokens
    head = passes * sizes.embedding_parameters * counted
    causal = sizes.layers * 4 * sizes.query_width * width / 2 * tokens  # forward: scores and values
    return float(body + head + causal * (3 + 1))


def of_product(hour: Hour, rate: float) -> float:
    """The share of the rate at which this machine multiplies; NaN if that section has not run."""
    return rate / 1e12 / hour.found.get("machine/product", float("nan"))


def bandwidth(hour: Hour) -> float:
    """Bytes a second that this machine copies."""
    return hour.found.get("machine/copy", ASSUMED[hour.device].bytes_per_second / 1e12) * 1e12


def sampler_gap(hour: Hour) -> None:
    """What the sampler drew with beside what the scorer computes for the same tokens, at bfloat16 on a GPU."""
    sizes = shape(hour, "0.5B")
    for name, spread in (("random weights", 0.02), ("sharp distributions", 0.1)):
        made = language_model(sizes, hour.device, spread=spread)
        policy = Placement(StrategyConfig(), hour.device, SOLO).policy(made)
        count, completion = (4, 8) if hour.small else (32, 64)
        drawn = TransformersEngine(policy, stop_ids=frozenset(), batch_size=count).generate(
            asked_for(count, 24, sizes.vocab_rows), Sampling(1.0, 1.0, completion)
        )
        signals = score_rollouts(policy, None, drawn, [completion] * count, temperature=1.0, tokens=16384)
        gap = logprob_gap(drawn, signals)
        entropy = float(signals.entropy[signals.mask].mean())
        for kind, on_gpu, on_cpu in (("mean", 3e-2, 2e-5), ("max", 0.5, 5e-4)):
            most = on_gpu if hour.on_gpu else on_cpu
            found = gap[f"engine/logprob_gap_{kind}"]
            hour.expect(f"{name}: {kind}", found, most=most, unit="nats", note=f"entropy {entropy:.2f}")
        del made, policy
        tidy()


def decode(hour: Hour) -> None:
    """Seconds of a token of the decoding loop, beside the reading of weights and cache, which no loop goes below."""
    cases = [("0.5B", [1, 8])] if hour.small else [("0.5B", [1, 64, 256]), ("7B", [1, 64])]
    prompt, completion = (12, 8) if hour.small else (256, 48)
    dtype, element = (torch.bfloat16, 2) if hour.on_gpu else (torch.float32, 4)
    for size, batches in cases:
        sizes = shape(hour, size)
        model = language_model(sizes, hour.device, dtype)
        model.model.requires_grad_(False)
        for count in batches:
            token = seconds_of_a_token(model, sizes, count, prompt, completion)
            read: float = element * (sizes.body_parameters + sizes.embedding_parameters)
            read += count * sizes.cache_bytes(element) * (prompt + completion / 2)
            assumed = max(read / (bandwidth(hour) * ASSUMED["cuda"].bandwidth_used), ASSUMED["cuda"].seconds_per_token)
            share = read / token / bandwidth(hour)
            hour.expect(
                f"{size}, {count} together", token * 1e3, most=assumed * 1e3, unit="ms a token", judged=hour.on_gpu,
                note=f"{share:.1%} of the bandwidth limit; {count / token:.0f} tokens/s; expected as the plan assumes",
            )  # fmt: skip
        del model
        tidy()


def seconds_of_a_token(model: LanguageModel, sizes: Architecture, count: int, prompt: int, completion: int) -> float:
    """Of the loop alone: a long call less a short one."""
    engine = TransformersEngine(model, stop_ids=frozenset(), batch_size=count)
    requests = asked_for(count, prompt, sizes.vocab_rows, uneven=False)

    def draw(tokens: int) -> None:
        engine.generate(requests, Sampling(1.0, 1.0, tokens))

    taken = interleaved({"short": lambda: draw(2), "long": lambda: draw(completion + 2)}, 2)
    return (taken["long"] - taken["short"]) / completion


def update_on(rollouts: list[Rollout], updater: Updater) -> Callable[[], object]:
    """A step's update, which has to be made."""

    def update() -> None:
        result = updater.run(batch_of(rollouts), lr=1e-6, noise_floor=0.0, guard=StopGuard(0.0))
        assert result.outcomes[0].applied, "the update was not finite"

    return update


def compiled(hour: Hour) -> None:
    """strategy.compile: what it costs once, what it saves of an update, and whether the log-probs stay."""
    from torch._dynamo.utils import counters

    work = TINY if hour.small else Work(32, 256, 256, 16384)
    rollouts = made_up(work.rollouts, work.prompt, work.completion, shape(hour, "0.5B").vocab_rows)
    ratio = _beside(hour, work, rollouts, eager="strategy.compile=false", compiled="strategy.compile=true")
    hour.expect("update, compiled over eager", ratio, most=1.0, unit="x", judged=hour.on_gpu)
    graphs = counters["stats"]["unique_graphs"]
    hour.expect("graphs compiled", graphs, most=12, note="one for all layers, by kind of pass and shape")


def packed(hour: Hour) -> None:
    """strategy.packing: what it saves of an update on rollouts of unlike lengths, and whether the log-probs stay."""
    work = TINY if hour.small else Work(64, 256, 1024, 16384)
    whole = made_up(work.rollouts, work.prompt, work.completion, shape(hour, "0.5B").vocab_rows)
    rollouts = [  # a quarter of the longest to the longest
        replace(one, token_ids=one.token_ids[: work.completion * (len(whole) + 3 * row) // (4 * len(whole))])
        for row, one in enumerate(whole, 1)
    ]
    ratio = _beside(hour, work, rollouts, padded="strategy.packing=false", packed="strategy.packing=true")
    hour.expect("update, packed over padded", ratio, most=1.05, unit="x", judged=hour.on_gpu)


def _beside(hour: Hour, work: Work, rollouts: list[Rollout], **settings: str) -> float:
    """Seconds of an update under the second setting over the first, whose log-probs are compared."""
    from dgpo_cli.config.compose import compose

    sizes = replace(shape(hour, "0.5B"), layers=2 if hour.small else 8)
    lengths = [len(one.token_ids) for one in rollouts]
    sides: dict[str, Callable[[], object]] = {}
    found: dict[str, Tensor] = {}
    for name, setting in settings.items():
        strategy = [f"strategy.device={hour.device}", setting]
        config = compose("train", ["model.path=bundled:tiny", *work.overrides(), *strategy])
        policy, updater = updater_of(config, sizes, hour.device)
        signals = score_rollouts(policy, None, rollouts, lengths, temperature=1.0, tokens=work.tokens)
        found[name] = signals.logprobs[signals.mask]
        sides[name] = update_on(rollouts, updater)
        hour.tell(f"first update, {name}", seconds_of(sides[name]), "s")
    first, second = settings
    gap = float((found[first] - found[second]).abs().max())
    hour.expect(f"log-probs, {second} beside {first}", gap, most=0.1 if hour.on_gpu else 1e-4, unit="nats")
    taken = interleaved(sides, 1 if hour.small else 3)
    return taken[second] / taken[first]
