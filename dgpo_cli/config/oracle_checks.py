"""Oracle gatings read the right answer: what they need of the data, and that nobody trains with one by mistake."""

from __future__ import annotations

from collections.abc import Iterator

from dgpo_cli.config.commands import RolloutConfig, TrainConfig
from dgpo_cli.config.gating_needs import reads_answer
from dgpo_cli.config.groups import GatingConfig
from dgpo_cli.errors import Problem

PREFIX = "oracle"
KNOWN_GOLD = ("bundled:digit_chain", "completion")  # data.path and data.answer_key: the gold is the only right text


def oracle(config: TrainConfig | RolloutConfig) -> Iterator[Problem]:
    """Stored rollouts hold what an oracle knows of them, or are refused as they are read."""
    gating = config.gating
    if not reads_answer(gating):
        return
    if not gating.name.startswith(PREFIX):
        message = (
            f"gating.signal={gating.signal.value}: it reads the right answer, and gating={gating.name} does not say so"
        )
        yield Problem(message, "gating=oracle_first_error, or gating.name=oracle_NAME")
    if isinstance(config, RolloutConfig) and (config.rollouts is not None or config.grade is not None):
        return
    typed = isinstance(config, RolloutConfig) and config.prompt is not None
    if typed or (config.data.path, config.data.answer_key) != KNOWN_GOLD:
        source = "a typed prompt" if typed else f"data={config.data.name}"
        message = f"gating={gating.name}: the first wrong token of {source} is not known"
        yield Problem(message, "data=digit_chain, whose gold is the only right completion")


def oracle_note(gating: GatingConfig) -> list[str]:
    """What a run by an oracle says at its start."""
    if not reads_answer(gating):
        return []
    return [f"gating={gating.name} reads the right answer: an upper bound on what credit can do, no method"]
