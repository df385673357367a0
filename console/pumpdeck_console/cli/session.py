"""What the commands of one run share: the chosen workspace, opened at most once, and the progress line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from pumpdeck_console.wiring import Workspace

_SHOW_EVERY_S = 0.1
_TELLS_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class ConsoleWanted:
    """What a command returns when the console shall open now; `main` opens it, so that no command imports Textual.

    `on_end` is called when the console has ended, however it did.
    """

    path: Path | None
    on_end: Callable[[], None] = lambda: None


class Session:
    """The object that click hands to every command."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.key_files: dict[str, Path] = {}
        self.insecure_storage = False
        self._workspace: Workspace | None = None

    def choose(self, path: Path) -> None:
        """Remember the folder given with `-w`; nothing is opened."""
        self.path = path

    def workspace(self) -> Workspace:
        """The workspace of this run.

        Raises:
            NotFoundError: there is none at the chosen place.
        """
        if self._workspace is None:
            from pumpdeck_console.wiring import KeyOptions, open_workspace  # deferred: `--help` opens nothing

            keys = KeyOptions(self.key_files, self.insecure_storage, ask_passphrase())
            self._workspace = open_workspace(self.path, keys=keys)
        return self._workspace

    def close(self) -> None:
        """Close what was opened."""
        if self._workspace is not None:
            self._workspace.close()


def ask_passphrase() -> Callable[[str], str | None] | None:
    """How a person is asked for a passphrase; None where nobody sits."""
    return _ask_passphrase if sys.stdin.isatty() else None


def _ask_passphrase(what: str) -> str | None:
    import click  # deferred: only a protected key asks

    answer: str = click.prompt(f"Passphrase of {what}", hide_input=True, err=True, default="", show_default=False)
    return answer or None


class ProgressLine:
    """One line on stderr that is rewritten in place on a terminal and silent elsewhere. Usable as `core.ports.Progress`."""

    def __init__(self, *, alive: bool = True) -> None:
        self._alive = alive and sys.stderr.isatty()
        self._shown_at = 0.0
        self._width = 0
        self._began = ("", 0, 0, 0.0)

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()

    def _left(self, step: str, done: int, total: int) -> str:
        name, first, held, since = self._began
        if name != step or held != total or done < first:
            self._began = (step, done, total, time.monotonic())
            return ""
        return left_text(done - first, total - done, time.monotonic() - since)

    def __call__(self, step: str, done: int, total: int) -> None:
        if not self._alive or (time.monotonic() - self._shown_at < _SHOW_EVERY_S and done != total):
            return
        self._shown_at = time.monotonic()
        text = f"{step} {_bar(done, total)}{self._left(step, done, total)}" if total else f"{step} {done or ''}"
        text = text[:100]
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = max(self._width, len(text))


def left_text(done: int, left: int, seconds: float) -> str:
    """`  31/s, 2 min left`; empty before there is anything to tell it by. done: in these seconds; left: still to do."""
    if done <= 0 or seconds < _TELLS_AFTER_S:
        return ""
    rate = done / seconds
    left_s = left / rate
    words = f"{left_s:.0f} s" if left_s < 100 else f"{left_s / 60:.0f} min"
    return f"  {rate:.3g}/s, {words} left"


def _bar(done: int, total: int, cells: int = 24) -> str:
    filled = min(cells, cells * done // max(total, 1))
    return f"[{'#' * filled}{'.' * (cells - filled)}] {100 * done // max(total, 1):3d} %"
