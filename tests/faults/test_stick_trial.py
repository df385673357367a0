"""A stick is tried before it leaves: whatever is wrong with it is said in one sentence, and it is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_packaging.bundle import claim
from pumpdeck_packaging.bundle_index import TRIAL_NAME
from pumpdeck_packaging.bundle_stick import StickFailedError, StickFileSystem, real_stick
from pumpdeck_packaging.stick_trial import PIECE_BYTES, StickFigures, name_traps, try_stick
from support.sticks import ForwardingFileSystem, FullDisk, LyingDisk, PulledDisk, ReadOnlyDisk, stick_on

AMOUNT = 3000


def clock(step_s: float = 0.5) -> Callable[[], float]:
    ticks = count()
    return lambda: next(ticks) * step_s


def tried(fs: FileSystem, folder: Path, amount: int = AMOUNT) -> StickFigures:
    return try_stick(stick_on(fs, folder), clock(), lambda *_: None, amount_bytes=amount)


def test_a_good_stick_tells_its_speed_and_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    found = try_stick(real_stick(tmp_path), clock(), lambda *_: None, amount_bytes=AMOUNT)
    assert (found.folder, found.tried_bytes, found.folds_case) == (str(tmp_path), AMOUNT, False)
    assert (found.write_bytes_per_s, found.read_bytes_per_s) == (AMOUNT / 0.5, AMOUNT / 0.5)
    assert found.seconds_for(2 * AMOUNT) == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_slow_stick_is_not_waited_for(tmp_path: Path) -> None:
    found = try_stick(stick_on(RealFileSystem(), tmp_path), clock(15.0), lambda *_: None)
    assert found.tried_bytes == PIECE_BYTES


def test_a_stick_that_folds_case_is_noticed(tmp_path: Path) -> None:
    class Fat(ForwardingFileSystem):
        def exists(self, path: Path) -> bool:
            return bool(self.inner.exists(path) or self.inner.exists(path.with_name(path.name.lower())))

    assert tried(Fat(RealFileSystem()), tmp_path).folds_case


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        (lambda fs: ReadOnlyDisk(fs), "Read-only file system"),
        (lambda fs: FullDisk(fs, 100, said=1 << 30), "No space left"),
        (lambda fs: LyingDisk(fs, 100), "other bytes than were written"),
    ],
    ids=["read-only", "full", "lying"],
)
def test_a_bad_stick_is_refused_and_left_as_it_was(tmp_path: Path, disk: Callable[[FileSystem], FileSystem], words: str) -> None:
    with pytest.raises(StickFailedError, match=words):
        tried(disk(RealFileSystem()), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_stick_without_room_is_refused_before_it_is_written_to(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no room"):
        tried(FullDisk(RealFileSystem(), 1000, said=1000), tmp_path)
    assert not list(tmp_path.iterdir())


def test_pulled_at_every_step_the_next_trial_finds_a_good_stick(tmp_path: Path) -> None:
    step = 0
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        try:
            tried(PulledDisk(RealFileSystem(), step), folder)
        except StickFailedError:
            assert tried(RealFileSystem(), folder).tried_bytes == AMOUNT
            assert not list(folder.iterdir())
        else:
            break
        step += 1
    assert step >= 10
    print(f"{step} pulls")


def test_a_link_in_the_place_of_the_trial_is_not_followed(tmp_path: Path) -> None:
    """Symlink: a stick on which the trial's own names point at somebody's files."""
    (tmp_path / "dear").write_bytes(b"dear")
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / f"{TRIAL_NAME}0").symlink_to(tmp_path / "dear")
    assert try_stick(real_stick(stick), clock(), lambda *_: None, amount_bytes=AMOUNT).tried_bytes == AMOUNT
    assert (tmp_path / "dear").read_bytes() == b"dear" and not list(stick.iterdir())


def test_what_a_cut_trial_left_does_not_stand_in_the_way_of_a_bundle(tmp_path: Path) -> None:
    (tmp_path / f"{TRIAL_NAME}0").write_bytes(b"half")
    assert claim(real_stick(tmp_path), "ws-test", "b-0123456789ab") == "b-0123456789ab"


@pytest.mark.parametrize(
    ("path", "size", "words"),
    [
        ("makers/nul.toml", 1, "a name of Windows"),
        ("makers/Con", 1, "a name of Windows"),
        ("makers/a:b.toml", 1, "no name there"),
        ("makers/end.", 1, "no name there"),
        ("makers/tab\t", 1, "no name there"),
        ("pumpdeck.db", 1 << 32, "over 4 GB"),
    ],
)
def test_each_trap_of_fat_is_named(path: str, size: int, words: str) -> None:
    (sentence,) = name_traps([(path, size), ("fleet.toml", 3)])
    assert sentence.startswith(path.rstrip("\t")) and words in sentence


def test_names_that_differ_by_case_alone_are_a_trap_where_case_is_folded() -> None:
    twins = [("makers/ABB.toml", 1), ("makers/abb.toml", 1)]
    assert len(name_traps(twins)) == 2
    assert name_traps(twins, folds_case=False) == ()
    assert name_traps([("fleet.toml", (1 << 32) - 1), ("artifacts/sha256/ab/" + "a" * 64, 9)]) == ()


def test_the_real_reader_of_sticks_is_the_one_that_passes_the_cache() -> None:
    assert real_stick(Path("/x")).reread.__func__ is StickFileSystem.reread_bytes  # type: ignore[attr-defined]
