"""Makes compare.png, compare_problem.png, differences.png and curves.png from sweeps or runs:

    dgpo train -m recipe=study gating=uniform 'seed=range(200,208)' name=uniform
    dgpo train -m recipe=study gating=calibrated gating.control=none,permute,invert 'seed=range(200,208)' \\
        name=calibrated
    .venv/bin/python docs/images/compare.py outputs/sweep/uniform outputs/sweep/calibrated

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
    runs = ",".join(sys.argv[1:])
    with tempfile.TemporaryDirectory() as out:
        argv = [sys.executable, "-m", "dgpo_cli", "compare", f"runs=[{runs}]", f"hydra.run.dir={out}"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        for name in ("differences.png", "curves.png"):
            (HERE / name).write_bytes((Path(out) / name).read_bytes())
        for browser in launch():
            page = browser.new_page(viewport={"width": 1180, "height": 820})
            page.goto((Path(out) / "compare.html").as_uri())
            page.screenshot(path=HERE / "compare.png")
            problem = page.locator("details.problem").first
            problem.locator("summary").click()
            problem.screenshot(path=HERE / "compare_problem.png")


if __name__ == "__main__":
    main()
