"""The formats stand still: today's code reads yesterday's bytes and writes the same ones."""

from __future__ import annotations

import lzma

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.receipts import RECEIPT_MAX_BYTES, RECEIPT_PAYLOAD_TYPE, Receipt
from pumpdeck_packaging.manifest import parse_manifest
from pumpdeck_packaging.package_reader import read_package
from pumpdeck_packaging.provenance import verify_provenance
from pumpdeck_packaging.signing import verify_dsse
from pumpdeck_packaging.trust_floor import parse_floor
from pumpdeck_packaging.verify import TrustState
from support.golden_trust import GOLDEN, golden_files, seeded_key
from support.trust import verify

NAMES = sorted(path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def written() -> dict[str, bytes]:
    return golden_files()


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def test_there_is_a_golden_file_for_everything_that_is_written(written: dict[str, bytes]) -> None:
    assert sorted(written) == NAMES


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith((".xz", ".jsonl", ".dsse.json"))])
def test_the_same_bytes_are_written_today(written: dict[str, bytes], name: str) -> None:
    # The package's digest stands in most of them; another liblzma may compress otherwise, which these bytes would show.
    now, then = written["package.tar.xz"], golden("package.tar.xz")
    if now != then and lzma.decompress(now) == lzma.decompress(then):
        pytest.skip("this liblzma compresses the same tar to other bytes")
    assert written[name] == golden(name)


def test_the_same_tar_is_written_today(written: dict[str, bytes]) -> None:
    assert lzma.decompress(written["package.tar.xz"]) == lzma.decompress(golden("package.tar.xz"))


def test_a_golden_site_is_believed_and_its_package_read() -> None:
    files = {path.name: path.read_bytes() for path in (GOLDEN / "site").iterdir()}
    verified = verify(TrustState("gannet-d1", "gannet", golden("site/1.root.json")), files)
    assert verified.floor == parse_floor(golden("floor.json"))
    package = read_package(
        golden("package.tar.xz"),
        expected_sha256=verified.package.sha256,
        max_unpacked_bytes=verified.package.words.unpacked_bytes,
    )
    assert package.manifest == parse_manifest(golden("manifest.json"))


def test_golden_signatures_hold() -> None:
    release, device = seeded_key(5), seeded_key(9)
    sha256 = canonical.digest(golden("package.tar.xz"))
    verify_provenance(golden("package.intoto.jsonl").strip(), sha256, {release.key_id: release.public_pem})
    keys = {device.key_id: device.public_pem}
    payload = verify_dsse(golden("receipt.dsse.json"), RECEIPT_PAYLOAD_TYPE, keys, RECEIPT_MAX_BYTES)
    receipt = canonical.decode(Receipt, payload, "receipt", max_bytes=RECEIPT_MAX_BYTES)
    assert (receipt.device, receipt.package_sha256) == ("gannet-d1", sha256)
