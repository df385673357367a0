"""The console's readers over a real store."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from pumpdeck_console.operations.readers import StoreReaders
from pumpdeck_console.operations.selector import QuerySelector
from pumpdeck_console.operations.views import HEALTH_WORDS, health_counts, site_nodes
from pumpdeck_fleet.core.errors import NotFoundError, QueryError, UsageError
from support.seeded_workspace import LIMIT, seeded_workspace
from support.small_fleet import NOW_MS


@pytest.fixture
def workspace(tmp_path):
    with seeded_workspace(tmp_path / "w") as opened:
        yield opened


@pytest.fixture
def readers(workspace):
    return StoreReaders(workspace)


def test_the_fleet_view_shows_every_pump_with_health_score_limit_version_and_drift(readers):
    view = readers.fleet()
    assert view.fleet_size == len(view) == 8
    assert [HEALTH_WORDS[code] for code in view.health[:4]] == ["ALARM", "DRIFT", "STALE", "SENSOR_FAULT"]
    assert health_counts(view) == (4, 1, 0, 1, 1, 1, 0)
    assert view.score[0] == np.float32(5.0)
    assert set(view.limit.tolist()) == {LIMIT}
    assert set(view.model_version.tolist()) == {1}
    assert view.drift_psi[1] == np.float32(2.41)
    assert np.isnan(view.drift_psi[2])
    assert view.last_seen_ms[0] == NOW_MS - 600_000
    assert view.reasons[0] == "suction_pressure_bar"
    assert view.spark[0, -2:].tolist() == [8, 0]
    assert [node.site for node in site_nodes(view)] == ["gannet", "wadi-rahl"]
    assert view.site_kinds == ("platform", "pad")


def test_the_fleet_view_takes_a_query_and_says_where_a_bad_one_is_wrong(readers):
    assert readers.fleet("health:alarm").pump_ids == ("gannet/P-101",)
    with pytest.raises(QueryError) as caught:
        readers.fleet("health:wrong")
    assert "character" in caught.value.which


def test_the_selector_of_the_console_selects_what_the_command_line_selects(readers, workspace):
    view = readers.fleet()
    selector = QuerySelector()
    selector.know(workspace.fleet)
    for query in (
        "",
        "P-10",
        "type:esp",
        "health>=stale",
        "drift>0.1 or score>2.5",
        "criticality<=2 link:ssh",
        "seen>2h",
    ):
        chosen = [pump for pump, is_in in zip(view.pump_ids, selector(view, query), strict=True) if is_in]
        assert chosen == list(readers.fleet(query).pump_ids), query
    with pytest.raises(QueryError):
        selector(view, "health:")


def test_a_pump_shows_its_last_day_also_when_it_fell_silent(readers):
    for pump in ("gannet/P-101", "gannet/P-103"):
        detail = readers.pump(pump)
        assert len(detail.at_ms) == len(detail.scores) == 12
        assert detail.values.shape == (12, len(detail.channels))
        assert all(channel.unit and channel.low < channel.high for channel in detail.channels)
        assert detail.limit == LIMIT
    assert readers.pump("gannet/P-101").alarms == ((NOW_MS - 3_600_000, NOW_MS),)
    assert ("model version", "export-health v1") in readers.pump("gannet/P-101").facts
    with pytest.raises(NotFoundError):
        readers.pump("gannet/P-999")


def test_models_rollouts_audit_and_link_have_their_views(readers):
    models = readers.models()
    assert [(row.model, row.version, row.aliases, row.pumps) for row in models.versions[:2]] == [
        ("esp-health", 2, ("candidate",), 0),
        ("export-health", 2, ("candidate",), 0),
    ]
    assert models.pump_types == ("esp", "export")
    assert readers.rollouts().rollouts == ()
    with pytest.raises(NotFoundError):
        readers.rollout("r1")
    audit = readers.audit()
    assert audit.total == len(audit) == 1
    assert audit.actions[0] == "workspace.init"
    assert audit.actors[0] == "Ada Field"
    assert len(readers.audit("nothing like it")) == 0
    link = readers.link()
    assert (link.devices, link.reached, link.outbox) == (2, 2, 0)


def test_the_token_changes_when_anybody_writes_or_a_person_edits_a_file(readers, workspace):
    readers.fleet()
    before = readers.change_token()
    assert readers.change_token() == before
    with workspace.store.atomic() as store:
        store.audit.append(workspace.actor, "test", "x")
    after = readers.change_token()
    assert after != before
    path = workspace.root / "fleet.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("Gannet Alpha", "Gannet Beta"), encoding="utf-8")
    os.utime(path, ns=(1, 1))
    assert readers.change_token() != after
    assert "Gannet Beta (platform)" in dict(readers.pump("gannet/P-101").facts)["site"]


def test_readers_never_write(readers, workspace):
    head = workspace.store.audit.head()
    readers.fleet()
    readers.plan("train", {"pump_type": "esp"})
    assert workspace.store.audit.head() == head
    with pytest.raises(Exception, match="readonly"), readers._workspace.store.atomic() as store:
        store.audit.append("a", "b", "c")


def test_plans_say_what_would_happen_and_why_not(readers):
    train = readers.plan("train", {"pump_type": "esp"})
    assert train.refusal == ""
    assert ("rows held", "48") in train.lines
    assert readers.plan("train", {"pump_type": "pcp"}).refusal
    refused = readers.plan("rollout.start", {"model": "esp-health", "version": "2"})
    assert "package" in refused.refusal
    assert refused.command == "pumpdeck rollout start --model esp-health=2"
    with pytest.raises(NotFoundError):
        readers.plan("rollout.start", {"model": "esp-health", "version": "9"})
    with pytest.raises(NotFoundError):
        readers.plan("rollout.approve", {"rollout_id": "r1"})
    with pytest.raises(UsageError):
        readers.plan("reboot", {})


def test_what_the_readers_import_is_light():
    code = (
        "import sys; import pumpdeck_console.operations.readers, pumpdeck_console.operations.selector, pumpdeck_console.start\n"
        "heavy = {'pandas', 'pyarrow', 'sklearn', 'onnx', 'onnxruntime', 'paramiko', 'httpx', 'tuf', 'cryptography', 'textual'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
