"""Forms of digit_chain (`data.chain_steps`, `data.filler`) that the bundled model cannot read."""

from __future__ import annotations

from dgpo_cli.config.commands import EvalConfig, RolloutConfig, TrainConfig
from dgpo_cli.config.groups import BenchmarkConfig, DataConfig

READ = (DataConfig.chain_steps, DataConfig.filler)  # the defaults, in which bundled:tiny was taught


def chain_note(config: TrainConfig | EvalConfig | RolloutConfig) -> list[str]:
    """What a run says at its start if its model never saw chains of its form."""
    rows: DataConfig | BenchmarkConfig = config.benchmark if isinstance(config, EvalConfig) else config.data
    form = (rows.chain_steps, rows.filler)
    if form == READ or config.model.path != "bundled:tiny" or not str(rows.path).startswith("bundled:"):
        return []
    return [
        f"chains of {form[0]} steps with {form[1]} characters of filler: the bundled model has read {READ[0]} steps "
        "without filler alone, and has next to nothing right; recipes/build_tiny.py makes a model of another form "
        "(model=tiny model.path=FOLDER)"
    ]
