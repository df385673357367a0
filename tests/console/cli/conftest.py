"""Commands run in this process, on a workspace whose clock stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pumpdeck_console import main, wiring
from pumpdeck_fleet.core.clock import FixedClock
from support.seeded_workspace import seeded_workspace
from support.small_fleet import NOW_MS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with something of everything; commands of these tests only read it."""
    root = tmp_path_factory.mktemp("seeded") / "workspace"
    seeded_workspace(root).close()
    return root


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The same, for one test to change."""
    root = tmp_path / "workspace"
    seeded_workspace(root).close()
    return root


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("pumps", "--json", at=root)` -> (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))

    def call(*words: str, at: Path) -> tuple[int, str, str]:
        code = main.main(["-w", str(at), *words])
        out, err = capsys.readouterr()
        return code, out, err

    return call
