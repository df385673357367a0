"""Trials in real child processes: a bad model never becomes active, whatever is wrong with it, and what ran goes on scoring."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent.config import AgentLimits
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_agent.trial import FreshChildRunner, TrialRequest, TrialRunner, WarmPoolRunner
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_sample.drills import bad_models
from support.devices import NAMES, NOW_MS, Bench, block, golden, package, quiet_rows

COUNT = len(NAMES)
GOOD = package()
LIMITS = AgentLimits(trial_wall_s=15.0, keep_free_bytes=0)


@pytest.fixture(scope="module", params=["fresh child", "warm pool"])
def runner(request: pytest.FixtureRequest) -> Iterator[TrialRunner]:
    if request.param == "fresh child":
        yield FreshChildRunner()
        return
    if sys.platform == "win32":
        pytest.skip("the warm pool needs fork")
    pool = WarmPoolRunner()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, runner: TrialRunner) -> Bench:
    """A device whose first package passed a real trial."""
    made = Bench(tmp_path_factory.mktemp("trial"), runner=runner, limits=LIMITS)
    answer = made.install(GOOD)
    assert (answer["outcome"], answer["reason"]) == ("committed", "")
    return made


def test_a_good_package_is_measured_on_this_device(bench: Bench) -> None:
    files = dict(bench.site.trust.files_for(bench.device))
    receipt = bench.send_assignment(bench.channel(), files)["receipt"]
    figures = receipt["self_test"]
    assert figures["golden_rows"] == 24
    assert figures["flags_equal"]
    assert figures["largest_difference"] < 1e-5
    assert 0 < figures["p50_us"] <= figures["p99_us"] < 10_000
    assert 20 < figures["rss_mb"] < 256


def spoilt_golden() -> bytes:
    """Answers of another pump."""
    one = block()
    return golden(one, score=np.full(24, 9.0, np.float32))


BAD = {
    "is no graph": (lambda: package(onnx=b"not a graph at all"), "cannot be loaded"),
    "gives another shape": (lambda: package(onnx=bad_models.wrong_shape(COUNT), seed=1), "shape"),
    "gives no numbers": (lambda: package(onnx=bad_models.not_a_number(COUNT), seed=2), "not a number"),
    "gives other answers": (lambda: package(onnx=bad_models.other_answers(COUNT), seed=3), "golden"),
    "has golden answers of another model": (lambda: package(golden_bytes=spoilt_golden(), seed=4), "golden"),
    "has no golden rows": (lambda: package(golden_bytes=b"PDA1{}\n", seed=5), "golden"),
    "is too slow": (lambda: package(onnx=bad_models.slow(COUNT), golden_bytes=same(bad_models.slow), seed=6), "too slow"),
    "wants too much memory": (lambda: package(onnx=bad_models.hungry(COUNT), seed=7), ""),
}


def same(make: object) -> bytes:
    """Golden answers that the graph gives indeed, so that only its slowness is wrong."""
    rows = quiet_rows(4, 5)
    answer = rows.max(axis=1)
    one = block()
    return golden(one, x=rows, score=answer, probability=answer, contributions=rows)


@pytest.mark.parametrize("what", list(BAD))
def test_a_model_that(bench: Bench, what: str) -> None:
    make, word = BAD[what]
    built: BuiltPackage = make()
    answer = bench.install(built, f"task-{what.replace(' ', '-')}")
    assert (answer["outcome"], answer["active"]) == ("rolled_back", GOOD.sha256), answer["reason"]
    assert word in answer["reason"]
    assert bench.status()["state"] == "ACTIVE"


def test_a_model_that_hangs_is_ended_in_time(bench: Bench) -> None:
    bench.limits = AgentLimits(trial_wall_s=3.0, keep_free_bytes=0)
    answer = bench.install(package(onnx=bad_models.endless(COUNT), seed=8), "task-hang")
    bench.limits = LIMITS
    assert (answer["outcome"], answer["active"]) == ("rolled_back", GOOD.sha256)
    assert "did not end" in answer["reason"] or "signal" in answer["reason"]


def test_after_all_that_the_good_package_still_scores(bench: Bench) -> None:
    agent = bench.agent()
    bench.spool("a.csv", {"P-101A": quiet_rows(50, 1)}, NOW_MS + 60_000 * np.arange(50))
    scorer = Scorer(bench.platform, agent.layout, agent.config, bench.limits, ModelCache())
    assert scorer.score_spool().rows == 50
    assert bench.status()["pumps"]["P-101A"]["package"] == GOOD.sha256


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("import sys; sys.exit(3)", "status 3"),
        ("print('{}')", "no report"),
        ("pass", "no report"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the interpreter")
def test_a_trial_process_that_dies_is_a_failed_trial(tmp_path: Path, script: str, word: str) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{script}"\n', encoding="utf-8")
    python.chmod(0o755)
    report = FreshChildRunner(python).run(TrialRequest("x", "0" * 64, 10.0))
    assert not report.passed
    assert word in report.reason


def test_a_staged_copy_that_was_altered_fails_its_trial(bench: Bench, runner: TrialRunner, tmp_path: Path) -> None:
    folder = bench.root / "store" / GOOD.sha256
    report = runner.run(TrialRequest(str(folder), "0" * 64, 10.0))
    assert not report.passed
    assert "manifest" in report.reason
