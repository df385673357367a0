"""A second visit with the same stick: only what is new is written, and a pull at any step leaves a return that is whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_agent.config import Layout
from pumpdeck_agent.install_from import install_from
from pumpdeck_agent.outbox import Outgoing
from pumpdeck_agent.sealed_memory import MEMORY_NAME, known_files, remember
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.receipts import ReturnIndex, ReturnItem, ReturnKind
from pumpdeck_packaging.age_box import decrypt, generate_identity
from pumpdeck_packaging.bundle_returns import RETURN_NAME, ReturnWriter, return_folder
from pumpdeck_packaging.bundle_stick import StickFailedError, stick_errors
from pumpdeck_packaging.sealed_return import ReturnReaders, ReturnSigner, SealedFile, write_sealed
from support.devices import Bench, package
from support.sticks import ForwardingFileSystem, FullDisk, PulledDisk, export_to, parts_for, stick_on

DEVICE = "gannet-d1"
READER = generate_identity()
FIRST, SECOND = (b"a" * 900, b"b" * 900, b"c" * 900), (b"b" * 900, b"c" * 900, b"d" * 900)
Write = Callable[[FileSystem, Path, Sequence[bytes]], None]


class Plain:
    """A return that anybody may read."""

    def write(self, fs: FileSystem, folder: Path, items: Sequence[bytes]) -> None:
        stick = stick_on(fs, folder)
        with stick_errors(folder):
            writer = ReturnWriter(stick, DEVICE)
            for data in items:
                writer.put(canonical.digest(data), data)
            writer.finish(b"\n".join(canonical.digest(data).encode() for data in items))

    def read(self, folder: Path) -> tuple[bytes, ...]:
        place = return_folder(folder, DEVICE)
        return tuple((place / name).read_bytes() for name in (place / RETURN_NAME).read_text(encoding="ascii").split())


class Sealed:
    """A return for one reader, by a device that remembers what it encrypted."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[SealedFile, ...]] = {}

    def write(self, fs: FileSystem, folder: Path, items: Sequence[bytes]) -> None:
        listed = [(ReturnItem(ReturnKind.SEGMENT, canonical.digest(data), len(data), "", 0), data) for data in items]

        def index(of: tuple[ReturnItem, ...]) -> tuple[ReturnIndex, bytes]:
            return ReturnIndex(1, DEVICE, 1, 1, of), b"index"

        signer = ReturnSigner(index, lambda data, _type: data)
        with stick_errors(folder):
            readers = ReturnReaders({"office": READER.public}, self.known)
            done = write_sealed(stick_on(fs, folder), DEVICE, readers, listed, signer)
        self.known = {item: (file,) for item, file in done.files.items()}

    def read(self, folder: Path) -> tuple[bytes, ...]:
        place = return_folder(folder, DEVICE)
        said = canonical.parse_json((place / RETURN_NAME).read_bytes(), "return", max_bytes=1 << 20)
        files = [(place / one["digest"]).read_bytes() for one in said["items"]]
        assert [canonical.digest(data) for data in files] == [one["digest"] for one in said["items"]]
        return tuple(decrypt(data, (READER,), "item", 1 << 20) for data in files)


class Counting(ForwardingFileSystem):
    """Counts the files that were written."""

    def __init__(self, inner: FileSystem) -> None:
        super().__init__(inner)
        self.written: list[str] = []

    def open_write(self, path: Path, *, truncate: bool = True) -> Any:
        self.written.append(path.name)
        return self.inner.open_write(path, truncate=truncate)


@pytest.mark.parametrize(("way", "always"), [(Plain, 1), (Sealed, 2)], ids=["plain", "encrypted"])
def test_only_what_is_new_is_written(tmp_path: Path, way: type[Plain] | type[Sealed], always: int) -> None:
    one = way()
    one.write(RealFileSystem(), tmp_path, FIRST)
    counting = Counting(RealFileSystem())
    one.write(counting, tmp_path, SECOND)
    assert len(counting.written) == 1 + always and one.read(tmp_path) == SECOND
    again = Counting(RealFileSystem())
    one.write(again, tmp_path, SECOND)
    assert len(again.written) == always and one.read(tmp_path) == SECOND
    assert len(list(return_folder(tmp_path, DEVICE).iterdir())) == len(SECOND) + always


@pytest.mark.parametrize("way", [Plain, Sealed], ids=["plain", "encrypted"])
def test_pulled_at_every_step_the_older_or_the_newer_return_is_whole(tmp_path: Path, way: type[Plain] | type[Sealed]) -> None:
    step, older = 0, 0
    while True:
        folder, one = tmp_path / str(step), way()
        one.write(RealFileSystem(), folder, FIRST)
        try:
            one.write(PulledDisk(RealFileSystem(), step), folder, SECOND)
        except StickFailedError:
            assert one.read(folder) in (FIRST, SECOND), f"step {step}"
            older += one.read(folder) == FIRST
            one.write(RealFileSystem(), folder, SECOND)
        else:
            break
        assert one.read(folder) == SECOND, f"step {step}"
        step += 1
    assert 0 < older < step
    print(f"{step} pulls")


def test_a_file_that_rotted_on_the_stick_is_written_anew(tmp_path: Path) -> None:
    one = Sealed()
    one.write(RealFileSystem(), tmp_path, FIRST)
    (file,) = one.known[canonical.digest(FIRST[1])]
    place = return_folder(tmp_path, DEVICE) / file.digest
    data = place.read_bytes()
    place.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    one.write(RealFileSystem(), tmp_path, FIRST)
    assert one.read(tmp_path) == FIRST


def test_other_readers_and_a_damaged_memory_forget_what_was_encrypted(tmp_path: Path) -> None:
    fs, layout = RealFileSystem(), Layout(tmp_path)
    file = SealedFile("a" * 64, 9)
    remember(fs, layout, {"office": "age1x"}, {}, {"b" * 64: file})
    assert known_files(fs, layout, {"office": "age1x"}) == {"b" * 64: (file,)}
    assert known_files(fs, layout, {"office": "age1y"}) == {}
    newer = [SealedFile(f"{number:064x}", 9) for number in range(6)]
    for one in newer:
        remember(fs, layout, {"office": "age1x"}, known_files(fs, layout, {"office": "age1x"}), {"b" * 64: one})
    assert known_files(fs, layout, {"office": "age1x"})["b" * 64] == tuple(reversed(newer[-4:]))
    (tmp_path / MEMORY_NAME).write_bytes(b"half")
    assert known_files(fs, layout, {"office": "age1x"}) == {}


def test_a_stick_nearly_full_of_the_last_return_takes_the_next_one(tmp_path: Path) -> None:
    """The room that the earlier return takes counts for the new one: nothing that lies there is dropped for lack of room."""
    bench, built = Bench(tmp_path), package()
    folder = tmp_path / "stick"
    export_to(stick_on(RealFileSystem(), folder), parts_for(bench.assign(built), built))
    agent = bench.agent()
    agent.outbox.add([Outgoing(ReturnKind.SEGMENT, bytes([number]) * 300_000, "P-101A", number) for number in range(4)])
    first = install_from(bench.agent(), stick_on(RealFileSystem(), folder))
    agent.outbox.add([Outgoing(ReturnKind.SEGMENT, b"new" * 1000, "P-101A", 9)])
    full = FullDisk(RealFileSystem(), 200_000, said=1024 * 1024 + 100_000)
    second = install_from(bench.agent(), stick_on(full, folder))
    assert (second.returned, second.problem) == (first.returned + 1, "")
