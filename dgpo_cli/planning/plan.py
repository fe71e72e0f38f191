"""The plan of a command: batch arithmetic, memory a process, disk, and what is likely to go wrong.

It reads a typed configuration and an architecture. What the machine has and what the data holds is handed in, so that
nothing here touches files, hardware or network.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dgpo_cli.config.commands import EvalConfig, RolloutConfig, TrainConfig
from dgpo_cli.config.groups import BenchmarkConfig, Dtype, ScorePolicy, Signal
from dgpo_cli.config.precision import compute_dtype
from dgpo_cli.config.strategies import OFFLOADED, SHARDED
from dgpo_cli.planning.architecture import Adapters, Architecture
from dgpo_cli.planning.memory import (
    NO_ADAPTERS,
    PARTS,
    Batch,
    Generation,
    Memory,
    Setting,
    generating,
    host_bytes,
    noise_phase,
    sampling_phase,
    scoring_pass,
    standing,
    trained_parameters,
    training_phases,
)

ASSUMED_PROCESSES = 8
ASSUMED_PROMPT_TOKENS = 1024  # where the data is not at hand
GPU_SIZES = {"80 GB": 85_000_000_000, "141 GB": 150_000_000_000}  # what CUDA gives of an H100 and of an H200
USABLE = 0.92  # of a device's memory: the rest is the driver's context and what the allocator cannot reuse


@dataclass(frozen=True)
class Machine:
    """What is here: GPUs with their memory, and the computer's memory and free disk, in bytes (None: unknown)."""

    gpus: int = 0
    gpu_bytes: int | None = None
    cpu_bytes: int | None = None
    disk_free_bytes: int | None = None
    launched: int | None = None  # processes that a launcher has started


@dataclass(frozen=True)
class Data:
    """What is known of the prompts without a tokenizer. A prompt has no more tokens than characters."""

    rows: int | None = None
    longest_prompt: int | None = None  # characters


@dataclass(frozen=True)
class Layout:
    """Where the processes run. `assumed` says what was not known."""

    strategy: str
    processes: int
    device: str
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All of it; sizes in bytes, `memory` of one process.

    `host_bytes` is CPU memory of a process on a GPU; `loading_bytes` what the main process takes there while it loads
    a model that is then shared out.
    """

    command: str
    model: dict[str, Any]
    layout: Layout
    precision: dict[str, Any]
    batch: dict[str, Any]
    phases: dict[str, Memory]
    host_bytes: int = 0
    loading_bytes: int = 0
    disk: dict[str, int] = field(default_factory=dict)
    fits: dict[str, bool] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def memory(self) -> dict[str, int]:
        """The most of each part in any phase."""
        return {part: max(getattr(phase, part) for phase in self.phases.values()) for part in PARTS}

    @property
    def peak_phase(self) -> str:
        return max(self.phases, key=lambda name: self.phases[name].total)

    @property
    def peak_bytes(self) -> int:
        return self.phases[self.peak_phase].total

    def as_record(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "command": self.command,
            "model": self.model,
            "strategy": asdict(self.layout),
            "precision": self.precision,
            **self.batch,
            "memory": self.memory,
            "memory_peak": {"bytes": self.peak_bytes, "phase": self.peak_phase},
            "memory_by_phase": {name: {"total": phase.total, **asdict(phase)} for name, phase in self.phases.items()},
            "host_memory": self.host_bytes,
            "host_memory_loading": self.loading_bytes,
            "disk": self.disk,
            "fits": self.fits,
            "warnings": list(self.warnings),
        }


def plan_training(
    config: TrainConfig,
    model: Architecture,
    machine: Machine,
    data: Data,
    reference: Architecture | None = None,
    benchmark: Data = Data(),
    *,
    notes: tuple[str, ...] = (),
) -> Plan:
    """`reference`: the architecture of another model than the policy's, where reference.path names one.

    `benchmark`: what is known of the problems that are evaluated in training.
    """
    layout = place(config, machine)
    setting = _setting(config, layout, trains=True)
    prompt = prompt_tokens(config.rollout.max_completion_tokens, model, data)
    batch = micro_batch(config, layout, prompt)
    generation = Generation(
        rows=min(config.engine.batch_size, _rollouts(config)),  # a unit is dealt out whole, to one process
        width=prompt + config.rollout.max_completion_tokens,
        prompt=prompt,
    )
    phases = training_phases(model, setting, batch, generation, scores_first=_scores_first(config, batch))
    kept = _kept_states(config, model, setting, layout)
    if setting.device == "cpu":
        phases = {
            name: phase if name == "rollout" else replace(phase, scoring=phase.scoring + kept)
            for name, phase in phases.items()
        }
    if _measures_noise(config):
        several = max(1, config.optim.tokens_per_microbatch // batch.width)
        phases["noise_floor"] = noise_phase(model, setting, replace(batch, rows=min(several, _rollouts(config))))
    if config.benchmark.name is not None:
        phases["evaluation"] = _evaluation_in_training(config, model, setting, benchmark)
    if reference is not None:
        phases = _with_other_reference(phases, model, reference)
    disk = _disk(config, model, setting)
    warnings = (
        *notes,
        *layout.assumed,
        *_context_warnings(model, prompt, config.rollout.max_completion_tokens, "rollout.max_completion_tokens"),
        *_batch_warnings(config, layout, batch),
        *_disk_warnings(disk, machine),
    )
    made = Plan(
        command="train",
        model=_model_facts(config, model, setting),
        layout=layout,
        precision=_precision(setting, trains=True),
        batch=_training_batch(config, layout, batch, prompt, data),
        phases=phases,
        host_bytes=host_bytes(model, setting) + (0 if setting.device == "cpu" else kept),
        loading_bytes=setting.weight_bytes * model.parameters if setting.sharded else 0,
        disk=disk,
    )
    return _judged(made, machine, warnings)


def plan_evaluation(
    config: EvalConfig, model: Architecture, machine: Machine, data: Data, *, notes: tuple[str, ...] = ()
) -> Plan:
    layout = place(config, machine)
    setting = _setting(config, layout, trains=False)
    benchmark = config.benchmark
    prompt = prompt_tokens(benchmark.max_tokens, model, data)
    problems = _problems(benchmark, data)
    samples = problems * benchmark.k if problems else None
    rows = min(config.engine.batch_size, samples or config.engine.batch_size)
    generation = Generation(rows, prompt + benchmark.max_tokens, prompt)
    counts = {
        "benchmark": benchmark.name,
        "problems": problems,
        "samples_per_problem": benchmark.k,
        "samples": samples,
        "generated_together": rows,
        "prompt_tokens": prompt,
        "max_completion_tokens": benchmark.max_tokens,
        "tokens_max": samples * benchmark.max_tokens if samples else None,
    }
    made = Plan(
        command="eval",
        model=_model_facts(config, model, setting),
        layout=layout,
        precision=_precision(setting, trains=False),
        batch={"steps": None, "batch": counts},
        phases={"rollout": _generation_phase(model, setting, generation)},
    )
    context = _context_warnings(model, prompt, benchmark.max_tokens, "benchmark.max_tokens")
    return _judged(made, machine, (*notes, *layout.assumed, *context))


def plan_rollout(
    config: RolloutConfig,
    model: Architecture,
    machine: Machine,
    data: Data,
    reference: Architecture | None = None,
    *,
    notes: tuple[str, ...] = (),
) -> Plan:
    """`reference`: as in `plan_training`."""
    layout = place(config, machine)
    setting = _setting(config, layout, trains=False)
    settings = config.rollout
    prompt = prompt_tokens(settings.max_completion_tokens, model, data)
    prompts = 1 if config.prompt is not None else min(config.limit, data.rows or config.limit)
    samples = prompts * settings.group_size
    width = prompt + settings.max_completion_tokens
    generation = Generation(min(config.engine.batch_size, samples), width, prompt)
    rows = max(1, min(config.tokens_per_microbatch // width, samples))
    batch = Batch(rows, width, settings.max_completion_tokens, padded=rows > 1)
    held = standing(model, setting)
    phases = {
        "rollout": _generation_phase(model, setting, generation),
        "score": replace(held, optimizer=0, **scoring_pass(model, setting, batch)),
    }
    if setting.reference != "none":
        phases["noise_floor"] = replace(noise_phase(model, setting, batch), optimizer=0)
    if reference is not None:
        phases = _with_other_reference(phases, model, reference)
    made = Plan(
        command="rollout",
        model=_model_facts(config, model, setting),
        layout=layout,
        precision=_precision(setting, trains=False),
        batch={
            "steps": None,
            "batch": {
                "prompts": prompts,
                "group_size": settings.group_size,
                "rollouts": samples,
                "prompt_tokens": prompt,
                "max_completion_tokens": settings.max_completion_tokens,
                "tokens_max": samples * settings.max_completion_tokens,
            },
        },
        phases=phases,
    )
    context = _context_warnings(model, prompt, settings.max_completion_tokens, "rollout.max_completion_tokens")
    return _judged(made, machine, (*notes, *layout.assumed, *context))


# Where it runs.


def place(config: Any, machine: Machine) -> Layout:
    """Strategy, processes and device, with what had to be assumed."""
    strategy = config.strategy
    wanted = strategy.device.name
    distributed = strategy.name != "single"
    device = wanted if wanted != "auto" else ("cuda" if machine.gpus or distributed else "cpu")
    assumed = []
    processes = 1
    if distributed:
        processes = machine.launched or strategy.num_processes or machine.gpus or ASSUMED_PROCESSES
        if not machine.gpus and device == "cuda":
            source = "strategy.num_processes" if strategy.num_processes else "num_processes unset"
            assumed.append(f"no GPU here: planned for {processes} GPU processes ({source})")
    elif device == "cuda" and not machine.gpus:
        assumed.append("no GPU here: planned for one (strategy.device=cuda)")
    elif device == "cpu" and wanted == "auto":
        assumed.append("no GPU here: planned for this CPU; strategy.device=cuda or strategy=fsdp plans for GPUs")
    return Layout(strategy.name, processes, device, tuple(assumed))


def _setting(config: Any, layout: Layout, *, trains: bool) -> Setting:
    strategy = config.strategy
    stored = 2 if config.model.dtype is Dtype.bfloat16 else 4
    lora = config.model.lora
    sharded = layout.strategy in SHARDED
    dtype = compute_dtype(strategy.compute_dtype, config.model.dtype, layout.device)
    reference = "none"
    if _needs_reference(config):
        own = config.reference.name == "initial"
        reference = "shared" if lora.rank and own else "copy"
    return Setting(
        device=layout.device,
        sharded=sharded,
        copies=layout.processes if layout.strategy == "ddp" else 1,
        shards=layout.processes if sharded else 1,
        offloaded=layout.strategy == OFFLOADED,
        weight_bytes=stored,
        compute_bytes=2 if dtype is Dtype.bfloat16 else 4,
        checkpointing=strategy.activation_checkpointing and trains,
        adapters=_adapters(config) if trains else NO_ADAPTERS,
        trains=trains,
        reference=reference,
        reference_renewed=isinstance(config, TrainConfig) and config.reference.refresh_every > 0,
        reference_offloaded=strategy.reference_offload and sharded and layout.device == "cuda",
        generates_gathered=strategy.gather_for_generation,
    )


def _adapters(config: Any) -> Adapters:
    lora = config.model.lora
    targets = lora.target_modules
    return Adapters(lora.rank or 0, None if targets is None else tuple(targets))


def _needs_reference(config: Any) -> bool:
    """As `Algorithm.needs_reference` says in training; `dgpo rollout` runs one wherever it is named."""
    if isinstance(config, EvalConfig) or config.reference.name == "none":
        return False
    if isinstance(config, RolloutConfig):
        return True
    gating = config.gating
    distance = gating.signal in (Signal.hellinger, Signal.hellinger_root, Signal.kl, Signal.logratio)
    return bool(distance or config.algo.kl_coef > 0 or (gating.signal is not Signal.none and gating.noise_gate))


def _generation_phase(model: Architecture, setting: Setting, generation: Generation) -> Memory:
    return replace(standing(model, setting), optimizer=0, **generating(model, setting, generation))


def _evaluation_in_training(config: TrainConfig, model: Architecture, setting: Setting, data: Data) -> Memory:
    """Sampling of the benchmark's completions, which may be longer than those that are trained on."""
    benchmark, settings = config.benchmark, config.eval
    problems = _problems(replace(benchmark, limit=settings.limit or benchmark.limit), data)
    samples = problems * (settings.k or benchmark.k) if problems else config.engine.batch_size
    prompt = prompt_tokens(benchmark.max_tokens, model, data)
    rows = min(config.engine.batch_size, samples)
    return sampling_phase(model, setting, Generation(rows, prompt + benchmark.max_tokens, prompt))


def _problems(benchmark: BenchmarkConfig, data: Data) -> int | None:
    """How many are evaluated; None where neither the data nor the option says."""
    known = data.rows or benchmark.rows
    return min(known, benchmark.limit or known) if known else benchmark.limit


def _with_other_reference(phases: dict[str, Memory], model: Architecture, reference: Architecture) -> dict[str, Memory]:
    share = reference.parameters / model.parameters
    return {name: replace(phase, reference=round(phase.reference * share)) for name, phase in phases.items()}


# Batch arithmetic.


def prompt_tokens(max_completion_tokens: int, model: Architecture, data: Data) -> int:
    """The longest prompt: no more tokens than characters where the data is at hand, no more than the context leaves."""
    known = data.longest_prompt or ASSUMED_PROMPT_TOKENS
    room = (model.max_positions or math.inf) - max_completion_tokens
    return int(max(1, min(known, ASSUMED_PROMPT_TOKENS, room)))


def micro_batch(config: TrainConfig, layout: Layout, prompt: int) -> Batch:
    """The micro-batch of sequences that are all of full length, and how many an update of a process takes."""
    width = prompt + config.rollout.max_completion_tokens
    rollouts = _per_process(math.ceil(_rollouts(config) / config.optim.minibatches), layout)
    rows = max(1, min(config.optim.tokens_per_microbatch // width, rollouts))
    return Batch(
        rows=rows,
        width=width,
        counted=config.rollout.max_completion_tokens,
        micro_batches=math.ceil(rollouts / rows),
        padded=rows > 1,
    )


def probed_batch(config: TrainConfig, made: Plan) -> Batch:
    """The micro-batch that the plan's update was laid out for."""
    return micro_batch(config, made.layout, made.batch["batch"]["prompt_tokens"])


def _rollouts(config: TrainConfig) -> int:
    return config.rollout.prompts_per_step * config.rollout.group_size


def _per_process(count: int, layout: Layout) -> int:
    return math.ceil(count / layout.processes)


def _scores_first(config: TrainConfig, batch: Batch) -> bool:
    """Whether old log-probs and the signals of credit take a pass of their own (training/update.py)."""
    gating = config.gating
    if config.optim.minibatches * config.optim.epochs > 1:
        return True
    whole = gating.noise_gate or gating.normalizer.name == "saturate" or gating.top_fraction is not None
    return gating.signal is not Signal.none and whole and batch.micro_batches > 1


def _measures_noise(config: TrainConfig) -> bool:
    """Once, before the first update."""
    return config.gating.signal is not Signal.none and config.gating.noise_gate


def _kept_states(config: TrainConfig, model: Architecture, setting: Setting, layout: Layout) -> int:
    """The reference's hidden states of a step in CPU memory, where each update scores the policy again."""
    gating = config.gating
    rescores = gating.signal is not Signal.none and gating.score_policy is ScorePolicy.current
    if not rescores or setting.reference == "none" or config.optim.minibatches * config.optim.epochs == 1:
        return 0
    tokens = _per_process(_rollouts(config), layout) * config.rollout.max_completion_tokens
    return tokens * model.hidden_size * setting.compute_bytes


def _training_batch(config: TrainConfig, layout: Layout, batch: Batch, prompt: int, data: Data) -> dict[str, Any]:
    rollout, optim = config.rollout, config.optim
    rollouts = _rollouts(config)
    dynamic = config.algo.dynamic_sampling
    drawn = config.steps * rollout.prompts_per_step
    return {
        "steps": config.steps,
        "batch": {
            "prompts_per_step": rollout.prompts_per_step,
            "group_size": rollout.group_size,
            "rollouts_per_step": rollouts,
            "rollouts_per_step_max": rollouts * (1 + dynamic.max_refills if dynamic.enabled else 1),
            "rollouts_per_process": _per_process(rollouts, layout),
            "minibatches": optim.minibatches,
            "epochs": optim.epochs,
            "updates_per_step": optim.minibatches * optim.epochs,
            "updates": config.steps * optim.minibatches * optim.epochs,
            "rollouts_per_update": math.ceil(rollouts / optim.minibatches),
            "micro_batches_per_update": batch.micro_batches,
            "rollouts_per_micro_batch": batch.rows,
            "prompt_tokens": prompt,
            "max_completion_tokens": rollout.max_completion_tokens,
            "tokens_per_step_max": rollouts * (prompt + rollout.max_completion_tokens),
            "completion_tokens_per_step_max": rollouts * rollout.max_completion_tokens,
            "data_rows": data.rows,
            "data_epochs": round(drawn / data.rows, 3) if data.rows else None,
        },
    }


# What is said.


def _model_facts(config: Any, model: Architecture, setting: Setting) -> dict[str, Any]:
    shape = asdict(model)
    return {
        "name": config.model.name,
        "path": config.model.path,
        "parameters": model.parameters,
        "trained_parameters": trained_parameters(model, setting) if isinstance(config, TrainConfig) else 0,
        "architecture": shape,
    }


def _precision(setting: Setting, *, trains: bool) -> dict[str, Any]:
    names = {2: "bfloat16", 4: "float32"}
    facts: dict[str, Any] = {"weights": names[setting.weight_bytes], "compute": names[setting.compute_bytes]}
    if trains:
        facts |= {"gradients": "float32", "moments": "float32", "bytes_per_trained_parameter": 16}
    return facts


def _disk(config: TrainConfig, model: Architecture, setting: Setting) -> dict[str, int]:
    """A checkpoint, those that are kept, and the most at one time: one more while it is written."""
    trained = trained_parameters(model, setting)
    full = setting.weight_bytes * model.parameters
    weights = full if not setting.adapters.rank else 4 * trained + (full if config.model.lora.merge else 0)
    renewed = weights if config.reference.refresh_every else 0
    checkpoint = weights + 8 * trained + renewed
    kept = config.checkpoint.keep + (1 if config.checkpoint.keep_best and config.benchmark.name else 0)
    return {
        "checkpoint": checkpoint,
        "checkpoints_kept": kept,
        "kept": kept * checkpoint,
        "most": (kept + 1) * checkpoint,
    }


def _disk_warnings(disk: dict[str, int], machine: Machine) -> list[str]:
    if machine.disk_free_bytes is None or disk["most"] <= machine.disk_free_bytes:
        return []
    return [
        f"checkpoints take up to {size(disk['most'])} and {size(machine.disk_free_bytes)} are free: a smaller "
        "checkpoint.keep, or hydra.run.dir on another disk"
    ]


def _context_warnings(model: Architecture, prompt: int, completion: int, name: str) -> list[str]:
    limit = model.max_positions
    if limit is None or completion < limit:
        return []
    return [
        f"{name}={completion} leaves no room for a prompt: the model's context is {limit:,} tokens: "
        f"{name}={max(1, limit - prompt)}"
    ]


def _batch_warnings(config: TrainConfig, layout: Layout, batch: Batch) -> list[str]:
    found = []
    budget = config.optim.tokens_per_microbatch
    if batch.width > budget:
        found.append(
            f"a full-length rollout has {batch.width:,} tokens, more than optim.tokens_per_microbatch={budget}: it is "
            "a micro-batch of its own"
        )
    rollouts = math.ceil(_rollouts(config) / config.optim.minibatches)
    if rollouts % layout.processes:
        found.append(
            f"{rollouts} rollouts an update do not split evenly over {layout.processes} processes: some wait at "
            "the end of each update"
        )
    return found


def _judged(made: Plan, machine: Machine, warnings: tuple[str, ...]) -> Plan:
    """The plan with its warnings and where it fits."""
    sizes = _device_sizes(made.layout, machine)
    fits = {name: made.peak_bytes <= USABLE * capacity for name, capacity in sizes.items()}
    misfits = [] if any(fits.values()) or not fits else [_misfit(made, sizes)]
    return replace(made, fits=fits, warnings=(*misfits, *warnings))


def _device_sizes(layout: Layout, machine: Machine) -> dict[str, int]:
    """What a process has: its share of this computer, its GPU, or the GPUs that are common."""
    if layout.device == "cpu":
        return {} if machine.cpu_bytes is None else {"this CPU": machine.cpu_bytes // layout.processes}
    if machine.gpu_bytes is not None:
        return {"this GPU": machine.gpu_bytes}
    return dict(GPU_SIZES)


def _misfit(made: Plan, sizes: dict[str, int]) -> str:
    name, capacity = max(sizes.items(), key=lambda item: item[1])
    return (
        f"does not fit: a process takes {size(made.peak_bytes)} in its {made.peak_phase} phase, {name} has "
        f"{size(int(USABLE * capacity))} to give ({USABLE:.0%} of it); {_remedy(made)}"
    )


def _remedy(made: Plan) -> str:
    """What makes the largest part of the largest phase smaller."""
    phase = made.phases[made.peak_phase]
    movable = {"cache": phase.cache, "activations": phase.activations, "weights": 0}
    movable["weights"] = phase.total - phase.cache - phase.activations - phase.scoring
    largest = max(movable, key=lambda part: movable[part])
    if largest == "cache":
        return "a smaller engine.batch_size"
    if largest == "activations":
        return "strategy.activation_checkpointing=true, a smaller optim.tokens_per_microbatch"
    if made.layout.strategy in SHARDED:
        return "more processes (strategy.num_processes), strategy=fsdp_offload, or model.lora.rank=16"
    return "strategy=fsdp over several GPUs, or model.lora.rank=16"


def size(count: int) -> str:
    """Bytes for a reader: 12.3 GiB."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
