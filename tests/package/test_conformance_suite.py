"""The public tuf-conformance suite itself, against `pumpdeck-agent tuf-client`, where a checkout of it is at hand.

    git clone https://github.com/theupdateframework/tuf-conformance && (cd tuf-conformance && make dev)
    PUMPDECK_TUF_CONFORMANCE=tuf-conformance pytest tests/package/test_conformance_suite.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pumpdeck_agent
import pumpdeck_fleet
import pumpdeck_packaging

CHECKOUT = os.environ.get("PUMPDECK_TUF_CONFORMANCE", "")
_PLACES = ("env/bin/python", ".venv/bin/python", "env/Scripts/python.exe", ".venv/Scripts/python.exe")


def suite_python(checkout: Path) -> str:
    """The suite pins its own libraries: its own environment where it has one."""
    return next((str(checkout / one) for one in _PLACES if (checkout / one).exists()), sys.executable)


@pytest.mark.timeout(0)
@pytest.mark.skipif(not CHECKOUT, reason="PUMPDECK_TUF_CONFORMANCE names no checkout of the tuf-conformance suite")
@pytest.mark.skipif(not shutil.which("faketime"), reason="the suite starts its client with faketime, which is not installed")
def test_every_case_of_the_suite_holds() -> None:
    checkout = Path(CHECKOUT).resolve()
    client = f"{sys.executable} -m pumpdeck_agent.main tuf-client"
    command = [suite_python(checkout), "-m", "pytest", "-q", "-p", "no:cacheprovider", "tuf_conformance", "--entrypoint", client]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    # The client's sources and nothing else: the suite must find the libraries that it pins, not ours.
    roots = {Path(one.__file__ or "").parents[1] for one in (pumpdeck_agent, pumpdeck_fleet, pumpdeck_packaging)}
    outside = [str(root) for root in sorted(roots) if not root.is_relative_to(sys.prefix)]
    environment["PYTHONPATH"] = os.pathsep.join(outside)
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    last = done.stdout.strip().rpartition("\n")[2]
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) passed", last)
    assert found is not None and int(found[1]) >= 100, last
    assert "failed" not in last and "xfailed" not in last and "skipped" not in last, last
