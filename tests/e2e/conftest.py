"""One small demo for the whole session, run as a user would; tests that change it work on copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.demo_runs import SMALL, Demo, run


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A finished demo whose folders nobody may change, with the summary of its first run."""
    workspace = tmp_path_factory.mktemp("demo") / "ws"
    done = run("-w", str(workspace), "demo", "--no-tui", "--json", *SMALL)
    assert done.code == 0, f"{done.err}\n{done.out}"
    return Demo(workspace, done.json)


@pytest.fixture
def copy(demo: Demo, tmp_path: Path) -> Demo:
    """The demo in folders of this test's own."""
    return demo.copy_to(tmp_path)
