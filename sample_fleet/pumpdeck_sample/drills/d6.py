"""D6: models that fail to load, give a wrong shape or no numbers, are slow or big, hang, or take their process down."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.trial import FreshChildRunner, TrialReport, TrialRequest, TrialRunner
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_sample.drills import bad_models
from pumpdeck_sample.drills.bench import DeviceMaker, DrillSite, UnsyncedFileSystem, enrol, install, parse_receipt
from pumpdeck_sample.drills.packages import NAMES, block, golden, package, quiet_rows

COUNT = len(NAMES)
HANG_S = 3.0
_SEGFAULT = "import faulthandler; faulthandler._sigsegv()"


def _same_as_slow() -> bytes:
    """Golden answers that the slow graph gives indeed, so that only its slowness is wrong."""
    rows = quiet_rows(4, 5)
    answer = rows.max(axis=1)
    return golden(block(), x=rows, score=answer, probability=answer, contributions=rows)


BAD: Mapping[str, Callable[[], BuiltPackage]] = {
    "fails_to_load": lambda: package(onnx=b"not a graph at all", seed=20),
    "wrong_shape": lambda: package(onnx=bad_models.wrong_shape(COUNT), seed=21),
    "not_a_number": lambda: package(onnx=bad_models.not_a_number(COUNT), seed=22),
    "other_answers": lambda: package(onnx=bad_models.other_answers(COUNT), seed=23),
    "other_golden": lambda: package(golden_bytes=golden(block(), score=np.full(24, 9.0, np.float32)), seed=24),
    "too_slow": lambda: package(onnx=bad_models.slow(COUNT), golden_bytes=_same_as_slow(), seed=25),
    "too_big": lambda: package(onnx=bad_models.hungry(COUNT), seed=26),
    "hangs": lambda: package(onnx=bad_models.endless(COUNT), seed=27),
    "segfaults": lambda: package(shift=0.3, seed=28),
}


class SegfaultRunner:
    """A trial whose process really dies of a segmentation fault: no graph that does so on every runtime is known."""

    def run(self, request: TrialRequest) -> TrialReport:
        """A fresh child by way of an interpreter that reads address 0."""
        python = Path(request.folder).parent.parent / "segfault"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{_SEGFAULT}" 2>/dev/null\n', encoding="utf-8", newline="\n")
        python.chmod(0o755)
        try:
            return FreshChildRunner(python).run(request)
        finally:
            python.unlink()


def drill_bad_models(folder: Path, pool: TrialRunner, *, fresh_too: bool) -> dict[str, Any]:
    """Each bad model on a device that runs a good one; by the warm pool, and by fresh children too in the long form."""
    figures: dict[str, Any] = {"tried": 0, "committed": 0, "stopped_scoring": 0}
    for name, runner in {"pool": pool, **({"fresh": FreshChildRunner()} if fresh_too else {})}.items():
        site, fs, root = DrillSite(folder / name), UnsyncedFileSystem(), folder / name / "device"
        maker = enrol(fs, site, root)
        good = package()
        _end(maker, maker.agent(fs, runner), good, site.assign(good, "task-good"), Outcome.COMMITTED)
        for what, make in BAD.items():
            if what == "segfaults" and os.name == "nt":
                continue
            limits = replace(maker.limits, trial_wall_s=HANG_S if what == "hangs" else maker.limits.trial_wall_s)
            tried: TrialRunner = SegfaultRunner() if what == "segfaults" else runner
            agent = replace(maker, limits=limits).agent(fs, tried)
            built = make()
            figures["tried"] += 1
            outcome, active = _end(maker, agent, built, site.assign(built, f"task-{what.replace('_', '-')}"), None)
            figures["committed"] += outcome is Outcome.COMMITTED
            figures["stopped_scoring"] += active != good.sha256
    return figures


def _end(
    maker: DeviceMaker, agent: Agent, built: BuiltPackage, files: Mapping[str, bytes], must: Outcome | None
) -> tuple[Outcome, str]:
    receipt = parse_receipt(install(agent, built, files).body, maker.identity)
    if must is not None and receipt.outcome is not must:
        raise RuntimeError(f"the good package ended {receipt.outcome}: {receipt.reason}")
    return receipt.outcome, receipt.active_sha256
