"""Hostile models from outside: refused at the import; and if somebody signs one nonetheless, no device commits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pumpdeck_agent.config import AgentLimits
from pumpdeck_agent.trial import FreshChildRunner
from pumpdeck_console import wiring
from pumpdeck_console.operations.importing import import_model
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_sample.drills import bad_models
from support.devices import NAMES, Bench, package
from support.foreign_models import pump_type_of, write_import
from support.small_fleet import NOW_MS
from support.trained_workspace import workspace_with_rows

HOSTILE: dict[str, tuple[Callable[[int], bytes], str]] = {
    "never ends": (bad_models.endless, "holds a graph inside a node"),
    "asks for ten gigabytes": (lambda count: bad_models.hungry(count, (20_000, 16_000)), "memory|allocate|bad_alloc"),
    "is no number": (bad_models.not_a_number, "gives no number for healthy rows"),
    "has another shape": (bad_models.wrong_shape, "another shape"),
    "takes far too long": (lambda count: bad_models.slow(count, 1000, 8), "too slow|did not end its trial"),
    "is no graph": (lambda _count: b"not a graph at all", "ONNX|does not know|cut short"),
}

SIGNED = ("never ends", "asks for ten gigabytes", "is no number", "has another shape")
"""Those that are signed in a test here; tests/agent/test_trial.py signs the others."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
        made = workspace_with_rows(tmp_path_factory.mktemp("hostile") / "workspace")
        yield made
        made.close()


@pytest.mark.parametrize("what", HOSTILE)
def test_an_import_refuses_a_model_that(workspace: Workspace, tmp_path: Path, what: str) -> None:
    """Hostile graphs at the import: refused by name, nothing registered, no alias moved."""
    make, words = HOSTILE[what]
    kind = pump_type_of(workspace)
    score = 'worse = "higher"\noutput = "score"'
    args = write_import(tmp_path / "in", kind, make(len(kind.channels)), reference=False, score=score)
    before = _registered(workspace)
    with pytest.raises(Exception, match=words) as refusal:
        import_model(workspace, **args)
    assert getattr(refusal.value, "exit_code", 1) in (RefusedError.exit_code, 5)
    assert _registered(workspace) == before


def _registered(workspace: Workspace) -> dict[str, object]:
    registry = workspace.store.registry
    return {model: (len(registry.versions(model)), registry.aliases(model)) for model in registry.models()}


def test_signed_nonetheless_no_device_commits_one(tmp_path: Path) -> None:
    """Stolen release key: hostile graphs are signed for the device; what ran before goes on running."""
    bench = Bench(tmp_path, runner=FreshChildRunner(), limits=AgentLimits(trial_wall_s=20.0, keep_free_bytes=0))
    good = package()
    assert bench.install(good)["outcome"] == "committed"
    committed = []
    for number, what in enumerate(SIGNED, 1):
        wall_s = 3.0 if what == "never ends" else 20.0
        bench.limits = AgentLimits(trial_wall_s=wall_s, keep_free_bytes=0)
        answer = bench.install(package(onnx=HOSTILE[what][0](len(NAMES)), seed=number), f"task-{number}")
        if answer["outcome"] == "committed" or answer["active"] != good.sha256:
            committed.append(what)
    assert committed == []
    assert bench.status()["state"] == "ACTIVE"
