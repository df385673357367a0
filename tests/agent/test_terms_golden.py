"""Terms, downgrade words and shadow scoring as golden files: a change here needs a new format number and a reader of the old."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pumpdeck_agent.shadow_file import (
    SHADOW_FORMAT,
    ShadowFigures,
    ShadowRecord,
    ShadowStart,
    decode_shadow,
    encode_shadow,
)
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.receipts import (
    DOWNGRADE_PAYLOAD_TYPE,
    SHADOW_EDGES,
    Assignment,
    DowngradeWord,
    Outcome,
    Receipt,
    ShadowSketch,
    Terms,
)
from pumpdeck_packaging.downgrade import DOWNGRADE_FORMAT, DOWNGRADE_MAX_BYTES, add_signature, sign_downgrade
from pumpdeck_packaging.signing import verify_dsse
from support.golden_trust import seeded_key

GOLDEN = Path(__file__).parents[1] / "golden" / "formats" / "terms"
A, B = "a" * 64, "b" * 64
AT_MS = 1_770_000_000_000
PEOPLE = (seeded_key(1), seeded_key(6))
WORD = DowngradeWord(DOWNGRADE_FORMAT, "gannet", "gannet-d1", A, 4096, "0" * 32, AT_MS, "v9 alarms at night")
SIGNED = add_signature(sign_downgrade(WORD, PEOPLE[0]), PEOPLE[1])
SKETCH = ShadowSketch(60, 2, 1, 3, 3_600_000, 0.75, tuple(range(len(SHADOW_EDGES) + 1)))
PERMIT = "WO-2031/7"
ASSIGNMENT = Assignment(1, "gannet-d1", A, 128, AT_MS, AT_MS + 1000, "task-1", PERMIT, True, 3600, SIGNED.decode())
RECEIPT = Receipt(
    format=1,
    device="gannet-d1",
    task="task-1",
    package_sha256=A,
    seq=128,
    outcome=Outcome.COMMITTED,
    reason="",
    active_sha256=A,
    previous_sha256=B,
    counter=7,
    at_ms=AT_MS,
    clock_synced=False,
    agent_version="0.2.0",
    runtime_version="1.18.1",
    permit=PERMIT,
    token=canonical.digest(canonical.encode(WORD)),
    shadow={"P-101A": SKETCH},
)
SHADOW = ShadowRecord(ShadowFigures(SHADOW_FORMAT, "P-101A", A, AT_MS, SKETCH, 6, 5), b"window", b"alarm")
START = ShadowStart(SHADOW_FORMAT, A, 2, ("P-101A", "P-101B"))
FILES = {
    "downgrade.dsse.json": SIGNED,
    "assignment.json": canonical.encode(ASSIGNMENT),
    "receipt.json": canonical.encode(RECEIPT),
    "shadow.bin": encode_shadow(SHADOW),
    "shadow_start.json": canonical.encode(START),
}


@pytest.mark.parametrize("name", FILES)
def test_the_bytes_are_the_golden_ones(name: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_bytes(FILES[name])
    assert path.read_bytes() == FILES[name]


def test_the_golden_files_are_read_back_as_they_were_meant() -> None:
    keys = {one.key_id: one.public.pem for one in PEOPLE}
    payload = verify_dsse(_read("downgrade.dsse.json"), DOWNGRADE_PAYLOAD_TYPE, keys, DOWNGRADE_MAX_BYTES)
    assert canonical.decode(DowngradeWord, payload, "word", max_bytes=4096) == WORD
    assignment = canonical.decode(Assignment, _read("assignment.json"), "assignment", max_bytes=4096)
    assert (assignment, assignment.terms) == (ASSIGNMENT, Terms(PERMIT, True, 3600))
    assert canonical.decode(Receipt, _read("receipt.json"), "receipt", max_bytes=4096) == RECEIPT
    assert decode_shadow(_read("shadow.bin"), "P-101A") == SHADOW
    assert canonical.decode(ShadowStart, _read("shadow_start.json"), "start", max_bytes=4096) == START


def _read(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()
