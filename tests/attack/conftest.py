"""Prints how many attack tests ran and how many hold."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    def count(outcome: str) -> int:
        reports = terminalreporter.stats.get(outcome, [])
        return sum("attack/" in getattr(report, "nodeid", "") for report in reports)

    held, broken = count("passed"), count("failed") + count("error")
    if held or broken:
        terminalreporter.write_line(f"attack tests: {held + broken} run, {held} hold, {broken} do not")
