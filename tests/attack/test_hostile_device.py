"""A stolen device signs whatever it likes with its own key: the console takes it in or says why not, and never falls over it."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pumpdeck_console import main, wiring
from pumpdeck_console.operations.bundles import IntakeReport, export_bundle, intake_bundle
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.receipts import (
    RECEIPT_PAYLOAD_TYPE,
    RETURN_PAYLOAD_TYPE,
    Receipt,
    ReturnIndex,
    ReturnItem,
    ReturnKind,
)
from pumpdeck_fleet.numeric.columns import encode_chunk
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.numeric.varint import write_signed, write_unsigned
from pumpdeck_packaging.bundle_returns import return_folder
from pumpdeck_packaging.signing import sign_dsse
from support.courier_fleet import CourierFleet, courier_fleet
from support.rollouts import GOOD_TEST
from support.small_fleet import NOW_MS

EXTREMES = (0, -1, -(1 << 53) + 1, (1 << 53) - 1)
READS = (
    "pumps",
    "devices",
    "sites",
    "drift",
    "rollout list",
    "bundle awaited",
    "devices requests",
    "audit verify",
    "audit list",
    "tick",
)


@dataclass
class Thief:
    """Holds the first device with its key, and a stick that goes home."""

    yard: CourierFleet
    capsys: pytest.CaptureFixture[str]
    counter: int = 10

    @property
    def device(self) -> str:
        return self.yard.devices[0].id

    @property
    def tag(self) -> str:
        return self.yard.workspace.fleet.pumps_by_device[self.device][0].tag

    def sends(self, *things: tuple[ReturnKind, bytes], **changes: Any) -> IntakeReport:
        """A return of these things, signed by the device's own key."""
        self.counter += 1
        folder = return_folder(self.yard.folder / "stick", self.device)
        folder.mkdir(parents=True, exist_ok=True)
        items = [
            ReturnItem(kind, canonical.digest(data), len(data), self.tag, changes.get("start_ms", 0))
            for kind, data in things
        ]
        for item, (_, data) in zip(items, things, strict=True):
            (folder / item.digest).write_bytes(data)
        index = ReturnIndex(
            1, self.device, changes.get("counter", self.counter), changes.get("at_ms", NOW_MS), tuple(items)
        )
        signer = self.yard.agent(self.device).pen.signer
        (folder / "return.json").write_bytes(sign_dsse(canonical.encode(index), RETURN_PAYLOAD_TYPE, signer))
        return intake_bundle(self.yard.workspace, folder=str(self.yard.folder / "stick"))

    def rows(
        self, first_ms: int, value: float = 5.0, kind: ReturnKind = ReturnKind.SEGMENT, step: int = 60_000
    ) -> tuple[ReturnKind, bytes]:
        """Three rows from that time on."""
        at_ms = np.array([first_ms, first_ms + step, first_ms + 2 * step], np.int64)
        names = (
            ("score", "limit", "alarmed", "drift_index")
            if kind is ReturnKind.SCORES
            else ("suction_pressure_bar", "speed_rpm")
        )
        frame = TelemetryFrame(names, at_ms, np.full((3, len(names)), value, np.float32), np.zeros(3, np.uint16))
        head = canonical.encode({"format": 1, "pump": self.tag, "package_sha256": "a" * 64})
        return kind, head + b"\n" + encode_chunk(frame)

    def receipt(self, **changes: Any) -> tuple[ReturnKind, bytes]:
        task = self.yard.rollout().tasks[self.device].id
        plain = {
            **canonical.to_plain(
                Receipt(
                    1,
                    self.device,
                    task,
                    "a" * 64,
                    1,
                    "committed",
                    "",
                    "a" * 64,
                    "",
                    50,
                    NOW_MS,
                    False,
                    "0.1.0",
                    "1.18",
                    GOOD_TEST,
                )  # type: ignore[arg-type]
            ),
            **changes,
        }
        return ReturnKind.RECEIPT, sign_dsse(
            canonical.encode(plain), RECEIPT_PAYLOAD_TYPE, self.yard.agent(self.device).pen.signer
        )

    def everything_still_answers(self) -> None:
        """Each list of the command line prints as before, for people and for programs."""
        root = str(self.yard.workspace.root)
        shown = [
            f"pumps show {self.tag}",
            f"devices show {self.device}",
            f"why {self.device}",
            f"telemetry {self.tag}",
            f"explain {self.tag}",
        ]
        for line in (*READS, *shown):
            for words in (line.split(), [*line.split(), "--json"]):
                code = main.main(["-w", root, *words])
                said = self.capsys.readouterr()
                assert code in (0, 3, 6), (words, code, said.out[-300:], said.err[-900:])
                # What a device says is shown, never obeyed: no escape, no text direction.
                assert not {"\x1b", "\x07", "\u202e"} & set(said.out + said.err), words


@pytest.fixture
def thief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Thief]:
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
    yard = courier_fleet(tmp_path)
    yard.start()
    export_bundle(yard.workspace, to=str(tmp_path / "stick"))
    yield Thief(yard, capsys)
    yard.workspace.close()


def test_the_lists_answer_before_the_attack(thief: Thief) -> None:
    """The control."""
    thief.everything_still_answers()


@pytest.mark.parametrize("at_ms", [*EXTREMES, 1 << 60, -(1 << 62)])
@pytest.mark.parametrize("kind", [ReturnKind.SEGMENT, ReturnKind.SCORES])
def test_rows_from_the_end_of_time_break_no_list(thief: Thief, kind: ReturnKind, at_ms: int) -> None:
    """Huge integer: telemetry whose times no calendar holds, so that each list that shows the pump would fall over."""
    thief.sends(thief.rows(at_ms, kind=kind))
    thief.everything_still_answers()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, np.float32(3.4e38), np.float32(1e-45)])
@pytest.mark.parametrize("kind", [ReturnKind.SEGMENT, ReturnKind.SCORES])
def test_rows_without_measure_break_no_list(thief: Thief, kind: ReturnKind, value: float) -> None:
    """Infinite, missing and subnormal readings, and scores of the same sort."""
    thief.sends(thief.rows(NOW_MS - 600_000, float(value), kind=kind))
    thief.everything_still_answers()


@pytest.mark.parametrize("at_ms", EXTREMES)
def test_alarms_from_the_end_of_time_break_no_list(thief: Thief, at_ms: int) -> None:
    """Huge integer in the time of an alarm, and a score to match."""
    for raised in (True, False):
        notice = {"format": 1, "device": thief.device, "pump": thief.tag, "at_ms": at_ms, "raised": raised, "score": 1e308,
                  "limit": -1e308, "channel": "\u202e" + "x" * 300, "package_sha256": "zz"}  # fmt: skip
        thief.sends((ReturnKind.ALARM, canonical.encode(notice)))
    thief.everything_still_answers()


@pytest.mark.parametrize("at_ms", EXTREMES)
def test_requests_from_the_end_of_time_break_no_list(thief: Thief, at_ms: int) -> None:
    """Huge integer in a retrain request, with words that a terminal would obey."""
    asked = {"format": 1, "device": thief.device, "pump": thief.tag, "at_ms": at_ms, "trigger": "\x1b]0;owned\x07",
             "reason": "\x1b[2J[bold red]" + "y" * 5000, "package_sha256": ""}  # fmt: skip
    thief.sends((ReturnKind.RETRAIN_REQUEST, canonical.encode(asked)))
    thief.everything_still_answers()


@pytest.mark.parametrize("at_ms", EXTREMES)
@pytest.mark.parametrize("outcome", ["committed", "refused", "rolled_back", "already", "failed_inconsistent"])
def test_receipts_from_the_end_of_time_break_no_list(thief: Thief, outcome: str, at_ms: int) -> None:
    """Huge integer in a receipt's time, sequence and counter."""
    words = {"reason": "\x1b[31m" + "z" * 3000, "agent_version": "[/]", "seq": at_ms, "counter": max(at_ms, 51)}
    thief.sends(thief.receipt(outcome=outcome, at_ms=at_ms, **words), at_ms=at_ms)
    thief.everything_still_answers()


def _sketch(first_ms: int, span: int, rows: int, channels: int = 5) -> bytes:
    body = write_unsigned([rows, 0]) + write_signed([first_ms]) + write_unsigned([span]) + bytes(4000)
    return b"PDS1" + bytes(8) + zlib.compress(body + struct.pack("<B", channels))


@pytest.mark.parametrize("start_ms", EXTREMES)
def test_sketches_that_are_none_break_no_list(thief: Thief, start_ms: int) -> None:
    """A device sends rubbish as the sketch of a day before the beginning or after the end of time."""
    for data in (
        _sketch(start_ms, 5, 10),
        _sketch((1 << 61) - 1, 1 << 62, 1 << 40),
        b"PDS1" + bytes(8),
        b"PDS1" + b"\xff" * 3000,
    ):
        thief.sends((ReturnKind.SKETCH, data), start_ms=start_ms)
    thief.everything_still_answers()


@pytest.mark.parametrize("counter", EXTREMES)
def test_a_return_counter_at_the_end_locks_nobody_out(thief: Thief, counter: int) -> None:
    """Fast-forward: the thief runs the counters up as far as they go; lists still answer, the neighbour is taken in as ever."""
    thief.sends(thief.receipt(counter=max(counter, 60)), counter=counter)
    thief.everything_still_answers()
    neighbour = thief.yard.devices[1].id
    thief.yard.visit(neighbour)
    report = intake_bundle(thief.yard.workspace, folder=str(thief.yard.folder / "stick"))
    assert any(one.device == neighbour and not one.problems for one in report.devices)
