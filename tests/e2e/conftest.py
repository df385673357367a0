"""One small demo for all tests of this folder that only look at it."""

from __future__ import annotations

import pytest

from support.demo_run import DemoRun, run_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """A finished demo of 2 sites with 2 devices and 16 pumps. Not to be changed: see `copy_demo`."""
    return run_demo(tmp_path_factory.mktemp("demo") / "fleet")
