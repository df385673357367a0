"""The forms of the agent's own delivery as golden files: a change here needs a new format number and a reader of the old one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pumpdeck_agent.sealed_memory import SealedMemory
from pumpdeck_agent.slot_record import AgentBuild, SlotPhase, SlotRecord, decode_record, encode_record
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.receipts import AgentReceipt, Outcome
from pumpdeck_packaging.agent_trust import AgentWord
from pumpdeck_packaging.sealed_return import SealedFile
from pumpdeck_packaging.wheel_index import Wheel, WheelIndex, parse_index

GOLDEN = Path(__file__).parents[1] / "golden" / "formats"
A, B, W = "a" * 64, "b" * 64, "c" * 64
RECEIPT = AgentReceipt(1, "gannet-d1", B, "0.2.0", 8, Outcome.COMMITTED, "", B, A, 3, 1_770_000_000_000, False)
RECORD = SlotRecord(
    format=1,
    record=9,
    phase=SlotPhase.ACTIVE,
    active=AgentBuild("b", B, "0.2.0", 8, W),
    previous=AgentBuild("a", A, "0.1.0", 7, W),
    serial=8,
    keys=("d" * 64,),
    failed=(f"{W}:6",),
    counter=3,
    receipt=RECEIPT,
)
WORD = AgentWord(1, "gannet", "0.2.0", 8, B, 1_400_000, 1_770_000_000_000, {"aarch64-cp311": W})
INDEX = WheelIndex(1, "aarch64-cp311", (Wheel("cffi", "2.1.1", "cffi-2.1.1.whl", "cffi-2.1.1-cp311.whl", 5, A),))
MEMORY = SealedMemory(1, W, {A: (SealedFile(B, 1200), SealedFile(W, 1200))})
FILES = {
    "slot_record.bin": encode_record(RECORD),
    "agent_word.json": canonical.encode(WORD),
    "agent_receipt.json": canonical.encode(RECEIPT),
    "wheels.json": canonical.encode(INDEX),
    "sealed.json": canonical.encode(MEMORY),
}


@pytest.mark.parametrize("name", FILES)
def test_the_bytes_are_the_golden_ones(name: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_bytes(FILES[name])
    assert path.read_bytes() == FILES[name]


def test_the_golden_files_are_read_back_as_they_were_meant() -> None:
    assert decode_record((GOLDEN / "slot_record.bin").read_bytes(), "slot.1") == RECORD
    assert canonical.decode(AgentWord, (GOLDEN / "agent_word.json").read_bytes(), "word", max_bytes=4096) == WORD
    assert canonical.decode(AgentReceipt, (GOLDEN / "agent_receipt.json").read_bytes(), "receipt", max_bytes=4096) == RECEIPT
    assert parse_index((GOLDEN / "wheels.json").read_bytes()) == INDEX
    assert canonical.decode(SealedMemory, (GOLDEN / "sealed.json").read_bytes(), "sealed", max_bytes=4096) == MEMORY


def test_the_launcher_reads_the_same_record_and_writes_one_that_the_agent_reads(tmp_path: Path) -> None:
    launcher = pytest.importorskip("pumpdeck_agent.launcher", reason="the launcher needs POSIX")
    (tmp_path / "slot.1").write_bytes((GOLDEN / "slot_record.bin").read_bytes())
    record = launcher.newest(tmp_path)
    assert (record["active"]["slot"], record["active"]["sha256"], record["previous"]["sha256"]) == ("b", B, A)
    launcher.write(tmp_path, {**record, "phase": "PROBATION", "tries": 2})
    read = decode_record((tmp_path / "slot.0").read_bytes(), "slot.0")
    assert (read.record, read.phase, read.tries, read.receipt) == (10, SlotPhase.PROBATION, 2, RECEIPT)
