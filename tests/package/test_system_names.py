"""What Windows and macOS leave on a stick without being asked stands in nobody's way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pumpdeck_fleet.core import files
from pumpdeck_fleet.core.errors import NotFoundError, RefusedError
from pumpdeck_fleet.core.files import RealFileSystem, patiently
from pumpdeck_fleet.core.room import standing_folder
from pumpdeck_packaging.bundle import claim
from pumpdeck_packaging.bundle_returns import returned_devices
from pumpdeck_packaging.bundle_stick import real_stick

LITTER = (".DS_Store", "._bundle.json", ".Spotlight-V100", "System Volume Information", "$RECYCLE.BIN", "Thumbs.db", ".Trash-9")


def test_a_stick_that_macos_and_windows_looked_at_is_taken(tmp_path: Path) -> None:
    for name in LITTER:
        (tmp_path / name).write_bytes(b"x")
    assert claim(real_stick(tmp_path), "ws-test", "b-0123456789ab") == "b-0123456789ab"
    (tmp_path / "returns" / "gannet-d1").mkdir(parents=True)
    for name in LITTER:
        (tmp_path / "returns" / name).write_bytes(b"x")
    assert returned_devices(RealFileSystem(), tmp_path) == (["gannet-d1"], [])
    (tmp_path / "returns" / "Not A Device").mkdir()
    assert returned_devices(RealFileSystem(), tmp_path) == (["gannet-d1"], ["Not A Device"])


def test_other_peoples_files_still_refuse_the_folder(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(RefusedError, match="not of a bundle"):
        claim(real_stick(tmp_path), "ws-test", "b-0123456789ab")


def test_a_name_that_a_scanner_holds_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows: a virus scanner opens every new file; the rename, the removal, comes a moment too early."""
    calls: list[int] = []

    def held() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise PermissionError(13, "held")

    monkeypatch.setattr(files, "_WINDOWS", True)
    patiently(held)
    assert len(calls) == 3
    monkeypatch.setattr(files, "_WINDOWS", False)
    calls.clear()
    with pytest.raises(PermissionError):
        patiently(held)
    assert len(calls) == 1


def test_a_drive_that_is_not_plugged_in_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_dir", lambda _self: False)
    with pytest.raises(NotFoundError, match="no such drive"):
        standing_folder(Path("Q:/pumpdeck"))


@pytest.mark.skipif(sys.platform == "win32", reason="what it asks of Windows is asked there by the drives' own tests")
def test_a_standing_folder_is_the_nearest_one(tmp_path: Path) -> None:
    assert standing_folder(tmp_path / "a" / "b") == tmp_path
