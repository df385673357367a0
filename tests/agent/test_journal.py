"""The journal: a chain whose sound part is always readable."""

from __future__ import annotations

from pathlib import Path

from pumpdeck_agent.journal import Journal, JournalKind, JournalLine
from pumpdeck_fleet.core.files import RealFileSystem


def line(counter: int) -> JournalLine:
    return JournalLine(1000 + counter, JournalKind.COMMIT, "a" * 64, "b" * 64, "a" * 64, counter, counter, "reason")


def journal(path: Path) -> Journal:
    return Journal(RealFileSystem(), path / "journal")


def test_lines_are_chained_and_read_back_in_order(tmp_path: Path) -> None:
    for counter in range(3):
        journal(tmp_path).add(line(counter))
    lines = journal(tmp_path).lines()
    assert [one.counter for one in lines] == [0, 1, 2]
    assert len({one.before for one in lines}) == 3


def test_a_cut_last_line_is_left_out_and_written_over(tmp_path: Path) -> None:
    for counter in range(2):
        journal(tmp_path).add(line(counter))
    path = tmp_path / "journal"
    whole = path.read_bytes()
    for length in range(len(whole) // 2 + 1, len(whole)):
        path.write_bytes(whole[:length])
        assert [one.counter for one in journal(tmp_path).lines()] == [0]
        journal(tmp_path).add(line(7))
        assert [one.counter for one in journal(tmp_path).lines()] == [0, 7]


def test_an_altered_line_ends_what_is_believed(tmp_path: Path) -> None:
    for counter in range(3):
        journal(tmp_path).add(line(counter))
    path = tmp_path / "journal"
    path.write_bytes(path.read_bytes().replace(b'"counter":1', b'"counter":9'))
    assert [one.counter for one in journal(tmp_path).lines()] == [0]
    path.write_bytes(path.read_bytes().replace(b'"counter":0', b'"counter":8'))
    assert journal(tmp_path).lines() == ()


def test_a_journal_of_bare_lines_is_still_read(tmp_path: Path) -> None:
    for counter in range(2):
        journal(tmp_path).add(line(counter))
    path = tmp_path / "journal"
    first = path.read_bytes().split(b"\n")[0].split(b" ", 1)[1]
    path.write_bytes(first + b"\n")
    assert [one.counter for one in journal(tmp_path).lines()] == [0]
    journal(tmp_path).add(line(5))
    assert [one.counter for one in journal(tmp_path).lines()] == [0, 5]


def test_a_missing_journal_has_no_lines(tmp_path: Path) -> None:
    assert journal(tmp_path).lines() == ()
