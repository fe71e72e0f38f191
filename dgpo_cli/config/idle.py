"""Keys that change nothing beside what else is chosen: which, why not, and what would make them count.

`RULES` holds one row a family of keys. A row is asked about what was typed on the command line alone: options and
recipes bring keys that wait for a choice. A value that asks for nothing (null, false, none, an empty list, the 0 of a
key that is 0 by default) is never idle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.checks import credits_divergence
from dgpo_cli.config.groups import LoggerMode, Schedule, Signal
from dgpo_cli.config.strategies import SHARDED

TIMED = ("robust", "function")  # graders that run in processes with a time limit

COUNT_WHEN_FALSE = ("strategy.gather_for_generation",)
MAY_BE_SECRET = ("engine.url", "engine.api_key_env")

Typed = Collection[str]


@dataclass(frozen=True)
class Rule:
    """Keys, or all below a section (`benchmark.`), that do nothing where `idle` says why: None where they count."""

    keys: tuple[str, ...]
    commands: tuple[str, ...]
    idle: Callable[[Any, Typed], str | None]
    hint: str
    but: tuple[str, ...] = ()  # keys of the section that the row does not speak of

    def covers(self, key: str) -> bool:
        is_named = any(key == name or (name.endswith(".") and key.startswith(name)) for name in self.keys)
        return is_named and not any(key == name or (name.endswith(".") and key.startswith(name)) for name in self.but)


@dataclass(frozen=True)
class Idle:
    """One typed key that changes nothing."""

    key: str
    message: str
    hint: str


def idle_keys(command: str, config: Any, typed: dict[str, Any]) -> list[Idle]:
    """Those of `typed`, the overrides of a job by key or group, that the job does not look at."""
    found = []
    for key, value in typed.items():
        if _asks_for_nothing(key, value, command):
            continue
        for rule in RULES:
            if command in rule.commands and rule.covers(key):
                why = rule.idle(config, typed)
                if why is not None:
                    shown = "..." if key in MAY_BE_SECRET else catalogue.show(value)
                    message = f"{key}={shown} changes nothing: {why}"
                    found.append(Idle(key, message, rule.hint))
                    break
    return found


def _asks_for_nothing(key: str, value: Any, command: str) -> bool:
    if value is None or value == "none" or value == []:
        return True
    if value is False:
        return key not in COUNT_WHEN_FALSE
    if key == "reference":
        return bool(value == "initial")  # the default: it is run where something measures from it
    known = catalogue.keys(command).get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or known is None:
        return False
    return bool(
        (value == 0 and (known.default == 0 or key.endswith("_every"))) or (value == 1 and key.endswith("top_p"))
    )


# Why a key is idle. Each takes the job's configuration and the keys that were typed.


def _no_benchmark(config: Any, _: Typed) -> str | None:
    return "there is no benchmark" if config.benchmark.name is None else None


def _needs_no_reference(config: Any, typed: Typed) -> str | None:
    gating = config.gating
    if credits_divergence(gating) or config.algo.kl_coef > 0:
        return None
    return f"gating={gating.name} and algo.kl_coef={catalogue.show(config.algo.kl_coef)} measure nothing from one"


def _reference_of_no_path(config: Any, _: Typed) -> str | None:
    return None if config.reference.name == "path" else f"reference={config.reference.name} has no path"


def _uniform(config: Any, _: Typed) -> str | None:
    return "uniform credit has no weights to shape" if config.gating.signal is Signal.none else None


def _top_fraction(config: Any, _: Typed) -> str | None:
    fraction = config.gating.top_fraction
    return None if fraction is None else f"gating.top_fraction={fraction} gives the chosen tokens equal weights"


def _one_update(config: Any, _: Typed) -> str | None:
    is_one = config.optim.minibatches == config.optim.epochs == 1
    return "a step has one update, before which both are the same policy" if is_one else None


def _no_dynamic_sampling(config: Any, _: Typed) -> str | None:
    return None if config.algo.dynamic_sampling.enabled else "dynamic sampling is off"


def _no_overlong(config: Any, _: Typed) -> str | None:
    return None if config.algo.overlong.enabled else "the overlong punishment is off"


def _own_scores(config: Any, _: Typed) -> str | None:
    if config.reward.name != "function" or config.algo.overlong.enabled:
        return None  # the size of the overlong penalty follows from both
    return "the scores of a function of your own stay as they are"


def _no_function(config: Any, _: Typed) -> str | None:
    benchmark = getattr(config, "benchmark", None)
    evaluates = benchmark is not None and benchmark.name is not None and benchmark.reward == "function"
    return None if evaluates or config.reward.name == "function" else f"reward={config.reward.name} calls no function"


def _untimed(config: Any, _: Typed) -> str | None:
    graders = {config.reward.name}
    if hasattr(config, "benchmark") and config.benchmark.name is not None:
        graders.add(config.benchmark.reward)
    return None if graders & set(TIMED) else f"reward={config.reward.name} answers at once"


def _not_of_hub(group: str) -> Callable[[Any, Typed], str | None]:
    def idle(config: Any, _: Typed) -> str | None:
        source = getattr(config, group)
        path = source.path or getattr(source, "hub", None)
        return f"{group}.path={path} is not on the hub" if path and _is_local(path) else None

    return idle


def _is_local(path: str) -> bool:
    return path.startswith(("bundled:", "/", "./", "../")) or Path(path).expanduser().exists()


def _not_generated(config: Any, _: Typed) -> str | None:
    path = config.data.path
    return None if str(path).startswith("bundled:") else f"data.path={path} holds rows, none are generated"


def _wins(by: str) -> Callable[[Any, Typed], str | None]:
    """Idle where another key is set, which counts in its place."""

    def idle(config: Any, _: Typed) -> str | None:
        value: Any = config
        for part in by.split("."):
            value = getattr(value, part)
        return None if value is None else f"{by}={catalogue.show(value)} wins over it"

    return idle


def _typed_too(*keys: str) -> Callable[[Any, Typed], str | None]:
    """Idle where one of these was typed, which counts in its place."""

    def idle(_: Any, typed: Typed) -> str | None:
        winner = next((key for key in keys if key in typed), None)
        return None if winner is None else f"{winner}= wins over it"

    return idle


def _always(why: str) -> Callable[[Any, Typed], str | None]:
    return lambda _, __: why


def _template_in_training(config: Any, typed: Typed) -> str | None:
    of_benchmark = config.benchmark.name is None or config.benchmark.template is not None
    return _wins("data.template")(config, typed) if of_benchmark else None


def _no_chat(config: Any, _: Typed) -> str | None:
    return None if config.model.chat_template else "there is no system turn without model.chat_template=true"


def _no_plan(config: Any, _: Typed) -> str | None:
    if config.dry_run or getattr(config, "probe", False):
        return None
    return "sizes that are stated serve the plan alone"


def _single(config: Any, _: Typed) -> str | None:
    return "strategy=single has one process" if config.strategy.name == "single" else None


def _unsharded(config: Any, _: Typed) -> str | None:
    name = config.strategy.name
    return None if name in SHARDED else f"strategy={name} holds the whole model in each process"


def _one_process(config: Any, _: Typed) -> str | None:
    return None if config.dry_run else "this command computes in one process, forward alone"


def _no_wandb(config: Any, _: Typed) -> str | None:
    is_off = config.logger.mode is LoggerMode.disabled or config.logger.name == "none"
    return "nothing goes to W&B" if is_off else None


def _constant(config: Any, _: Typed) -> str | None:
    return "a constant schedule has no end" if config.optim.schedule is Schedule.constant else None


def _no_kl(config: Any, _: Typed) -> str | None:
    return None if config.algo.kl_coef > 0 else "there is no KL penalty"


def _no_resume(config: Any, _: Typed) -> str | None:
    return None if config.resume else "no run is continued"


def _planned(config: Any, _: Typed) -> str | None:
    return "dry_run=true stops before it" if config.dry_run else None


def _greedy(section: str) -> Callable[[Any, Typed], str | None]:
    def idle(config: Any, _: Typed) -> str | None:
        return f"{section}.temperature=0 is greedy" if getattr(config, section).temperature == 0 else None

    return idle


def _local_engine(config: Any, _: Typed) -> str | None:
    return None if config.engine.name == "openai" else f"engine={config.engine.name} asks no server"


def _served(config: Any, _: Typed) -> str | None:
    return "the server holds the model" if config.engine.name == "openai" else None


def _served_by_name(config: Any, typed: Typed) -> str | None:
    """A model's path still says which benchmark is the default, and a run's folder brings its own."""
    path = config.model.path
    brings = "benchmark" not in typed or (path is not None and _of_a_run(Path(path)))
    return None if brings else _served(config, typed)


def _of_a_run(model: Path) -> bool:
    return model.name == "model" and len(model.parents) > 2 and (model.parents[2] / "config.yaml").is_file()


def _stored_completions(config: Any, _: Typed) -> str | None:
    return "stored completions are graded, none are drawn" if config.benchmark.completions else None


def _stored_rollouts(config: Any, _: Typed) -> str | None:
    return None if config.rollouts is None else "stored rollouts are read, none are sampled"


def _own_prompt(config: Any, _: Typed) -> str | None:
    return None if config.prompt is None else "the prompt is the one that was typed, and nothing grades it"


TRAIN, EVAL, ROLLOUT = ("train",), ("eval",), ("rollout",)
EACH = ("train", "eval", "rollout")
BENCHMARKED = ("train", "eval")
TRAINING_OF = {  # what model.training proposes, and the key that wins over it
    **{name: f"optim.{name}" for name in ("lr", "schedule", "warmup_steps", "weight_decay", "minibatches")},
    **{name: f"rollout.{name}" for name in ("prompts_per_step", "group_size", "max_completion_tokens")},
    "steps": "steps",
    "tokens_per_microbatch": "optim.tokens_per_microbatch",
    "activation_checkpointing": "strategy.activation_checkpointing",
    "checkpoint_every": "checkpoint.every",
    "strategy": "strategy",
    "engine_batch_size": "engine.batch_size",
}
NAME_IT = "benchmark=NAME chooses one"
RULES: tuple[Rule, ...] = (
    # What a command or its other settings leave no room for.
    Rule(("resume_allow",), TRAIN, _no_resume, "resume=RUN continues one"),
    Rule(("probe",), TRAIN, _planned, "dry_run=false measures"),
    Rule(
        (
            "engine",
            "engine.",
            "strategy",
            "strategy.",
            "model",
            "model.",
            "seed",
            "benchmark.k",
            "benchmark.temperature",
        ),
        EVAL,
        _stored_completions,
        "leave it out; without benchmark.completions= a model draws them",
    ),
    Rule(
        ("benchmark.top_p", "benchmark.max_tokens", "benchmark.template", "benchmark.system_prompt"),
        EVAL,
        _stored_completions,
        "leave it out; without benchmark.completions= a model draws them",
    ),
    Rule(
        ("model", "model.", "reference", "reference.", "data", "data.", "reward", "reward.", "engine", "engine."),
        ROLLOUT,
        _stored_rollouts,
        "leave it out; without rollouts= a model samples",
    ),
    Rule(
        ("strategy", "strategy.", "rollout.", "algo.", "tokens_per_microbatch"),
        ROLLOUT,
        _stored_rollouts,
        "leave it out; without rollouts= a model samples",
    ),
    Rule(
        ("data.", "reward", "reward.", "algo."),
        ROLLOUT,
        _own_prompt,
        "leave it out, or prompt=",
        but=("data.template", "data.system_prompt"),
    ),
    # Benchmarks.
    Rule(("benchmark.completions",), TRAIN, _always("training draws completions of its own"), "dgpo eval grades them"),
    Rule(("benchmark.", "eval."), TRAIN, _no_benchmark, NAME_IT, but=("benchmark.name",)),
    Rule(("checkpoint.keep_best",), TRAIN, _no_benchmark, NAME_IT),
    Rule(("benchmark.k",), TRAIN, _wins("eval.k"), "leave one of them out"),
    Rule(("benchmark.limit",), TRAIN, _wins("eval.limit"), "leave one of them out"),
    Rule(
        ("benchmark", "benchmark."), ROLLOUT, _always("rollouts are sampled from data"), "data=NAME or data.path=FILE"
    ),
    Rule(("benchmark.hub",), BENCHMARKED, _wins("benchmark.path"), "benchmark.path=null reads from the hub"),
    Rule(
        ("benchmark.config", "benchmark.split", "benchmark.revision"),
        BENCHMARKED,
        _not_of_hub("benchmark"),
        "they choose among a hub data set's files",
    ),
    Rule(("benchmark.system_prompt",), BENCHMARKED, _no_chat, "model.chat_template=true"),
    Rule(("benchmark.top_p",), BENCHMARKED, _greedy("benchmark"), "benchmark.temperature=1 samples"),
    # Data.
    Rule(("data.",), EVAL, _always("evaluations read a benchmark"), "benchmark=NAME, benchmark.path=FILE"),
    Rule(("data",), EVAL, _typed_too("benchmark"), "it names the benchmark where none is chosen"),
    Rule(
        ("data.config", "data.split", "data.revision"),
        ("train", "rollout"),
        _not_of_hub("data"),
        "they choose among a hub data set's files",
    ),
    Rule(("data.size",), ("train", "rollout"), _not_generated, "data.limit=N uses the first rows"),
    Rule(("data.system_prompt",), ("train", "rollout"), _no_chat, "model.chat_template=true"),
    # Rewards.
    Rule(("reward.path",), EACH, _no_function, "reward=function, or leave out reward="),
    Rule(("reward.timeout_seconds",), EACH, _untimed, "robust and function are timed"),
    # The algorithm and its credit.
    Rule(("algo.reward_right", "algo.reward_wrong"), ("train", "rollout"), _own_scores, "let the function return them"),
    Rule(
        ("algo.dynamic_sampling.",),
        TRAIN,
        _no_dynamic_sampling,
        "algo.dynamic_sampling.enabled=true, which algo=dapo brings",
        but=("algo.dynamic_sampling.enabled",),
    ),
    Rule(("algo.overlong.buffer_tokens",), ("train", "rollout"), _no_overlong, "algo.overlong.enabled=true"),
    Rule(
        (
            *("algo.clip_low", "algo.clip_high", "algo.clip_dual", "algo.kl_coef", "algo.loss_aggregation"),
            *("algo.ratio_level", "algo.mask_truncated", "algo.dynamic_sampling.", "gating.score_policy"),
            *("reference.refresh_every", "rollout.prompts_per_step", "rollout.save"),
        ),
        ROLLOUT,
        _always("nothing is trained here"),
        "leave it out; limit=N is the number of prompts",
    ),
    Rule(("gating.",), ("train", "rollout"), _uniform, "gating=paper or another", but=("gating.name", "gating.signal")),
    Rule(
        ("gating.temperature", "gating.normalizer", "gating.clip"),
        ("train", "rollout"),
        _top_fraction,
        "gating.top_fraction=null weighs every token",
    ),
    Rule(("gating.score_policy",), TRAIN, _one_update, "optim.minibatches=4"),
    Rule(("reference", "reference."), TRAIN, _needs_no_reference, "gating=paper or algo.kl_coef=0.04 uses one"),
    Rule(("reference.path", "reference.revision"), ("train", "rollout"), _reference_of_no_path, "reference=path"),
    # Models.
    Rule(("model.architecture.",), EACH, _no_plan, "dry_run=true shows the plan"),
    Rule(("model.threads",), EACH, _wins("strategy.threads"), "leave one of them out"),
    Rule(("model.revision",), EACH, _not_of_hub("model"), "a revision is a branch, tag or commit on the hub"),
    Rule(("reference.revision",), ("train", "rollout"), _not_of_hub("reference"), "a revision is one on the hub"),
    Rule(("model.template",), TRAIN, _template_in_training, "data.template=NAME"),
    Rule(("model.template",), EVAL, _wins("benchmark.template"), "benchmark.template=NAME"),
    Rule(("model.template",), ROLLOUT, _wins("data.template"), "data.template=NAME"),
    Rule(
        ("model.training.",),
        EVAL,
        _always("nothing is trained here"),
        "leave it out",
        but=("model.training.engine_batch_size",),
    ),
    Rule(
        ("model.training.",),
        ROLLOUT,
        _always("nothing is trained here"),
        "leave it out",
        but=("model.training.engine_batch_size", "model.training.max_completion_tokens"),
    ),
    *(
        Rule((f"model.training.{name}",), EACH, _typed_too(winner), "leave one of them out")
        for name, winner in TRAINING_OF.items()
    ),
    # Engines.
    Rule(("engine.",), EACH, _local_engine, "engine=openai", but=("engine.name", "engine.batch_size")),
    Rule(
        ("model.revision", "model.dtype", "model.trust_remote_code", "model.threads", "model.stop_tokens", "strategy."),
        EVAL,
        _served,
        "leave it out; engine=transformers loads a model here",
    ),
    Rule(("model.path",), EVAL, _served_by_name, "engine.model=NAME is the model's name on the server"),
    # Processes.
    Rule(("strategy.connect_seconds", "strategy.stall_seconds"), TRAIN, _single, "strategy=ddp or strategy=fsdp"),
    Rule(("strategy.gather_for_generation",), TRAIN, _unsharded, "strategy=fsdp"),
    Rule(
        (
            *("strategy.num_processes", "strategy.activation_checkpointing", "strategy.reference_offload"),
            *("strategy.gather_for_generation", "strategy.compile"),
            *("strategy.connect_seconds", "strategy.stall_seconds"),
        ),
        ("eval", "rollout"),
        _one_process,
        "leave it out; dgpo train takes it",
    ),
    # What training logs and how it steps.
    Rule(("logger.",), TRAIN, _no_wandb, "logger=wandb logger.mode=auto", but=("logger.name", "logger.mode")),
    Rule(("optim.final_lr_fraction",), TRAIN, _constant, "optim.schedule=linear or optim.schedule=cosine"),
    Rule(("optim.grad_norms_every",), TRAIN, _no_kl, "algo.kl_coef=0.04"),
    Rule(("rollout.top_p",), ROLLOUT, _greedy("rollout"), "rollout.temperature=1 samples"),
)
