"""Carrying things out: ticks (time passes, commands are delivered, alerts follow) and collecting what devices return."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pumpdeck_console.operations.assigning import SiteAssigner
from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.confidential_packages import stored_digests
from pumpdeck_console.operations.fleet import list_pumps
from pumpdeck_console.operations.rollouts import RolloutReport, report_of
from pumpdeck_console.operations.trust_contact import SiteNews, news_of, tell_device
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.inventory import Device, Link
from pumpdeck_fleet.core.ports import Progress, RpcChannel
from pumpdeck_fleet.core.rollout_states import RolloutState
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.services.collect import Collector, CollectReport, collect_device
from pumpdeck_fleet.services.deploy_delivery import Delivery, DeliveryReport, deliver_due
from pumpdeck_packaging.folder_lock import hold_folder
from pumpdeck_packaging.signing import verify_dsse

_PAUSE_S = 0.2
_LOCK_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class TickReport:
    """What one or more ticks did: rollouts that are not over, devices tried and committed, bytes sent, problems by device."""

    ticks: int
    rollouts: tuple[RolloutReport, ...]
    tried: int
    committed: tuple[str, ...]
    sent_bytes: int
    problems: tuple[tuple[str, str], ...]
    outbox: int


def collector_of(workspace: Workspace) -> Collector:
    """The collector over this workspace; belongs to the thread that owns the store."""

    def verify(envelope: bytes, payload_type: str, keys: Mapping[str, str], max_bytes: int) -> bytes:
        return verify_dsse(envelope, payload_type, keys, max_bytes)

    return Collector(workspace.store, workspace.fleet, verify, workspace.clock)


@operation("tick", runs_in="worker")
def tick(
    workspace: Workspace,
    *,
    until_idle: bool = False,
    limit_s: float = 3600.0,
    on_progress: Progress = no_progress,
    sleep: Callable[[float], None] = time.sleep,
) -> TickReport:
    """Let time pass once: deadlines, soaks and next waves, then deliver what is due.

    With `until_idle`, again and again until no rollout runs, at most `limit_s`.

    Raises:
        BusyError: another process is delivering for this workspace.
    """
    # Two processes that deliver the same commands harm nothing, but each would be told of devices that the other keeps busy.
    with hold_folder(workspace.root / "locks" / "deliver", _LOCK_WAIT_S):
        return _ticks(workspace, until_idle, limit_s, on_progress, sleep)


def _ticks(
    workspace: Workspace, until_idle: bool, limit_s: float, on_progress: Progress, sleep: Callable[[float], None]
) -> TickReport:
    assigner = SiteAssigner(workspace)
    totals = TickReport(0, (), 0, (), 0, (), 0)
    end_ms = workspace.clock.now_ms() + limit_s * 1000
    while True:
        totals = _plus(totals, _tick_once(workspace, assigner, on_progress))
        running = any(one.state == RolloutState.RUNNING.value for one in totals.rollouts)
        if not until_idle or not running or workspace.clock.now_ms() >= end_ms:
            return totals
        done = sum(one.committed for one in totals.rollouts)
        on_progress("rollouts run", done, sum(one.devices for one in totals.rollouts))
        sleep(_PAUSE_S)


def _tick_once(workspace: Workspace, assigner: SiteAssigner, on_progress: Progress) -> TickReport:
    store = workspace.store
    deploy.advance(store, workspace.fleet, workspace.clock.now_ms())
    report = DeliveryReport(0, (), (), 0)
    if store.outbox.due(workspace.clock.now_ms(), 1):
        delivery = Delivery(
            collector=collector_of(workspace),
            artifacts=workspace.artifacts,
            connect=workspace.connect,
            assigner=assigner,
            on_progress=on_progress,
            concurrency=workspace.policies.transport.concurrency,
            stored_digest=stored_digests(workspace),
        )
        report = deliver_due(delivery)
    # Receipts that came in just now may let a wave pass at once.
    rollouts = deploy.advance(store, workspace.fleet, workspace.clock.now_ms())
    waiting = len(store.outbox.waiting())
    return TickReport(
        ticks=1,
        rollouts=tuple(map(report_of, rollouts)),
        tried=report.tried,
        committed=report.committed,
        sent_bytes=report.sent_bytes,
        problems=report.problems,
        outbox=waiting,
    )


def _plus(before: TickReport, now: TickReport) -> TickReport:
    return TickReport(
        ticks=before.ticks + 1,
        rollouts=now.rollouts,
        tried=before.tried + now.tried,
        committed=before.committed + now.committed,
        sent_bytes=before.sent_bytes + now.sent_bytes,
        problems=(*before.problems, *now.problems),
        outbox=now.outbox,
    )


@dataclass(frozen=True, slots=True)
class CollectSummary:
    """What was collected: reports by device, and why the others gave nothing. `drift` counts pumps with a new figure."""

    devices: tuple[CollectReport, ...]
    problems: tuple[tuple[str, str], ...]
    stored: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    drift: int = 0


@operation("collect", runs_in="worker")
def collect(workspace: Workspace, *, query: str = "", on_progress: Progress = no_progress) -> CollectSummary:
    """Take what waits on every device with a pump that `query` selects: verified, stored once, acknowledged; then judge drift.

    A device that cannot be reached or breaks trust is reported; the others are collected all the same.
    """
    from pumpdeck_console.operations.drift import judge  # deferred: numpy

    chosen = {row.pump.device for row in list_pumps(workspace, query=query)}
    devices = [
        device
        for device in workspace.fleet.devices
        if device.id in chosen and workspace.fleet.site(device.site).link is not Link.COURIER
    ]
    reports, problems = _collect_all(workspace, devices, on_progress)
    stored: dict[str, int] = {}
    for report in reports:
        for kind, count in report.stored.items():
            stored[kind] = stored.get(kind, 0) + count
    drift = judge(workspace).fresh if stored.get("sketch") else 0
    rows = sum(report.rows for report in reports)
    return CollectSummary(tuple(reports), tuple(problems), stored, rows, drift)


def _collect_all(
    workspace: Workspace, devices: list[Device], on_progress: Progress
) -> tuple[list[CollectReport], list[tuple[str, str]]]:
    reports: list[CollectReport] = []
    problems: list[tuple[str, str]] = []
    lock = threading.Lock()
    connect, max_bytes = workspace.connect, workspace.policies.transport.collect_bytes
    news = news_of(workspace, sorted({device.site for device in devices}))

    def one(device: Device) -> None:
        # Each thread has its own store: SQLite connections do not travel, and writers wait for each other for moments only.
        try:
            with workspace.twin() as mine:
                collector = collector_of(mine)
                collector.identity(device.id)
                channel = connect(device)
                try:
                    report = collect_device(collector, channel, device, max_bytes=max_bytes)
                    report = _told(mine, channel, device, news.get(device.site), report)
                finally:
                    channel.close()
        except PumpdeckError as error:
            with lock:
                problems.append((device.id, error.sentence()))
        else:
            with lock:
                reports.append(report)

    with ThreadPoolExecutor(workspace.policies.transport.concurrency, thread_name_prefix="collect") as pool:
        for number, done in enumerate([pool.submit(one, device) for device in devices], 1):
            done.result()
            on_progress("collect", number, len(devices))
    return sorted(reports, key=lambda report: report.device), sorted(problems)


def _told(
    workspace: Workspace, channel: RpcChannel, device: Device, news: SiteNews | None, report: CollectReport
) -> CollectReport:
    """The report after the device was told of newer keys; that it did not take them spoils nothing that was collected."""
    try:
        if news is not None:
            tell_device(workspace.store, channel, device, news, workspace.clock.now_ms())
    except PumpdeckError as error:
        return replace(report, problems=(*report.problems, f"did not take the newer keys: {error.sentence()}"))
    return report
