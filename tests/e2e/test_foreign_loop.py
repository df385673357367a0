"""A model from outside, the whole way: a scikit-learn estimator as files, the import, the gates, a person, a signed package, a
device by real SSH, scores equal to the estimator's own, an alarm, an explanation, and back to the own champion."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pumpdeck_console import main
from pumpdeck_fleet.core.clock import HOUR_MS, parse_ms
from pumpdeck_fleet.core.inventory import PumpType
from pumpdeck_fleet.core.registry import Origin
from pumpdeck_sample.fleet import FleetSize
from pumpdeck_trainer.foreign import Statement, export
from support.living_fleet import LivingFleet, living_fleet

pytestmark = pytest.mark.e2e

SCORING_LIMIT_S = 120.0
ILL_HOURS = 3


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivingFleet]:
    with living_fleet(tmp_path_factory.mktemp("foreign"), FleetSize(1, 1, 4)) as made:
        yield made


class Console:
    """Commands of one workspace; `expect` is the exit code that must come."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._root = str(root)
        self._capsys = capsys

    def __call__(self, *words: str, expect: int = 0) -> Any:
        code = main.main(["-w", self._root, *words, "--json"])
        out, err = self._capsys.readouterr()
        assert code == expect, f"{words}: {code}\n{out}\n{err}"
        return json.loads(out or err.strip().splitlines()[-1])


def rows_of(fleet: LivingFleet, kind: PumpType, pumps: list[str]) -> np.ndarray:
    """Every tenth row of a month, all pumps together, float32 [n, c]."""
    names = tuple(one.name for one in kind.channels)
    with fleet.open() as workspace:
        frames = [workspace.store.telemetry.frame(pump, 0, 2**50).select(names) for pump in pumps]
    rows = np.concatenate([frame.values[::10] for frame in frames])
    return rows[np.isfinite(rows).all(axis=1)]


def estimator_of(rows: np.ndarray) -> Any:
    from sklearn.mixture import GaussianMixture
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), GaussianMixture(4, covariance_type="diag", reg_covar=1e-2, random_state=1)).fit(rows)


def make_ill(inbox: Path, tag: str, channels: list[str]) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Triple the vibration of one pump for the last hours in what its device has yet to score; all rows by tag."""
    found: dict[str, list[tuple[int, np.ndarray]]] = {}
    for path in sorted(inbox.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        times = [int(row["time"]) if row["time"].isdecimal() else parse_ms(row["time"]) for row in rows]
        for row, at_ms in zip(rows, times, strict=True):
            if row["pump"] == tag and at_ms > max(times) - ILL_HOURS * HOUR_MS and row["vibration_mm_s"]:
                row["vibration_mm_s"] = repr(3 * float(row["vibration_mm_s"]))
            values = np.array([float(row[name]) if row.get(name) else np.nan for name in channels], np.float32)
            found.setdefault(row["pump"], []).append((at_ms, values))
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return found


def collected(fleet: LivingFleet, console: Console, pumps: list[str], wanted: int) -> None:
    deadline = time.monotonic() + SCORING_LIMIT_S
    while True:
        console("collect")
        with fleet.open() as workspace:
            spans = [workspace.store.scores.span(pump) for pump in pumps]
        rows = sum(span[2] for span in spans if span)
        if rows >= wanted:
            return
        assert time.monotonic() < deadline, f"{rows} of {wanted} rows came back"
        time.sleep(0.2)


def installed(console: Console, model: str) -> None:
    """Package, rollout, approval, delivery of what `model` names."""
    console("package", "build", "--model", model)
    started = console("rollout", "start", "--model", model)
    console("approve", started["rollout"])
    assert console("tick", "--until-idle", "--limit", "120")["committed"] == 1


def test_a_strangers_model_from_its_notebook_to_an_alarm_and_back(
    fleet: LivingFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console(fleet.root, capsys)
    (device,) = fleet.fleet.devices
    chosen = [pump for pump in fleet.fleet.pumps if pump.type == fleet.fleet.pumps[0].type]
    kind, pumps = fleet.fleet.pump_types[chosen[0].type], [pump.id for pump in chosen]
    names = [one.name for one in kind.channels]
    for file in fleet.history.files:
        console("ingest", str(file.path), "--site", file.site)
    own = next(row for row in console("train") if row["model"] == f"{kind.id}-health")
    model = own["model"]
    console("models", "promote", model, "1", "--reason", "the first one")

    rows = rows_of(fleet, kind, pumps)
    estimator = estimator_of(rows)
    said = Statement(
        pump_type=kind.id, channels=tuple((one.name, one.unit) for one in kind.channels), made_by="Institute of Pumps",
        licence="CC-BY-4.0", says="a notebook", meaning="log-likelihood of healthy rows", worse="lower", is_raw=True,
    )  # fmt: skip
    made = export(estimator, rows, said, tmp_path / "out")
    files = [str(made.model), "--spec", str(made.spec), "--reference", str(made.reference)]
    assert console("models", "import", *files, "--check")["reference_rows"] > 100
    foreign = console("models", "import", *files)
    number = str(foreign["version"])
    assert console("package", "build", "--model", f"{model}={number}", expect=3)["exit_code"] == 3
    assert console("models", "promote", model, number, "--reason", "good", expect=3)["exit_code"] == 3
    console("models", "promote", model, number, "--accept-foreign", "--reason", "read the card")

    inbox = fleet.device_folder(device.id) / "spool" / "in"
    told = make_ill(inbox, chosen[0].tag, names)
    installed(console, f"{model}={number}")
    assert model in console("package", "show", device.id)["foreign"]
    collected(fleet, console, pumps, sum(len(told[pump.tag]) for pump in chosen))
    shown = console("models", "show", model, number)
    assert (shown["model_type"], shown["foreign"], shown["licence"]) == ("foreign", True, "CC-BY-4.0")
    with fleet.open() as workspace:
        origin = workspace.store.registry.version(model, int(number)).origin
        assert origin is not None
        for pump in chosen:
            frame = workspace.store.scores.frame(pump.id, 0, 2**50, channels=("score",))
            _same_scores(estimator, origin, told[pump.tag], (frame.at_ms, frame.values[:, 0]))

    newest = max(at_ms for at_ms, _ in told[chosen[0].tag])
    explained = console("explain", pumps[0], "--at", _time(newest))
    assert explained["alarmed"] is True
    assert (explained["model_type"], explained["foreign"]["made_by"]) == ("foreign", "Institute of Pumps")
    assert explained["foreign"]["source"] == shown["source_digest"]
    assert explained["foreign"]["raw_score"] < explained["foreign"]["raw_limit"]
    assert explained["channel"] == "vibration_mm_s"

    back = console("models", "rollback", model, "--reason", "ours again")
    assert back["champion"] == 1
    installed(console, f"{model}=1")
    assert console("package", "show", device.id)["foreign"] is None
    assert console("audit", "verify")["verified"] is True
    actions = {row["action"] for row in console("audit", "--limit", "1000")}
    assert {"import.run", "model.accept_foreign", "model.promote", "model.demote"} <= actions


def _same_scores(
    estimator: Any, origin: Origin, told: list[tuple[int, np.ndarray]], found: tuple[np.ndarray, np.ndarray]
) -> None:
    """Each score that came back is the estimator's own of that row."""
    rows = {at_ms: values for at_ms, values in told if np.isfinite(values).all()}
    held = [(at_ms, score) for at_ms, score in zip(found[0].tolist(), found[1].tolist(), strict=True) if at_ms in rows]
    assert len(held) > 0.9 * len(told)
    raw = estimator.score_samples(np.array([rows[at_ms] for at_ms, _ in held]))
    wanted = np.clip((origin.zero - raw) / origin.unit, 0, 1e6)
    assert np.allclose([score for _, score in held], wanted, rtol=1e-3, atol=2e-3)


def _time(at_ms: int) -> str:
    from pumpdeck_fleet.core.clock import format_ms

    return format_ms(at_ms)
