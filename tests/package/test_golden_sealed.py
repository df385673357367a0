"""The encrypted formats stand still: today's code reads yesterday's bytes."""

from __future__ import annotations

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.receipts import RETURN_PAYLOAD_TYPE, ReturnIndex
from pumpdeck_packaging.age_box import parse_identities
from pumpdeck_packaging.bundle_returns import read_envelope
from pumpdeck_packaging.bundle_stick import Stick
from pumpdeck_packaging.sealed_package import unseal_package
from pumpdeck_packaging.sealed_return import OpenedReturn, is_sealed
from pumpdeck_packaging.signing import verify_dsse
from support.golden_sealed import GOLDEN, ITEMS, READER
from support.golden_trust import GOLDEN as TRUST
from support.golden_trust import seeded_key

IDENTITIES = parse_identities(READER, "golden")


def test_a_golden_encrypted_return_is_read() -> None:
    fs, key = RealFileSystem(), seeded_key(9)
    keys = {key.key_id: key.public_pem}
    envelope = read_envelope(fs, GOLDEN, "gannet-d1")
    assert is_sealed(envelope)
    opened = OpenedReturn(Stick(fs, GOLDEN, fs.read_bytes), envelope, "gannet-d1", keys, IDENTITIES)
    payload = verify_dsse(opened.envelope, RETURN_PAYLOAD_TYPE, keys, 1 << 20)
    index = canonical.decode(ReturnIndex, payload, "return", max_bytes=1 << 20)
    assert (index.counter, index.at_ms) == (opened.sealed.counter, opened.sealed.at_ms) == (7, 5)
    assert tuple(opened.read_item(item) for item in index.items) == ITEMS
    assert opened.sealed.age_key == IDENTITIES[0].public


def test_a_golden_confidential_package_is_read() -> None:
    data = (TRUST / "package.tar.xz").read_bytes()
    assert unseal_package((GOLDEN / "package.tar.xz.age").read_bytes(), canonical.digest(data), IDENTITIES[0]) == data
