"""`dgpo rollout`: sample completions, grade them, and with a reference show each token's credit."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.commands.foreign_rollouts import scores_others, to_be_scored
from dgpo_cli.commands.gating_choice import computable, gatings_of, refuse_unmeasured
from dgpo_cli.commands.parts import load_data_prompts
from dgpo_cli.commands.rescoring import export, report, rescore, show_tokens
from dgpo_cli.commands.run_report import report_run
from dgpo_cli.commands.scored_records import Worth, scored_records
from dgpo_cli.config.commands import RolloutConfig
from dgpo_cli.config.groups import ComputeDtype
from dgpo_cli.config.stored import save as save_config
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.data.prompts import make_prompts
from dgpo_cli.disk import writing
from dgpo_cli.engines import Served, completed, make_engine
from dgpo_cli.errors import ConfigError
from dgpo_cli.files import to_json, write_atomically
from dgpo_cli.models.placement import Placement, prepare_device, threads_of
from dgpo_cli.models.policy import Policy, load_policy
from dgpo_cli.records.regated import regate
from dgpo_cli.records.stored_rollouts import StoredRollouts, rollouts_at_hand
from dgpo_cli.rewards import load_grader
from dgpo_cli.rewards.requests import of_rollout
from dgpo_cli.terminal import phase, put, say
from dgpo_cli.types import Grader, Problem, Prompt, Rollout, SampleRequest, Sampling, Verdict


def run(config: RolloutConfig, folder: Path) -> None:
    """Write rollouts.jsonl; on a terminal show the tokens, else print the records as JSON lines.

    Raises:
        DgpoError: as the parts that it loads do; ConfigError for a folder that already holds rollouts, and for gatings
            asked for by name that nothing would be measured for.
    """
    target = folder / "rollouts.jsonl"
    _check(config, folder, target)
    if config.rollouts is not None and Path(config.rollouts).is_dir():
        report_run(config, folder)
        return
    if config.rollouts is not None and not scores_others(config):
        rescore(config, folder)
        return
    refuse_unmeasured(config)
    placement = prepare_device(config.strategy, config.model)
    with phase(f"loading the weights of {config.model.path}"):
        policy = load_policy(config.model, placement)
    if config.rollouts is not None:
        rollouts, worth = to_be_scored(config, policy.model)
    else:
        threads = threads_of(config.strategy, config.model)
        served = Served(config.model, placement.computes_in, trained=False, trainers=1, threads=threads)
        rollouts, worth = _drawn(config, policy, served)
    with phase(f"scoring {len(rollouts)} completions"):
        records = scored_records(config, policy, placement, rollouts, worth)
    lines = "".join(to_json(record) + "\n" for record in records)
    with writing(target, len(lines)):
        folder.mkdir(parents=True, exist_ok=True)
        save_config(_as_computed(config, placement), folder / "config.yaml")
        write_atomically(target, lines)
    _show(config, rollouts_at_hand(records, str(target)), lines, folder)


def _check(config: RolloutConfig, folder: Path, target: Path) -> None:
    if (folder / "run.json").exists() or (folder / "metrics.jsonl").exists():  # its config.yaml would be replaced
        raise ConfigError(f"{folder} holds a training run", "hydra.run.dir=FOLDER takes another folder")
    if target.exists() and not config.overwrite:
        hint = "hydra.run.dir=FOLDER takes another folder; overwrite=true replaces these rollouts"
        raise ConfigError(f"{target} exists already", hint)


def _drawn(config: RolloutConfig, policy: Policy, served: Served) -> tuple[list[Rollout], Worth]:
    """Prompts -> rollouts -> verdicts. A prompt that was typed has no gold, so nothing grades its rollouts."""
    rollout = config.rollout
    sampling = Sampling(rollout.temperature, rollout.top_p, rollout.max_completion_tokens)
    with ExitStack() as held:
        grader = held.enter_context(closing(load_grader(config.reward))) if config.prompt is None else None
        prompts = _prompts(config, policy, grader)
        engine = held.enter_context(closing(make_engine(config.engine, policy=policy, served=served)))
        requests = _requests(config, prompts)
        with phase(f"drawing {len(requests)} completions"):
            rollouts = completed(engine.generate(requests, sampling))
        if grader is None:
            return rollouts, _worth(config, rollouts, None)
        with phase(f"grading {len(rollouts)} completions"):
            verdicts = grader.grade([of_rollout(one) for one in rollouts])
        return rollouts, _worth(config, rollouts, verdicts)


def _show(config: RolloutConfig, stored: StoredRollouts, lines: str, folder: Path) -> None:
    """Tokens on a terminal, else the file's lines; then where the file is, and the page, if one is asked for."""
    gated = regate(stored, computable(gatings_of(config, stored), stored))
    if sys.stdout.isatty():
        show_tokens(config, stored, gated)
    else:
        put(lines, end="")
    say(f"rollouts: {stored.source}")
    report(config, stored, gated, folder)
    export(config, stored, gated)


def _as_computed(config: RolloutConfig, placement: Placement) -> RolloutConfig:
    """With the dtype that auto stood for."""
    name = placement.computes_in.name
    return replace(config, strategy=replace(config.strategy, compute_dtype=ComputeDtype[name]))


def _prompts(config: RolloutConfig, policy: Policy, grader: Grader | None) -> list[Prompt]:
    """The prompts of the data option, or the one that was typed: through the same template."""
    if grader is not None:
        return load_data_prompts(
            config.data,
            config.model,
            policy,
            grader,
            seed=config.seed,
            max_completion_tokens=config.rollout.max_completion_tokens,
            limit=config.limit,
        )
    problem = Problem(0, "prompt", (("user", config.prompt or ""),), "")
    if not (config.prompt or "").strip():
        raise ConfigError("prompt: expected text, got an empty prompt", "prompt='9 -5=? +4=? +1=? +1=? -4=?'")
    return make_prompts(
        [problem],
        policy.model.tokenizer,
        template=config.data.template or config.model.template,
        chat_template=config.model.chat_template,
        system_prompt=config.data.system_prompt,
        max_context=policy.model.max_context,
        embedded_ids=policy.model.embedded_ids,
        max_completion_tokens=config.rollout.max_completion_tokens,
    )


def _requests(config: RolloutConfig, prompts: list[Prompt]) -> list[SampleRequest]:
    return [
        SampleRequest(prompt, sample, derive_seed("rollout", config.seed, draw, sample), draw)
        for draw, prompt in enumerate(prompts)
        for sample in range(config.rollout.group_size)
    ]


def _worth(config: RolloutConfig, rollouts: list[Rollout], verdicts: list[Verdict] | None) -> Worth:
    nothing: list[float | None] = [None] * len(rollouts)
    if verdicts is None:
        return Worth([Verdict(0.0, None)] * len(rollouts), nothing, nothing, graded=False)
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=config.rollout.max_completion_tokens)
    size, own_scores = config.rollout.group_size, config.reward.name == "function"
    graded = algorithm.rewards(rollouts, verdicts, group_size=size, own_scores=own_scores)
    advantages = list(algorithm.advantages(graded).tolist()) if size > 1 else nothing
    return Worth(verdicts, list(graded.final.tolist()), advantages, graded=True)
