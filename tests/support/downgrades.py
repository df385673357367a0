"""Downgrade words for tests, honest and otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pumpdeck_fleet.core.receipts import DowngradeWord
from pumpdeck_packaging.downgrade import DOWNGRADE_FORMAT, DOWNGRADE_MAX_BYTES, sign_downgrade
from pumpdeck_packaging.signing import Ed25519Signer, add_dsse_signature
from support.trust import NOW_MS

FAR_SEQ = 1 << 20


def word(package_sha256: str, **changes: object) -> DowngradeWord:
    """A word for gannet-d1 and this package."""
    plain = DowngradeWord(
        DOWNGRADE_FORMAT, "gannet", "gannet-d1", package_sha256, FAR_SEQ, "0" * 32, NOW_MS, "v9 alarms at night"
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def signed(one: DowngradeWord, signers: Sequence[Ed25519Signer]) -> str:
    """The envelope by all of these, as it stands in an assignment."""
    envelope = sign_downgrade(one, signers[0])
    for signer in signers[1:]:
        # Past the console's own look at what it signs: a thief has no such scruples.
        envelope = add_dsse_signature(envelope, signer, DOWNGRADE_MAX_BYTES)
    return envelope.decode("utf-8")
