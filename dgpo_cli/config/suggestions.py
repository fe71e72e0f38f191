"""What an unknown key most likely means. A wrong suggestion is worse than none.

Suggested is a key that is near in spelling and takes such a value; or the key that is the same thing as another
trainer's, by its name there. If dgpo has no such thing, `NOT_HERE` says what stands in its place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, get_args, get_origin

from dgpo_cli.config import keys as catalogue

NEAR = 0.8  # of difflib's ratio: one letter of five wrong

# The names that other trainers give to the same thing.
OTHER_NAMES = {
    "learning_rate": "optim.lr",
    "max_steps": "steps",
    "total_training_steps": "steps",
    "num_generations": "rollout.group_size",
    "beta": "algo.kl_coef",
    "epsilon": "algo.clip_low",
    "epsilon_high": "algo.clip_high",
    "num_iterations": "optim.epochs",
    "ppo_epochs": "optim.epochs",
    "max_completion_length": "rollout.max_completion_tokens",
    "max_response_length": "rollout.max_completion_tokens",
    "max_new_tokens": "rollout.max_completion_tokens",
    "max_grad_norm": "optim.grad_clip",
    "lr_scheduler_type": "optim.schedule",
    "gradient_checkpointing": "strategy.activation_checkpointing",
    "model_name_or_path": "model.path",
    "model_name": "model.path",
    "dataset_name": "data.path",
    "train_files": "data.path",
    "reward_funcs": "reward.path",
    "resume_from_checkpoint": "resume",
    "save_steps": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
    "eval_steps": "eval.every",
    "output_dir": "hydra.run.dir",
    "lora_rank": "model.lora.rank",
    "lora_r": "model.lora.rank",
    "lora_alpha": "model.lora.alpha",
    "report_to": "logger",
    "run_name": "name",
    "experiment_name": "name",
    "wandb_project": "logger.project",
    "project_name": "logger.project",
    "wandb_entity": "logger.entity",
}
_LENGTH = "steps=N is the length of a run; an epoch of the data is rows / rollout.prompts_per_step steps"
_BATCH = "a step has rollout.prompts_per_step x rollout.group_size rollouts; optim.tokens_per_microbatch bounds memory"
_4_BITS = "model.quantization=nf4 with model.lora.rank=16 trains adapters on weights of 4 bits"
_8_BITS = "model.quantization=int8 with model.lora.rank=16 trains adapters on weights of 8 bits"
# Names of other trainers for what is no key here, with what stands in its place.
NOT_HERE = {
    **dict.fromkeys(("epochs", "num_epochs", "num_train_epochs", "total_epochs"), _LENGTH),
    **dict.fromkeys(("batch_size", "train_batch_size", "per_device_train_batch_size", "micro_batch_size"), _BATCH),
    **dict.fromkeys(("gradient_accumulation_steps", "mini_batch_size"), _BATCH),
    "load_in_4bit": _4_BITS,
    "load_in_8bit": _8_BITS,
    "warmup_ratio": "optim.warmup_steps counts steps",
    "logging_steps": "every step is logged",
    "max_prompt_length": "prompts are never cut; one that does not fit the model's context is refused",
    "use_vllm": "engine=vllm generates with vLLM",
    "use_peft": "model.lora.rank=16 trains adapters",
    "bf16": "computing is bfloat16 on a GPU; strategy.compute_dtype names another",
    "fp16": "computing is bfloat16 on a GPU; strategy.compute_dtype names another",
}
# Methods that are none of the options, however near their names are.
OTHER_METHODS = {"algo": ("ppo", "gdpo", "dpo", "gmpo", "rloo")}


def unknown_key_hint(path: str, command: str, values: Sequence[Any] = ()) -> str | None:
    """The hint for an unknown key that is given `values`; None if nothing is near."""
    leaf = path.rpartition(".")[2]
    if leaf in NOT_HERE and OTHER_NAMES.get(leaf) is None and not _misspelt_path(path, command):
        return NOT_HERE[leaf]
    close = nearest_key(path, command, values)
    if len(close) == 1:
        name = close[0]
        if name in catalogue.groups(command):
            return f"did you mean {name}=...? (dgpo help {name})"
        more = "" if name.startswith("hydra.") else f" (dgpo help {name})"
        return f"did you mean {name}?{more}"
    return f"did you mean {', '.join(close[:-1])} or {close[-1]}?" if close else None


def nearest_key(path: str, command: str, values: Sequence[Any] = ()) -> list[str]:
    """The real keys that an unknown one most likely means: the nearest one, or all that have the same last name."""
    training = path.startswith("model.training.")
    known = [
        name
        for name, key in catalogue.keys(command).items()
        if not key.is_section and name.startswith("model.training.") == training and _takes(key.type, values)
    ]
    leaf = path.rpartition(".")[2]
    other = OTHER_NAMES.get(leaf, "")
    close = difflib.get_close_matches(path, known, n=1, cutoff=NEAR)
    if close and "." in path:
        return close
    if other in catalogue.keys(command) or other.startswith("hydra."):
        return [other]
    if close:
        return close
    if leaf in NOT_HERE:
        return []
    same = [name for name in known if name.rpartition(".")[2] == leaf and leaf != "name"]
    if same:
        return same
    leaves = {name.rpartition(".")[2] for name in known} - {"name"}
    near = difflib.get_close_matches(leaf, leaves, n=1, cutoff=NEAR)
    return [name for name in known if near and name.rpartition(".")[2] == near[0]]


def nearest_group(word: str, groups: Iterable[str]) -> str | None:
    """The group that a word means: near in spelling, or the longer word, such as `dataset` or `algorithm`."""
    groups = list(groups)
    close = difflib.get_close_matches(word, groups, n=1, cutoff=NEAR)
    longer = [group for group in groups if word.startswith(group) and "_" not in word]
    return next(iter([*close, *longer]), None)


def is_other_method(group: str, value: str) -> bool:
    """Whether a value names a method that dgpo does not have: no misspelling, however near another's name."""
    return value.lower() in OTHER_METHODS.get(group, ())


def _misspelt_path(path: str, command: str) -> bool:
    known = [name for name, key in catalogue.keys(command).items() if not key.is_section]
    return "." in path and bool(difflib.get_close_matches(path, known, n=1, cutoff=NEAR))


def _takes(type_: Any, values: Sequence[Any]) -> bool:
    """Whether a key of this type takes values of this kind."""
    plain = catalogue.plain_type(type_)
    is_list = get_origin(plain) is list

    def fits(value: Any) -> bool:
        if value is None:
            return catalogue.accepts_null(type_)
        if isinstance(value, list):
            return is_list and all(_takes(get_args(plain)[0], [item]) for item in value)
        if isinstance(value, bool):
            return plain is bool
        if isinstance(value, int):
            return plain in (int, float, str)
        if isinstance(value, float):
            return plain in (float, str)
        return plain is str or (isinstance(plain, type) and issubclass(plain, Enum)) or (is_list and plain == list[str])

    return all(map(fits, values))
