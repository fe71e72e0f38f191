"""`dgpo eval swap.path=B`: A writes, B chooses where the two differ most, beside random and low-distance places."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from dgpo_cli.commands.evaluated_model import sampling_of
from dgpo_cli.commands.localisation import refuse_other_files
from dgpo_cli.commands.parts import benchmark_prompts
from dgpo_cli.config.commands import EvalConfig
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.disk import writing
from dgpo_cli.errors import ConfigError
from dgpo_cli.evaluation.benchmark import load_benchmark
from dgpo_cli.evidence.samples import units_of_evaluation
from dgpo_cli.evidence.swap_arms import Arm, Draw, arms, as_records, sample_records
from dgpo_cli.evidence.swapping import DISTANCES, Rule, Swapped, swap
from dgpo_cli.files import to_json, write_atomically
from dgpo_cli.models.placement import prepare_device
from dgpo_cli.models.policy import Policy, load_policy
from dgpo_cli.reporting.study_view import swap_table
from dgpo_cli.reporting.swap_plot import swap_png
from dgpo_cli.reporting.tables import show
from dgpo_cli.rewards import load_grader
from dgpo_cli.rewards.requests import of_rollout
from dgpo_cli.terminal import say
from dgpo_cli.types import Grader, Prompt

OWNED = ("swap.json", "swap_samples.jsonl", "swap.png")


def run(configs: list[EvalConfig], folder: Path) -> None:
    """Write swap.json, swap_samples.jsonl and swap.png; a table on a terminal, else the JSON.

    Raises:
        ConfigError: a folder that holds a swap test already, or two models that do not share their tokens.
    """
    config = configs[0]
    if len(configs) > 1:
        raise ConfigError("swap.path: a swap test has one benchmark", f"benchmark={config.benchmark.name}")
    refuse_other_files(folder, OWNED, overwrite=config.overwrite)
    placement = prepare_device(config.strategy, config.model)
    a = load_policy(config.model, placement)
    b = load_policy(replace(config.model, path=config.swap.path, revision=config.swap.revision), placement)
    _refuse_other_tokens(a, b, config)
    found: dict[str, list[Arm]] = {}
    with ExitStack() as held:
        grader = held.enter_context(closing(load_grader(config.reward)))
        problems = load_benchmark(config.benchmark, grader=grader, limit=config.benchmark.limit)
        prompts = benchmark_prompts(problems, config.benchmark, config.model, a)
        for way, writer, other in (("B into A", a, b), ("A into B", b, a)):
            found[way] = _arms(config, writer, other, prompts, grader)
            say(f"{way}: {len(found[way])} arms of {len(found[way][0].drawn)} completions")
    record = _record(config, found)
    _write(folder, record, found)
    say(f"files: {folder}")
    show([swap_table(record)], record)


def _refuse_other_tokens(a: Policy, b: Policy, config: EvalConfig) -> None:
    same_size = a.model.vocabulary_size == b.model.vocabulary_size
    if not same_size or a.model.tokenizer.get_vocab() != b.model.tokenizer.get_vocab():
        raise ConfigError(
            f"swap.path={config.swap.path}: it does not share its tokens with {config.model.path}, so neither can "
            "choose for the other",
            "swap.path=MODEL of the same family",
        )


def _arms(config: EvalConfig, writer: Policy, other: Policy, prompts: list[Prompt], grader: Grader) -> list[Arm]:
    k, seed = config.benchmark.k, config.seed

    def correct(drawn: list[Swapped]) -> list[bool]:
        return [bool(one.correct) for one in grader.grade([of_rollout(one.rollout) for one in drawn])]

    draw = _drawing(config, writer, other, prompts, k=k, seed=seed)
    # One completion a prompt, of seeds that no evaluation has.
    calibrate = _drawing(config, writer, other, prompts, k=1, seed=derive_seed("swap calibration", seed))
    fractions = [config.swap.fraction, *config.swap.curve]
    return arms(draw, calibrate, correct, fractions=fractions, seed=seed)


def _drawing(config: EvalConfig, writer: Policy, other: Policy, prompts: list[Prompt], *, k: int, seed: int) -> Draw:
    units = units_of_evaluation(prompts, k=k, batch_size=config.engine.batch_size, seed=seed)
    drawing = partial(swap, writer, other, units, sampling_of(config.benchmark))
    distance = DISTANCES[config.swap.signal.value]

    def draw(rule: Rule) -> list[Swapped]:
        return [one for one in drawing(rule=rule, distance=distance) if one.rollout.request.sample < k]

    return draw


def _record(config: EvalConfig, found: dict[str, list[Arm]]) -> dict[str, Any]:
    return {
        "study": "swap",
        "benchmark": config.benchmark.name,
        "a": config.model.path,
        "b": config.swap.path,
        "signal": config.swap.signal.value,
        "fraction": config.swap.fraction,
        "seed": config.seed,
        "k": config.benchmark.k,
        "sampling": asdict(sampling_of(config.benchmark)),
        "arms": [record for way, own in found.items() for record in as_records(own, way)],
    }


def _write(folder: Path, record: dict[str, Any], found: dict[str, list[Arm]]) -> None:
    samples = (one for way, own in found.items() for arm in own for one in sample_records(arm, way))
    lines, picture = "".join(to_json(one) + "\n" for one in samples), swap_png(record)
    with writing(folder / OWNED[1], len(lines) + len(picture)):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / OWNED[1], lines)
        (folder / OWNED[2]).write_bytes(picture)
        write_atomically(folder / OWNED[0], to_json(record, indent=2) + "\n")
