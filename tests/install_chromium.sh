#!/usr/bin/env bash
# A Chromium for the tests that open HTML pages: the one that is there, else playwright's own, else the distribution's.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

found() {
    PYTHONPATH=tests "$python" - <<'PYTHON'
import sys
from browser import chromium_path
from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    path = chromium_path(playwright.chromium.executable_path)
print(path or "no Chromium yet", file=sys.stderr)
sys.exit(path is None)
PYTHON
}

found && exit 0
"$python" -m playwright install --with-deps chromium && found && exit 0
apt-get update && apt-get install --yes --no-install-recommends chromium && found
