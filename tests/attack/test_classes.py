"""The list of attacks that the product promises to stand, word by word: each has a test, and each role cannot be rolled back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_fleet.core.errors import DamagedError, PumpdeckError, ReplayError, TrustError
from pumpdeck_packaging.trust_change import KeyEdit
from pumpdeck_packaging.verify import TrustState
from support.attack_classes import CLASSES, by_class, named_tests
from support.ceremony import changed
from support.forge import edited, refused, signed_of
from support.trust import SampleSite, verify


@pytest.fixture
def own(tmp_path: Path) -> SampleSite:
    site = SampleSite(tmp_path)
    for number in range(3):
        site.deliver(onnx=f"graph {number}".encode())
    return site


def accepted(state: TrustState, files: dict[str, bytes]) -> TrustState:
    found = verify(state, files)
    return replace(state, kept=dict(found.keep), floor=found.floor)


def lowered(step: int) -> Callable[[dict[str, Any]], None]:
    def change(signed: dict[str, Any]) -> None:
        signed["version"] -= step

    return change


@pytest.mark.parametrize("kind", CLASSES)
def test_each_class_of_the_list_has_a_case(kind: str) -> None:
    """The list itself: a class that no test names is a promise that nobody keeps."""
    assert by_class()[kind]


def test_the_list_is_searched_where_the_tests_are() -> None:
    """The search finds whole names only, and finds the tests at all."""
    assert len(list(named_tests())) > 200
    found = by_class()
    assert all("unnamed" not in name for names in found.values() for name in names)
    assert not any(found[kind] == found["tampered"] for kind in CLASSES if kind != "tampered")


@pytest.mark.parametrize("is_wiped", [False, True], ids=["with what it kept", "with its cache wiped"])
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "release", "deploy"])
def test_a_role_signed_anew_with_a_lower_version_is_refused(own: SampleSite, role: str, is_wiped: bool) -> None:
    """Rollback of timestamp, rollback of snapshot, rollback of targets, rollback of release, rollback of deploy."""
    if role == "targets":
        changed(own, [KeyEdit("deploy", remove=(own.keys.laptops[0].key_id,))], (*own.keys.root[:2], own.keys.targets))
        own.deliver(onnx=b"after", laptop=1)
    laptop = own.keys.laptops[1 if role == "targets" else 0]
    keys = replace(own.keys, laptops=[laptop])
    device = accepted(own.state(), own.files())
    device = replace(device, kept={}) if is_wiped else device
    step = 64 if role in ("timestamp", "snapshot", "deploy") else 1
    old = edited(own.files(), keys, role, lowered(step))
    assert signed_of(old, role)["version"] == signed_of(own.files(), role)["version"] - step
    refused(device, old, PumpdeckError, "older than|accepted|version")
    assert verify(device, own.files()).repeated


def test_the_root_before_the_last_one_is_refused(own: SampleSite) -> None:
    """Rollback of root: the device followed to root 2; a set that knows root 1 only is refused, also once it forgot."""
    before = own.files()
    changed(own, [KeyEdit("deploy", remove=(own.keys.laptops[0].key_id,))], (*own.keys.root[:2], own.keys.targets))
    own.deliver(onnx=b"after", laptop=1)
    device = accepted(own.state(), own.files())
    refused(device, before, PumpdeckError)
    refused(replace(device, kept={}), before, ReplayError, "older than what this device has accepted")
    assert verify(device, own.files()).floor.roles["root"].number == 2


def test_a_role_frozen_below_a_newer_timestamp_is_refused(own: SampleSite) -> None:
    """Freeze: the thief signs new timestamps for ever over the snapshot of last week, and leaves what came since away."""
    device = accepted(own.state(), own.files())
    frozen = own.files()
    own.deliver(onnx=b"revoked since")
    newest = accepted(device, own.files())

    def later(signed: dict[str, Any]) -> None:
        signed["version"] += 640

    refused(newest, edited(frozen, own.keys, "timestamp", later), (ReplayError, DamagedError, TrustError))  # type: ignore[arg-type]
    assert verify(newest, own.files()).repeated
