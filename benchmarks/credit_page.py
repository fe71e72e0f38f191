"""Size of report.html and the time a headless Chromium takes to show it, for made-up rollouts.

    python benchmarks/credit_page.py [ROLLOUTS TOKENS] ...     (64 512 and 1000 512 where none are given)

Each with two gatings, and with the seven of docs/credit.md.

Needs a Chromium: bash tests/install_chromium.sh
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser import launch, opener
from record_factory import made_up, write_rollouts

from dgpo_cli.config.gatings import gating_option
from dgpo_cli.records.regated import regate
from dgpo_cli.records.stored_rollouts import read_stored
from dgpo_cli.reporting.credit_page import credit_page

TWO = ("paper", "calibrated")
SEVEN = ("uniform", *TWO, "hellinger", "surprisal", "top_entropy", "random")


def measure(open_page: Any, folder: Path, rollouts: int, tokens: int, names: tuple[str, ...]) -> None:
    file = write_rollouts(folder / "rollouts.jsonl", made_up(rollouts, tokens))
    started = time.perf_counter()
    stored = read_stored(file)
    page = credit_page(stored, regate(stored, {name: gating_option(name) for name in names}))
    made = time.perf_counter()
    report = folder / "report.html"
    report.write_text(page, encoding="utf-8")
    loaded = time.perf_counter()
    browser_page = open_page(report).page
    browser_page.wait_for_selector(".tokens .t")
    shown = time.perf_counter()
    # Every token of every completion at once, which scrolling never asks for.
    drawn = browser_page.evaluate(
        "async () => { const start = performance.now(); for (const card of CARDS) draw(card);"
        " await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));"
        " return [document.querySelectorAll('.t').length, (performance.now() - start) / 1000]; }"
    )
    print(
        f"{rollouts} x {tokens}, {len(names)} gatings: {len(page.encode()) / 1e6:.2f} MB, "
        f"made in {made - started:.1f} s, shown in {shown - loaded:.1f} s, "
        f"all {drawn[0]:,} tokens drawn in {drawn[1]:.1f} s more"
    )


if __name__ == "__main__":
    sizes = [int(text) for text in sys.argv[1:]] or [64, 512, 1000, 512]
    for browser in launch():
        for open_page in opener(browser):
            for rollouts, tokens in zip(sizes[::2], sizes[1::2], strict=True):
                for names in (TWO, SEVEN):
                    with tempfile.TemporaryDirectory() as folder:
                        measure(open_page, Path(folder), rollouts, tokens, names)
