from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pumpdeck_console.tui.first_frame import NOTHING, cached_bytes, frame_lines, load_cached, paint
from support.fleet_views import fleet_view


def test_kept_figures_come_back(tmp_path: Path) -> None:
    view = fleet_view(240)
    path = tmp_path / "frame.json"
    path.write_bytes(cached_bytes(view, "14:02:11"))
    cached = load_cached(path)
    assert cached.as_of == "14:02:11"
    assert sum(count for _, count in cached.counts) == 240
    assert cached.rows[0][0] == "ALARM"
    text = "\n".join(frame_lines("north sea", cached, 80, 24))
    assert "as of 14:02:11, loading" in text
    assert cached.rows[0][1] in text


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff\xfe", json.dumps({"as_of": 1, "counts": [1], "rows": []}).encode(), b"{" * 100_000]
)
def test_damaged_figures_are_no_figures(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "frame.json"
    path.write_bytes(content)
    assert load_cached(path) == NOTHING


def test_without_figures_the_frame_still_says_what_happens(tmp_path: Path) -> None:
    assert load_cached(None) == load_cached(tmp_path / "none") == NOTHING
    assert "loading" in frame_lines("x", NOTHING, 80, 24)[0]


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (80, 24), (200, 60)])
def test_the_frame_fits_every_size_and_holds_no_control_character(size: tuple[int, int]) -> None:
    cached = load_cached(None)
    lines = frame_lines("a\x1b[2Jb", cached, *size)
    assert len(lines) <= size[1]
    assert all(len(line) <= size[0] and "\x1b" not in line for line in lines)


def test_no_colour_when_none_is_wanted() -> None:
    out = io.StringIO()
    paint(out, ["a", "b", "c"], {"NO_COLOR": "1"})
    assert "[38" not in out.getvalue()
    assert "[48" not in out.getvalue()


def test_the_entry_imports_neither_textual_nor_numpy() -> None:
    code = "import sys, pumpdeck_console.tui.app; print(*sorted({'textual', 'rich', 'numpy', 'asyncio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
