"""The guides travel as text that any editor shows: nothing is lost on the way, nothing runs out of the window."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pumpdeck_console import guides
from pumpdeck_console.guides import WIDTH, as_text
from pumpdeck_fleet.core.errors import NotFoundError

ROOT = Path(__file__).parents[2]


def test_every_text_of_the_docs_folder_comes_along_and_is_listed() -> None:
    found = guides.guides()
    texts = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*") if path.suffix in (".md", ".toml")]
    assert {re.sub(r"\.md$", ".txt", path) for path in texts} <= set(found)
    assert all(name in found["index.txt"] for name in found if name != "index.txt")
    assert "a stick" in found["bundles.txt"] and "index.txt" not in found["index.txt"]


def test_no_word_is_lost_and_prose_fits_the_window() -> None:
    source = (ROOT / "docs" / "bundles.md").read_text(encoding="utf-8")
    text = as_text(source)

    def words(told: str) -> list[str]:
        return [word for word in re.sub(r"[|#=`-]+", " ", told).split() if word]

    assert words(text) == words(source)
    assert all(len(line) <= WIDTH for line in text.splitlines() if not line.startswith("    "))


def test_markdown_becomes_text_that_reads() -> None:
    prose, table = "One long line\nand its end.\n- first\n  goes on\n- second\n", "| key | is |\n|---|---|\n| a\\|b | x |\n"
    told = as_text(f"# A stick\n\n{prose}\n{table}\n```\ncode  as is\n```\n")
    assert told == (
        "A stick\n=======\n\nOne long line and its end.\n- first goes on\n- second\n\n- key | is\n- a|b | x\n\n    code  as is\n"
    )


def test_an_installation_that_carries_them_needs_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages" / "pumpdeck_console"
    (folder / "guides").mkdir(parents=True)
    (folder / "guides" / "device.md").write_text("# A device\n", encoding="utf-8")
    monkeypatch.setattr(guides, "__file__", str(folder / "guides.py"))
    monkeypatch.setattr(guides.resources, "files", lambda _package: folder)
    assert guides.guides()["device.txt"] == "A device\n========\n"
    (folder / "guides" / "device.md").unlink()
    with pytest.raises(NotFoundError, match="carries no guides"):
        guides.guides()


def test_the_wheel_carries_the_docs_folder_where_the_console_looks() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    carried = told["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert carried == {"docs": f"pumpdeck_console/{guides.GUIDES_FOLDER}"}
