"""Any minute in the past names its model, limit and calibration; a contradiction between the witnesses is said, not hidden."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_console.operations.bundles import export_bundle, intake_bundle
from pumpdeck_console.operations.explaining import explain
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.receipts import AlarmNotice
from support.courier_fleet import MODEL, CourierFleet, courier_fleet
from support.devices import CENTRE, LIMIT, NAMES
from support.small_fleet import NOW_MS

HOUR_MS = 3_600_000


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[CourierFleet]:
    """Version 1 was installed at NOW, version 2 an hour later, both by stick."""
    made = courier_fleet(tmp_path)
    _round(made, 1)
    made.clock.advance(HOUR_MS)
    made.release(2, shift=1.0)
    _round(made, 2)
    yield made
    made.workspace.close()


def _round(yard: CourierFleet, number: int) -> None:
    yard.start(number)
    folder = str(yard.folder / f"stick{number}")
    export_bundle(yard.workspace, to=folder)
    for device in yard.devices:
        assert yard.visit(device.id, yard.stick(f"stick{number}")).outcome == "committed"
    assert intake_bundle(yard.workspace, folder=folder).problems == ()


def _pump(yard: CourierFleet) -> str:
    return yard.workspace.fleet.pumps_by_device[yard.devices[0].id][0].id


def _alarm(yard: CourierFleet, at_ms: int, package: str, limit: float = LIMIT, raised: bool = True) -> None:
    notice = AlarmNotice(1, yard.devices[0].id, _pump(yard), at_ms, raised, 6.5, limit, NAMES[0], package)
    with yard.workspace.store.atomic() as store:
        store.alarms.add(notice)


def _packages(yard: CourierFleet) -> tuple[str, str]:
    second, first = yard.workspace.store.packages.for_device(yard.devices[0].id)
    return first.sha256, second.sha256


def test_every_minute_has_its_own_model(yard: CourierFleet) -> None:
    first, second = _packages(yard)
    early = explain(yard.workspace, pump=_pump(yard), at_ms=NOW_MS + HOUR_MS // 2)
    late = explain(yard.workspace, pump=_pump(yard), at_ms=NOW_MS + 2 * HOUR_MS)
    assert early.package is not None and early.model is not None
    assert late.package is not None and late.model is not None
    assert (early.package.sha256, early.model.number) == (first, 1)
    assert (late.package.sha256, late.model.number) == (second, 2)
    assert early.model.model == MODEL and early.package.limit == LIMIT
    assert [one.centre for one in early.package.channels] == CENTRE.tolist()
    assert [one.centre for one in late.package.channels] == (CENTRE + 1).tolist()


def test_the_decision_behind_it_is_named(yard: CourierFleet) -> None:
    found = explain(yard.workspace, pump=_pump(yard), at_ms=NOW_MS + HOUR_MS // 2)
    assert found.decision is not None
    assert found.decision.is_signature_proven
    assert found.decision.rollout in yard.workspace.store.rollouts.states()
    assert found.decision.approved_by == ("actor-approver",)
    assert found.doubts == ("the device's clock was not proven when it took the package on",)


def test_an_alarm_is_explained_until_it_was_cleared(yard: CourierFleet) -> None:
    first, _ = _packages(yard)
    _alarm(yard, NOW_MS + 1000, first)
    _alarm(yard, NOW_MS + 9000, first, raised=False)
    assert explain(yard.workspace, pump=_pump(yard), at_ms=NOW_MS + 5000).is_alarmed
    assert not explain(yard.workspace, pump=_pump(yard), at_ms=NOW_MS + 9000).is_alarmed
    assert not explain(yard.workspace, pump=_pump(yard), at_ms=NOW_MS + 999).is_alarmed


def test_witnesses_that_disagree_are_named(yard: CourierFleet) -> None:
    _, second = _packages(yard)
    _alarm(yard, NOW_MS + 1000, second, limit=5.0)
    found = explain(yard.workspace, pump=_pump(yard), at_ms=NOW_MS + 2000)
    assert any("receipts say" in doubt for doubt in found.doubts)
    assert any("limit 5" in doubt for doubt in found.doubts)


def test_before_the_first_receipt_nothing_is_guessed(yard: CourierFleet) -> None:
    found = explain(yard.workspace, pump=_pump(yard), at_ms=NOW_MS - HOUR_MS)
    assert (found.package, found.model, found.decision) == (None, None, None)
    assert found.doubts == ("no receipt and no alarm says which package ran then",)


def test_an_altered_package_is_no_evidence(yard: CourierFleet) -> None:
    first, _ = _packages(yard)
    yard.workspace.artifacts.path(first).write_bytes(b"something else")
    found = explain(yard.workspace, pump=_pump(yard), at_ms=NOW_MS + HOUR_MS // 2)
    assert found.package is None
    assert any("altered" in doubt for doubt in found.doubts)


def test_an_unknown_pump_is_not_found(yard: CourierFleet) -> None:
    with pytest.raises(NotFoundError):
        explain(yard.workspace, pump="nowhere/P-1", at_ms=NOW_MS)
