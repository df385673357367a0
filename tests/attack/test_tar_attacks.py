"""A bundle that came by mail from anybody: whatever its tar says, nothing is written, nothing runs, nothing is read outside."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pumpdeck_agent.install_from_tar import answer_path, install_from_tar
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError, PumpdeckError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging import ustar
from pumpdeck_packaging.bundle_tar import open_tar
from pumpdeck_packaging.bundle_tar_writer import real_place, write_bundle_tar
from support.devices import Bench, package
from support.sticks import WORKSPACE, parts_for

RUNS = package(shift=0.0)
NEXT = package(shift=0.5)


@dataclass
class Mail:
    """A device that runs one package, and an honest letter that brings the next."""

    bench: Bench
    path: Path

    def standing(self) -> tuple[object, ...]:
        status = self.bench.status()
        layout = self.bench.agent().layout
        files = sorted(str(one) for one in self.bench.root.rglob("*") if "locks" not in str(one))
        return status["active"], status["seq"], status["counter"], layout.trust_floor.read_bytes(), len(files)

    def members(self) -> list[tuple[str, bytes]]:
        with tarfile.open(self.path) as found:
            return [(one.name, found.extractfile(one).read()) for one in found.getmembers()]  # type: ignore[union-attr]

    def write(self, members: list[tuple[str, bytes]]) -> None:
        """A tar of our own form with any names and bytes."""
        parts = [ustar.header(name, len(data)) + data.ljust(ustar.padded(len(data)), b"\0") for name, data in members]
        data = b"".join(parts)
        size = -(-(len(data) + ustar.BLOCK) // ustar.RECORD) * ustar.RECORD
        self.path.write_bytes(data.ljust(size, b"\0"))


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[Mail]:
    bench = Bench(tmp_path)
    bench.install(RUNS, "task-1")
    path = tmp_path / "letter.tar"
    write_bundle_tar(
        real_place(path), WORKSPACE, parts_for(bench.assign(NEXT, "task-2"), NEXT),
        before_index=lambda: None, on_progress=lambda *_: None,
    )  # fmt: skip
    yield Mail(bench, path)


def refused(mail: Mail) -> None:
    """Turned down as damaged before anything is written; the device runs on."""
    before = mail.standing()
    with pytest.raises(DamagedError):
        install_from_tar(mail.bench.agent(), mail.path)
    assert mail.standing() == before
    assert not answer_path(mail.path, mail.bench.device).exists()


def test_the_honest_letter_is_taken(mail: Mail) -> None:
    """The control: without an attack the same letter installs."""
    visit = install_from_tar(mail.bench.agent(), mail.path)
    assert (visit.outcome, visit.exit_code) == ("committed", 0)
    assert answer_path(mail.path, mail.bench.device).exists()


NAMES = (
    "../evil", "sites/../../evil", "/etc/evil", "sites/gannet/packages/..", "sites\\gannet\\packages\\x",
    "sites/gannet/packages/x:y", "Sites/gannet/packages/x", "sites/GANNET/packages/x", "sites/con/packages/x",
    "sites/gannet/packages/nul.txt", "sites/gannet/keys/x", "sites/gannet/packages/a/b", "returns/d1", "agent.json",
    "sites/gannet", "./bundle.id", "sites//packages/x", "returns/d1/x/y", "~root",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_foreign_names(mail: Mail, name: str) -> None:
    """`..`, absolute, backslash, drive letter, case-fold twins, reserved names, folders of ours that no bundle has."""
    mail.write([*mail.members(), (name, b"evil")])
    refused(mail)
    assert not (mail.path.parent / "evil").exists()


KINDS: dict[str, bytes] = {
    "hard link": tarfile.LNKTYPE, "symbolic link": tarfile.SYMTYPE, "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE, "folder": tarfile.DIRTYPE, "pipe": tarfile.FIFOTYPE, "contiguous": tarfile.CONTTYPE,
    "sparse": tarfile.GNUTYPE_SPARSE, "long name": tarfile.GNUTYPE_LONGNAME, "pax header": tarfile.XHDTYPE,
    "global pax header": tarfile.XGLTYPE,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["first", "last"])
def test_members_that_are_no_plain_files(mail: Mail, kind: str, place: str) -> None:
    """Links, devices, pipes, folders, sparse maps and extension headers, before and behind the honest ones."""
    honest = mail.path.read_bytes()
    one = tarfile.TarInfo("sites/gannet/packages/" + "0" * 64)
    one.type, one.linkname = KINDS[kind], "/etc/passwd"
    block = one.tobuf(tarfile.USTAR_FORMAT if kind != "sparse" else tarfile.GNU_FORMAT)[:512]
    end = honest.rstrip(b"\0")
    cut = -(-len(end) // 512) * 512
    members = honest[:cut]
    data = block + members if place == "first" else members + block
    mail.path.write_bytes(data.ljust(-(-(len(data) + 512) // ustar.RECORD) * ustar.RECORD, b"\0"))
    refused(mail)


def test_a_name_twice(mail: Mail) -> None:
    """The second of two members of one name is what another reader might take."""
    members = mail.members()
    mail.write([*members, (members[1][0], b"other")])
    refused(mail)


def test_truncated_at_many_lengths(mail: Mail) -> None:
    """A cut letter, at every 997th length."""
    whole = mail.path.read_bytes()
    before = mail.standing()
    for length in range(0, len(whole), 997):
        mail.path.write_bytes(whole[:length])
        with pytest.raises(PumpdeckError):
            install_from_tar(mail.bench.agent(), mail.path)
    assert mail.standing() == before


def test_bytes_behind_the_end(mail: Mail) -> None:
    """Something hidden behind the last record, or in the padding of the end."""
    whole = mail.path.read_bytes()
    mail.path.write_bytes(whole + b"x")
    refused(mail)
    mail.path.write_bytes(whole + bytes(ustar.RECORD))
    refused(mail)
    mail.path.write_bytes(whole[:-1] + b"x")
    refused(mail)


def test_a_length_that_is_not_there(mail: Mail) -> None:
    """A bomb by header: a member of 8 GB in a letter of some kB takes neither memory nor time."""
    whole = mail.path.read_bytes()
    block = ustar.header("sites/gannet/packages/" + "0" * 64, ustar.MAX_MEMBER_BYTES)
    mail.path.write_bytes(block + whole)
    tracemalloc.start()
    refused(mail)
    assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    tracemalloc.stop()


def test_a_sparse_file_of_zeros(mail: Mail) -> None:
    """A file of 3 GB that takes no room on the attacker's side is no letter, and is not read into memory."""
    with mail.path.open("r+b") as stream:
        stream.truncate(3 * 1024 * 1024 * 1024)
    refused(mail)


def test_more_members_than_a_bundle_has(tmp_path: Path) -> None:
    """Headers without end: the walk stops at the limit."""
    path = tmp_path / "many.tar"
    blocks = b"".join(ustar.header(f"sites/s/assign/d{number}", 0) for number in range(20_010))
    path.write_bytes(blocks.ljust(-(-(len(blocks) + 512) // ustar.RECORD) * ustar.RECORD, b"\0"))
    with pytest.raises(DamagedError, match="too many"):
        open_tar(path, RealFileSystem())


def test_every_byte_of_every_header_flipped(mail: Mail) -> None:
    """Each header byte with its lowest bit turned: refused, or the very same meaning was never there."""
    whole = mail.path.read_bytes()
    before, at, tried = mail.standing(), 0, 0
    agent = mail.bench.agent()
    while any(block := whole[at : at + 512]):
        _, size = ustar.parse_header(block, "letter")
        for place in range(at, at + 512):
            mail.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            try:
                letter = open_tar(mail.path, RealFileSystem())
            except DamagedError:
                tried += 1
                continue
            letter.close()
            visit = install_from_tar(agent, mail.path)
            assert visit.exit_code != 0 and visit.outcome == "refused", place
            tried += 1
        at += 512 + ustar.padded(size)
        if at > 6 * 1024:
            break
    assert tried >= 4 * 512
    assert mail.standing()[:2] == before[:2]


@pytest.mark.parametrize("twist", ["package", "assignment", "index", "metadata"])
def test_honest_form_with_other_bytes(mail: Mail, twist: str) -> None:
    """The tar is of perfect form, the list fits: TUF and the digests decide as on a stick."""
    members = mail.members()
    ends = {"package": "/packages/", "assignment": "/assign/", "index": "bundle.json", "metadata": ".snapshot.json"}

    def turned(name: str, data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:] if ends[twist] in name else data

    changed = [(name, turned(name, data)) for name, data in members]
    if twist != "index":
        import json

        listed = json.loads(dict(members)["bundle.json"])
        for name, data in changed:
            if name in listed["files"]:
                listed["files"][name] = {"bytes": len(data), "digest": canonical.digest(data)}
        changed = [(name, data if name != "bundle.json" else canonical.encode(listed)) for name, data in changed]
    mail.write(changed)
    before = mail.standing()
    visit = install_from_tar(mail.bench.agent(), mail.path)
    assert visit.exit_code in (3, 5, 6) and visit.outcome in ("refused", "none")
    assert mail.standing()[0] == before[0]


def test_a_pipe_and_a_folder_in_the_place_of_a_letter(mail: Mail, tmp_path: Path) -> None:
    """What waits for ever or is no file is not opened as one."""
    mail.path.unlink()
    mail.path.mkdir()
    with pytest.raises(PumpdeckError):
        install_from_tar(mail.bench.agent(), mail.path)


def test_compressed_letters_are_not_unpacked(mail: Mail) -> None:
    """A zip bomb, a gzip or an xz bomb is no tar: its first block is refused."""
    import gzip
    import lzma

    whole = mail.path.read_bytes()
    import zipfile

    def zipped(data: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("sites/gannet/packages/x", data)
        return stream.getvalue()

    packers: tuple[Callable[[bytes], bytes], ...] = (gzip.compress, lzma.compress, zipped)
    for pack in packers:
        mail.path.write_bytes(pack(whole + bytes(10_000_000)))
        refused(mail)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as packed:
        packed.add(str(mail.path), "sites/gannet/packages/x")
    mail.path.write_bytes(stream.getvalue())
    refused(mail)
