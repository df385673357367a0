"""A chain that somebody rewrote as a whole still holds in itself; a checkpoint kept elsewhere tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_console.credentials import Source
from pumpdeck_console.operations.audit import compare_checkpoint, sign_checkpoint
from pumpdeck_console.operations.trust import TrustRequest, init_trust
from pumpdeck_console.operations.workspace import doctor
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.audit import CHECKPOINT_PAYLOAD_TYPE, GENESIS, AuditBrokenError, AuditCheckpoint, AuditEntry
from pumpdeck_fleet.core.clock import DAY_MS, FixedClock
from pumpdeck_fleet.core.errors import NotFoundError, TrustError
from pumpdeck_fleet.store.json_rows import to_text
from pumpdeck_packaging.signing import generate_key, sign_dsse
from support.small_fleet import NOW_MS, small_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    found = small_workspace(tmp_path / "ws", FixedClock(NOW_MS))
    keys = tmp_path / "keys"
    init_trust(found, TrustRequest(keys / "root", Source.PLAIN_FILE, str(keys / "mine"), insecure_storage=True))
    yield found
    found.close()


def _add(workspace: Workspace, count: int = 3) -> None:
    with workspace.store.atomic() as store:
        for number in range(count):
            store.audit.append("actor-1", "test", f"thing {number}")


def _rewrite(workspace: Workspace, keep: int, changed: int = 0) -> None:
    """Make the chain `keep` entries long with entry `changed` altered and every digest after it made to fit."""
    sql = workspace.store._sql
    entries = workspace.store.audit.entries()[:keep]
    with sql.atomic():
        sql.write("DROP TRIGGER audit_is_final")
        sql.write("DROP TRIGGER audit_is_kept")
        sql.write("DELETE FROM audit")
        previous = GENESIS
        for old in entries:
            subject = "another story" if old.position == changed else old.subject
            words = (old.chain, old.position, previous, old.at_ms, old.actor, old.action, subject, old.reason)
            entry = AuditEntry(*words, dict(old.digests))
            values = (*words, to_text(entry.digests), entry.digest)
            sql.write("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            previous = entry.digest
        sql.write("UPDATE audit_head SET position = ?, digest = ?", (len(entries), previous))


def test_a_chain_that_grew_still_goes_through_its_checkpoint(workspace: Workspace) -> None:
    envelope = sign_checkpoint(workspace)
    _add(workspace)
    found = compare_checkpoint(workspace, envelope=envelope)
    assert found.position == workspace.store.audit.head().position - 3


def test_a_chain_rewritten_as_a_whole_is_found_out(workspace: Workspace) -> None:
    _add(workspace)
    envelope = sign_checkpoint(workspace)
    _rewrite(workspace, keep=1000, changed=2)
    workspace.store.audit.verify()
    with pytest.raises(AuditBrokenError, match="rewritten"):
        compare_checkpoint(workspace, envelope=envelope)


def test_a_chain_cut_behind_is_found_out(workspace: Workspace) -> None:
    _add(workspace)
    envelope = sign_checkpoint(workspace)
    _rewrite(workspace, keep=2)
    workspace.store.audit.verify()
    with pytest.raises(AuditBrokenError, match="shorter"):
        compare_checkpoint(workspace, envelope=envelope)


def test_a_checkpoint_by_a_stranger_proves_nothing(workspace: Workspace) -> None:
    head = workspace.store.audit.head()
    forged = canonical.encode(AuditCheckpoint(1, head.chain, head.position, head.digest, NOW_MS))
    with pytest.raises(TrustError, match="unknown key"):
        compare_checkpoint(workspace, envelope=sign_dsse(forged, CHECKPOINT_PAYLOAD_TYPE, generate_key()))


def test_a_checkpoint_of_another_workspace_is_refused(workspace: Workspace) -> None:
    head = workspace.store.audit.head()
    foreign = canonical.encode(AuditCheckpoint(1, "ws-000000000000", head.position, head.digest, NOW_MS))
    signer = workspace.signing_key("deploy", workspace.fleet.sites[0].id).signer
    with pytest.raises(AuditBrokenError, match="another chain"):
        compare_checkpoint(workspace, envelope=sign_dsse(foreign, CHECKPOINT_PAYLOAD_TYPE, signer))


def test_without_trust_there_is_nobody_to_sign(tmp_path: Path) -> None:
    with small_workspace(tmp_path / "bare") as bare, pytest.raises(NotFoundError, match="trust init"):
        sign_checkpoint(bare)


def test_doctor_names_signatures_long_before_they_run_out(workspace: Workspace) -> None:
    def trust() -> str:
        return next(f"{one.verdict} {one.found}" for one in doctor(workspace) if one.what == "trust")

    assert trust().startswith("ok")
    assert isinstance(workspace.clock, FixedClock)
    workspace.clock.advance(140 * DAY_MS)
    assert trust().startswith("warn") and "deploy until" in trust()
