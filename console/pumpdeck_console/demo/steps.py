"""The steps of the loop, each with evidence read back from where it was kept, not from what a call returned.

A step that finds something wrong lists it under `problems`; it is ok when there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pumpdeck_console.demo.home import DemoHome, DemoMark
from pumpdeck_console.operations.base import no_progress
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.ports import Progress


@dataclass(frozen=True, slots=True)
class Stage:
    """What a step may use. `asked`: what each device said of itself when a step last asked all of them."""

    workspace: Workspace
    home: DemoHome
    mark: DemoMark
    on_progress: Progress = no_progress
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """What a step found: figures and digests, and what is wrong."""

    evidence: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def expect(self, truth: bool, problem: str) -> None:
        """Write down `problem` unless `truth` holds."""
        if not truth:
            self.problems.append(problem)

    def as_dict(self) -> dict[str, Any]:
        """The step as it is printed."""
        return {"ok": not self.problems, "evidence": {**self.evidence, "problems": self.problems}}


Step = Callable[[Stage], Found]


def run_steps(stage: Stage, steps: Mapping[str, Step]) -> dict[str, dict[str, Any]]:
    """Every step in order; one that cannot go on is not ok and says why, the next ones run all the same."""
    results = {}
    for name, step in steps.items():
        stage.on_progress(name, 0, 0)
        try:
            results[name] = step(stage).as_dict()
        except PumpdeckError as error:
            results[name] = {"ok": False, "evidence": {"problems": [error.sentence()], "error": error.as_dict()}}
    return results
