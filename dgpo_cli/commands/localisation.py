"""`dgpo eval study=localisation`: does a signal, or credit, find the first wrong token?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.commands.evaluated_model import sampling_of
from dgpo_cli.commands.parts import benchmark_prompts
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import EvalConfig
from dgpo_cli.config.gating_needs import needed_from_reference, needs_advantages, reads_answer
from dgpo_cli.config.gatings import gating_option, hydra_config_dirs
from dgpo_cli.config.groups import AlgoConfig, GatingConfig
from dgpo_cli.core.credit import TokenSignals, gated_score
from dgpo_cli.core.diagnostics import HIGH_QUANTILE, quantile
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.core.signals import SIGNALS
from dgpo_cli.disk import writing
from dgpo_cli.engines import completed, make_engine
from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.evaluation.benchmark import load_benchmark
from dgpo_cli.evidence.first_errors import FirstErrors
from dgpo_cli.evidence.localisation import (
    Located,
    Scores,
    WrongCompletion,
    as_record,
    floors,
    located,
    measures,
    results,
    wrong_cells,
)
from dgpo_cli.evidence.samples import units_of_evaluation
from dgpo_cli.files import to_json, write_atomically
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.noise_floor import measure_noise_floor
from dgpo_cli.models.placement import prepare_device
from dgpo_cli.models.policy import Policy, load_policy
from dgpo_cli.models.reference import load_reference
from dgpo_cli.models.scoring import score_rollouts
from dgpo_cli.reporting.study_view import localisation_tables
from dgpo_cli.reporting.tables import show
from dgpo_cli.rewards import load_grader
from dgpo_cli.rewards.requests import of_rollout
from dgpo_cli.terminal import say
from dgpo_cli.types import Rollout, Verdict

OWNED = ("localisation.json", "wrong_tokens.jsonl")
TOKENS_PER_PASS = 16384
Rows = dict[tuple[str, str], list[Scores]]  # kind and name of what is looked at -> scores [T] of each wrong completion


@dataclass(frozen=True)
class Drawn:
    """Completions with their verdicts; those whose first wrong token is known, by their row."""

    rollouts: list[Rollout]
    verdicts: list[Verdict]
    wrong: dict[int, WrongCompletion]
    unknown: int  # wrong ones whose first wrong token is not: cut off before it, or spelled otherwise


def run(configs: list[EvalConfig], folder: Path) -> None:
    """Write localisation.json and wrong_tokens.jsonl; a table on a terminal, else the JSON.

    Raises:
        ConfigError: a folder that holds a study already, or a gating asked for by name that lacks what it needs.
        DataError: no completion is wrong, so there is nothing to find.
    """
    config = configs[0]
    refuse_other_files(folder, OWNED, overwrite=config.overwrite)
    gatings, left_out = _gatings(config)
    placement = prepare_device(config.strategy, config.model)
    policy = load_policy(config.model, placement)
    drawn = _draw(config, policy)
    if not drawn.wrong:
        raise DataError(
            f"study=localisation: none of {len(drawn.rollouts)} completions has a known first wrong token",
            "a model that makes mistakes, or more samples: benchmark.k=16",
        )
    reference = None
    if config.reference.name != "none":
        reference = load_reference(config.reference, config.model, policy.model, placement)
    rows, cells = _scores(config, gatings, policy.model, reference, drawn)
    wrong = list(drawn.wrong.values())
    found = [located(kind, name, wrong, scores) for (kind, name), scores in rows.items()]
    record = _record(config, drawn, found, left_out) | {"cells": cells}
    _write(folder, record, wrong, rows)
    for name, why in left_out.items():
        say(f"left out: {name}: {why}")
    say(f"files: {folder}")
    show(localisation_tables(found, record), record)


def refuse_other_files(folder: Path, owned: tuple[str, ...], *, overwrite: bool) -> None:
    """Raises ConfigError for a folder that holds a training run, or files of an earlier study (unless `overwrite`)."""
    if (folder / "run.json").exists() or (folder / "metrics.jsonl").exists():
        raise ConfigError(f"{folder} holds a training run", "hydra.run.dir=FOLDER takes another folder")
    there = [name for name in owned if (folder / name).exists()]
    if there and not overwrite:
        hint = "hydra.run.dir=FOLDER takes another folder; overwrite=true replaces it"
        raise ConfigError(f"{folder / there[0]} exists already", hint)


def _gatings(config: EvalConfig) -> tuple[dict[str, GatingConfig], dict[str, str]]:
    """The gatings that can be computed, and why others cannot; one that was named is then refused."""
    dirs = hydra_config_dirs()
    named = config.gatings is not None
    names = config.gatings if config.gatings is not None else sorted(catalogue.option_files("gating", dirs))
    found, left_out = {}, {}
    for name in names:
        gating = gating_option(name, dirs)
        why = _lacking(config, gating)
        if why is None:
            found[name] = gating
        elif named:
            raise ConfigError(f"gatings: {name}: {why[0]}", why[1])
        else:
            left_out[name] = "; ".join(why)
    return found, left_out


def _lacking(config: EvalConfig, gating: GatingConfig) -> tuple[str, str] | None:
    if reads_answer(gating):
        return "it reads the answer, so it finds the wrong token by definition", "a gating that has to find it"
    if config.reference.name == "none" and needed_from_reference(gating):
        return "it is measured from a reference", "reference.path=FOLDER or reference=tiny"
    if config.benchmark.k < 2 and needs_advantages(gating):
        return "it goes by the advantage within a prompt's samples", "benchmark.k=8"
    return None


def _draw(config: EvalConfig, policy: Policy) -> Drawn:
    """The samples that `dgpo eval` draws with these settings."""
    benchmark = config.benchmark
    with ExitStack() as held:
        grader = held.enter_context(closing(load_grader(config.reward)))
        problems = load_benchmark(benchmark, grader=grader, limit=benchmark.limit)
        prompts = benchmark_prompts(problems, benchmark, config.model, policy)
        engine = held.enter_context(closing(make_engine(config.engine, policy=policy)))
        units = units_of_evaluation(prompts, k=benchmark.k, batch_size=config.engine.batch_size, seed=config.seed)
        requests = [request for unit in units for request in unit]
        drawn = completed(engine.generate(requests, sampling_of(benchmark)))
        kept = [one for one in drawn if one.request.sample < benchmark.k]
        # By prompt: advantages are relative to a prompt's samples, which have to stand together.
        kept.sort(key=lambda one: (one.request.prompt.problem.index, one.request.sample))
        verdicts = grader.grade([of_rollout(one) for one in kept])
    wrong, unknown = {}, 0
    finder = FirstErrors(policy.model.tokenizer, policy.stop_ids)
    for row, rollout in enumerate(kept):
        request = rollout.request
        if rollout.text == request.prompt.problem.gold:
            continue
        place = finder.place(rollout)
        if place is None:
            unknown += 1
        else:
            tokens = finder.tokens(rollout)
            wrong[row] = WrongCompletion(request.prompt.problem.index, request.sample, tokens, place)
    return Drawn(kept, verdicts, wrong, unknown)


def _scores(
    config: EvalConfig,
    gatings: dict[str, GatingConfig],
    model: LanguageModel,
    reference: LanguageModel | None,
    drawn: Drawn,
) -> tuple[Rows, list[dict[str, object]] | None]:
    """Floors, signals, then credit by each gating, over all completions as in a training step; and the cells."""
    temperature = config.benchmark.temperature or 1.0
    lengths = [len(one.token_ids) for one in drawn.rollouts]
    settings: dict[str, Any] = {"temperature": temperature, "tokens": TOKENS_PER_PASS}
    signals = score_rollouts(model, reference, drawn.rollouts, lengths, **settings)
    floor = 0.0 if reference is None else measure_noise_floor(model, drawn.rollouts, lengths, **settings)
    rows: Rows = {("floor", name): scores for name, scores in floors(list(drawn.wrong.values())).items()}
    for name, rule in SIGNALS.items():
        if not rule.reads_answer and (reference is not None or not rule.measured_from_reference):
            score = gated_score(signals, signal=name, entropy_exponent=0.0, vocabulary_size=model.vocabulary_size)
            rows["signal", name] = _of_wrong(score, signals, drawn)
    for name, weights in _credits(config, gatings, signals, drawn, model.vocabulary_size, floor):
        rows["gating", name] = _of_wrong(weights, signals, drawn)
    return rows, _cells(signals, drawn)


def _cells(signals: TokenSignals, drawn: Drawn) -> list[dict[str, object]] | None:
    """The cells of d and H, high being above the 80th percentile of all completions' tokens; None without d."""
    if signals.hellinger is None:
        return None
    d, h = (_of_wrong(values, signals, drawn) for values in (signals.hellinger, signals.entropy))
    bounds = [quantile(values[signals.mask], HIGH_QUANTILE) for values in (signals.hellinger, signals.entropy)]
    return wrong_cells(list(drawn.wrong.values()), d, h, (bounds[0], bounds[1]))


def _credits(
    config: EvalConfig,
    gatings: dict[str, GatingConfig],
    signals: TokenSignals,
    drawn: Drawn,
    vocabulary_size: int,
    floor: float,
) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights [B, T] of each gating, with the advantages of GRPO."""
    seeds = [
        derive_seed("control", config.seed, 0, one.request.prompt.problem.index, one.request.sample)
        for one in drawn.rollouts
    ]
    for name, gating in gatings.items():
        algorithm = Algorithm(AlgoConfig(), gating, max_completion_tokens=config.benchmark.max_tokens)
        advantages = torch.zeros(len(drawn.rollouts))
        if config.benchmark.k > 1:
            graded = algorithm.rewards(drawn.rollouts, drawn.verdicts, group_size=config.benchmark.k)
            advantages = algorithm.advantages(graded)
        yield (
            name,
            algorithm.credit(
                signals,
                advantages=advantages,
                vocabulary_size=vocabulary_size,
                noise_floor=floor,
                control_seeds=seeds,
            ).weights,
        )


def _of_wrong(values: torch.Tensor, signals: TokenSignals, drawn: Drawn) -> list[Scores]:
    """The counted tokens' values [T] of each completion whose first wrong token is known."""
    return [values[row][signals.mask[row]].double().numpy() for row in drawn.wrong]


def _record(config: EvalConfig, drawn: Drawn, found: list[Located], left_out: dict[str, str]) -> dict[str, Any]:
    wrong = list(drawn.wrong.values())
    return {
        "study": "localisation",
        "benchmark": config.benchmark.name,
        "model": config.model.path,
        "reference": config.reference.path,
        "seed": config.seed,
        "k": config.benchmark.k,
        "sampling": asdict(sampling_of(config.benchmark)),
        "n_problems": len({one.request.prompt.problem.index for one in drawn.rollouts}),
        "n_completions": len(drawn.rollouts),
        "n_wrong": len(wrong),
        "n_wrong_prompts": len({one.prompt for one in wrong}),
        "n_unknown": drawn.unknown,
        "wrong_at_a_result": sum(one.wrong in results(one.tokens) for one in wrong) / len(wrong),
        "rows": as_record(found),
        "left_out": left_out,
    }


def _write(folder: Path, record: dict[str, Any], wrong: list[WrongCompletion], rows: Rows) -> None:
    lines = []
    for number, one in enumerate(wrong):
        ranks = {f"{kind} {name}": measures(scores[number], one.wrong)[1] for (kind, name), scores in rows.items()}
        lines.append(to_json({**asdict(one), "reciprocal_rank": ranks}) + "\n")
    text = "".join(lines)
    with writing(folder / OWNED[1], len(text)):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / OWNED[1], text)
        write_atomically(folder / OWNED[0], to_json(record, indent=2) + "\n")
