"""Making a workspace and checking one."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.starter import starter_files
from pumpdeck_console.wiring import FLEET_FILE, Workspace, open_workspace
from pumpdeck_fleet.core.clock import DAY_MS, Clock, SystemClock, format_ms
from pumpdeck_fleet.core.errors import ConflictError, PumpdeckError
from pumpdeck_fleet.core.files import RealFileSystem, replace_file
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.sizes import size_words

_FOLDERS = ("makers", "pipelines", "artifacts/sha256", "trust")
# How long before its end a signature is named: a root ceremony takes months to arrange, an assignment a minute.
_EXPIRY_WARNING_MS = {"root": 180 * DAY_MS, "targets": 180 * DAY_MS, "release": 90 * DAY_MS}
_FIELD_WARNING_MS = 45 * DAY_MS


def expiry_warning_ms(role: str) -> int:
    """How long before its end a role's signature is named."""
    return _EXPIRY_WARNING_MS.get(role, _FIELD_WARNING_MS)


@dataclass(frozen=True, slots=True)
class InitReport:
    """A new workspace: where it is, its id in the audit chain, and the files that were written."""

    root: str
    workspace: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `doctor` looked at. `verdict` is ok, warn or bad."""

    what: str
    verdict: str
    found: str
    hint: str = ""


@operation("init", runs_in="worker")
def init_workspace(
    root: Path,
    *,
    name: str = "Fleet",
    files: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    fs: FileSystem | None = None,
) -> InitReport:
    """Make the folder `root` a workspace with starter files, or with `files` (path inside -> text) in their place.

    Raises:
        ConflictError: it is one already, or one of the files is there.
    """
    disk = fs or RealFileSystem()
    texts = dict(files) if files is not None else starter_files(name)
    there = [path for path in texts if disk.exists(root / path)]
    if there:
        raise ConflictError("is there already", str(root / there[0]), hint="choose another folder or use this one")
    for folder in (*_FOLDERS, *sorted({str(Path(path).parent) for path in texts})):
        disk.mkdir(root / folder)
    # fleet.toml makes a folder a workspace, so it is written last: a cut before that leaves none, and init runs again.
    for path in sorted(texts, key=lambda path: path == FLEET_FILE):
        replace_file(disk, root / path, texts[path].encode("utf-8"))
    with open_workspace(root, clock=clock or SystemClock(), fs=disk) as workspace:
        return _record(workspace, tuple(sorted(texts)))


def _record(workspace: Workspace, files: tuple[str, ...]) -> InitReport:
    fleet = workspace.fleet
    with workspace.store.atomic() as store:
        identity = store.workspace
        store.audit.append(
            workspace.actor, "workspace.init", identity, reason=fleet.name, digests={"fleet": fleet.digest}
        )
    return InitReport(str(workspace.root), identity, files)


@operation("doctor", runs_in="reader")
def doctor(workspace: Workspace) -> tuple[Finding, ...]:
    """Everything a person would look at first, each with a verdict; never raises for what it finds."""
    checks: tuple[tuple[str, Callable[[Workspace], Finding]], ...] = (
        ("python", _python),
        ("inventory", _inventory),
        ("policies", _policies),
        ("pipelines", _pipelines),
        ("store", _store),
        ("trust", _trust),
        ("keys", _keys),
        ("key changes", _key_changes),
        ("couriers", _couriers),
        ("recipients", _recipients),
        ("disk", _disk),
        ("restore", _restore),
        ("conflicts", _conflicts),
        ("audit chain", _audit),
        ("free space", _space),
    )
    return tuple(_checked(what, check, workspace) for what, check in checks)


def _checked(what: str, check: Callable[[Workspace], Finding], workspace: Workspace) -> Finding:
    try:
        return check(workspace)
    except PumpdeckError as error:
        return Finding(what, "bad", error.sentence(), error.hint)


def _python(_workspace: Workspace) -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _inventory(workspace: Workspace) -> Finding:
    fleet = workspace.fleet
    counts = f"{len(fleet.sites)} sites, {len(fleet.devices)} devices, {len(fleet.pumps)} pumps"
    if not fleet.pumps:
        return Finding("inventory", "warn", counts, f"add sites, devices and pumps to {workspace.root / FLEET_FILE}")
    if strange := [device.id for device in fleet.devices if not device.host_key]:
        return Finding("inventory", "warn", f"{counts}; {len(strange)} devices without a host key", "enrol them")
    return Finding("inventory", "ok", counts)


def _policies(workspace: Workspace) -> Finding:
    rollout = workspace.policies.rollout
    return Finding("policies", "ok", f"waves {', '.join(rollout.waves)}; soak {rollout.soak_s:.0f} s")


def _pipelines(workspace: Workspace) -> Finding:
    from pumpdeck_console.operations.training import load_pipeline  # deferred: numpy and the trainer

    used = sorted({pump.type for pump in workspace.fleet.pumps})
    for name in used:
        load_pipeline(workspace, workspace.fleet.pump_types[name])
    have = {path.stem for path in workspace.pipelines_path.glob("*.toml")}
    lacking = [name for name in used if name not in have]
    words = f"{len(have)} files" + (f"; the built-in defaults for {', '.join(lacking)}" if lacking else "")
    if unknown := sorted(have - set(workspace.fleet.pump_types)):
        return Finding("pipelines", "warn", f"{words}; no such pump type: {', '.join(unknown)}", "rename or remove them")
    return Finding("pipelines", "ok", words)


def _trust(workspace: Workspace) -> Finding:
    sites = [site.id for site in workspace.fleet.sites]
    lacking = [site for site in sites if not workspace.trust(site).exists]
    if lacking:
        return Finding("trust", "warn", f"{len(lacking)} of {len(sites)} sites have none", "pumpdeck trust init")
    now_ms = workspace.clock.now_ms()
    soon = [
        f"{site} {role} until {format_ms(expires_ms)}"
        for site in sites
        for role, expires_ms in workspace.trust(site).status().expires_ms.items()
        if expires_ms - now_ms < expiry_warning_ms(role)
    ]
    if soon:
        words = f"{len(soon)} signatures run out soon or have: {', '.join(soon[:3])}"
        # Deploy, snapshot and timestamp are signed anew with every assignment; the others need their own key holders.
        return Finding("trust", "warn", words, "bring the key holders together while devices still take their word")
    return Finding("trust", "ok", f"{len(sites)} sites verified")


def _couriers(workspace: Workspace) -> Finding:
    from pumpdeck_fleet.services.courier import awaited_returns  # deferred: rollouts

    waits, now_ms = awaited_returns(workspace.store), workspace.clock.now_ms()
    late = [one for one in waits if one.left_ms and one.deadline_ms - now_ms < 7 * DAY_MS]
    if late:
        words = f"{len(late)} of {len(waits)} receipts are due within a week, first {late[0].device}"
        return Finding("couriers", "warn", words, "pumpdeck bundle awaited lists them")
    return Finding("couriers", "ok", f"{len(waits)} receipts awaited")


def _restore(workspace: Workspace) -> Finding:
    from pumpdeck_fleet.services.deploy import unheard_devices  # deferred: rollouts

    restored = workspace.store.lives.restored
    if restored is None:
        return Finding("restore", "ok", "was never restored from a backup")
    origin = f"restored from {restored.workspace} as of {format_ms(restored.backup_ms)}"
    silent = unheard_devices(workspace.store, workspace.store.devices.identities())
    if silent:
        words = f"{origin}; {len(silent)} devices have said nothing since, first {silent[0]}"
        return Finding("restore", "warn", words, "pumpdeck collect, bundle intake or sync, before anything is sent to them")
    return Finding("restore", "ok", f"{origin}; every device was heard of since")


def _conflicts(workspace: Workspace) -> Finding:
    from pumpdeck_fleet.store.merge import known_conflicts  # deferred: only merging needs it

    found = known_conflicts(workspace.store)
    if found:
        words = f"{len(found)} were listed by syncs, last {found[0].conflict.kind} {found[0].conflict.which}"
        return Finding("conflicts", "warn", words, "pumpdeck sync without a folder lists them")
    return Finding("conflicts", "ok", "none was found by a sync")


def _keys(workspace: Workspace) -> Finding:
    from pumpdeck_console.operations.doctor_keys import keys_finding  # deferred: cryptography

    return keys_finding(workspace)


def _key_changes(workspace: Workspace) -> Finding:
    from pumpdeck_console.operations.doctor_keys import exposed_finding  # deferred: TUF

    return exposed_finding(workspace)


def _recipients(workspace: Workspace) -> Finding:
    from pumpdeck_console.operations.recipients import list_recipients  # deferred: TUF

    rows = list_recipients(workspace).rows
    plain = sorted({row.site for row in rows if row.plain})
    closed = sorted({row.site for row in rows} - {row.site for row in rows if row.is_mine} - set(plain))
    if plain:
        words = f"returns on sticks of {len(plain)} sites lie open: {', '.join(plain[:3])}"
        return Finding("recipients", "warn", words, "pumpdeck trust recipient add NAME KEY")
    if closed:
        words = f"this workspace cannot read the returns of {len(closed)} sites: {', '.join(closed[:3])}"
        return Finding("recipients", "warn", words, "pumpdeck trust recipient list says who can")
    return Finding("recipients", "ok", f"returns of {len({row.site for row in rows})} sites are encrypted")


def _disk(workspace: Workspace) -> Finding:
    from pumpdeck_console.disk_encryption import DiskState, disk_report  # deferred: only doctor asks

    report = disk_report(workspace.root)
    words = f"{report.state}: {report.how}"
    if report.state is DiskState.ENCRYPTED:
        return Finding("disk", "ok", words)
    return Finding("disk", "warn", words, "a lost laptop gives away what the workspace holds; keep it on an encrypted disk")


def _store(workspace: Workspace) -> Finding:
    size = sum(path.stat().st_size for path in workspace.root.glob("pumpdeck.db*"))
    return Finding("store", "ok", f"workspace {workspace.store.workspace}, {size_words(size)}")


def _audit(workspace: Workspace) -> Finding:
    head = workspace.store.audit.verify()
    return Finding("audit chain", "ok", f"{head.position} entries hold, head {head.digest[:12]}")


def _space(workspace: Workspace) -> Finding:
    free = workspace.fs.free_bytes(workspace.root)
    if free < 500_000_000:
        return Finding("free space", "warn", size_words(free), "under 500 MB: make room before the next ingest")
    return Finding("free space", "ok", size_words(free))
