"""Rules that hold for all inputs: parsers answer with a value or with one of our errors, never with anything else."""

from __future__ import annotations

import lzma
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging import ustar
from pumpdeck_packaging.manifest import is_member_path, parse_manifest
from pumpdeck_packaging.metadata_form import parse_form
from pumpdeck_packaging.package_reader import PackageFiles, read_package, unpack_to
from pumpdeck_packaging.signing import generate_key, is_protected, load_key, sign_dsse, verify_dsse
from pumpdeck_packaging.trust_floor import FloorEntry, TrustFloor, encode_floor, parse_floor
from support.forge import Files, edited
from support.packages import built_package
from support.trust import SampleSite, verify

BUILT = built_package()
KEY = generate_key()
ROLES = ("targets", "release", "deploy", "snapshot", "timestamp", "root")
NAMES = st.text("abcdefghij0123456789._-/", min_size=1, max_size=40)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SampleSite:
    sample = SampleSite(tmp_path_factory.mktemp("site"))
    sample.deliver()
    return sample


@given(st.dictionaries(st.from_regex(r"[a-z0-9./-]{1,60}", fullmatch=True), st.binary(max_size=2000), max_size=6))
def test_what_ustar_writes_it_reads_back(files: dict[str, bytes]) -> None:
    whole = ustar.write(files)
    position = 0

    def take(count: int) -> bytes:
        nonlocal position
        part = whole[position : position + count]
        assert len(part) == count
        position += count
        return part

    read = {name: take_member(size) for name, size, take_member in ustar.read(take, "tar")}
    assert read == files and position == len(whole) == ustar.length({name: len(data) for name, data in files.items()})


class Recorder(RealFileSystem):
    """Remembers every path that was touched for writing."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def open_write(self, path: Path, *, truncate: bool = True) -> Any:
        self.paths.append(path)
        return super().open_write(path, truncate=truncate)

    def mkdir(self, path: Path) -> None:
        self.paths.append(path)
        super().mkdir(path)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(NAMES, st.binary(max_size=40), max_size=5), st.data())
def test_the_reader_never_writes_outside_its_folder(
    tmp_path_factory: pytest.TempPathFactory, extra: dict[str, bytes], data: st.DataObject
) -> None:
    """Whatever the names in a tar, listed in its manifest or not: nothing is written, or all of it inside the folder."""
    package = read_package(BUILT.data, expected_sha256=BUILT.sha256, max_unpacked_bytes=BUILT.unpacked_bytes)
    manifest = canonical.to_plain(package.manifest)
    listed = {name: content for name, content in extra.items() if data.draw(st.booleans())}
    manifest["files"] |= {name: {"bytes": len(d), "digest": canonical.digest(d)} for name, d in listed.items()}
    members = {**package.files, **extra, "manifest.json": b""}
    length = ustar.length({**{n: len(d) for n, d in members.items()}, "manifest.json": 4096})
    members["manifest.json"] = canonical.encode(manifest | {"unpacked_bytes": length})
    bent = lzma.compress(ustar.write(members))
    folder = tmp_path_factory.mktemp("out") / "inside"
    recorder = Recorder()
    with suppress(PumpdeckError):
        read = read_package(bent, expected_sha256=canonical.digest(bent), max_unpacked_bytes=1 << 20)
        unpack_to(recorder, folder, read)
    assert all(path.resolve().is_relative_to(folder.resolve()) for path in recorder.paths)
    assert all(is_member_path(path.relative_to(folder).as_posix()) for path in recorder.paths if path != folder)


@settings(deadline=None)
@given(st.integers(0, len(BUILT.data) - 1), st.binary(min_size=1, max_size=8))
def test_a_package_of_other_bytes_is_refused_or_the_same(position: int, patch: bytes) -> None:
    """Even when the digest was signed for it, a damaged stream ends in one of our errors, or holds exactly what it should."""
    bent = BUILT.data[:position] + patch + BUILT.data[position + len(patch) :]
    try:
        found = read_package(bent, expected_sha256=canonical.digest(bent), max_unpacked_bytes=BUILT.unpacked_bytes)
    except PumpdeckError:
        return
    assert isinstance(found, PackageFiles) and found.manifest == BUILT.manifest


@settings(deadline=None)
@given(st.binary(max_size=300) | JSON.map(lambda value: canonical_or_empty(value)))
def test_parsers_answer_with_a_value_or_one_of_our_errors(data: bytes) -> None:
    calls = (
        lambda: parse_manifest(data),
        lambda: parse_form("1.root.json", data),
        lambda: parse_form("timestamp.json", data),
        lambda: parse_floor(data),
        lambda: verify_dsse(data, "a", {KEY.key_id: KEY.public_pem}, 4096),
        lambda: load_key(data),
        lambda: load_key(b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + data, b"x"),
        lambda: is_protected(b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + data),
    )
    for call in calls:
        with suppress(PumpdeckError):
            call()


def canonical_or_empty(value: Any) -> bytes:
    try:
        return canonical.encode(value)
    except ValueError:
        return b""


@given(st.binary(max_size=200), st.text(max_size=30))
def test_an_envelope_gives_back_what_was_signed(payload: bytes, kind: str) -> None:
    envelope = sign_dsse(payload, kind, KEY)
    assert verify_dsse(envelope, kind, {KEY.key_id: KEY.public_pem}, 10_000) == payload
    assert envelope == sign_dsse(payload, kind, KEY)


@settings(deadline=None)
@given(st.data())
def test_an_envelope_of_other_bytes_is_refused(data: st.DataObject) -> None:
    envelope = sign_dsse(b'{"counter":7}', "kind", KEY)
    position = data.draw(st.integers(0, len(envelope) - 1))
    bent = bytearray(envelope)
    bent[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PumpdeckError):
        verify_dsse(bytes(bent), "kind", {KEY.key_id: KEY.public_pem}, 10_000)


@given(
    st.integers(0, 2**50),
    st.lists(st.text("abcdef0123456789", min_size=64, max_size=64), max_size=2),
    st.dictionaries(st.sampled_from(ROLES), st.integers(0, 2**50)),
)
def test_a_floor_reads_back(seq: int, keys: list[str], roles: dict[str, int]) -> None:
    floor = TrustFloor(
        seq=FloorEntry(seq, tuple(keys)),
        assignment="ab" * 32,
        roles={role: FloorEntry(number, tuple(keys)) for role, number in roles.items()},
    )
    assert parse_floor(encode_floor(floor)) == floor


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_signed_nonsense_is_refused_with_one_of_our_errors(site: SampleSite, data: st.DataObject) -> None:
    """The right keys sign a role in which any one value was exchanged for anything: no other exception comes through."""
    files = site.files()
    role = data.draw(st.sampled_from(ROLES))
    replacement = data.draw(JSON)

    def exchange(signed: dict[str, Any]) -> None:
        if role == "root":
            signed["version"] = 2
        spot: Any = signed
        while True:
            keys = sorted(spot) if isinstance(spot, dict) else list(range(len(spot)))
            key = data.draw(st.sampled_from(keys))
            inner = spot[key]
            if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
                spot[key] = replacement
                return
            spot = inner

    bent = _bend(files, site, role, exchange)
    try:
        found = verify(site.state(), {**files, **bent} if role == "root" else bent)
    except PumpdeckError:
        return
    assert found.assignment.device == "gannet-d1"


def _bend(files: Files, site: SampleSite, role: str, exchange: Any) -> Files:
    try:
        return edited(files, site.keys, role, exchange)
    except (PumpdeckError, ValueError, TypeError, KeyError):
        # Not even the forger can sign or place this value.
        return files
