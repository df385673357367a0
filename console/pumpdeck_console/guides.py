"""The guides of `docs/` as plain text, for a laptop on a platform: wrapped, in files that any editor opens.

An installed wheel carries them as data of this package (`guides/`, see pyproject.toml); in a checkout they stand in `docs/`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from pumpdeck_fleet.core.errors import NotFoundError

GUIDES_FOLDER = "guides"
WIDTH = 96
_TEXTS = (".md", ".toml", ".py")
_ALWAYS = "device.md"
_ITEM = re.compile(r"(\s*)([-*]|\d+\.) +")
_RULE = re.compile(r"\|[\s|:-]+\|?")


def guides() -> dict[str, str]:
    """Every guide as readable text by its path, `/` between the parts; `index.txt` lists them.

    Raises:
        NotFoundError: this installation carries none.
    """
    found = {path: text.read_text(encoding="utf-8") for path, text in _texts(_source(), "")}
    readable = {_name(path): as_text(text) if path.endswith(".md") else text for path, text in found.items()}
    titles = [(_name(path), _title(text)) for path, text in sorted(found.items())]
    width = max(len(name) for name, _ in titles)
    readable["index.txt"] = "".join(f"{name.ljust(width)}  {title}".rstrip() + "\n" for name, title in titles)
    return dict(sorted(readable.items()))


def as_text(markdown: str) -> str:
    """Markdown as text of `WIDTH` columns: paragraphs and list items wrapped, a table as a list of rows, code as it stands."""
    lines: list[str] = []
    open_lines: list[str] = []

    def close() -> None:
        if open_lines:
            lines.extend(_wrapped(" ".join([open_lines[0].rstrip(), *(line.strip() for line in open_lines[1:])])))
            open_lines.clear()

    is_code = False
    for line in markdown.splitlines():
        is_fence = line.startswith("```")
        is_code ^= is_fence
        is_item = _ITEM.match(line) is not None
        if is_code or is_fence or (line.startswith("    ") and not is_item) or line.startswith("#") or not line.strip():
            close()
            lines.extend([] if is_fence else _as_it_stands(line, is_code))
        elif line.startswith("|"):
            close()
            open_lines.extend([] if _RULE.fullmatch(line) else [_row(line)])
            close()
        else:
            if is_item:
                close()
            open_lines.append(line)
    close()
    return "\n".join(lines).strip() + "\n"


def _as_it_stands(line: str, is_code: bool) -> list[str]:
    if is_code:
        return [f"    {line}".rstrip()]
    if line.startswith("#"):
        title = line.lstrip("#").strip()
        return [title, ("=" if line.startswith("# ") else "-") * len(title)]
    return [line.rstrip()]


def _row(line: str) -> str:
    cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return "- " + " | ".join(cell.strip().replace("\\|", "|") for cell in cells)


def _wrapped(line: str) -> list[str]:
    item = _ITEM.match(line)
    hang = " " * item.end() if item else line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line, WIDTH, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False)


def _source() -> Traversable | Path:
    carried = resources.files("pumpdeck_console").joinpath(GUIDES_FOLDER)
    checkout = Path(__file__).resolve().parents[2] / "docs"
    for place in (carried, checkout):
        if place.joinpath(_ALWAYS).is_file():
            return place
    raise NotFoundError("this installation carries no guides", "docs", hint="install pumpdeck from its wheel")


def _texts(folder: Traversable | Path, base: str) -> Iterator[tuple[str, Traversable | Path]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        path = f"{base}{entry.name}"
        if entry.is_dir():
            yield from _texts(entry, f"{path}/")
        elif entry.name.endswith(_TEXTS):
            yield path, entry


def _name(path: str) -> str:
    return f"{path.removesuffix('.md')}.txt" if path.endswith(".md") else path


def _title(text: str) -> str:
    first = text.split("\n", 1)[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""
