"""`dgpo rollout rollouts=RUN report=true`: the stored steps of a run in one credit page. No model is loaded."""

from __future__ import annotations

import sys
from pathlib import Path

from dgpo_cli.config.commands import RolloutConfig
from dgpo_cli.config.gatings import hydra_config_dirs
from dgpo_cli.disk import writing
from dgpo_cli.files import write_atomically
from dgpo_cli.records.stored_rollouts import read_stored
from dgpo_cli.reporting.credit_page import PageStep
from dgpo_cli.reporting.run_page import page_gatings, page_step, run_page, shown_prompts, stored_steps, thinned
from dgpo_cli.reporting.tables import show
from dgpo_cli.terminal import phase, say


def report_run(config: RolloutConfig, folder: Path) -> None:
    """Write report.html, by the run's gating if none is typed.

    Raises:
        DataError: a stored step that cannot be read.
    """
    run = Path(str(config.rollouts))
    files, gatings = stored_steps(run), page_gatings(config.gating, config.gatings, hydra_config_dirs())
    kept, steps = thinned(files), dict[int, PageStep]()
    with phase(f"reading {len(kept)} stored steps of {run}"):
        for step in kept:
            stored = read_stored(files[step], seed=config.seed)
            if config.vocabulary_size is not None:
                stored = stored.with_vocabulary(config.vocabulary_size)
            steps[step] = page_step(step, stored, gatings, shown_prompts(steps))
    page = run_page(str(run), steps, files, shade=config.shade.name)
    path = folder / "report.html"
    with writing(path, len(page)):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page)
    if not sys.stdout.isatty():
        show([], {"run": str(run), "steps": kept, "stored_steps": len(files), "report": str(path)})
    say(f"report: {path}: {len(kept)} of {len(files)} stored steps" if len(kept) < len(files) else f"report: {path}")
