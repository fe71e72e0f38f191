"""One dataclass a configuration group, one documented field a key.

Each field carries its meaning, unit and limits in its metadata (`dgpo help KEY` prints them). Defaults here are those
of a run on real models; conf/ holds the values that an option changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from dgpo_cli.core.signals import SIGNALS


def key(default: Any, meaning: str, unit: str = "") -> Any:
    """A documented field: its default, what it means with its limits, and its unit."""
    metadata = {"meaning": meaning, "unit": unit}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


class Dtype(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Schedule(Enum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"


OptimizerStates = Enum("OptimizerStates", {"float32": "float32", "8bit": "8bit"})


class LossAggregation(Enum):
    rollout_mean = "rollout_mean"
    token_mean = "token_mean"
    constant = "constant"


class RatioLevel(Enum):
    token = "token"
    sequence = "sequence"


class ScaleRewards(Enum):
    group = "group"
    batch = "batch"
    none = "none"


class OnExhausted(Enum):
    train = "train"
    stop = "stop"


class FilterBy(Enum):
    spread = "spread"
    correct = "correct"


class Signal(Enum):  # and a row of core/signals.py
    none = "none"
    hellinger = "hellinger"
    hellinger_root = "hellinger_root"
    entropy = "entropy"
    surprisal = "surprisal"
    kl = "kl"
    logratio = "logratio"
    rarity = "rarity"
    grad_norm = "grad_norm"
    relative_surprisal = "relative_surprisal"
    oracle_first_error = "oracle_first_error"


class Normalizer(Enum):
    none = "none"
    saturate = "saturate"
    rank = "rank"
    window = "window"


class Form(Enum):
    softmax = "softmax"
    sigmoid = "sigmoid"
    linear = "linear"


class Sign(Enum):
    all = "all"
    positive = "positive"
    negative = "negative"


class ScorePolicy(Enum):
    old = "old"
    current = "current"


class Control(Enum):
    none = "none"
    permute = "permute"
    misplace = "misplace"
    invert = "invert"


class Shade(Enum):
    credit = "credit"
    score = "score"
    hellinger = "hellinger"
    entropy = "entropy"
    logprob = "logprob"
    ref_logprob = "ref_logprob"
    advantage = "advantage"
    logratio = "logratio"


class Study(Enum):
    none = "none"
    localisation = "localisation"


class SwapSignal(Enum):  # and DISTANCES of evidence/swapping.py
    hellinger = "hellinger"
    kl = "kl"
    entropy = "entropy"


class SaveRollouts(Enum):
    all = "all"
    some = "some"
    none = "none"


class ComputeDtype(Enum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class LoggerMode(Enum):
    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


class OffPolicyCorrection(Enum):  # and KINDS of core/off_policy.py
    none = "none"
    token = "token"
    sequence = "sequence"
    mask = "mask"


@dataclass
class DynamicSamplingConfig:
    """DAPO's dynamic sampling (arXiv 2503.14476)."""

    enabled: bool = key(False, "drop groups that carry no signal, and sample more prompts")
    by: FilterBy = key(
        FilterBy.spread,
        "which groups stay: spread (of rewards that differ, before length terms) | correct (of both right and wrong "
        "answers, as DAPO has it). For 0/1 rewards they are the same",
    )
    max_refills: int = key(10, "rounds of extra sampling before the step goes on with the groups that it has", "rounds")
    on_exhausted: OnExhausted = key(
        OnExhausted.train, "after max_refills: train on the groups that there are, or stop the run"
    )


@dataclass
class OverlongConfig:
    """DAPO's soft overlong punishment (arXiv 2503.14476)."""

    enabled: bool = key(False, "subtract a growing penalty from completions that come near the limit")
    buffer_tokens: int | None = key(
        None, "length of the ramp below max_completion_tokens; null is 20% of the limit", "tokens"
    )


@dataclass
class AlgoConfig:
    """`algo=`: grpo | dapo | dgpo | dr_grpo | gspo | cispo | dppo. One pipeline, other settings."""

    name: str = key("dgpo", "name of the option; shown in tables")
    clip_low: float = key(0.2, "the ratio is clipped below at 1 - clip_low")
    clip_high: float = key(0.2, "the ratio is clipped above at 1 + clip_high")
    clip_dual: float | None = key(None, "for negative advantages the loss is at most this times |A|; null is off")
    kl_coef: float = key(0.0, "weight of the k3 penalty to the reference; above 0 a reference is run")
    loss_aggregation: LossAggregation = key(
        LossAggregation.rollout_mean, "rollout_mean (GRPO) | token_mean (DAPO) | constant (Dr.GRPO)"
    )
    ratio_level: RatioLevel = key(RatioLevel.token, "importance ratio per token, or per sequence (GSPO, 2507.18071)")
    detached_ratio: bool = key(
        False, "the loss is -detach(clipped ratio) A log p: no token loses its gradient to the clip (CISPO)"
    )
    max_probability_change: float | None = key(
        None, "no policy loss for a token whose probability has moved further than this in A's direction; null is off"
    )
    scale_rewards: ScaleRewards = key(ScaleRewards.group, "divide advantages by the std of the group | batch | none")
    sign: Sign = key(
        Sign.all,
        "all | positive | negative: rollouts whose advantage has another sign carry no policy loss (they stay in the "
        "group's mean and in every denominator)",
    )
    mask_truncated: bool = key(False, "completions cut at the limit carry no loss (they stay in the group's mean)")
    reward_right: float = key(1.0, "reward of a right answer, if the grader says right or wrong")
    reward_wrong: float = key(0.0, "reward of a wrong answer, if the grader says right or wrong")
    dynamic_sampling: DynamicSamplingConfig = key(DynamicSamplingConfig, "drop groups without signal, sample more")
    overlong: OverlongConfig = key(OverlongConfig, "soft punishment near the length limit")


@dataclass
class GatingConfig:
    """`gating=`: how a rollout's advantage is spread over its tokens. Composes with every algo."""

    name: str = key("uniform", "name of the option; shown in tables")
    signal: Signal = key(Signal.none, " | ".join(["none (uniform)", *SIGNALS]))
    entropy_exponent: float = key(0.0, "kappa: the signal is multiplied by H^kappa, H the entropy over log V")
    normalizer: Normalizer = key(
        Normalizer.none, "none | saturate (s / (s + p80 of the batch)) | rank | window (against the tokens around it)"
    )
    window: int = key(101, "normalizer=window: tokens around and with each, reflected at both ends; odd", "tokens")
    form: Form = key(
        Form.softmax,
        "softmax | sigmoid (1 + strength (sigmoid(s / temperature) - 1/2)) | linear (1 + strength s). The last two are "
        "divided by their mean, so that credit moves and the step does not grow",
    )
    strength: float = key(0.2, "form=sigmoid, linear: its size, from -2 to 2 of a sigmoid; below 0 small scores win")
    temperature: float = key(0.5, "tau of softmax or sigmoid; larger is nearer to uniform")
    clip: list[float] | None = key(None, "[w_min, w_max] on the weights, keeping their mean at 1; null is off")
    noise_gate: bool = key(False, "shrink the weights to 1 while the mean distance is below 3x the numerical floor")
    top_fraction: float | None = key(None, "train only this share of tokens, those with the largest signal")
    band: list[float] | None = key(None, "[low, high]: train only tokens whose score lies within; null is off")
    times_advantage: bool = key(
        False, "score times |rho A|, 0 where the ratio is clipped: the size of a token's part of the gradient"
    )
    sign: Sign = key(
        Sign.all, "all | positive | negative: rollouts whose advantage has another sign get uniform credit"
    )
    score_policy: ScorePolicy = key(
        ScorePolicy.old, "old: score once with the policy that sampled; current: again before every minibatch"
    )
    control: Control = key(
        Control.none,
        "none | permute | misplace: the same weights on the wrong tokens | invert: in reverse order, or with the "
        "opposite strength",
    )


@dataclass
class StrategyConfig:
    """`strategy=`: the devices that a run computes on, and how they share it."""

    name: str = key(
        "single",
        "single: one process | ddp: the whole model in each process | fsdp: weights, gradients and optimizer sharded "
        "over the processes | fsdp_offload: as fsdp, and they rest in CPU memory. The last three are for dgpo train",
    )
    num_processes: int | None = key(
        None, "processes that dgpo starts on this machine; null is one a GPU. Under torchrun or srun theirs count"
    )
    device: Device = key(Device.auto, "auto (cuda when there is one) | cpu | cuda")
    threads: int | None = key(
        None,
        "CPU threads of each process, and of a vLLM server on a CPU; null: the model's number, and else torch's",
        "threads",
    )
    compute_dtype: ComputeDtype = key(
        ComputeDtype.auto,
        "dtype of forward and backward, in every command: auto (bfloat16 on a GPU or of bfloat16 weights, else "
        "float32) | float32 | bfloat16. Logits, trained weights, gradient reduction and moments are float32 in any "
        "case",
    )
    activation_checkpointing: bool = key(
        False, "keep only each layer's input for the backward pass and compute the rest again: less memory, more time"
    )
    compile: bool = key(False, "torch.compile each layer of the body, for scoring and training")
    packing: bool | None = key(
        None,
        "score and train on sequences one after another in a row, without padding and in fewer passes, in place of "
        "rows sorted by length; null: if weights are sharded, since each pass gathers them. Speed and rounding alone",
    )
    sequence_parallel: int = key(
        1,
        "processes, of adjacent ranks, that share each sequence in scoring and training, for rollouts that are too "
        "long for one; optim.tokens_per_microbatch counts each one's part. It divides the processes of the run and "
        "the model's heads, and divides its heads of keys or is a multiple of them",
    )
    reference_offload: bool = key(False, "fsdp: the reference rests in CPU memory between passes")
    gather_for_generation: bool = key(
        True, "fsdp: hold the whole model in compute_dtype while sampling; false gathers each layer for every token"
    )
    connect_seconds: float = key(120.0, "longest wait at the start until every process has joined", "s")
    stall_seconds: float = key(
        1800.0,
        "several processes: one that gets no further for so long writes its stack, and the run ends. Grading "
        "within its deadline, loading, hashing and saving are progress, in whichever process the others wait for",
        "s",
    )


@dataclass
class DataConfig:
    """`data=`: the prompts that are trained on. `data.path=` alone selects data=file."""

    name: str = key("file", "name of the option; shown in tables")
    path: str | None = key(None, "a .jsonl, .json, .csv or .parquet file, a hub id, or bundled:digit_chain")
    config: str | None = key(None, "configuration of a hub data set; A+B joins two")
    split: str = key("train", "split of a hub data set")
    revision: str | None = key(None, "revision of a hub data set")
    prompt_key: str = key("prompt|problem|question", "column of the prompt; dots reach nested fields; a|b tries both")
    answer_key: str = key(
        "answer|solution|final_answer", "column of the gold answer; dots reach nested fields; a|b tries both"
    )
    system_prompt: str | None = key(None, "system turn, with model.chat_template=true only")
    template: str | None = key(None, "dapo | boxed | plain | a file with {problem}; null takes the model's")
    skip_bad_golds: bool = key(False, "leave out rows whose gold no grader can parse, instead of refusing to start")
    deduplicate: bool = key(False, "keep the first row of each prompt; how many go is said")
    limit: int | None = key(None, "use the first so many rows; null is all", "rows")
    validation_fraction: float = key(
        0.0,
        "share of the rows (by a hash of the prompt, whatever the seed) that is never trained on, and is the benchmark "
        "called validation if none is typed",
        "share",
    )
    size: int = key(16384, "problems to generate, for bundled:digit_chain", "rows")
    chain_steps: int = key(5, "steps of a chain of bundled:digit_chain; model=tiny reads 5 alone", "steps")
    filler: int = key(0, "dots before each space of bundled:digit_chain; model=tiny reads none", "characters")


@dataclass
class RewardConfig:
    """`reward=`: the grader of completions."""

    name: str = key("robust", "exact | answer_only | robust | dapo | function (with reward.path)")
    path: Any = key(
        None,
        "file.py:function, called as function(prompt, completion, answer). Further parameters get by name what they "
        "ask for: messages, truncated, completion_tokens, a column of the data, or row for all columns. It returns a "
        "number, true or false, (number, correct), or a dict with score, correct and parts by name, which are logged "
        "as reward/NAME. One that names prompts or completions gets lists, as in TRL. A list of such paths "
        "and of graders ([robust,my.py:brief]) is a weighted sum",
    )
    weights: list[float] | None = key(None, "of several rewards, in their order; null is 1 each")
    workers: int | None = key(
        None, "processes that grade at a time; null is one a core (robust: at most 8). Results do not depend on it"
    )
    timeout_seconds: float = key(
        10.0,
        "a grading that takes longer is killed, scores as wrong and is counted; a batch has as much for each of its "
        "completions",
        "s",
    )
    timeout_score: float | None = key(
        None,
        "reward.path: score of a call that is past its deadline; null is the least that the function has given to a "
        "completion so far",
    )


@dataclass
class BenchmarkConfig:
    """`benchmark=`: held-out problems with their way of sampling and grading."""

    name: str | None = key(None, "name of the option; null is no benchmark")
    hub: str | None = key(None, "hub id that it is loaded from")
    config: str | None = key(None, "configuration of the hub data set; A+B joins two")
    split: str = key("test", "split of the hub data set")
    revision: str | None = key(None, "revision of the hub data set")
    path: str | None = key(
        None,
        "a local file in place of the hub, whose rows are read in the same way; with benchmark=[a,b] a list, null "
        "in it leaves one as it is",
    )
    prompt_key: str = key("problem|question|prompt", "column of the problem; dots reach nested fields; a|b tries both")
    answer_key: str = key(
        "answer|final_answer|solution", "column of the gold answer; dots reach nested fields; a|b tries both"
    )
    template: str | None = key(None, "dapo | boxed | plain | a file with {problem}; null takes the model's")
    system_prompt: str | None = key(None, "system turn, with model.chat_template=true only")
    reward: str = key(
        "robust",
        "grader of this benchmark, in training too. A reward= or reward.path= that is typed grades it instead, unless "
        "this key is typed as well",
    )
    validation_fraction: float = key(
        0.0, "keep only the rows that data.validation_fraction splits off; it sets this", "share"
    )
    rows: int | None = key(None, "rows that the whole data set has; another number is reported", "rows")
    k: int = key(1, "samples a problem", "samples")
    pass_at: list[int] | None = key(None, "values of k to report pass@k and maj@k for; null is 1, 2, 4, ... and k")
    temperature: float = key(1.0, "sampling temperature; 0 is greedy")
    top_p: float = key(1.0, "nucleus sampling; 1 is off")
    max_tokens: int = key(2048, "longest completion", "tokens")
    limit: int | None = key(None, "use the first so many problems; null is all", "problems")
    chain_steps: int = key(5, "steps of a chain of bundled:digit_chain; benchmark=digit_chain takes data's", "steps")
    filler: int = key(0, "dots before each space of bundled:digit_chain; likewise", "characters")
    completions: str | None = key(None, "grade this file of stored completions instead of sampling")


@dataclass
class SwapConfig:
    """`swap.*`: the swap test. One model writes, another one chooses at the tokens where the two differ most."""

    path: str | None = key(
        None, "the other model: hub id, folder, run's folder or bundled:tiny. Alone it asks for the swap test"
    )
    revision: str | None = key(None, "branch, tag or commit on the hub")
    signal: SwapSignal = key(
        SwapSignal.hellinger,
        "how far two models are apart at a token: hellinger | kl (of the writer to the other) | entropy (the writer's)",
    )
    fraction: float = key(0.04, "share of tokens that the other model chooses", "share")
    curve: list[float] = key([0.01, 0.1, 0.3], "further shares for the curve; 0 and 1 are always drawn", "share")


@dataclass
class LoggerConfig:
    """`logger=`: Weights & Biases or TensorBoard, beside the local files, which never need them."""

    name: str = key("wandb", "wandb | tensorboard | none; both: logger=[wandb,tensorboard]")
    mode: LoggerMode = key(LoggerMode.auto, "auto (online when logged in, else offline) | online | offline | disabled")
    project: str = key("dgpo", "W&B project")
    entity: str | None = key(None, "W&B team or user; null is your default")
    group: str | None = key(None, "W&B group; null: the jobs of a sweep have its folder's name, a single run has none")
    job_type: str = key("train", "W&B job type")
    tags: list[str] = key([], "W&B tags")
    completions_every: int = key(
        10, "steps between tables of 16 completions, besides the first and last step; 0 is never", "steps"
    )
    report_every: int = key(0, "steps between credit pages as artifacts, besides the last step's; -1 is never", "steps")
