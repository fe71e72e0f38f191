"""The groups `model=` and `reference=`: which weights, what is trained of them, and what a model option brings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dgpo_cli.config.groups import Dtype, Schedule, key


class Quantization(Enum):
    none = "none"
    nf4 = "nf4"
    int8 = "int8"


@dataclass
class TrainingDefaults:
    """Proposals of a model option, so that its plan fits. The keys of these names elsewhere take them if not set."""

    steps: int = key(200, "rollout-to-update cycles", "steps")
    lr: float = key(1e-6, "peak learning rate")
    schedule: Schedule = key(Schedule.constant, "shape of the learning rate after warm-up")
    warmup_steps: int = key(10, "linear warm-up", "steps")
    weight_decay: float = key(0.1, "AdamW's decoupled weight decay")
    prompts_per_step: int = key(32, "prompts a step (N)", "prompts")
    group_size: int = key(16, "rollouts a prompt (G)", "rollouts")
    max_completion_tokens: int = key(2048, "longest completion", "tokens")
    minibatches: int = key(1, "optimizer minibatches a step")
    checkpoint_every: int = key(20, "steps between checkpoints", "steps")
    strategy: str = key("single", "strategy of `dgpo train` if none is chosen: single | ddp | fsdp | fsdp_offload")
    activation_checkpointing: bool = key(False, "strategy.activation_checkpointing if it is not set")
    tokens_per_microbatch: int = key(16384, "optim.tokens_per_microbatch if it is not set", "tokens")
    engine_batch_size: int = key(128, "engine.batch_size if it is not set", "rollouts")


@dataclass
class LoraConfig:
    """`model.lora.*`: train low-rank adapters of a frozen model (arXiv 2106.09685), with peft."""

    rank: int | None = key(None, "rank of the adapters, in training; null or 0 trains the model's own weights")
    alpha: int | None = key(None, "the adapters' product is scaled by alpha / rank; null is twice the rank")
    target_modules: list[str] | None = key(
        None, "names of the layers that get an adapter, as [q_proj,v_proj]; null is every linear layer but the head"
    )
    merge: bool = key(
        False, "checkpoints hold a full model, adapters merged into it in model.dtype, and the adapter in state/adapter"
    )


@dataclass
class ArchitectureConfig:
    """`model.architecture.*`: sizes from the model's config.json, so that a plan needs neither files nor network."""

    hidden_size: int | None = key(None, "width of the hidden states; null: no architecture is stated")
    layers: int | None = key(None, "transformer layers")
    heads: int | None = key(None, "attention heads")
    kv_heads: int | None = key(None, "heads of keys and values")
    head_dim: int | None = key(None, "width of a head")
    intermediate_size: int | None = key(None, "inner width of the MLP")
    vocab_rows: int | None = key(None, "rows of the output head, padding included")
    tied_embeddings: bool = key(False, "one matrix is both input embedding and output head")
    max_positions: int | None = key(None, "longest context", "tokens")
    qkv_bias: bool = key(False, "biases on queries, keys and values (Qwen2)")
    qk_norm: bool = key(False, "norms on queries and keys (Qwen3)")


@dataclass
class ModelConfig:
    """`model=`: the language model that is trained, evaluated or sampled."""

    name: str = key("path", "name of the option; shown in tables")
    path: str | None = key(
        None,
        "hub id, folder, a run's folder (its latest checkpoint), latest, or bundled:tiny. Alone it selects model=path",
    )
    revision: str | None = key(None, "branch, tag or commit on the hub; null is the default branch")
    dtype: Dtype = key(
        Dtype.float32,
        "dtype of the weights: float32 | bfloat16 (loses most small updates: for evaluation, or frozen under "
        "model.lora.rank)",
    )
    quantization: Quantization = key(
        Quantization.none,
        "frozen linear layers in fewer bits, by bitsandbytes: none | nf4 (4 bits) | int8. In training it needs "
        "model.lora.rank; a run's folder or its adapter brings what it was trained on",
    )
    trust_remote_code: bool = key(False, "run the Python code that comes with the model: only for code you have read")
    chat_template: bool = key(False, "wrap prompts in the tokenizer's chat template (instruct models)")
    template: str = key("dapo", "prompt template if the data option names none: dapo | boxed | plain | a file")
    stop_tokens: list[str] = key(
        [], "further tokens that end a completion, beside the tokenizer's and generation_config's end of text"
    )
    threads: int | None = key(None, "CPU threads that suit the model, if strategy.threads names none", "threads")
    lora: LoraConfig = key(LoraConfig, "low-rank adapters in place of the model's own weights")
    training: TrainingDefaults = key(TrainingDefaults, "training settings that suit the model")
    architecture: ArchitectureConfig = key(ArchitectureConfig, "sizes of the model, for the plan (dry_run=true)")


@dataclass
class ReferenceConfig:
    """`reference=`: the frozen model that distance, KL and credit are measured from."""

    name: str = key("initial", "none | initial (the policy before training) | path")
    path: str | None = key(None, "hub id, folder, run's folder or bundled:tiny. Alone it selects reference=path")
    revision: str | None = key(None, "branch, tag or commit on the hub")
    refresh_every: int = key(0, "copy the policy into the reference every so many steps; 0 is never", "steps")
