"""The configuration of each command: the groups that it uses and its own keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.config.groups import (
    AlgoConfig,
    BenchmarkConfig,
    DataConfig,
    GatingConfig,
    LoggerConfig,
    OptimizerStates,
    RewardConfig,
    SaveRollouts,
    Schedule,
    Shade,
    StrategyConfig,
    Study,
    SwapConfig,
    key,
)
from dgpo_cli.config.model_groups import ModelConfig, ReferenceConfig
from dgpo_cli.config.sweep_groups import SweepConfig


@dataclass
class RolloutSettings:
    """`rollout.*`: how completions are sampled in training and by `dgpo rollout`."""

    prompts_per_step: int = key(32, "prompts a step (N)", "prompts")
    group_size: int = key(16, "rollouts a prompt (G); at least 2 in training", "rollouts")
    max_completion_tokens: int = key(2048, "longest completion, stop token included", "tokens")
    temperature: float = key(1.0, "sampling temperature; every log-prob, entropy and distance uses it too")
    top_p: float = key(1.0, "nucleus sampling; below 1 the importance ratio is biased")
    lag: int = key(
        0,
        "0 | 1: a step's rollouts are drawn while the step before trains, by the weights from before its update, and "
        "corrected (engine.correction). It saves time if the engine has devices of its own",
        "steps",
    )
    alternatives: int = key(
        0,
        "with each stored token, so many of the likeliest tokens of policy and reference, their probabilities and the "
        "sampled one's rank (5 is a good number); in training one more scoring pass of a stored step; 0 is none",
        "tokens",
    )
    save: SaveRollouts = key(SaveRollouts.some, "rollouts to keep: all | some (step 1, every 10th, the last) | none")


@dataclass
class OptimConfig:
    """`optim.*`: AdamW, the learning rate and how a step is cut into updates."""

    lr: float = key(1e-6, "peak learning rate")
    schedule: Schedule = key(Schedule.constant, "constant | linear | cosine, after warm-up")
    final_lr_fraction: float = key(0.1, "end of a linear or cosine schedule, as a share of lr")
    warmup_steps: int = key(10, "linear warm-up", "steps")
    weight_decay: float = key(0.1, "decoupled weight decay")
    betas: list[float] = key([0.9, 0.999], "AdamW's betas")
    eps: float = key(1e-8, "AdamW's epsilon")
    states: OptimizerStates = key(
        OptimizerStates.float32,
        "AdamW's two moments: float32 | 8bit (bitsandbytes: 2 bytes a weight in place of 8; tensors of fewer than "
        "4,096 weights keep float32)",
    )
    grad_clip: float = key(1.0, "largest gradient norm; 0 is off")
    minibatches: int = key(1, "optimizer minibatches a step; prompts are split among them")
    epochs: int = key(1, "passes over the step's rollouts")
    tokens_per_microbatch: int = key(
        16384, "token budget of one forward, prompts and padding included; changes memory and speed only", "tokens"
    )
    grad_norms_every: int = key(
        20,
        "with a KL penalty: every so many steps the gradient norms of the policy and of the KL term, each alone, at "
        "the price of two more passes of one minibatch; 0 is never",
        "steps",
    )
    grad_cos_every: int = key(
        20,
        "with a gating but uniform: every so many steps the cosine of the gradient, and of Adam's update, with what "
        "uniform credit would give, at the price of two more passes of one minibatch; 0 is never",
        "steps",
    )
    max_nonfinite: int = key(
        3, "updates in a row, over steps, skipped for a non-finite gradient before the run stops", "updates"
    )


@dataclass
class CheckpointConfig:
    """`checkpoint.*`: when a run is saved, and which checkpoints stay. The last step is always saved."""

    every: int = key(20, "steps between checkpoints; 0 is only the last", "steps")
    keep: int = key(2, "newest checkpoints to keep; at least 1", "checkpoints")
    beside: bool = key(
        False,
        "write it while training goes on, from a copy of weights and moments in CPU memory: 12 bytes a trained weight, "
        "shared out by a sharded model. A kill before it is written leaves the one before",
    )
    keep_best: bool = key(True, "also keep the checkpoint with the best evaluation")
    grace_seconds: float = key(25.0, "a signal after a step's first update lets it finish if it fits in this time", "s")
    signals: list[str] = key(
        ["SIGTERM", "SIGINT"],
        "signals that save the run and end it with exit code 128 + number; a second one ends it at once. Also SIGUSR1, "
        "SIGUSR2, SIGHUP, SIGXCPU: what a scheduler sends before it takes the machine",
    )


@dataclass
class EvalSettings:
    """`eval.*`: evaluation during training. It runs before the first and after the last step in any case."""

    every: int = key(0, "steps between evaluations; 0 is only before and after", "steps")
    k: int | None = key(None, "samples a problem; null takes the benchmark's", "samples")
    limit: int | None = key(None, "use the first so many problems; null is the benchmark's", "problems")
    overlap: bool = key(
        False,
        "engine=vllm: evaluate beside the updates of the next step, while the servers still hold the weights; each "
        "evaluated step is saved first",
    )


@dataclass
class TrainConfig:
    """`dgpo train`: reinforcement learning on prompts with verifiable rewards."""

    seed: int = key(0, "derives the order of data and every sample")
    steps: int = key(200, "rollout-to-update cycles", "steps")
    name: str | None = key(
        None,
        "name of the run: of its folder (outputs/train/NAME; NAME_2 if there is one), in W&B, and with the job's of a "
        "sweep; null is made of algorithm, gating, model, data, seed and time",
    )
    resume: str | None = key(None, "folder of the run to continue; latest is the newest below outputs/")
    resume_allow: list[str] = key([], "keys that may differ from the run that is continued")
    overwrite: bool = key(False, "delete the run that the folder already holds")
    report: bool = key(
        True,
        "write report.html in the run's folder, and again after each stored step (rollout.save): every token shaded by "
        "its credit, which reloads itself as the run goes on",
    )
    push_to_hub: str | None = key(
        None,
        "USER/NAME: after training, upload the last checkpoint to this repository of the Hugging Face Hub, with a "
        "model card (recipe, seed, benchmark with interval). A new repository is private, and made at the start",
    )
    dry_run: bool = key(False, "print the plan (memory, batch arithmetic, disk) and stop; nothing is loaded")
    probe: bool = key(
        False, "run one full-length update on made-up rollouts, print predicted and measured peak memory, and stop"
    )
    model: ModelConfig = key(ModelConfig, "the policy")
    reference: ReferenceConfig = key(ReferenceConfig, "the frozen reference")
    algo: AlgoConfig = key(AlgoConfig, "the algorithm")
    gating: GatingConfig = key(GatingConfig, "token-level credit")
    data: DataConfig = key(DataConfig, "the prompts")
    reward: RewardConfig = key(RewardConfig, "the reward")
    benchmark: BenchmarkConfig = key(BenchmarkConfig, "evaluation before, during and after training")
    other_benchmarks: list[BenchmarkConfig] = key(
        [], "the further ones of benchmark=[a,b], which sets it; the best checkpoint is the best on the first"
    )
    engine: EngineConfig = key(EngineConfig, "generation")
    strategy: StrategyConfig = key(StrategyConfig, "devices")
    logger: LoggerConfig = key(LoggerConfig, "Weights & Biases, TensorBoard")
    rollout: RolloutSettings = key(RolloutSettings, "sampling")
    optim: OptimConfig = key(OptimConfig, "optimizer")
    checkpoint: CheckpointConfig = key(CheckpointConfig, "checkpoints")
    eval: EvalSettings = key(EvalSettings, "evaluation during training")
    sweep: SweepConfig = key(SweepConfig, "the jobs of -m")

    @property
    def benchmark_names(self) -> list[str]:
        """What is evaluated, in this order; empty without a benchmark."""
        return [one.name for one in (self.benchmark, *self.other_benchmarks) if one.name is not None]

    def for_each_benchmark(self) -> list[TrainConfig]:
        """This configuration with one of its benchmarks alone, the first one first."""
        return [replace(self, benchmark=one, other_benchmarks=[]) for one in (self.benchmark, *self.other_benchmarks)]


@dataclass
class EvalConfig:
    """`dgpo eval`: avg@k, pass@k and maj@k with error bars."""

    seed: int = key(0, "derives every sample")
    overwrite: bool = key(False, "delete the evaluation that the folder already holds")
    dry_run: bool = key(False, "print the plan (memory, batch arithmetic, disk) and stop; nothing is loaded")
    study: Study = key(
        Study.none,
        "none | localisation: does a signal, or credit, find the first wrong token? Of benchmark=digit_chain, where "
        "that token is known",
    )
    gatings: list[str] | None = key(
        None, "study=localisation: gatings to look at; null is every option whose signals are there"
    )
    swap: SwapConfig = key(SwapConfig, "the swap test: another model chooses some of the tokens")
    model: ModelConfig = key(ModelConfig, "the model")
    reference: ReferenceConfig = key(ReferenceConfig, "study=localisation: the frozen model that distances are from")
    data: DataConfig = key(DataConfig, "training data that the model brings; names the default benchmark")
    reward: RewardConfig = key(RewardConfig, "the grader, if one is named on the command line")
    benchmark: BenchmarkConfig = key(BenchmarkConfig, "the problems")
    engine: EngineConfig = key(EngineConfig, "generation")
    strategy: StrategyConfig = key(StrategyConfig, "devices")
    sweep: SweepConfig = key(SweepConfig, "the jobs of -m")


@dataclass
class RolloutConfig:
    """`dgpo rollout`: sample completions, score them, and with a reference show each token's credit."""

    seed: int = key(0, "derives the order of data and every sample")
    prompt: str | None = key(None, "one prompt of your own, in place of data")
    rollouts: str | None = key(
        None,
        "score a stored file again, without any model: a rollouts.jsonl, or a step of a run's rollouts/. Without "
        "gating= by its own, which the config.yaml beside it or of the run names; uniform if it lacks a signal. "
        "Completions of TRL, verl and prime-rl are read, too, and with model.path= scored (docs/rollouts.md)",
    )
    grade: str | None = key(
        None,
        "try the reward on a file of stored completions, without any model: its distribution, parts, time a call and "
        "errors. Rows hold `completion` and `gold`, or `id` or `index` of a row of the data",
    )
    report: bool = key(False, "write report.html: every token shaded by its credit, in one file that needs no network")
    mixed_rounds: int = key(
        8,
        "report=true: if no group has both right and wrong answers, limit= further prompts are drawn, up to so many "
        "times, until one has; 0 is never",
        "rounds",
    )
    export: str | None = key(
        None,
        "write each token's weight by gating= and its share of the advantage, by prompt and sample: a file that ends "
        "in .npz, .jsonl or .parquet (docs/rollouts.md)",
    )
    gatings: list[str] | None = key(
        None,
        "gatings shown beside gating=; null is paper and calibrated, if their signals are there. Named ones that "
        "need a reference are refused without one",
    )
    shade: Shade = key(
        Shade.credit,
        "what shades the tokens: credit | score | hellinger | entropy | logprob | ref_logprob | advantage (credit x A) "
        "| logratio (log p - log q)",
    )
    vocabulary_size: int | None = key(None, "V of log V, for a stored file that does not say", "tokens")
    limit: int = key(4, "prompts to sample; of a stored file, prompts to show on a terminal", "prompts")
    overwrite: bool = key(False, "delete the rollouts that the folder already holds")
    dry_run: bool = key(False, "print the plan (memory, batch arithmetic, disk) and stop; nothing is loaded")
    model: ModelConfig = key(ModelConfig, "the policy")
    reference: ReferenceConfig = key(ReferenceConfig, "the frozen reference")
    algo: AlgoConfig = key(AlgoConfig, "how advantages are formed")
    gating: GatingConfig = key(GatingConfig, "token-level credit")
    data: DataConfig = key(DataConfig, "the prompts")
    reward: RewardConfig = key(RewardConfig, "the reward")
    benchmark: BenchmarkConfig = key(BenchmarkConfig, "benchmark that the data option brings; not used here")
    engine: EngineConfig = key(EngineConfig, "generation")
    strategy: StrategyConfig = key(StrategyConfig, "devices")
    rollout: RolloutSettings = key(RolloutSettings, "sampling")
    tokens_per_microbatch: int = key(16384, "token budget of one scoring forward", "tokens")


@dataclass
class CompareSettings:
    """`compare.*`: how a verdict is reached."""

    alpha: float = key(0.05, "level of the verdicts, after Holm over several pairs")


@dataclass
class CompareConfig:
    """`dgpo compare`: runs side by side."""

    runs: list[str] = key(
        [], "folders of training runs, sweeps or evaluations; latest is the newest run or sweep below outputs/"
    )
    band: str | None = key(
        None,
        "a file that says where the accuracy should lie, or the name of a stored one (recipes/bands): the runs are "
        "inside, below, above or undecided",
    )
    compare: CompareSettings = key(CompareSettings, "verdicts")
    seed: int = key(0, "seed of the bootstrap and of the permutations")
    force: bool = key(False, "compare evaluations whose problems, k, sampling, grader or prompt template differ")


COMMANDS: dict[str, type[Any]] = {
    "train": TrainConfig,
    "eval": EvalConfig,
    "rollout": RolloutConfig,
    "compare": CompareConfig,
}
