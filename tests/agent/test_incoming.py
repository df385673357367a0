"""Packages on their way in: known by hash, resumed after a break, sealed once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pumpdeck_agent.config import AgentLimits, Layout
from pumpdeck_agent.incoming import BLOB_MAX_BYTES, Incoming
from pumpdeck_agent.platform_here import FileLocks
from pumpdeck_agent.platform_port import Platform
from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import DigestMismatchError, FormatError, NotFoundError, RefusedError, TooLargeError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.rpc import CHUNK_BYTES

BLOB = random.Random(3).randbytes(3 * CHUNK_BYTES + 1000)
NAME = digest(BLOB)
PIECES = [BLOB[i : i + CHUNK_BYTES] for i in range(0, len(BLOB), CHUNK_BYTES)]
HASHES = b"".join(bytes.fromhex(digest(piece)) for piece in PIECES)


def incoming(tmp_path: Path, *, installed: bool = False, keep_free_bytes: int = 0) -> Incoming:
    layout = Layout(tmp_path)
    layout.incoming.mkdir(exist_ok=True)
    platform = Platform(RealFileSystem(), FixedClock(0), FileLocks(), lambda: False)
    return Incoming(platform, layout, AgentLimits(keep_free_bytes=keep_free_bytes), lambda _: installed)


def test_chunks_in_any_order_give_the_blob(tmp_path: Path) -> None:
    box = incoming(tmp_path)
    assert box.missing(NAME, len(BLOB), HASHES).runs == ((0, 4),)
    for index in (2, 0, 3, 1):
        box.write_chunk(NAME, index, PIECES[index])
    box.seal(NAME, len(BLOB))
    box.seal(NAME, len(BLOB))
    assert box.read(NAME) == BLOB
    assert box.missing(NAME, len(BLOB), HASHES).complete


def test_after_a_break_only_what_lacks_is_asked_for(tmp_path: Path) -> None:
    box = incoming(tmp_path)
    for index in (0, 2):
        box.write_chunk(NAME, index, PIECES[index])
    # A file of the right length proves nothing: chunk 1 is a hole of zeros.
    assert incoming(tmp_path).missing(NAME, len(BLOB), HASHES).runs == ((1, 1), (3, 1))


def test_a_spoilt_chunk_is_asked_for_again(tmp_path: Path) -> None:
    box = incoming(tmp_path)
    for index, piece in enumerate(PIECES):
        box.write_chunk(NAME, index, piece if index != 1 else b"x" * len(piece))
    assert box.missing(NAME, len(BLOB), HASHES).runs == ((1, 1),)


def test_a_blob_that_is_not_its_name_is_not_sealed(tmp_path: Path) -> None:
    box = incoming(tmp_path)
    for index, piece in enumerate(PIECES):
        box.write_chunk(NAME, index, piece[::-1])
    with pytest.raises(DigestMismatchError):
        box.seal(NAME, len(BLOB))
    assert not box.has(NAME)
    with pytest.raises(NotFoundError):
        box.seal(NAME, len(BLOB))


def test_what_is_installed_needs_no_bytes(tmp_path: Path) -> None:
    assert incoming(tmp_path, installed=True).missing(NAME, len(BLOB), HASHES).complete


@pytest.mark.parametrize(
    ("index", "data"), [(-1, b"x"), (BLOB_MAX_BYTES // CHUNK_BYTES, b"x"), (0, b""), (0, b"x" * (CHUNK_BYTES + 1))]
)
def test_a_chunk_outside_the_blob_is_refused(tmp_path: Path, index: int, data: bytes) -> None:
    with pytest.raises(FormatError):
        incoming(tmp_path).write_chunk(NAME, index, data)
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize("name", ["", "../state.0", "A" * 64, "a" * 63, "a" * 64 + "/x"])
def test_a_name_that_is_no_digest_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    box = incoming(tmp_path)
    for call in (lambda: box.write_chunk(name, 0, b"x"), lambda: box.seal(name, 1), lambda: box.missing(name, 1, b"0" * 32)):
        with pytest.raises(FormatError):
            call()
    assert list((tmp_path / "incoming").iterdir()) == []


def test_limits_are_checked_before_a_byte_is_taken(tmp_path: Path) -> None:
    with pytest.raises(TooLargeError):
        incoming(tmp_path).missing(NAME, BLOB_MAX_BYTES + 1, b"")
    with pytest.raises(FormatError):
        incoming(tmp_path).missing(NAME, len(BLOB), HASHES[:-32])
    with pytest.raises(RefusedError):
        incoming(tmp_path, keep_free_bytes=1 << 60).missing(NAME, len(BLOB), HASHES)


def test_unfinished_blobs_do_not_pile_up(tmp_path: Path) -> None:
    box = incoming(tmp_path)
    for n in range(12):
        blob = bytes([n]) * 10
        box.missing(digest(blob), 10, bytes.fromhex(digest(blob)))
        box.write_chunk(digest(blob), 0, blob)
    assert len(list((tmp_path / "incoming").iterdir())) <= 5
