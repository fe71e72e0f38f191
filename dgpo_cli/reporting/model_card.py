"""The README.md of a trained model: what it is, how it was trained and what was measured, from a run's own records.

Nothing else of the run is told: no command line, address, folder or name of a person. A base, a data file or a reward
of this machine is named by the last part of its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.hub_access import is_on_the_hub
from dgpo_cli.reporting.tables import score_text


def model_card(config: TrainConfig, run: dict[str, Any], evaluations: list[dict[str, Any]], *, step: int) -> str:
    """Text with the front matter of the hub. run: run.json. evaluations: rows of eval.jsonl by benchmark, step."""
    return "\n".join(
        [*_front_matter(config), "", *_summary(config, step), "", *_recipe(config, run), *_results(evaluations)]
    )


def _front_matter(config: TrainConfig) -> list[str]:
    path = str(config.model.path)
    lines = ["library_name: " + ("peft" if _is_adapter(config) else "transformers"), "pipeline_tag: text-generation"]
    lines += [f"base_model: {path}"] if is_on_the_hub(path) else []
    return ["---", *lines, "tags:", "- dgpo", "- reinforcement-learning", "---"]


def _summary(config: TrainConfig, step: int) -> list[str]:
    kind = "An adapter (LoRA) for" if _is_adapter(config) else "Trained from"
    base = f"`{_named(config.model.path)}`"
    return [
        f"# {_named(config.model.path)}, {_steps(step)} of {config.algo.name}",
        "",
        f"{kind} {base}: {_steps(step)} of reinforcement learning on {_named(config.data.path or config.data.name)} "
        f"with `dgpo`, algorithm {config.algo.name}, token-level credit `gating={config.gating.name}`.",
        *_base_note(config),
    ]


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def _base_note(config: TrainConfig) -> list[str]:
    kind = config.model.quantization.name
    if kind == "none":
        return []
    return ["", f"It was trained on a base quantised to {kind} by bitsandbytes: on another one it is another policy."]


def _recipe(config: TrainConfig, run: dict[str, Any]) -> list[str]:
    """The settings that the numbers depend on most."""
    model, rollout, optim = config.model, config.rollout, config.optim
    rows = {
        "dgpo": run["version"],
        "seed": config.seed,
        "algo, gating": f"{config.algo.name}, {config.gating.name}",
        "base": _named(model.path),
        "LoRA": f"rank {model.lora.rank}" if model.lora.rank else "none: all weights",
        "quantization": model.quantization.name,
        "data": _named(config.data.path or config.data.name),
        "reward": _named(config.reward.path or config.reward.name),
        "steps": config.steps,
        "a step": f"{rollout.prompts_per_step} prompts x {rollout.group_size} rollouts",
        "longest completion": f"{rollout.max_completion_tokens} tokens",
        "temperature": rollout.temperature,
        "learning rate": f"{optim.lr:g}, {optim.schedule.name}, {optim.warmup_steps} steps of warm-up",
        "KL coefficient": config.algo.kl_coef,
    }
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    return ["## Recipe", "", "| setting | value |", "|---|---|", *table, "", f"With {versions}.", ""]


def _results(evaluations: list[dict[str, Any]]) -> list[str]:
    """Before and after, each with its 95% interval."""
    if not evaluations:
        return ["## Evaluation", "", "None was made in training.", ""]
    names = dict.fromkeys(row["benchmark"] for row in evaluations)
    each = [[row for row in evaluations if row["benchmark"] == name] for name in names]
    shown = [row for rows in each for row in (rows[:1] + rows[1:][-1:])]
    rows = [f"| {row['benchmark']} | {row['step']} | {row.get('n_problems')} | {score_text(row)} |" for row in shown]
    head = ["| benchmark | after step | problems | score, 95% interval |", "|---|---|---|---|"]
    note = "One run with one seed: the interval is over problems and samples, not over runs."
    return ["## Evaluation", "", *head, *rows, "", note, ""]


def _is_adapter(config: TrainConfig) -> bool:
    return bool(config.model.lora.rank) and not config.model.lora.merge


def _named(path: Any) -> str:
    """A hub id or an option as it is; of a path on this machine the last part."""
    if isinstance(path, list):
        return ", ".join(_named(one) for one in path)
    text = str(path)
    return text if is_on_the_hub(text) or text.startswith("bundled:") else Path(text.partition(":")[0]).name
