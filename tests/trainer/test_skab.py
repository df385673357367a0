"""SKAB by the published protocol: the figures the product promises, with options chosen on valve1 alone."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(os.environ.get("PUMPDECK_SKAB", ""))
pytestmark = pytest.mark.skipif(
    not (os.environ.get("PUMPDECK_SKAB") and FOLDER.is_dir()), reason="PUMPDECK_SKAB names no folder with SKAB's files"
)


@pytest.fixture(scope="module")
def skab() -> ModuleType:
    path = Path(__file__).parents[1] / "bench" / "skab.py"
    spec = importlib.util.spec_from_file_location("bench_skab", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_stated_figures_are_reached(skab: ModuleType) -> None:
    figures, said = skab.figures(skab.read_folder(FOLDER), skab.OPTIONS)
    assert figures["f1_all"] >= 0.82
    assert figures["far_all_pct"] <= 15
    assert figures["mar_all_pct"] <= 22
    assert figures["nab_standard"] >= 27 and figures["nab_low_fp"] >= 13 and figures["nab_low_fn"] >= 34
    assert figures["f1_all"] - figures["f1_rotated"] <= 0.03
    assert figures["f1_always_alarm"] == pytest.approx(0.698, abs=0.002)
    assert "branch: pooled" in "\n".join(said)


def test_the_recorded_options_are_what_the_selection_on_valve1_chooses(skab: ModuleType) -> None:
    assert skab.select(skab.read_folder(FOLDER)) == skab.OPTIONS


def test_no_test_row_changes_what_is_learned(skab: ModuleType) -> None:
    runs = skab.read_folder(FOLDER)[:3]
    spoilt = [skab.Run(run.name, run.at_ms, run.values.copy(), ~run.anomaly, run.changepoint) for run in runs]
    for run in spoilt:
        run.values[skab.TRAIN_ROWS :] *= -1e6
    for (left, limit), (right, other) in zip(
        skab.fit_all(runs, skab.OPTIONS), skab.fit_all(spoilt, skab.OPTIONS), strict=True
    ):
        assert (left.block.centre == right.block.centre).all() and (left.block.scale == right.block.scale).all()
        assert limit == other


def test_nab_knows_the_perfect_and_the_silent_detector(skab: ModuleType) -> None:
    run = skab.read_folder(FOLDER)[0]
    silent = np.zeros(len(run.at_ms), np.bool_)
    perfect = (np.cumsum(run.changepoint) % 2).astype(np.bool_)
    for profile in skab.NAB_COSTS:
        assert skab.nab_score([run], [silent], profile) == 0
        assert skab.nab_score([run], [perfect], profile) == pytest.approx(100, abs=1e-6)
