"""The `dgpo` program: picks the command, answers help at once, and owns errors, exit codes, stdout and stderr.

Nothing heavy is imported here: the standard library for help, Hydra for a command's configuration; torch is imported
by the commands alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from dgpo_cli.command_lines import shell_word
from dgpo_cli.environment import is_follower, prefer_growing_segments
from dgpo_cli.errors import UsageError
from dgpo_cli.files import shown_path
from dgpo_cli.jobs import guarded, run_job_file
from dgpo_cli.terminal import clean_what_libraries_say, cleaned_output, put, say

VERBS = ("train", "eval", "rollout", "compare")
OTHER_VERBS = ("help", "completion")
SWEEPABLE = ("train", "eval")

OVERVIEW = """\
dgpo: reinforcement learning for language models, with credit for the tokens that earned the reward.
Distribution-Guided Policy Optimization (arXiv 2605.03327), and GRPO and DAPO beside it.

Try
  dgpo train                                        a bundled model learns its task on a CPU, in minutes
  dgpo eval benchmark.k=4                           the bundled model, four samples a problem, with error bars
  dgpo train -m algo=grpo,dapo,dgpo seed=0,1        six runs; then: dgpo compare runs=[FOLDER]

Commands
  train    RL fine-tuning of a model on prompts with verifiable rewards
  eval     avg@k, pass@k and maj@k of a model on a benchmark
  rollout  sample completions, score them, show each token's credit
  compare  runs side by side, with statistics

  dgpo COMMAND -h               its groups, their options, its most used keys
  dgpo help KEY                 type, default, meaning and unit of a key, such as dgpo help optim.lr
  dgpo help keys                every key; dgpo help algo=dapo: what an option sets; dgpo help recipe: a file to copy
  dgpo completion SHELL         bash | zsh | fish; put into your start-up file: eval "$(dgpo completion bash)"
  dgpo --version

Settings are Hydra overrides: GROUP=OPTION picks an option, KEY=VALUE sets a key, -m sweeps over listed values."""


def main(argv: list[str] | None = None) -> int:
    """Run `dgpo ARGV` and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    code = 0
    clean_what_libraries_say()
    prefer_growing_segments()

    def action() -> None:
        nonlocal code
        code = _dispatch(argv)

    return guarded(action) or code


def _dispatch(argv: list[str]) -> int:
    verb, *rest = argv or ["-h"]
    if verb in ("-h", "--help"):
        put(OVERVIEW)
    elif verb in ("-V", "--version"):
        from dgpo_cli import __version__

        put(f"dgpo {__version__}")
    elif verb == "help" or (verb in VERBS and ("-h" in rest or "--help" in rest)):
        from dgpo_cli.config.help import answer, command_help

        put(answer(rest) if verb == "help" else command_help(verb))
    elif verb in ("completion", "_complete"):
        from dgpo_cli.config.completion import candidates, script

        put(script(rest) if verb == "completion" else "\n".join(candidates(rest)))
    elif verb == "_job":
        run_job_file(*rest)
    elif verb not in VERBS:
        raise UsageError(*_unknown_verb(verb, argv))
    else:
        return _run(verb, rest)
    return 0


def _unknown_verb(verb: str, argv: list[str]) -> tuple[str, str]:
    from dgpo_cli.config.keys import nearest

    if "=" in verb:
        return f"expected a command, got '{verb}'", f"did you mean: dgpo train {' '.join(map(shell_word, argv))}"
    close = nearest(verb, (*VERBS, *OTHER_VERBS))
    commands = ", ".join(VERBS)
    return f"unknown command '{verb}'", f"did you mean dgpo {close}?" if close else f"commands: {commands}; dgpo -h"


def _run(command: str, argv: list[str]) -> int:
    """Compose and check the configuration, then let Hydra run the command."""
    args = _flags(command, argv)
    from dgpo_cli.config.attempts import continued
    from dgpo_cli.config.beginning import beginning, refuse_without_the_hub
    from dgpo_cli.config.compose import hydra_ready
    from dgpo_cli.config.experiment import read_files
    from dgpo_cli.config.latest import with_latest
    from dgpo_cli.config.overrides import prepare
    from dgpo_cli.config.plan import claim_folder, plan

    config_dirs = [Path(args.config_dir).absolute()] if args.config_dir else []
    multirun = args.multirun or "hydra.mode=MULTIRUN" in args.overrides
    words = read_files(command, args.overrides, multirun=multirun)
    words.overrides, found = with_latest(words.overrides, multirun=multirun)
    earlier = _continued_sweep(command, words, config_dirs) if multirun else None
    if earlier is not None:
        words, config_dirs = earlier.words, earlier.config_dirs
        args.config_dir = next(iter(map(str, config_dirs)), None)
    overrides = words.overrides if multirun else continued(command, words.overrides, argv)
    base = words.base if overrides == words.overrides else None  # a run that goes on has its own
    request, problems = prepare(command, overrides, config_dirs, multirun, base=base, origins=words.origins)
    request.typed = argv
    shows_only = args.cfg or args.info or args.hydra_help
    with hydra_ready(request):
        planned = plan(request, problems, check=not shows_only)
        if args.cfg == "job":
            _print_configs(planned.configs, args.package)
            return 0
        if not shows_only and getattr(planned.configs[0], "dry_run", False):
            from dgpo_cli.commands.plan import show_plans

            show_plans(command, planned.configs)
            if multirun:
                from dgpo_cli.sweeps.sweep_run import say_script

                say_script(planned)
            return 0
        first = planned.configs[0]
        if not shows_only and (getattr(first, "probe", False) or getattr(first, "grade", None)):
            from dgpo_cli.jobs import run_without_folder

            run_without_folder(command, planned.configs)
            return 0
        folder, remove_empty = (None, None) if shows_only else claim_folder(planned, earlier and earlier.folder)
        if folder is not None and command == "train" and not is_follower():
            say(f"{'sweep' if multirun else 'run'}: {shown_path(folder)}")
        if folder is not None and not multirun and not is_follower():
            say(f"{beginning(command, planned.configs)} ...")
        for note in () if is_follower() else (*found, *planned.notes):
            say(f"note: {note}")
    flags = _hydra_flags(args, multirun)
    if folder is None or remove_empty is None:
        from dgpo_cli.hydra_app import run_hydra

        with cleaned_output():
            return run_hydra(planned.request, flags, None)
    try:
        if not is_follower():
            refuse_without_the_hub(command, planned.configs)
        if multirun:
            from dgpo_cli.hydra_app import run_sweep

            return run_sweep(planned, flags, folder, earlier.record if earlier else None, words.overrides)
        from dgpo_cli.one_job import run_one

        return run_one(planned, folder)
    finally:
        remove_empty()


def _continued_sweep(command: str, words: Any, config_dirs: list[Path]) -> Any:
    from dgpo_cli.sweeps.continuing import continued

    return continued(command, words, config_dirs)


def _flags(command: str, argv: list[str]) -> argparse.Namespace:
    """Hydra's own flags and the overrides, in any order."""
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UsageError(message, f"dgpo {command} -h")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(argv)
    if args.config_path or args.config_name:
        raise UsageError("the primary configuration is the command's own", "your own options: --config-dir FOLDER")
    if args.experimental_rerun:
        raise UsageError("--experimental-rerun is not supported", "dgpo train resume=FOLDER continues a run")
    if args.shell_completion:
        raise UsageError("Hydra's own completion does not know the commands", "dgpo completion bash|zsh|fish")
    if args.config_dir and not Path(args.config_dir).is_dir():
        raise UsageError(f"--config-dir: no folder '{args.config_dir}'", "it holds folders named like the groups")
    if args.multirun and command not in SWEEPABLE:
        raise UsageError(f"-m is for dgpo {' and dgpo '.join(SWEEPABLE)}", f"run dgpo {command} once for each value")
    if args.multirun and (args.cfg or args.info):
        raise UsageError("-m runs jobs, --cfg and --info only show: choose one")
    return args


def _hydra_flags(args: argparse.Namespace, multirun: bool) -> list[str]:
    values = {"--config-dir": args.config_dir, "--cfg": args.cfg, "--package": args.package, "--info": args.info}
    flags = [text for flag, value in values.items() if value for text in (flag, value)]
    switches = {"--multirun": multirun, "--resolve": args.resolve, "--hydra-help": args.hydra_help}
    return flags + [flag for flag, is_on in switches.items() if is_on]


def _print_configs(configs: list[Any], package: str | None) -> None:
    """`--cfg job`: what the job gets, run folders looked up and values resolved."""
    from omegaconf import OmegaConf

    from dgpo_cli.config.stored import node_of

    for number, config in enumerate(configs):
        node: Any = node_of(config)
        if package and package != "_global_":
            node = OmegaConf.select(node, package)
            if node is None:
                raise UsageError(f"--package: no section '{package}'", "such as --package optim")
        if number:
            put("---")
        put(OmegaConf.to_yaml(node).rstrip("\n") if OmegaConf.is_config(node) else str(node))
