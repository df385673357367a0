"""The drills of `pumpdeck drill` in their small form here; PUMPDECK_LONG=1 runs them whole."""

from __future__ import annotations

import json
import os
import sys

import pytest

from pumpdeck_console.operations.drill import DRILLS, run_drills

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="devices run Linux; the warm trial pool needs fork")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list(DRILLS))
def test_the_small_drill(name: str) -> None:
    figures = run_drills([name], quick=True)[name]
    print(name, json.dumps(figures))
    assert figures["tried"] > 0
    assert figures["ok"], figures


@pytest.mark.long
@pytest.mark.skipif("PUMPDECK_LONG" not in os.environ, reason="minutes each; set PUMPDECK_LONG, or run `pumpdeck drill`")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", list(DRILLS))
def test_the_whole_drill(name: str) -> None:
    figures = run_drills([name])[name]
    print(name, json.dumps(figures))
    assert figures["ok"], figures
