"""Attacks on a package. Each is refused before anything is written, even when the digest was signed for it."""

from __future__ import annotations

import io
import json
import lzma
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError, DigestMismatchError, FormatError, PumpdeckError, TooLargeError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging import ustar
from pumpdeck_packaging.manifest import UNPACKED_MAX_BYTES
from pumpdeck_packaging.package_reader import read_package, unpack_to
from support.packages import built_package

FS = RealFileSystem()
BUILT = built_package()
LIMIT = 4 * BUILT.unpacked_bytes


def members() -> dict[str, bytes]:
    package = read_package(BUILT.data, expected_sha256=BUILT.sha256, max_unpacked_bytes=BUILT.unpacked_bytes)
    return package.members()


def install(data: bytes, folder: Path, limit: int = LIMIT, sha256: str | None = None) -> None:
    """What a device does with bytes that signed metadata vouches for."""
    package = read_package(data, expected_sha256=sha256 or canonical.digest(data), max_unpacked_bytes=limit)
    unpack_to(FS, folder / "staged", package)


def refused(data: bytes, folder: Path, error: type[PumpdeckError], match: str | None = None, **more: Any) -> None:
    """Assert that it is refused and that the folder, and what lies around it, is as before."""
    before = sorted(path.name for path in folder.parent.rglob("*"))
    with pytest.raises(error, match=match):
        install(data, folder, **more)
    assert sorted(path.name for path in folder.parent.rglob("*")) == before


SMALL = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 1 << 16}]


def xz(tar: bytes) -> bytes:
    return lzma.compress(tar, check=lzma.CHECK_CRC64, filters=SMALL)


def tar_of(*infos: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar made by the standard library: the honest members, then what the attacker adds, sorted by name."""
    target = io.BytesIO()
    honest = []
    for name, data in members().items():
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        honest.append((info, data))
    with tarfile.open(fileobj=target, mode="w", format=kind) as archive:
        for info, data in sorted([*honest, *infos], key=lambda pair: pair[0].name):
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def member(name: str, data: bytes = b"x", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def test_the_honest_tar_made_by_the_standard_library_is_the_package(tmp_path: Path) -> None:
    """The attacks below differ from this one by what they add and nothing else."""
    install(xz(tar_of()), tmp_path)
    assert (tmp_path / "staged" / "pumps" / "p-100a.block").is_file()


@pytest.mark.parametrize(
    "added",
    [
        member("zz-link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("zz-link", b"", type=tarfile.LNKTYPE, linkname="manifest.json"),
        member("zz-fifo", b"", type=tarfile.FIFOTYPE),
        member("zz-null", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("zz-disk", b"", type=tarfile.BLKTYPE, devmajor=8),
        member("zz-folder", b"", type=tarfile.DIRTYPE),
        member("zz-old", type=tarfile.AREGTYPE),
        member("zz-sparse", type=tarfile.GNUTYPE_SPARSE),
        member("zz-suid", mode=0o4755),
        member("zz-time", mtime=1_700_000_000),
        member("zz-owner", uid=1000),
        member("zz-name", uname="root"),
    ],
    ids=lambda pair: f"{pair[0].name}-{pair[0].type!r}",
)
def test_a_member_that_is_not_a_plain_file_is_refused(tmp_path: Path, added: tuple[tarfile.TarInfo, bytes]) -> None:
    """Links, devices, folders, owners, modes and times: a package holds plain files and nothing else."""
    refused(xz(tar_of(added)), tmp_path / "root", FormatError, "not a plain file")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/cron.d/evil",
        "../evil",
        "pumps/../../evil",
        "pumps/./x",
        "pumps//x",
        "..",
        ".hidden",
        "C:evil",
        "c:\\evil",
        "pumps\\evil",
        "Model-esp.onnx",
        "PUMPS/p-100a.block",
        "pumps/deep/x",
        "other/x",
        "con ",
        "x" * 100,
        "trailing.",
        "nul\x7f",
        "white space",
        "zz%2e%2e",
    ],
)
def test_a_name_that_leaves_the_folder_or_means_two_things_is_refused(tmp_path: Path, name: str) -> None:
    """Absolute, climbing, with drive letters, backslashes, capitals (twins on Windows), hidden or too deep."""
    refused(xz(tar_of(member(name))), tmp_path / "root", FormatError)


def test_long_names_by_extension_headers_are_refused(tmp_path: Path) -> None:
    """pax and GNU headers carry a second name, which another reader would take."""
    long = "pumps/" + "x" * 120
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        refused(xz(tar_of(member(long), kind=kind)), tmp_path / "root", FormatError)
    info, data = member("zz")
    info.pax_headers = {"path": "../evil"}
    refused(xz(tar_of((info, data), kind=tarfile.PAX_FORMAT)), tmp_path / "root", FormatError)


def test_a_member_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """The reader checks the first and writes the second."""
    tar = tar_of(member("model-esp.onnx", b"evil"))
    refused(xz(tar), tmp_path / "root", FormatError, "twice")


def test_members_out_of_order_are_refused(tmp_path: Path) -> None:
    """One meaning, one file."""
    parts = []
    for name, data in sorted(members().items(), reverse=True):
        parts.append(ustar.header(name, len(data)) + data + bytes(-len(data) % 512))
    refused(xz(b"".join(parts) + bytes(10240)), tmp_path / "root", FormatError, "out of order")


def test_an_unlisted_member_is_refused(tmp_path: Path) -> None:
    """A file rides along that the manifest does not know."""
    refused(xz(ustar.write({**members(), "zz": b"evil"})), tmp_path / "root", FormatError, "unlisted")


def test_a_missing_member_is_refused(tmp_path: Path) -> None:
    """A listed file was left out."""
    for name in members():
        rest = {other: data for other, data in members().items() if other != name}
        refused(xz(ustar.write(rest)), tmp_path / "root", DamagedError)


def test_an_exchanged_member_is_refused(tmp_path: Path) -> None:
    """The graph is another one of the same length."""
    for name in members():
        if name != "manifest.json":
            bent = {**members(), name: members()[name][:-1] + b"\xff"}
            refused(xz(ustar.write(bent)), tmp_path / "root", DigestMismatchError)


def test_bytes_hidden_in_padding_or_behind_the_end_are_refused(tmp_path: Path) -> None:
    """Whatever is not part of a member must be zero."""
    tar = ustar.write(members())
    first = min(members())
    end = 512 + len(members()[first])
    if end % 512:
        refused(xz(tar[:end] + b"e" + tar[end + 1 :]), tmp_path / "root", FormatError, "padding")
    refused(xz(tar[:-1] + b"e"), tmp_path / "root", FormatError, "after the last member")
    refused(xz(tar + bytes(10240)), tmp_path / "root", PumpdeckError)
    refused(xz(tar) + b"e", tmp_path / "root", FormatError, "behind its end")
    refused(xz(tar) + xz(tar), tmp_path / "root", FormatError, "behind its end")


def test_a_cut_package_is_refused_at_every_length(tmp_path: Path) -> None:
    """Truncated: the stick was pulled."""
    for length in range(0, len(BUILT.data), 13):
        refused(BUILT.data[:length], tmp_path / "root", FormatError)


def test_other_bytes_than_promised_are_not_even_unpacked(tmp_path: Path) -> None:
    """Every single bit of a package counts, before the decoder sees it."""
    for position in range(0, len(BUILT.data), 7):
        bent = bytearray(BUILT.data)
        bent[position] ^= 1
        refused(bytes(bent), tmp_path / "root", DigestMismatchError, sha256=BUILT.sha256)


def _peak_mb() -> float:
    import resource  # POSIX only, like the test that asks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.skipif(sys.platform == "win32", reason="needs the process's peak memory")
def test_a_decompression_bomb_is_stopped_at_the_signed_length(tmp_path: Path) -> None:
    """Xz bomb: 256 MiB of zeros in 40 kB, bare and as a member that says 1 GiB."""
    encoder = lzma.LZMACompressor(filters=SMALL)
    zeros = bytes(1024 * 1024)
    bomb = b"".join([encoder.compress(zeros) for _ in range(256)] + [encoder.flush()])
    head = ustar.header("zz-bomb", 1024 * 1024 * 1024 - 512)
    named = lzma.LZMACompressor(filters=SMALL)
    tar_bomb = b"".join([named.compress(head), *(named.compress(zeros) for _ in range(64)), named.flush()])
    before = _peak_mb()
    for data in (bomb, tar_bomb):
        refused(data, tmp_path / "root", PumpdeckError)
    refused(tar_bomb, tmp_path / "root", TooLargeError, limit=UNPACKED_MAX_BYTES)
    assert _peak_mb() - before < 32


def test_a_dictionary_that_eats_the_memory_is_refused(tmp_path: Path) -> None:
    """Xz bomb: the stream asks for 1.5 GB of dictionary to unpack a few bytes."""
    data = bytearray(xz(ustar.write(members())))
    # The dictionary size is one byte in the block header (offset 16 of a one-block stream); its CRC32 follows.
    assert data[12] == 2 and data[14] == 0x21
    data[16] = 40
    data[20:24] = zlib.crc32(bytes(data[12:20])).to_bytes(4, "little")
    refused(bytes(data), tmp_path / "root", TooLargeError, "memory")


def _manifest(change: Callable[[dict[str, Any]], None]) -> bytes:
    plain = json.loads(members()["manifest.json"])
    change(plain)
    return xz(ustar.write({**members(), "manifest.json": canonical.encode(plain)}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 2),
        (("device",), "../x"),
        (("unpacked_bytes",), 1),
        (("unpacked_bytes",), 2**50),
        (("unpacked_bytes",), -1),
        (("models", 0, "payload"), "manifest.json"),
        (("models", 0, "golden"), "../../etc/passwd"),
        (("payloads", 0, "digest"), "0" * 64),
        (("payloads", 0, "kind"), "shell"),
        (("payloads", 0, "bytes"), True),
        (("pumps", 0, "block"), "/etc/passwd"),
        (("pumps", 0, "tag"), "con"),
        (("pumps", 0, "pump_type"), "unknown"),
        (("pumps", 0, "channels"), []),
        (("pumps", 0, "limit"), None),
        (("files", "../evil"), {"bytes": 1, "digest": "0" * 64}),
        (("files", "model-esp.onnx", "bytes"), -1),
        (("surprise",), 1),
    ],
    ids=str,
)
def test_a_bent_manifest_is_refused(tmp_path: Path, path: tuple[Any, ...], value: object) -> None:
    """Every field is checked, and nothing unknown is passed over."""

    def change(plain: dict[str, Any]) -> None:
        spot: Any = plain
        for step in path[:-1]:
            spot = spot[step]
        spot[path[-1]] = value

    refused(_manifest(change), tmp_path / "root", DamagedError)


def test_a_manifest_in_another_spelling_is_refused(tmp_path: Path) -> None:
    """Spaces, another order, or the same key twice: one manifest, one digest."""
    plain = json.loads(members()["manifest.json"])
    spaced = json.dumps(plain, sort_keys=True).encode()
    twice = members()["manifest.json"][:-1] + b',"format":1}'
    deep = b"[" * 100_000 + b"]" * 100_000
    for data in (spaced, twice, deep, b"", b"\0" * 100, b"{" * 200, members()["manifest.json"] + b" "):
        refused(xz(ustar.write({**members(), "manifest.json": data})), tmp_path / "root", DamagedError)
