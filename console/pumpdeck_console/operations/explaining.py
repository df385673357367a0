"""Which model, limit and calibration stood behind a pump's alarm at any minute in the past, each fact with its evidence.

Three witnesses are asked and compared: the alarm notice the device sent, the receipts its key signed, and the package's bytes.
Where one is missing or they disagree, the answer says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pumpdeck_console.operations.base import operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.inventory import Pump
from pumpdeck_fleet.core.receipts import RECEIPT_MAX_BYTES, RECEIPT_PAYLOAD_TYPE, AlarmNotice
from pumpdeck_fleet.core.registry import Origin
from pumpdeck_fleet.core.rollout_plan import task_id
from pumpdeck_fleet.numeric.detectors import decode_block
from pumpdeck_fleet.store.receipts import ReceiptRow
from pumpdeck_packaging.package_reader import read_package
from pumpdeck_packaging.signing import verify_dsse

_SCORE_MAX_AGE_MS = HOUR_MS


@dataclass(frozen=True, slots=True)
class ChannelCalibration:
    """The baseline that a channel was measured against, in its unit; `votes` says whether it could raise the alarm."""

    name: str
    unit: str
    centre: float
    width: float
    votes: bool


@dataclass(frozen=True, slots=True)
class ModelEvidence:
    """The model version behind the package, and what it was made from."""

    model: str
    number: int
    content_digest: str
    limit_branch: str
    is_limit_provisional: bool
    snapshot_digest: str
    code_digest: str
    git_commit: str
    seed: int
    model_type: str = ""
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class PackageEvidence:
    """What the package's bytes say of this pump, its digest proven."""

    sha256: str
    limit: float
    deadband: float
    persistence_s: float
    window_s: float
    tau_s: float
    channels: tuple[ChannelCalibration, ...]


@dataclass(frozen=True, slots=True)
class DecisionEvidence:
    """How the package came to the device: the signed receipt, the rollout it belonged to, and who approved that."""

    receipt: str
    key_id: str
    is_signature_proven: bool
    at_ms: int
    is_clock_proven: bool
    rollout: str
    approved_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything known of one pump at one moment. `doubts` are sentences for people; empty when all witnesses agree."""

    pump: str
    device: str
    at_ms: int
    alarm: AlarmNotice | None
    is_alarmed: bool
    score_ms: int | None
    score: float | None
    score_limit: float | None
    package: PackageEvidence | None
    model: ModelEvidence | None
    decision: DecisionEvidence | None
    doubts: tuple[str, ...]


@operation("explain", runs_in="reader")
def explain(workspace: Workspace, *, pump: str, at_ms: int) -> Explanation:
    """The model, limit and calibration by which this pump was judged at that time.

    Raises:
        NotFoundError: no such pump.
    """
    found = workspace.fleet.pump(pump)
    notice = _last_notice(workspace, found, at_ms)
    is_alarmed = notice is not None and notice.raised
    receipts = workspace.store.receipts.of(found.device)
    active = _active_receipt(receipts, at_ms)
    doubts: list[str] = []
    digest = active.receipt.active_sha256 if active is not None else ""
    if notice is not None and is_alarmed:
        if digest and notice.package_sha256 != digest:
            doubts.append(f"the alarm names package {notice.package_sha256[:12]}, the receipts say {digest[:12]} ran then")
        digest = notice.package_sha256
    if not digest:
        doubts.append("no receipt and no alarm says which package ran then")
    package = _package(workspace, found, digest, doubts) if digest else None
    score = _score(workspace, found, at_ms)
    if package is not None and is_alarmed and notice is not None and abs(notice.limit - package.limit) > 1e-6 * package.limit:
        doubts.append(f"the alarm was raised at limit {notice.limit:.6g}, the package says {package.limit:.6g}")
    installed = _installing_receipt(receipts, digest, at_ms)
    decision = _decision(workspace, found, installed, doubts) if installed is not None else None
    return Explanation(
        pump=found.id,
        device=found.device,
        at_ms=at_ms,
        alarm=notice,
        is_alarmed=is_alarmed,
        score_ms=score[0] if score else None,
        score=score[1] if score else None,
        score_limit=score[2] if score else None,
        package=package,
        model=_model(workspace, found, digest, doubts) if digest else None,
        decision=decision,
        doubts=tuple(doubts),
    )


def _last_notice(workspace: Workspace, pump: Pump, at_ms: int) -> AlarmNotice | None:
    before = [notice for notice in workspace.store.alarms.of(pump.id) if notice.at_ms <= at_ms]
    return before[-1] if before else None


def _active_receipt(receipts: Sequence[ReceiptRow], at_ms: int) -> ReceiptRow | None:
    """The last receipt from before that moment, by the device's own counter: what it says is active ran then."""
    before = [row for row in receipts if row.receipt.at_ms <= at_ms]
    return before[-1] if before else None


def _installing_receipt(receipts: Sequence[ReceiptRow], digest: str, at_ms: int) -> ReceiptRow | None:
    """The last receipt that says that this very package was committed, before that moment."""
    matches = [
        row
        for row in receipts
        if row.receipt.at_ms <= at_ms and row.receipt.package_sha256 == digest == row.receipt.active_sha256
    ]
    return matches[-1] if matches else None


def _score(workspace: Workspace, pump: Pump, at_ms: int) -> tuple[int, float | None, float | None] | None:
    table = workspace.store.scores
    frame = table.frame(pump.id, at_ms - DAY_MS, at_ms + 1, channels=("score", "limit"))
    if not len(frame) or at_ms - int(frame.at_ms[-1]) > _SCORE_MAX_AGE_MS:
        return None
    score, limit = (None if value != value else float(value) for value in frame.values[-1].tolist())
    return int(frame.at_ms[-1]), score, limit


def _package(workspace: Workspace, pump: Pump, digest: str, doubts: list[str]) -> PackageEvidence | None:
    row = workspace.store.packages.get(digest)
    try:
        if row is None:
            doubts.append(f"package {digest[:12]} was not built in this workspace")
            return None
        files = read_package(
            workspace.artifacts.get(digest), expected_sha256=digest, max_unpacked_bytes=row.unpacked_bytes
        )
    except PumpdeckError as error:
        doubts.append(f"the package cannot be read: {error.sentence()}")
        return None
    entry = next((one for one in files.manifest.pumps if one.tag == pump.tag), None)
    if entry is None:
        doubts.append(f"package {digest[:12]} does not hold {pump.tag}")
        return None
    names = tuple(channel.name for channel in entry.channels)
    block = decode_block(files.files[entry.block], names, entry.block)
    rows = zip(entry.channels, block.centre.tolist(), block.width.tolist(), block.votes.tolist(), strict=True)
    channels = tuple(ChannelCalibration(c.name, c.unit, centre, width, votes) for c, centre, width, votes in rows)
    return PackageEvidence(
        digest, entry.limit, entry.deadband, entry.persistence_s, entry.window_s, entry.tau_s, channels
    )


def _model(workspace: Workspace, pump: Pump, digest: str, doubts: list[str]) -> ModelEvidence | None:
    row = workspace.store.packages.get(digest)
    held = next((one for one in row.pumps if one.pump == pump.id), None) if row is not None else None
    if held is None:
        return None
    version = workspace.store.registry.version(held.model, held.number)
    parameters = next((one for one in version.pumps if one.pump == pump.id), None)
    if parameters is None:
        doubts.append(f"{held.model} v{held.number} has no parameters of this pump")
    return ModelEvidence(
        model=held.model,
        number=held.number,
        content_digest=version.content_digest,
        limit_branch=parameters.limit_branch if parameters else "",
        is_limit_provisional=parameters.provisional if parameters else False,
        snapshot_digest=version.lineage.snapshot_digest,
        code_digest=version.lineage.code_digest,
        git_commit=version.lineage.git_commit,
        seed=version.lineage.seed,
        model_type=version.model_type,
        origin=version.origin,
    )


def _decision(workspace: Workspace, pump: Pump, row: ReceiptRow, doubts: list[str]) -> DecisionEvidence:
    receipt = row.receipt
    key = next((one for one in workspace.store.devices.keys(pump.device) if one.key_id == row.key_id), None)
    is_proven = False
    if key is not None:
        verify_dsse(row.envelope, RECEIPT_PAYLOAD_TYPE, {key.key_id: key.public_pem}, RECEIPT_MAX_BYTES)
        is_proven = True
    else:
        doubts.append("the receipt was signed by a key that this device never had here")
    if not receipt.clock_synced:
        doubts.append("the device's clock was not proven when it took the package on")
    rollout = next(
        (one for one in workspace.store.rollouts.states() if task_id(one, pump.device) == receipt.task), ""
    )
    approvals = workspace.store.rollouts.load(rollout).approvals if rollout else ()
    names = tuple(workspace.store.persons.name_of(approval.actor) for approval in approvals)
    return DecisionEvidence(
        row.digest, row.key_id, is_proven, receipt.at_ms, receipt.clock_synced, rollout, names
    )
