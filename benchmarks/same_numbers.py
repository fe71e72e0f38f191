"""Which numbers of seeded runs a change moves: the same commands in this tree and in an earlier commit, bit for bit.

    .venv/bin/python benchmarks/same_numbers.py HEAD~1              # every case, about ten minutes on two cores
    .venv/bin/python benchmarks/same_numbers.py v0.1.0 grpo lora    # some of them

Compares every value of metrics.jsonl and eval.jsonl that is a function of configuration and seed. Keys that only one
side has are named, and are no difference. Exits 1 if a value differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# As in dgpo_cli.training.metrics, of whichever commit: these hang on the clock and the machine.
CLOCKED = ("time", "seconds", "tokens/per_second", "memory/")
SMALL = ["steps=6", "rollout.prompts_per_step=4", "eval.limit=32", "logger.mode=disabled", "strategy.threads=1"]
CASES = {
    "grpo": ["algo=grpo"],
    "dapo": ["algo=dapo"],
    "dgpo": ["algo=dgpo"],
    "calibrated": ["algo=dgpo", "gating=calibrated"],
    "lora": ["algo=grpo", "model.lora.rank=4", "optim.lr=1e-3"],
    "minibatches": ["algo=dgpo", "optim.minibatches=2", "optim.epochs=2"],
    "ddp": ["algo=dgpo", "strategy=ddp", "strategy.num_processes=2"],
    "fsdp": ["algo=dgpo", "strategy=fsdp", "strategy.num_processes=2"],
}


def rows(tree: Path, case: str, folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a run of `case` by the code of `tree`, named by file and step."""
    run = folder / case
    line = [sys.executable, "-m", "dgpo_cli", "train", *SMALL, *CASES[case], f"hydra.run.dir={run}"]
    done = subprocess.run(line, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{case} in {tree} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return {
        f"{name} {row['step']}": flat(row)
        for name in ("metrics", "eval")
        for row in map(json.loads, (run / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    }


def flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one level of dotted keys, without what the clock decides."""
    values: dict[str, Any] = {}
    for key, value in row.items():
        if not key.startswith(CLOCKED):
            values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return values


def report(case: str, before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> bool:
    """Print a line for each key that differs; whether there was none."""
    moved: dict[str, str] = {}
    alone: set[str] = set()
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name, {}), after.get(name, {})
        alone |= old.keys() ^ new.keys()
        for key in old.keys() & new.keys():
            if old[key] != new[key]:
                moved.setdefault(key, f"{name}: {old[key]} -> {new[key]}")
    compared = sum(len(before[name].keys() & after[name].keys()) for name in before.keys() & after.keys())
    print(f"{case}: {compared} values compared, {len(moved)} keys differ; on one side only: {sorted(alone) or 'none'}")
    for key, where in sorted(moved.items()):
        print(f"  {key}, first in {where}")
    return not moved and compared > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="the earlier commit")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; all without any")
    asked = parser.parse_args()
    if unknown := [case for case in asked.cases if case not in CASES]:
        parser.error(f"no case {', '.join(unknown)}: there are {', '.join(CASES)}")
    with tempfile.TemporaryDirectory() as scratch:
        earlier = Path(scratch) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", earlier, asked.commit], cwd=ROOT, check=True)
        try:
            same = [
                report(case, rows(earlier, case, Path(scratch) / "before"), rows(ROOT, case, Path(scratch) / "after"))
                for case in asked.cases or CASES
            ]
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", earlier], cwd=ROOT, check=True)
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
