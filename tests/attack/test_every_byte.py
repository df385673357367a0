"""Every byte of everything that is signed or sealed, flipped, and every length it could be cut to: nothing of it is accepted.

On every run each byte is flipped in one bit, the next byte in the next bit, and each file is cut at every length; `-m long` flips
every byte in all eight bits. The summary prints how many altered copies that were.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pumpdeck_agent import slot_record, state
from pumpdeck_agent.pump_record import decode_record
from pumpdeck_agent.shadow_file import decode_shadow
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging.age_box import decrypt, parse_identities
from pumpdeck_packaging.bundle_index import parse_index, parse_mark
from pumpdeck_packaging.bundle_stick import Stick
from pumpdeck_packaging.bundle_tar import read_members
from pumpdeck_packaging.downgrade import verify_downgrade
from pumpdeck_packaging.manifest import parse_manifest
from pumpdeck_packaging.package_reader import read_package
from pumpdeck_packaging.provenance import verify_provenance
from pumpdeck_packaging.sealed_return import OpenedReturn
from pumpdeck_packaging.verify import verify_assignment
from support.fuzz_samples import DEVICE, FORMATS, TRUST, Samples
from support.fuzz_targets import sealed
from support.fuzz_trust_doors import _Memory, _signed
from support.golden_sealed import READER
from support.golden_trust import seeded_key
from support.trust import NOW_MS

Door = Callable[[bytes], object]


@dataclass(frozen=True)
class Kept:
    """Honest bytes and the door that they pass. `step`: of slow doors every so many positions, in the short form alone."""

    data: bytes
    door: Door
    step: int = 1


def _site_files(samples: Samples) -> Iterator[tuple[str, Kept]]:
    """Each metadata file and the assignment, in its place among the others."""
    given = samples.files
    for name, data in given.items():

        def door(one: bytes, name: str = name) -> object:
            return verify_assignment(samples.trust_state(), {**given, name: one}, now_ms=NOW_MS, clock_synced=False)

        yield f"metadata {name}" if name != "assign.json" else "assignment", Kept(data, door)


def _envelopes(samples: Samples) -> Iterator[tuple[str, Kept]]:
    for target in _signed(samples):
        (honest,) = target.honest or ()
        yield target.name, Kept(honest, target.parse, 7 if target.name == "signed form" else 1)
    token = samples.envelopes["downgrade"]
    yield (
        "downgrade word in an assignment",
        Kept(token, lambda one: verify_downgrade(one, samples.verified.trusted, "gannet")),
    )
    release = {seeded_key(5).key_id: seeded_key(5).public_pem}
    provenance = (TRUST / "package.intoto.jsonl").read_bytes().strip()
    digest = canonical.digest(samples.package)
    yield "provenance", Kept(provenance, lambda one: verify_provenance(one, digest, release))


def _digested(samples: Samples) -> Iterator[tuple[str, Kept]]:
    """What is named by a digest in signed metadata, or sealed by its own."""
    sha256 = canonical.digest(samples.package)
    yield (
        "package",
        Kept(samples.package, lambda one: read_package(one, expected_sha256=sha256, max_unpacked_bytes=1 << 20)),
    )
    for name in ("state-1-active", "state-2-staged"):
        yield (
            f"device {name}",
            Kept((FORMATS / "state" / name).read_bytes(), lambda one: state.decode_state(one, "state")),
        )
    slot = {
        "format": 1,
        "record": 1,
        "phase": "ACTIVE",
        "tries": 0,
        "reason": "",
        "serial": 1,
        "keys": [],
        "failed": [],
        "counter": 0,
    }
    slot["active"] = {"slot": "a", "sha256": "a" * 64, "version": "0.1.0", "serial": 1, "libraries": ""}
    yield "slot record", Kept(sealed(canonical.encode(slot)), lambda one: slot_record.decode_record(one, "slot"))
    identities = parse_identities(READER, "golden")
    folder = FORMATS / "sealed"
    device = seeded_key(9)
    keys = {device.key_id: device.public_pem}

    def opened(envelope: bytes) -> object:
        fs = RealFileSystem()
        return OpenedReturn(Stick(fs, folder, fs.read_bytes), envelope, DEVICE, keys, identities)

    yield "sealed return.json", Kept((folder / "returns" / DEVICE / "return.json").read_bytes(), opened)
    box = (folder / "package.tar.xz.age").read_bytes()
    yield "confidential package", Kept(box, lambda one: decrypt(one, identities, "package", 1 << 16))


def everything(folder: Path) -> dict[str, Kept]:
    samples = Samples(folder)
    return dict([*_site_files(samples), *_envelopes(samples), *_digested(samples)])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kept]:
    return everything(tmp_path_factory.mktemp("every-byte"))


NAMES = (
    *(f"metadata {name}" for name in ("1.root.json", "1.targets.json", "2.release.json", "128.deploy.json", "128.snapshot.json")),
    "metadata timestamp.json", "assignment", "signed receipt", "signed agent-receipt", "signed return.json", "signed kept",
    "signed agent.dsse.json", "signed downgrade", "signed form", "signed answer", "downgrade word in an assignment", "provenance",
    "package", "device state-1-active", "device state-2-staged", "slot record", "sealed return.json", "confidential package",
)  # fmt: skip


def all_refused(one: Kept, altered: Iterable[bytes], record: Callable[[str, object], None]) -> None:
    """Each altered copy is refused by a leaf of the tree of errors; the honest bytes pass before and after."""
    one.door(one.data)
    count = 0
    for data in altered:
        count += 1
        with pytest.raises(PumpdeckError) as caught:
            one.door(data)
        assert type(caught.value) is not PumpdeckError
    record("altered copies", count)
    one.door(one.data)


def flipped(data: bytes, bits: Iterable[int], step: int = 1) -> Iterator[bytes]:
    for at in range(0, len(data), step):
        for bit in bits:
            yield data[:at] + bytes([data[at] ^ (1 << (bit + at) % 8)]) + data[at + 1 :]


def test_nothing_that_is_signed_is_left_out(kept: dict[str, Kept]) -> None:
    """The table and the tests name the same things."""
    assert sorted(kept) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_byte_is_refused(
    kept: dict[str, Kept], name: str, record_property: Callable[[str, object], None]
) -> None:
    """Tampered: each byte in one bit."""
    all_refused(kept[name], flipped(kept[name].data, (0,), kept[name].step), record_property)


@pytest.mark.parametrize("name", NAMES)
def test_every_cut_is_refused(kept: dict[str, Kept], name: str, record_property: Callable[[str, object], None]) -> None:
    """Truncated at every length, the empty file too; and longer by a byte, a line end, or itself."""
    data = kept[name].data
    cuts = (data[:length] for length in range(0, len(data), kept[name].step))
    all_refused(kept[name], (*cuts, data + b"\0", data + b"\n", data + b" ", data + data), record_property)


# Minutes of processor time each; how long that takes depends on what else the computer does.
@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", NAMES)
def test_every_bit_of_every_byte_is_refused(
    kept: dict[str, Kept], name: str, record_property: Callable[[str, object], None]
) -> None:
    """Tampered: each byte in each of its bits, each byte set to zero and to 255; no position is left out."""
    data = kept[name].data
    all_refused(kept[name], flipped(data, range(8)), record_property)
    for value in (0, 255):
        copies = (data[:at] + bytes([value]) + data[at + 1 :] for at in range(len(data)) if data[at] != value)
        all_refused(kept[name], copies, record_property)


@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_the_list_of_a_bundle_grants_nothing(how: str, record_property: Callable[[str, object], None]) -> None:
    """bundle.json and bundle.id are unsigned: an altered list is refused, or each file that it lets through is the honest one."""
    tar = (FORMATS / "bundle.tar").read_bytes()
    members = {name: tar[at : at + size] for name, (at, size) in read_members(_Memory(tar), "bundle").items()}
    honest = parse_index(members["bundle.json"])
    count = same = 0
    for name, parse in (("bundle.json", parse_index), ("bundle.id", parse_mark)):
        data = members[name]
        copies = flipped(data, range(8)) if how == "flipped" else (data[:length] for length in range(len(data)))
        for one in copies:
            count += 1
            try:
                found = parse(one)
            except PumpdeckError:
                continue
            same += 1
            listed = getattr(found, "files", {})
            through = {
                path
                for path, file in listed.items()
                if path in members and file.digest == canonical.digest(members[path])
            }
            assert through <= set(honest.files)
            assert all(listed[path].digest == honest.files[path].digest for path in through)
    record_property("altered copies", count)
    assert how == "flipped" or same == 0


@pytest.mark.parametrize("name", ["manifest.json", "floor.json"])
def test_a_list_that_is_signed_for_by_digest_reads_back_as_written(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """Of these the digest is signed or sealed elsewhere; by themselves an altered copy is refused or says what its bytes say."""
    from pumpdeck_packaging.trust_floor import encode_floor, parse_floor

    data = (TRUST / name).read_bytes()
    count, bits = 0, (0,) if name == "manifest.json" else range(8)
    for one in (*flipped(data, bits), *(data[:length] for length in range(len(data)))):
        count += 1
        try:
            read = parse_manifest(one) if name == "manifest.json" else parse_floor(one)
        except PumpdeckError:
            continue
        written = canonical.encode(read) if name == "manifest.json" else encode_floor(read)  # type: ignore[arg-type]
        assert json.loads(written) == json.loads(one)
        assert canonical.digest(one) != canonical.digest(data)
    record_property("altered copies", count)


@pytest.mark.parametrize(("magic", "read"), [(b"PDP1 ", decode_record), (b"PDW1 ", decode_shadow)])
def test_a_record_that_does_not_fit_its_digest_is_refused(
    magic: bytes, read: Callable[[bytes, str], object], record_property: Callable[[str, object], None]
) -> None:
    """Tampered: the memory of a pump, of which each byte stands under the digest of its first line."""
    data = magic + sealed(b'{"figures":{}}\n' + base64.b64encode(bytes(60)))
    count = 0
    for one in (*flipped(data, range(8)), *(data[:length] for length in range(len(data)))):
        count += 1
        with pytest.raises(PumpdeckError):
            read(one, "record")
    record_property("altered copies", count)
