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
needs_skab = pytest.mark.skipif(
    not (os.environ.get("PUMPDECK_SKAB") and FOLDER.is_dir()), reason="PUMPDECK_SKAB names no folder with SKAB's files"
)


def _bench(name: str) -> ModuleType:
    folder = Path(__file__).parents[1] / "bench"
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def skab() -> ModuleType:
    return _bench("skab")


@pytest.fixture(scope="module")
def skab_choice(skab: ModuleType) -> ModuleType:
    return _bench("skab_choice")


@needs_skab
def test_the_recorded_figures_come_out_again(skab: ModuleType) -> None:
    figures, said = skab.figures(skab.read_folder(FOLDER), skab.OPTIONS)
    assert figures["f1_all"] == pytest.approx(0.831, abs=0.001)
    assert figures["far_all_pct"] == pytest.approx(12.34, abs=0.1)
    assert figures["mar_all_pct"] == pytest.approx(21.27, abs=0.1)
    assert figures["nab_standard"] >= 27 and figures["nab_low_fp"] >= 13 and figures["nab_low_fn"] >= 34
    assert figures["f1_all"] - figures["f1_rotated"] <= 0.03
    assert figures["f1_always_alarm"] == pytest.approx(0.698, abs=0.002)
    assert "branch: pooled" in "\n".join(said)


@needs_skab
def test_the_recorded_options_are_what_valve1_chooses(skab: ModuleType, skab_choice: ModuleType) -> None:
    chosen, verdicts = skab_choice.choose(skab.read_folder(FOLDER, closed=True))
    assert chosen == skab.OPTIONS
    assert [one.form for one in verdicts] == list(skab_choice.FORMS)


@needs_skab
def test_the_choice_can_read_no_label_outside_valve1(skab: ModuleType, tmp_path: Path) -> None:
    """In files other than valve1's, labels and all that follows the reference window are made unreadable."""
    for path in FOLDER.glob("*/*.csv"):
        copy = tmp_path / path.parent.name / path.name
        copy.parent.mkdir(exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines()
        if path.parent.name in ("valve2", "other"):
            rows = [line.rsplit(";", 2)[0] + ";unread;unread" for line in lines[1 : 1 + skab.TRAIN_ROWS]]
            lines = [lines[0], *rows, "unread"]
        copy.write_text("\n".join(lines), encoding="utf-8")
    for spoilt, whole in zip(
        skab.read_folder(tmp_path, closed=True), skab.read_folder(FOLDER, closed=True), strict=True
    ):
        assert (spoilt.at_ms == whole.at_ms).all() and (spoilt.values == whole.values).all()
        assert whole.name.startswith("valve1/") or (len(whole.at_ms) == 400 and not whole.anomaly.any())
    with pytest.raises((TypeError, ValueError)):
        skab.read_folder(tmp_path)


def test_a_form_is_judged_on_files_that_did_not_choose_its_option(skab_choice: ModuleType) -> None:
    """Option 0 is right on file 0 only, option 1 on files 1 and 2: whoever is drawn decides, the others judge."""
    right, wrong = [10, 0, 0, 10], [0, 10, 10, 0]
    counts = np.array([[right, wrong, wrong], [wrong, right, right]])
    best, outside = skab_choice.winners(counts, np.array([[3, 0, 0], [0, 3, 0]]))
    assert best.tolist() == [0, 1]
    assert outside.tolist() == [0.0, 0.5]


def test_the_bagged_option_is_the_median_window_of_the_majority(skab_choice: ModuleType) -> None:
    points = [(5.0, True), (35.0, True), (10.0, False), (15.0, False), (30.0, False)]
    best = np.array([skab_choice.POINTS.index(point) for point in points])
    assert skab_choice.bagged(best) == (15.0, False)


def test_a_jumping_reading_resolves_less_than_its_step_and_a_still_one_does_not(skab: ModuleType) -> None:
    still, jumping = np.zeros(400, np.float32), np.tile(np.float32([0, 1]), 200)
    floor = skab.dithered_floor(np.ones(2, np.float32), np.stack([still, jumping], axis=1), 16.0)
    assert floor.tolist() == [1.0, 0.25]


@needs_skab
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


@needs_skab
def test_nab_knows_the_perfect_and_the_silent_detector(skab: ModuleType) -> None:
    run = skab.read_folder(FOLDER)[0]
    silent = np.zeros(len(run.at_ms), np.bool_)
    perfect = (np.cumsum(run.changepoint) % 2).astype(np.bool_)
    for profile in skab.NAB_COSTS:
        assert skab.nab_score([run], [silent], profile) == 0
        assert skab.nab_score([run], [perfect], profile) == pytest.approx(100, abs=1e-6)
