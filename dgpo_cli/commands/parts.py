"""The parts that several commands build from their configuration: model, prompts, grader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from dgpo_cli.config.groups import BenchmarkConfig, DataConfig, RewardConfig, StrategyConfig
from dgpo_cli.config.model_groups import ModelConfig, ReferenceConfig
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.data.problems import ProblemSet, load_problem_set
from dgpo_cli.data.prompts import make_prompts, stop_token_ids
from dgpo_cli.errors import ConfigError, DataError, Problem, RunError
from dgpo_cli.models.language_model import LanguageModel, Policy
from dgpo_cli.models.loading import adapter_base, load_model
from dgpo_cli.models.lora import add_adapter, load_adapter
from dgpo_cli.models.tokenizer_checks import check_stops, check_tokenizer
from dgpo_cli.processes import SOLO, Processes, gpu_of
from dgpo_cli.rewards import READS_MATHEMATICS, make_grader
from dgpo_cli.rewards.trial import columns_asked, try_grader
from dgpo_cli.terminal import say
from dgpo_cli.training.checkpoint import adapter_folder
from dgpo_cli.types import Grader, Prompt

SHOWN_GOLDS = 5


def prepare_device(strategy: StrategyConfig, model: ModelConfig, processes: Processes = SOLO) -> str:
    """The device of a run, of each of its processes one of its own; sets the number of CPU threads.

    Raises:
        RunError: cuda was asked for and there is none.
    """
    threads = strategy.threads or model.threads
    if threads is not None:
        torch.set_num_threads(threads)
    if strategy.device.name == "cuda" and not torch.cuda.is_available():
        raise RunError("strategy.device=cuda, but torch sees no GPU here", "strategy.device=auto or cpu")
    if strategy.device.name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return "cuda" if processes.alone else f"cuda:{gpu_of(processes.local_rank)}"


def load_policy(settings: ModelConfig, device: str, *, path: str | None = None, merge_adapter: bool = False) -> Policy:
    """The model of the configuration, or the same at another path (a checkpoint)."""
    if settings.path is None:
        raise ConfigError("model.path is not set", "model.path=FOLDER or a hub id, or model=tiny")
    model = load_model(
        path or settings.path,
        dtype=settings.dtype.name,
        device=device,
        revision=settings.revision if path is None else None,
        trust_remote_code=settings.trust_remote_code,
        merge_adapter=merge_adapter,
    )
    stop_ids = stop_token_ids(
        model.tokenizer, model.model.generation_config, settings.chat_template, settings.stop_tokens
    )
    _check_ids(model, stop_ids, settings.stop_tokens)
    return Policy(model, stop_ids)


def _check_ids(model: LanguageModel, stop_ids: frozenset[int], typed: list[str]) -> None:
    """Whether the tokenizer speaks of the ids that the model has; says what never comes."""
    where = {"path": model.path, "key": "model.path"}
    notes = check_tokenizer(model.tokenizer, model.embedded_ids, **where)
    notes += check_stops(model.tokenizer, stop_ids, model.vocabulary_size, typed=typed, **where)
    for note in notes:
        say(note)


def load_trainee(settings: ModelConfig, device: str, checkpoint: Path | None, *, seed: int) -> Policy:
    """The policy to train, as it was before the first step or as a checkpoint left it.

    With LoRA that is the configured model, frozen, and its adapter; without, an adapter at model.path is merged.
    """
    lora = settings.lora
    if not lora.rank:
        return load_policy(settings, device, path=str(checkpoint / "model") if checkpoint else None, merge_adapter=True)
    policy = load_policy(settings, device)
    model, name = policy.model, str(settings.path)
    if model.adapter is not None:
        raise ConfigError(
            f"model.path: '{name}' is an adapter, and model.lora.rank={lora.rank} would train one on top of it",
            "model.lora.rank=0 trains on from the merged weights",
        )
    if checkpoint is not None:
        adapter = load_adapter(model.model, adapter_folder(checkpoint), trained=True)
    else:
        adapter = add_adapter(
            model.model,
            rank=lora.rank,
            alpha=lora.alpha,
            target_modules=lora.target_modules,
            base=adapter_base(name),
            revision=settings.revision,
            seed=derive_seed("lora", seed),
        )
    return replace(policy, model=replace(model, adapter=adapter))


def is_base_of(policy: LanguageModel, settings: ReferenceConfig, model: ModelConfig) -> bool:
    """Whether the reference is what the policy's adapter is trained on: the same model with the adapter off."""
    initial = settings.name == "initial"
    path, revision = (model.path, model.revision) if initial else (settings.path, settings.revision)
    return path is not None and policy.adapter is not None and policy.adapter.is_on(adapter_base(path), revision)


def load_reference(settings: ReferenceConfig, model: ModelConfig, policy: LanguageModel, device: str) -> LanguageModel:
    """The frozen reference, on the policy's vocabulary. The base of a policy with an adapter is not loaded again.

    Raises:
        ConfigError: it has another vocabulary than the policy.
    """
    initial = settings.name == "initial"
    path = model.path if initial else settings.path
    if path is None:
        raise ConfigError("reference=path needs reference.path", "reference.path=FOLDER or a hub id")
    if is_base_of(policy, settings, model):
        return policy.frozen_copy()
    reference = load_model(
        path,
        dtype=model.dtype.name,
        device=device,
        revision=model.revision if initial else settings.revision,
        trust_remote_code=model.trust_remote_code,
        key="model.path" if initial else "reference.path",
        merge_adapter=True,  # as `load_trainee` does: an initial policy that is loaded again is the same to the bit
    )
    reference.model.requires_grad_(False)
    if reference.vocabulary_size != policy.vocabulary_size:
        raise ConfigError(
            f"the reference {path} has {reference.vocabulary_size} output ids, the policy {policy.vocabulary_size}: a "
            "distance between them has no meaning",
            "reference.path=MODEL of the same family",
        )
    return reference


def load_grader(settings: RewardConfig) -> Grader:
    return make_grader(
        settings.name,
        path=settings.path,
        timeout_seconds=settings.timeout_seconds,
        timeout_score=settings.timeout_score,
    )


def load_data_prompts(
    data: DataConfig,
    model: ModelConfig,
    policy: Policy,
    grader: Grader,
    *,
    seed: int,
    max_completion_tokens: int,
    limit: int | None = None,
) -> list[Prompt]:
    """The prompts of a data option, every row checked and the grader tried on one; says what was left out.

    Raises:
        DataError: rows that cannot be used, golds that no grader parses, prompts that do not fit the model's context.
    """
    if data.path is None:
        raise ConfigError("data.path is not set", "data.path=FILE, or a data option: data=digit_chain, gsm8k, ...")
    loaded = load_problem_set(
        data.path,
        prompt_key=data.prompt_key,
        answer_key=data.answer_key,
        config=data.config,
        split=data.split,
        revision=data.revision,
        limit=data.limit,
        seed=seed,
        size=data.size,
        deduplicate=data.deduplicate,
        reduce_golds=grader.name in READS_MATHEMATICS,
        columns=columns_asked(grader),
    )
    if loaded.duplicates:
        say(
            f"data: {loaded.duplicates} of {loaded.rows} rows repeat a prompt and are left out ({loaded.conflicts} of "
            "them with another gold)"
        )
    problems = loaded.problems
    reasons = grader.gold_problems([problem.gold for problem in problems])
    bad = {problem.index: why for problem, why in zip(problems, reasons, strict=True) if why is not None}
    if bad:
        _report_bad_golds(bad, data)
        problems = [problem for problem in problems if problem.index not in bad]
    if not problems:
        raise DataError(f"{data.path}: no row is left to train on", "data.answer_key=KEY names another column")
    prompts = make_prompts(
        problems[:limit],
        policy.model.tokenizer,
        template=data.template or model.template,
        chat_template=model.chat_template,
        system_prompt=data.system_prompt,
        max_context=policy.model.max_context,
        embedded_ids=policy.model.embedded_ids,
        max_completion_tokens=max_completion_tokens,
    )
    try_grader(grader, prompts[0])
    return prompts


def benchmark_prompts(
    loaded: ProblemSet, benchmark: BenchmarkConfig, model: ModelConfig, policy: Policy
) -> list[Prompt]:
    """The problems of a benchmark as the model sees them.

    Raises:
        DataError: prompts that do not fit the model's context.
    """
    return make_prompts(
        loaded.problems,
        policy.model.tokenizer,
        template=benchmark.template or model.template,
        chat_template=model.chat_template,
        system_prompt=benchmark.system_prompt,
        max_context=policy.model.max_context,
        embedded_ids=policy.model.embedded_ids,
        max_completion_tokens=benchmark.max_tokens,
        limit_key="benchmark.max_tokens",
    )


def _report_bad_golds(bad: dict[int, str], data: DataConfig) -> None:
    shown = [f"row {index + 1}: {why}" for index, why in list(bad.items())[:SHOWN_GOLDS]]
    more = f" and {len(bad) - SHOWN_GOLDS} more" if len(bad) > SHOWN_GOLDS else ""
    if data.skip_bad_golds:
        say(f"data: {len(bad)} rows left out, their gold cannot be graded: {'; '.join(shown)}{more}")
        return
    problems = [Problem(f"{data.path}: {line}") for line in shown]
    hint = (
        "data.answer_key=KEY names another column; data.skip_bad_golds=true leaves such rows out; reward=exact "
        "compares text, and reward.path=FILE:FUNCTION is your own grader"
    )
    last = Problem(f"{len(bad)} golds in {data.path} cannot be graded", hint)
    raise DataError("", problems=(*problems, last))
