"""Building the agent into a workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from pumpdeck_console.operations.agent_releases import build_agent_release
from pumpdeck_fleet.core.errors import UsageError
from support.small_fleet import small_workspace


def test_the_agent_stands_in_the_workspace_and_its_artifacts_and_where_asked(tmp_path: Path) -> None:
    with small_workspace(tmp_path / "w") as workspace:
        built = build_agent_release(workspace, to=str(tmp_path / "out"))
        assert workspace.artifacts.get(built.sha256) == Path(built.path).read_bytes()
        assert (tmp_path / "out" / "agent.pyz").read_bytes() == Path(built.path).read_bytes()
        assert build_agent_release(workspace) == built


def test_an_unknown_kind_of_computer_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with small_workspace(tmp_path / "w") as workspace:
        with pytest.raises(UsageError):
            build_agent_release(workspace, targets=["sparc-cp311"])
        assert not (tmp_path / "w" / "agent").exists()
