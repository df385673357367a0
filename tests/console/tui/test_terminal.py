from __future__ import annotations

import pytest

from pumpdeck_console.tui.terminal import choose_glyphs, has_few_colours, wants_no_colour


@pytest.mark.parametrize(
    ("asked", "environ", "encoding", "platform", "glyphs"),
    [
        ("auto", {"TERM": "xterm-256color"}, "utf-8", "linux", "braille"),
        ("auto", {"TERM": "linux"}, "utf-8", "linux", "ascii"),
        ("auto", {}, "cp1252", "win32", "ascii"),
        ("auto", {}, "utf-8", "win32", "block"),
        ("auto", {"WT_SESSION": "1"}, "utf-8", "win32", "braille"),
        ("block", {"TERM": "linux"}, "ascii", "linux", "block"),
    ],
)
def test_glyphs(asked: str, environ: dict[str, str], encoding: str, platform: str, glyphs: str) -> None:
    assert choose_glyphs(asked, environ, encoding, platform) == glyphs


def test_colours() -> None:
    assert wants_no_colour({"NO_COLOR": "1"})
    assert not wants_no_colour({"NO_COLOR": ""})
    assert has_few_colours({"TERM": "linux"})
    assert not has_few_colours({"TERM": "xterm-256color"})
