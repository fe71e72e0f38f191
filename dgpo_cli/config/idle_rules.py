"""The table of keys that may change nothing, each family with its reason and with a way to make it count."""

from __future__ import annotations

from dataclasses import dataclass

from dgpo_cli.config import idle_reasons as why
from dgpo_cli.config.idle_reasons import Reason


@dataclass(frozen=True)
class Rule:
    """Keys, or all below a section (`benchmark.`): they change nothing if `idle` gives a reason."""

    keys: tuple[str, ...]
    commands: tuple[str, ...]
    idle: Reason
    hint: str
    but: tuple[str, ...] = ()  # keys of the section that the row does not speak of

    def covers(self, key: str) -> bool:
        return _is_among(key, self.keys) and not _is_among(key, self.but)


def _is_among(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in names)


TRAIN, EVAL, ROLLOUT = ("train",), ("eval",), ("rollout",)
EACH = ("train", "eval", "rollout")
BENCHMARKED = ("train", "eval")
FORM = ("data.chain_steps", "data.filler")
CHAINS = "benchmark=digit_chain has chains of a form"
TRAINING_OF = {  # a proposal of model.training, and the key that wins over it
    **{name: f"optim.{name}" for name in ("lr", "schedule", "warmup_steps", "weight_decay", "minibatches")},
    **{name: f"rollout.{name}" for name in ("prompts_per_step", "group_size", "max_completion_tokens")},
    "steps": "steps",
    "tokens_per_microbatch": "optim.tokens_per_microbatch",
    "activation_checkpointing": "strategy.activation_checkpointing",
    "checkpoint_every": "checkpoint.every",
    "strategy": "strategy",
    "engine_batch_size": "engine.batch_size",
}
ASKING_SERVERS = ("engine.concurrency", "engine.retries", "engine.timeout_seconds")
NOT_VLLMS_ALONE = (
    *("engine.name", "engine.batch_size", "engine.correction", "engine.cap", *ASKING_SERVERS),
    *("engine.url", "engine.api_key_env", "engine.model", "engine.max_tokens_key"),
)
NAME_IT = "benchmark=NAME chooses one"
RULES: tuple[Rule, ...] = (
    # Keys that a command or its other settings leave no room for.
    Rule(("resume_allow",), TRAIN, why.no_resume, "resume=RUN continues one"),
    Rule(("push_to_hub",), TRAIN, why.untrained, "leave it out; a run that trains is uploaded at its end"),
    Rule(("report", "rollout.alternatives"), TRAIN, why.stores_no_step, "rollout.save=some"),
    Rule(("probe",), TRAIN, why.planned, "dry_run=false measures"),
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
        why.stored_completions,
        "leave it out; without benchmark.completions= a model draws them",
    ),
    Rule(
        ("benchmark.top_p", "benchmark.max_tokens", "benchmark.template", "benchmark.system_prompt"),
        EVAL,
        why.stored_completions,
        "leave it out; without benchmark.completions= a model draws them",
    ),
    Rule(
        ("data", "data.", "reward", "reward.", "engine", "engine.", "rollout."),
        ROLLOUT,
        why.stored_rollouts,
        "leave it out; without rollouts= a model samples",
        but=("rollout.temperature", "rollout.alternatives"),
    ),
    Rule(
        (
            *("model", "model.", "reference", "reference.", "strategy", "strategy."),
            *("rollout.temperature", "rollout.alternatives"),
        ),
        ROLLOUT,
        why.unscored_rollouts,
        "leave it out; without rollouts= a model samples, and model.path= scores a file of another trainer",
    ),
    Rule(
        ("model", "model.", "reference", "reference.", "algo", "algo.", "gating", "gating.", "engine", "engine."),
        ROLLOUT,
        why.grades_alone,
        "leave it out; without grade= a model samples",
    ),
    Rule(
        ("strategy", "strategy.", "rollout.", "tokens_per_microbatch", "limit", "report", "export", "gatings", "shade"),
        ROLLOUT,
        why.grades_alone,
        "leave it out; without grade= a model samples",
    ),
    Rule(("mixed_rounds",), ROLLOUT, why.draws_no_further, "report=true, without rollouts= and prompt="),
    Rule(("vocabulary_size",), ROLLOUT, why.scored_rollouts, "leave it out"),
    Rule(("vocabulary_size", "overwrite"), ROLLOUT, why.grades_alone, "leave it out; nothing is written"),
    Rule(
        ("algo.", "tokens_per_microbatch"),
        ROLLOUT,
        why.unscored_rollouts,
        "leave it out; without rollouts= a model samples, and model.path= scores a file of another trainer",
    ),
    Rule(
        ("data.", "reward", "reward.", "algo."),
        ROLLOUT,
        why.own_prompt,
        "leave it out, or prompt=",
        but=("data.template", "data.system_prompt"),
    ),
    # Studies.
    Rule(
        ("reference.refresh_every",), EVAL, why.always("nothing is trained here"), "leave it out; dgpo train takes it"
    ),
    Rule(("gatings", "reference", "reference."), EVAL, why.no_localisation, "study=localisation"),
    Rule(("swap.",), EVAL, why.no_swap, "swap.path=MODEL is the other model", but=("swap.path",)),
    Rule(("swap.revision",), EVAL, why.not_of_hub("swap"), "a revision is a branch, tag or commit on the hub"),
    Rule(("benchmark.pass_at",), EVAL, why.a_study, "leave it out; an evaluation reports them"),
    # Benchmarks.
    Rule(
        ("benchmark.completions",), TRAIN, why.always("training draws completions of its own"), "dgpo eval grades them"
    ),
    Rule(("benchmark.", "eval."), TRAIN, why.no_benchmark, NAME_IT, but=("benchmark.name",)),
    Rule(("other_benchmarks",), TRAIN, why.always("benchmark=[a,b] sets it"), "benchmark=[a,b]"),
    Rule(("checkpoint.keep_best",), TRAIN, why.no_benchmark, NAME_IT),
    Rule(("benchmark.k",), TRAIN, why.wins("eval.k"), "leave one of them out"),
    Rule(("benchmark.limit",), TRAIN, why.wins("eval.limit"), "leave one of them out"),
    Rule(("eval.overlap",), TRAIN, why.one_engine_for_all, "engine=vllm has devices of its own"),
    Rule(
        ("benchmark", "benchmark."),
        ROLLOUT,
        why.always("rollouts are sampled from data"),
        "data=NAME or data.path=FILE",
    ),
    Rule(("benchmark.hub",), BENCHMARKED, why.wins("benchmark.path"), "benchmark.path=null reads from the hub"),
    Rule(
        ("benchmark.config", "benchmark.split", "benchmark.revision"),
        BENCHMARKED,
        why.not_of_hub("benchmark"),
        "they choose among a hub data set's files",
    ),
    Rule(("benchmark.system_prompt",), BENCHMARKED, why.no_chat, "model.chat_template=true"),
    Rule(("benchmark.top_p",), BENCHMARKED, why.greedy("benchmark"), "benchmark.temperature=1 samples"),
    # Data.
    Rule(("benchmark.chain_steps", "benchmark.filler"), BENCHMARKED, why.no_chains, CHAINS),
    Rule(
        ("data.",),
        EVAL,
        why.always("evaluations read a benchmark"),
        "benchmark=NAME, benchmark.path=FILE",
        but=FORM,
    ),
    Rule(FORM, EVAL, why.no_chains, CHAINS),
    Rule(("data",), EVAL, why.typed_too("benchmark"), "it names the benchmark where none is chosen"),
    Rule(
        ("data.config", "data.split", "data.revision"),
        ("train", "rollout"),
        why.not_of_hub("data"),
        "they choose among a hub data set's files",
    ),
    Rule(
        ("data.validation_fraction",), TRAIN, why.no_validation, "leave out benchmark=, or data.validation_fraction=0"
    ),
    Rule(("data.size",), ("train", "rollout"), why.not_generated, "data.limit=N uses the first rows"),
    Rule(FORM, ("train", "rollout"), why.not_generated, "data=digit_chain has a form"),
    Rule(("data.system_prompt",), ("train", "rollout"), why.no_chat, "model.chat_template=true"),
    # Rewards.
    Rule(("reward.path",), EACH, why.no_function, "reward=function, or leave out reward="),
    Rule(("reward.timeout_seconds", "reward.workers"), EACH, why.untimed, "robust and function grade in processes"),
    Rule(("reward.weights",), EACH, why.one_reward, "reward.path=[robust,my.py:brief] has two"),
    # The algorithm and its credit.
    Rule(
        ("algo.reward_right", "algo.reward_wrong"), ("train", "rollout"), why.own_scores, "let the function return them"
    ),
    Rule(
        ("algo.dynamic_sampling.",),
        TRAIN,
        why.no_dynamic_sampling,
        "algo.dynamic_sampling.enabled=true, which algo=dapo brings",
        but=("algo.dynamic_sampling.enabled",),
    ),
    Rule(("algo.clip_dual",), TRAIN, why.detached_ratio, "algo.clip_high=4 caps the ratio at 5"),
    Rule(("algo.overlong.buffer_tokens",), ("train", "rollout"), why.no_overlong, "algo.overlong.enabled=true"),
    Rule(
        (
            *("algo.clip_low", "algo.clip_high", "algo.clip_dual", "algo.kl_coef", "algo.loss_aggregation"),
            *("algo.ratio_level", "algo.detached_ratio", "algo.max_probability_change", "algo.mask_truncated"),
            *("algo.dynamic_sampling.", "gating.score_policy"),
            *("reference.refresh_every", "rollout.prompts_per_step", "rollout.save", "rollout.lag"),
        ),
        ROLLOUT,
        why.always("nothing is trained here"),
        "leave it out; limit=N is the number of prompts",
    ),
    Rule(
        ("gating.",), ("train", "rollout"), why.uniform, "gating=paper or another", but=("gating.name", "gating.signal")
    ),
    Rule(
        (
            *("gating.temperature", "gating.normalizer", "gating.window", "gating.form", "gating.strength"),
            *("gating.clip", "gating.noise_gate"),
        ),
        ("train", "rollout"),
        why.hard_mask,
        "gating.top_fraction=null gating.band=null weighs every token",
    ),
    Rule(("gating.temperature",), ("train", "rollout"), why.linear, "gating.strength is the size of a linear rule"),
    Rule(("gating.window",), ("train", "rollout"), why.no_window, "gating.normalizer=window"),
    Rule(("gating.strength",), ("train", "rollout"), why.softmax, "gating.form=linear or gating.form=sigmoid"),
    Rule(("gating.score_policy",), TRAIN, why.one_update, "optim.minibatches=4"),
    Rule(("reference", "reference."), TRAIN, why.needs_no_reference, "gating=paper or algo.kl_coef=0.04 uses one"),
    Rule(("reference.path", "reference.revision"), EACH, why.reference_of_no_path, "reference=path"),
    # Models.
    Rule(("model.architecture.",), EACH, why.no_plan, "dry_run=true shows the plan"),
    Rule(("model.threads",), EACH, why.wins("strategy.threads"), "leave one of them out"),
    Rule(("model.revision",), EACH, why.not_of_hub("model"), "a revision is a branch, tag or commit on the hub"),
    Rule(("reference.revision",), EACH, why.not_of_hub("reference"), "a revision is one on the hub"),
    Rule(("model.template",), TRAIN, why.template_in_training, "data.template=NAME"),
    Rule(("model.template",), EVAL, why.wins("benchmark.template"), "benchmark.template=NAME"),
    Rule(("model.template",), ROLLOUT, why.wins("data.template"), "data.template=NAME"),
    Rule(
        ("model.training.",),
        EVAL,
        why.always("nothing is trained here"),
        "leave it out",
        but=("model.training.engine_batch_size",),
    ),
    Rule(
        ("model.training.",),
        ROLLOUT,
        why.always("nothing is trained here"),
        "leave it out",
        but=("model.training.engine_batch_size", "model.training.max_completion_tokens"),
    ),
    *(
        Rule((f"model.training.{name}",), EACH, why.typed_too(winner), "leave one of them out")
        for name, winner in TRAINING_OF.items()
    ),
    # Engines.
    Rule(
        ("engine.correction", "engine.cap"), ("eval", "rollout"), why.always("nothing is trained here"), "leave it out"
    ),
    Rule(("engine.correction", "engine.cap"), TRAIN, why.same_policy, "rollout.lag=1 draws with earlier weights"),
    Rule(("engine.cap",), TRAIN, why.uncorrected, "engine.correction=token is bounded by it"),
    Rule(("engine.batch_size",), ("train", "rollout"), why.no_units, "leave it out; engine.concurrency counts"),
    Rule(ASKING_SERVERS, EACH, why.local_engine, "engine=vllm, or engine=openai for dgpo eval"),
    Rule(
        ("engine.url", "engine.api_key_env", "engine.model", "engine.max_tokens_key"),
        EACH,
        why.engine_is_not("openai"),
        "engine=openai, of dgpo eval",
    ),
    Rule(("engine.",), EACH, why.engine_is_not("vllm"), "engine=vllm", but=NOT_VLLMS_ALONE),
    Rule(
        (
            *("engine.python", "engine.replicas", "engine.tensor_parallel", "engine.devices", "engine.extra_args"),
            *("engine.gpu_memory_fraction", "engine.max_model_len", "engine.start_seconds"),
        ),
        EACH,
        why.running_servers,
        "leave it out, or leave out engine.urls=",
    ),
    Rule(
        ("engine.sync", "engine.sync_folder", "engine.colocated"),
        ("eval", "rollout"),
        why.always("nothing is trained here"),
        "leave it out",
    ),
    Rule(("engine.sync_folder",), TRAIN, why.no_files, "engine.sync=files"),
    Rule(
        (
            *("model.revision", "model.dtype", "model.quantization", "model.trust_remote_code", "model.threads"),
            *("model.stop_tokens", "strategy."),
        ),
        EVAL,
        why.served,
        "leave it out; engine=transformers loads a model here",
    ),
    Rule(
        ("strategy.compile",),
        ("eval",),
        why.drawn_elsewhere,
        "leave it out; engine=transformers loads a model here",
    ),
    Rule(
        ("model.threads", "strategy.threads"),
        ("eval",),
        why.drawn_on_running_servers,
        "leave it out, or leave out engine.urls=",
    ),
    Rule(("model.path",), EVAL, why.served_by_name, "engine.model=NAME is the model's name on the server"),
    # Processes.
    Rule(("strategy.connect_seconds", "strategy.stall_seconds"), TRAIN, why.single, "strategy=ddp or strategy=fsdp"),
    Rule(("strategy.gather_for_generation",), TRAIN, why.unsharded, "strategy=fsdp"),
    Rule(
        (
            *("strategy.num_processes", "strategy.activation_checkpointing", "strategy.reference_offload"),
            *("strategy.gather_for_generation", "strategy.compile", "strategy.sequence_parallel"),
            *("strategy.connect_seconds", "strategy.stall_seconds"),
        ),
        ("eval", "rollout"),
        why.one_process,
        "leave it out; dgpo train takes it",
    ),
    Rule(("strategy.packing",), ("eval",), why.always("dgpo eval draws, and scores nothing"), "leave it out"),
    # Logs and steps of training.
    Rule(
        ("logger.",),
        TRAIN,
        why.no_wandb,
        "logger=wandb logger.mode=auto",
        but=("logger.name", "logger.mode", "logger.completions_every"),
    ),
    Rule(("logger.completions_every",), TRAIN, why.no_logger, "logger=wandb logger.mode=auto"),
    Rule(("optim.final_lr_fraction",), TRAIN, why.constant, "optim.schedule=linear or optim.schedule=cosine"),
    Rule(("optim.grad_cos_every",), TRAIN, why.uniform, "gating=paper or another"),
    Rule(("optim.grad_norms_every",), TRAIN, why.no_kl, "algo.kl_coef=0.04"),
    Rule(("rollout.top_p",), ROLLOUT, why.greedy("rollout"), "rollout.temperature=1 samples"),
)
