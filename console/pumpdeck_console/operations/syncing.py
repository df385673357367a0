"""Two workspaces that worked apart become one: files by content, trust by version, stores by the rules of docs/sync.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.agent_releases import agent_desk
from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.other_side import OtherSide, open_other, peoples_files
from pumpdeck_console.operations.vouching import Circle, seal_chains
from pumpdeck_console.wiring import STORE_FILE, Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError, TrustError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.merging import MergeConflict
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.receipts import Assignment
from pumpdeck_fleet.core.rollout_states import RolloutState
from pumpdeck_fleet.core.room import check_room
from pumpdeck_fleet.core.words import fingerprint_words
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.services.sync import SyncReport, SyncRequest, Words, sync_store
from pumpdeck_fleet.store.merge import KnownConflict, known_conflicts
from pumpdeck_packaging.backup import SPARE_BYTES
from pumpdeck_packaging.bundle_returns import ENVELOPE_MAX_BYTES
from pumpdeck_packaging.folder_lock import hold_folder
from pumpdeck_packaging.signing import verify_dsse
from pumpdeck_packaging.site_folder import SiteFolder
from pumpdeck_packaging.trust_merge import SiteMerge, merge_site
from pumpdeck_packaging.trust_repository import AssignmentRequest

_LOCK_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class SyncResult:
    """A sync as people see it. `sites` says what became of each trust repository, `unsigned` which assignments still need a key.

    `is_plan`: nothing was changed. `signature` says who signed the other side as a whole, or that nobody did.
    """

    report: SyncReport
    artifacts: int
    sites: tuple[tuple[str, str], ...]
    unsigned: tuple[str, ...]
    is_plan: bool = False
    signature: str = ""


class _PlanOnly(Exception):  # noqa: N818 - not an error: it ends a transaction that must leave no trace
    def __init__(self, report: SyncReport) -> None:
        self.report = report


@operation("sync.conflicts", runs_in="reader")
def list_conflicts(workspace: Workspace) -> tuple[KnownConflict, ...]:
    """Everything on which workspaces differed when they met, the newest first."""
    return known_conflicts(workspace.store)


@operation("sync.plan", runs_in="worker")
def plan_sync(workspace: Workspace, *, folder: str) -> SyncResult:
    """What `sync` would bring, worked out in full and undone. Raises: as `sync`."""
    with open_other(workspace, Path(folder)) as other:
        lacking = _lacking(workspace, other)
        try:
            _merge_stores(workspace, other, _file_conflicts(workspace, other), is_plan=True)
        except _PlanOnly as plan:
            return SyncResult(plan.report, len(lacking), (), (), is_plan=True, signature=other.signature)
    raise AssertionError("a plan ends its own transaction")


@operation("sync", runs_in="worker")
def sync(workspace: Workspace, *, folder: str, new_roots: bool = False, on_progress: Progress = no_progress) -> SyncResult:
    """Take in what another workspace, or a backup of one, knows. The other side is only read; the same again changes nothing.

    Cut at any moment, it is simply run again. `new_roots`: believe the root of sites that have no trust here yet; a person has
    compared its words with paper. Everything else about such a site is proven by that root.

    Raises:
        NotFoundError: nothing to sync with is there. DamagedError: it is cut or altered.
        ForkedError, ConflictError: the two cannot be merged. BusyError: this workspace is delivering.
        RefusedError: this computer has no room for what comes; nothing was taken. TooLargeError: no workspace is that large.
    """
    with hold_folder(workspace.root / "locks" / "deliver", _LOCK_WAIT_S), open_other(workspace, Path(folder)) as other:
        return take_in(workspace, other, on_progress, new_roots=new_roots)


def take_in(workspace: Workspace, other: OtherSide, on_progress: Progress, *, new_roots: bool = False) -> SyncResult:
    """As `sync`, of a side that is open already; whoever calls holds the delivery lock."""
    # Bytes first: nothing in the store may name an artifact that is not here.
    artifacts = _take_artifacts(workspace, other, on_progress)
    conflicts = _file_conflicts(workspace, other)
    merges, refused = _merge_sites(workspace, other, new_roots=new_roots)
    conflicts += [conflict for merge in merges for conflict in merge.conflicts]
    on_progress("merge", 0, 0)
    report = _merge_stores(workspace, other, conflicts)
    report = dataclasses.replace(report, refused=(*report.refused, *refused))
    unsigned = _sign_again(workspace, merges)
    _take_returns(workspace, other)
    _start_approved(workspace, report)
    seal_chains(workspace)
    sites = tuple((one.site, _words(one)) for one in merges)
    return SyncResult(report, artifacts, sites, tuple(unsigned), signature=other.signature)


def _merge_stores(
    workspace: Workspace, other: OtherSide, conflicts: list[MergeConflict], *, is_plan: bool = False
) -> SyncReport:
    def verify(envelope: bytes, payload_type: str, keys: Mapping[str, str], max_bytes: int) -> bytes:
        return verify_dsse(envelope, payload_type, keys, max_bytes)

    # Before the sites are merged, as in a plan, the newer trust of the other side says who may sign.
    circle = Circle(workspace, other.trust)
    with workspace.store.atomic() as store:
        words = Words(verify, circle.statement, circle.seal)
        report = sync_store(store, other.store, SyncRequest(workspace.actor, words, conflicts=conflicts))
        if is_plan:
            raise _PlanOnly(report)
    return report


def _take_artifacts(workspace: Workspace, other: OtherSide, on_progress: Progress) -> int:
    lacking = _lacking(workspace, other)
    # What the other store holds more than ours is a guess at its news; a disk that fills up all the same ends the transaction
    # with nothing taken.
    rows_bytes = max(0, other.store_bytes - workspace.fs.size(workspace.root / STORE_FILE))
    wanted = sum(other.artifacts_bytes[digest] for digest in lacking) + rows_bytes + SPARE_BYTES
    check_room(workspace.fs, workspace.root, wanted, "has no room for what the other side brings")
    for number, digest in enumerate(lacking):
        on_progress("artifacts", number, len(lacking))
        workspace.artifacts.put(other.artifacts.get(digest))
    return len(lacking)


def _lacking(workspace: Workspace, other: OtherSide) -> list[str]:
    return [digest for digest in sorted(other.artifacts_bytes) if not workspace.artifacts.has(digest)]


def _file_conflicts(workspace: Workspace, other: OtherSide) -> list[MergeConflict]:
    """Files that people write are never merged behind their back."""
    mine = peoples_files(workspace.root)
    found = []
    for path in sorted({*mine, *other.files}):
        if mine.get(path) != other.files.get(path):
            here, there = (_version(files.get(path)) for files in (mine, other.files))
            advice = "compare the two files and settle it by hand"
            found.append(MergeConflict("file", path, here, there, advice, "kept"))
    return found


def _version(data: bytes | None) -> str:
    return "not there" if data is None else f"digest {canonical.digest(data)[:12]}"


def _merge_sites(
    workspace: Workspace, other: OtherSide, *, new_roots: bool = False
) -> tuple[list[SiteMerge], list[tuple[str, str]]]:
    merges, refused = [], []
    now_ms = workspace.clock.now_ms()
    for site in workspace.fleet.sites:
        try:
            if not new_roots:
                _check_known(workspace, other, site.id)
            merges.append(merge_site(workspace.trust_path / site.id, other.trust / site.id, workspace.fs, now_ms))
            if workspace.trust(site.id).exists:
                agent_desk(workspace, site.id).take(other.trust / site.id)
        except PumpdeckError as error:
            refused.append((f"trust of {site.id}", error.sentence()))
    return merges, refused


def _check_known(workspace: Workspace, other: OtherSide, site: str) -> None:
    """Raises: TrustError: the site has no trust here; a strange folder must not bring the root by which it is judged."""
    theirs = SiteFolder(other.trust / site, workspace.fs)
    if theirs.exists and not SiteFolder(workspace.trust_path / site, workspace.fs).exists:
        raise TrustError(
            "has no root here yet, and a folder cannot vouch for its own",
            site,
            found=f"a root with the words: {fingerprint_words(theirs.newest_root())}",
            hint="compare them with your sheet of paper, then: pumpdeck sync FROM --new-roots",
        )


def _sign_again(workspace: Workspace, merges: list[SiteMerge]) -> list[str]:
    """Sign what the newer metadata does not know of, where this person holds a deploy key; the devices that still wait for it."""
    unsigned = []
    for merge in merges:
        if not merge.to_sign:
            continue
        try:
            signer = workspace.signing_key("deploy", merge.site).signer
            workspace.trust(merge.site).assign([_request(one) for one in merge.to_sign], signer)
        except PumpdeckError as error:
            unsigned += [f"{one.device}: {error.sentence()}" for one in merge.to_sign]
    return unsigned


def _request(one: Assignment) -> AssignmentRequest:
    # The very same assignment: a device that has it already answers with the receipt it gave before.
    return AssignmentRequest(
        device=one.device,
        package_sha256=one.package_sha256,
        task=one.task,
        soft_until_ms=one.soft_until_ms,
        seq=one.seq,
        issued_at_ms=one.issued_at_ms,
        terms=one.terms,
        token=one.token,
    )


def _take_returns(workspace: Workspace, other: OtherSide) -> None:
    """Envelopes of the newest returns from sticks, by which the next stick tells a device what is safe."""
    for device, identity in other.store.devices.identities().items():
        source = other.root / "returns" / f"{device}.json"
        newest = workspace.store.receipts.return_counter(device, identity.key_id)
        if not source.is_file() or other.store.receipts.return_counter(device, identity.key_id) != newest:
            continue
        target = workspace.root / "returns" / source.name
        if not target.is_file():
            workspace.fs.mkdir(target.parent)
        replace_file(workspace.fs, target, workspace.fs.read_bytes(source, ENVELOPE_MAX_BYTES))


def _start_approved(workspace: Workspace, report: SyncReport) -> None:
    """A rollout that an approval from elsewhere completed runs, as if the approver sat here."""
    from pumpdeck_console.operations.rollouts import trust_seqs  # deferred: only after an approval

    for rollout_id in report.approved:
        with workspace.store.atomic() as store:
            rollout = store.rollouts.load(rollout_id)
            if rollout.state is RolloutState.APPROVED:
                seqs, now_ms = trust_seqs(workspace, rollout), workspace.clock.now_ms()
                deploy.start(store, rollout_id, actor=workspace.actor, now_ms=now_ms, trust_seqs=seqs)


def _words(merge: SiteMerge) -> str:
    if merge.is_new:
        return "taken whole"
    words = "the newer metadata is theirs" if merge.is_newer else "as it was"
    return f"{words}; {len(merge.to_sign)} assignments signed again" if merge.to_sign else words
