"""Makes compare.png, differences.png and curves.png from a sweep:

    dgpo train -m algo=grpo,dgpo,dapo seed=0,1,2,3,4 steps=20 logger=none hydra.sweep.dir=SWEEP
    .venv/bin/python docs/images/compare.py SWEEP

Needs a Chromium: bash tests/install_chromium.sh
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))
from browser import launch  # noqa: E402


def main() -> None:
    sweep = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as out:
        argv = [sys.executable, "-m", "dgpo_cli", "compare", f"runs=[{sweep}]", f"hydra.run.dir={out}"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        for name in ("differences.png", "curves.png"):
            (HERE / name).write_bytes((Path(out) / name).read_bytes())
        for browser in launch():
            page = browser.new_page(viewport={"width": 1120, "height": 672})
            page.goto((Path(out) / "compare.html").as_uri())
            page.screenshot(path=HERE / "compare.png")


if __name__ == "__main__":
    main()
