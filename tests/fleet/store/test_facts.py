"""Facts of all pumps in one query, and the health that follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pumpdeck_fleet.core.health import Health, HealthRules, health_of
from pumpdeck_fleet.core.receipts import AlarmNotice, Outcome, Receipt
from pumpdeck_fleet.core.telemetry import QualityFlag
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.facts import SCORE_CHANNELS
from pumpdeck_fleet.store.models import PackagePump, PackageRow
from support.frames import frame_of
from support.stores import T0, open_store

PUMP = "gannet/P-101A"
NAN = float("nan")


def run_package(store: Store, counter: int, sha256: str, number: int) -> None:
    """The device has committed a package with that version for the pump."""
    pumps = (PackagePump(PUMP, "esp-health", number, 4.5),)
    store.packages.put(PackageRow(sha256, "gannet-d1", "gannet", 1, 2, T0, pumps))
    receipt = Receipt(
        format=1, device="gannet-d1", task="t", package_sha256=sha256, seq=counter, outcome=Outcome.COMMITTED, reason="",
        active_sha256=sha256, previous_sha256="", counter=counter, at_ms=T0, clock_synced=True, agent_version="1",
        runtime_version="1",
    )  # fmt: skip
    store.receipts.add(receipt, sha256.encode(), "key")


def add_score(store: Store, at_ms: int, score: float, alarmed: float) -> None:
    store.scores.append(PUMP, frame_of({at_ms: (score, 4.0, alarmed, NAN)}, SCORE_CHANNELS))


def add_alarm(store: Store, at_ms: int, raised: bool) -> None:
    store.alarms.add(AlarmNotice(1, "gannet-d1", PUMP, at_ms, raised, 5.0, 4.0, "flow", "a" * 64))


def health(store: Store, now_ms: int = T0 + 1000) -> Health | None:
    return health_of(store.facts()[PUMP].health_facts(), now_ms, HealthRules())


def test_nothing_known_is_no_fact(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        assert store.facts() == {}


def test_facts_gather_rows_scores_and_the_running_package(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.telemetry.append(PUMP, frame_of({T0: (1, 2, 3)}))
            add_score(store, T0 + 9, 2.5, 0.0)
            run_package(store, 1, "a" * 64, 3)
            run_package(store, 2, "b" * 64, 4)
        facts = store.facts()[PUMP]
        assert (facts.rows, facts.last_row_ms, facts.last_score_ms, facts.last_seen_ms) == (1, T0, T0 + 9, T0 + 9)
        assert (facts.score, facts.limit, facts.is_alarmed, facts.drift_index) == (2.5, 4.0, False, None)
        assert (facts.device, facts.package_sha256, facts.model, facts.number) == ("gannet-d1", "b" * 64, "esp-health", 4)
        assert health(store) is Health.OK


def test_the_limit_of_the_package_stands_in_before_the_first_score(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            run_package(store, 1, "a" * 64, 3)
        assert store.facts()[PUMP].limit == 4.5


@pytest.mark.parametrize(
    ("notices", "scored", "alarmed"),
    [
        ([(T0, True)], None, True),
        ([(T0, True), (T0 + 5, False)], None, False),
        ([(T0, True)], (T0 + 9, 0.0), False),
        ([(T0 + 9, True)], (T0, 0.0), True),
        ([], (T0, 1.0), True),
        ([], None, None),
    ],
)
def test_whoever_spoke_last_says_whether_a_pump_is_alarmed(
    tmp_path: Path, notices: list[tuple[int, bool]], scored: tuple[int, float] | None, alarmed: bool | None
) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.telemetry.append(PUMP, frame_of({T0: (1, 2, 3)}))
            for at_ms, raised in notices:
                add_alarm(store, at_ms, raised)
            if scored:
                add_score(store, scored[0], 1.0, scored[1])
        assert store.facts()[PUMP].is_alarmed is alarmed


def test_health_follows_from_facts(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.telemetry.append(PUMP, frame_of({T0: (1, 2, 3)}))
        assert health(store) is Health.NO_MODEL
        with store.atomic():
            run_package(store, 1, "a" * 64, 3)
        assert health(store) is Health.OK
        assert health(store, T0 + 7 * 3_600_000) is Health.STALE
        with store.atomic():
            store.drift.put(PUMP, T0, {"flow": 0.3}, 0.3)
        assert health(store) is Health.DRIFT
        with store.atomic():
            store.telemetry.append(PUMP, frame_of({T0 + 1: (1, 2, 3)}, flags=int(QualityFlag.STUCK)))
        assert health(store) is Health.SENSOR_FAULT
        with store.atomic():
            add_alarm(store, T0, True)
        assert health(store) is Health.ALARM
