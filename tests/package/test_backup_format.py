"""`backup.json` stands still: today's code reads yesterday's list and writes the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_packaging.backup import BackupFile, BackupFolder, BackupHead, BackupList, check_path

GOLDEN = Path(__file__).parents[1] / "golden" / "formats" / "backup"


def sample() -> BackupList:
    files = {
        "artifacts/sha256/aa/" + "a" * 64: BackupFile(7_800, "a" * 64),
        "fleet.toml": BackupFile(1_200, "b" * 64),
        "pumpdeck.db": BackupFile(90_112, "c" * 64),
        "trust/gannet/metadata/timestamp.json": BackupFile(640, "d" * 64),
    }
    return BackupList(1, "ws-0123456789ab", 1_770_000_000_000, {"ws-0123456789ab": BackupHead(12, "e" * 64)}, files)


def test_the_golden_list_is_written_and_read_today() -> None:
    assert canonical.encode(sample()) == (GOLDEN / "backup.json").read_bytes()
    assert BackupFolder(GOLDEN).read() == sample()


@pytest.mark.parametrize("path", ["", "..", "a/..", "/a", "a//b", "a/./b", "C:a", "a\\b", "a\0", "a ", "a.", "a" * 401, "a/*"])
def test_a_path_that_is_not_safe_everywhere_is_refused(path: str) -> None:
    with pytest.raises(FormatError):
        check_path(path)
