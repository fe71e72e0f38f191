"""The table of what was tried, at the end of a session that tried something."""

from __future__ import annotations

import pytest
from faults.harness import TABLE, show_table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TABLE:
        terminalreporter.section("faults")
        terminalreporter.write_line(show_table())
