"""Prints how many attack tests ran and how many hold, and how many altered copies of signed things were tried."""

from __future__ import annotations

import pytest

from support.attack_classes import by_class

_WHOLE = 600
"""So many tests are the whole folder: then the table of classes is printed."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    def reports(outcome: str) -> list[pytest.TestReport]:
        found = terminalreporter.stats.get(outcome, [])
        return [report for report in found if "attack/" in getattr(report, "nodeid", "")]

    held, broken = len(reports("passed")), len(reports("failed")) + len(reports("error"))
    if held or broken:
        terminalreporter.write_line(f"attack tests: {held + broken} run, {held} hold, {broken} do not")
    told = [value for report in reports("passed") for name, value in report.user_properties if name == "altered copies"]
    if told:
        terminalreporter.write_line(f"altered copies of what is signed, sealed or listed: {sum(map(int, told))}, accepted 0")
    if held >= _WHOLE:
        terminalreporter.write_line("tests by class: " + "; ".join(f"{kind} {len(names)}" for kind, names in by_class().items()))
