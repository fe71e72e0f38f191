"""One job that is composed and checked already, run as Hydra's `main` would.

`main` itself would compose it twice more: once to see that there is no `-m`, and once to run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import configure_log, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict, read_write

from dgpo_cli import jobs
from dgpo_cli.command_lines import escaped
from dgpo_cli.config.compose import hydra_ready
from dgpo_cli.config.plan import Plan


def run_one(planned: Plan, folder: Path) -> int:
    """Run the one job of a plan in the folder that was claimed for it; the exit code."""
    request, config = planned.request, planned.composition
    if config.hydra.callbacks:  # of the user's own, and Hydra has words for what goes wrong there
        from dgpo_cli.hydra_app import run_hydra

        return run_hydra(request, [], folder)
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.run.dir = escaped(str(folder))
        config.hydra.mode = RunMode.RUN
    here, argv, codes = folder.absolute(), sys.argv, []

    def job(_: DictConfig) -> None:
        sys.argv = ["dgpo", request.command, *request.typed]  # for the run's records
        codes.append(jobs.guarded(lambda: jobs.run_here(request.command, planned.configs, here)))

    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    try:
        with hydra_ready(request):
            context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks(config))
            run_job(job, config, "hydra.run.dir", None, context)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = argv
    return codes[0]
