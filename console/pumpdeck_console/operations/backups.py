"""Backup of a workspace that is being worked in, and restore of one into a new folder, under a name of its own."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pumpdeck_console.operations.backup_signing import Signature, signature_inside
from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.other_side import peoples_files
from pumpdeck_console.operations.upkeep_view import BACKUP_ACTION, PROVEN_ACTION
from pumpdeck_console.operations.vouching import Circle, seal_chains
from pumpdeck_console.wiring import FLEET_FILE, STORE_FILE, Workspace, open_workspace
from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.errors import ConflictError, DamagedError, RefusedError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.copying import copy_store
from pumpdeck_fleet.store.life import Restored
from pumpdeck_packaging.backup import BACKUP_FORMAT, BackupFile, BackupFolder, BackupHead, BackupList, pack, unpack
from pumpdeck_packaging.backup_word import WORD_PATH, sign_backup
from pumpdeck_packaging.bundle_layout import DEPLOY_SLOTS
from pumpdeck_packaging.folder_lock import LOCK_NAME, hold_folder
from pumpdeck_packaging.site_folder import SiteFolder

COUNTERS_AHEAD = 100_000
"""How many signings a workspace can hardly have done since its latest backup; a restored one begins behind them."""
_FOLDERS = ("trust", "returns", "agent")
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class BackupReport:
    """A finished backup, read back and compared. `new_bytes` is what this one had to write.

    `not_signed`: why nobody's key stands under it.
    """

    to: str
    workspace: str
    files: int
    bytes: int
    new_bytes: int
    dropped: int
    not_signed: str = ""


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """A restored workspace. `unheard` counts enrolled devices that must be heard of before anything is sent to them.

    `signature` says who signed the backup, or that nobody did.
    """

    root: str
    workspace: str
    restored_from: str
    backup_ms: int
    files: int
    bytes: int
    unheard: int
    signature: str = ""


@operation("backup", runs_in="worker")
def backup(workspace: Workspace, *, to: str, on_progress: Progress = no_progress) -> BackupReport:
    """Write everything of this workspace into the folder `to`, or into one file when `to` ends in `.tar`; then read it all back.

    Others may go on working: the store is copied as it stands at one moment. Private keys are not in a workspace.

    Raises:
        RefusedError: the folder lies inside the workspace or holds other things. ConflictError: another workspace's backup.
        DamagedError: something of the workspace, or of what was written, is not what it should be.
    """
    target = Path(to).absolute()
    if target.resolve().is_relative_to(workspace.root.resolve()):
        raise RefusedError("lies inside the workspace", to, hint="a backup belongs on another disk")
    with workspace.store.atomic() as store:
        # Where it went tells the next person which disk to fetch.
        store.audit.append(workspace.actor, BACKUP_ACTION, store.workspace, reason=str(target))
        seal_chains(workspace)
    if target.suffix == ".tar":
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as name:
            report = _write(workspace, BackupFolder(Path(name) / "backup"), on_progress)
            pack(Path(name) / "backup", target)
        return replace(report, to=str(target))
    return _write(workspace, _claimed(workspace, target), on_progress)


@operation("restore", runs_in="worker")
def restore(source: Path, root: Path, *, clock: Clock, on_progress: Progress = no_progress) -> RestoreReport:
    """Make the new workspace `root` from a backup, after all of it was proven. It gets a name of its own and knows that it is
    a restore: nothing it signs or writes can be taken for what the old one did after the backup.

    Raises:
        ConflictError: there is something at `root`. NotFoundError: no backup. DamagedError: names the file that is damaged.
        RefusedError: the disk has no room for it. TooLargeError: no workspace is that large. Nothing was written then.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConflictError("is there already", str(root), expected="a new or empty folder")
    if source.is_file():
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=_near(root)) as name:
            unpack(source, Path(name))
            return _restore(BackupFolder(Path(name)), root, clock, on_progress)
    return _restore(BackupFolder(source), root, clock, on_progress)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """A backup that holds: every file was read. `signature` says who signed it, or that nobody did, `roots` by which roots."""

    workspace: str
    made_ms: int
    files: int
    bytes: int
    heads: Mapping[str, int]
    key_id: str
    person: str
    signature: str
    roots: Mapping[str, str]


def verify_backup(source: Path, *, clock: Clock, on_progress: Progress = no_progress) -> VerifyReport:
    """Read all of a backup and say who signed it, by the trust that it brings along; nothing is written.

    Raises:
        NotFoundError: no backup. DamagedError: names the file that is damaged. TrustError: the signature does not hold.
    """
    if source.is_file():
        with tempfile.TemporaryDirectory(prefix=".verify-") as name:
            unpack(source, Path(name))
            return _verified(BackupFolder(Path(name)), clock, on_progress)
    return _verified(BackupFolder(source), clock, on_progress)


@dataclass(frozen=True, slots=True)
class ProofReport:
    """What was found in `source`. `is_own`: it is of this very workspace."""

    source: str
    found: VerifyReport
    is_own: bool


@operation("backup.verify", runs_in="worker")
def prove_backup(workspace: Workspace, *, source: str, on_progress: Progress = no_progress) -> ProofReport:
    """The same, and the audit chain remembers that the workspace's own backup was proven.

    Raises:
        As `verify_backup`.
    """
    place = Path(source).absolute()
    found = verify_backup(place, clock=workspace.clock, on_progress=on_progress)
    with workspace.store.atomic() as store:
        is_own = found.workspace == store.workspace
        if is_own:
            store.audit.append(workspace.actor, PROVEN_ACTION, store.workspace, reason=str(place))
    return ProofReport(str(place), found, is_own)


def _verified(folder: BackupFolder, clock: Clock, on_progress: Progress) -> VerifyReport:
    listed = folder.read()
    found = _proven(folder, listed, clock, on_progress)
    heads = {chain: head.position for chain, head in listed.heads.items()}
    words = (found.key_id, found.person, found.sentence, found.roots or {})
    return VerifyReport(listed.workspace, listed.made_ms, len(listed.files), listed.total_bytes, heads, *words)


def _near(root: Path) -> Path:
    parent = root.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    return parent


def _claimed(workspace: Workspace, target: Path) -> BackupFolder:
    folder = BackupFolder(target)
    if folder.exists:
        found, own = folder.read().workspace, workspace.store.workspace
        if found != own:
            raise ConflictError("holds the backup of another workspace", str(target), expected=own, found=found)
    elif target.exists() and any(path.name not in ("objects", "incoming.part") for path in target.iterdir()):
        raise RefusedError("holds other things", str(target), expected="an empty folder or an earlier backup")
    return folder


def _write(workspace: Workspace, folder: BackupFolder, on_progress: Progress) -> BackupReport:
    files: dict[str, BackupFile] = {}
    new_bytes = done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        on_progress("backup MB", done // _MB, 0)

    def take(path: str, source: Path) -> None:
        nonlocal new_bytes
        files[path], is_new = folder.put(source, count)
        new_bytes += files[path].bytes if is_new else 0

    # The store first: what it names was on the disk before it was named.
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=workspace.root) as name:
        copy = Path(name) / STORE_FILE
        copy_store(workspace.root / STORE_FILE, copy)
        heads = _heads(copy, workspace.clock)
        take(STORE_FILE, copy)
    for path in peoples_files(workspace.root):
        take(path, workspace.root / path)
    for site in sorted(workspace.trust_path.glob("*")):
        with hold_folder(site):
            for source in _below(site):
                take(source.relative_to(workspace.root).as_posix(), source)
    for source in [one for part in _FOLDERS[1:] for one in _below(workspace.root / part)]:
        take(source.relative_to(workspace.root).as_posix(), source)
    # What else lies there can be made anew.
    for source in _below(workspace.artifacts_path / "sha256"):
        _take_artifact(folder, files, source, take)
    listed = BackupList(BACKUP_FORMAT, workspace.store.workspace, workspace.clock.now_ms(), heads, files)
    listed, why = _signed(workspace, listed, take)
    total, done = listed.total_bytes, 0
    folder.verify(listed, lambda size: on_progress("read back MB", size // _MB, total // _MB))
    dropped = folder.finish(listed)
    return BackupReport(str(folder.folder), listed.workspace, len(files), total, new_bytes, dropped, why)


def _signed(workspace: Workspace, listed: BackupList, take: Callable[[str, Path], None]) -> tuple[BackupList, str]:
    """The list with a person's word on it among its files; without a key as it is, and why."""
    pen = Circle(workspace).any_pen()
    if not pen.signers:
        return listed, pen.why
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=workspace.root) as name:
        path = Path(name) / "word"
        path.write_bytes(sign_backup(listed, pen.signers[0]))
        # `take` puts it into the very mapping that the list holds.
        take(WORD_PATH, path)
    return listed, ""


def _take_artifact(folder: BackupFolder, files: dict[str, BackupFile], source: Path, take: object) -> None:
    path = f"artifacts/sha256/{source.name[:2]}/{source.name}"
    size = source.stat().st_size
    if folder.holds(source.name, size):
        files[path] = BackupFile(size, source.name)
        return
    assert callable(take)
    take(path, source)
    if files[path].digest != source.name:
        hint = "bring it from another workspace with: pumpdeck sync"
        raise DamagedError("an artifact was altered", str(source), expected=source.name, found=files[path].digest, hint=hint)


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name != LOCK_NAME and path.suffix != ".part":
            yield path


def _heads(copy: Path, clock: Clock) -> dict[str, BackupHead]:
    """Where the chains end in the copy, each of them walked from its first entry."""
    with Store.open(copy, clock, read_only=True) as store:
        store.audit.verify()
        heads = [store.audit.head(chain) for chain in store.audit.chains()]
    return {head.chain: BackupHead(head.position, head.digest) for head in heads}


def _restore(folder: BackupFolder, root: Path, clock: Clock, on_progress: Progress) -> RestoreReport:
    listed = folder.read()
    for needed in (FLEET_FILE, STORE_FILE):
        if needed not in listed.files:
            raise DamagedError("lacks a file", str(folder.folder), expected=needed, hint="use another backup")
    signature = _proven(folder, listed, clock, on_progress)
    beside = root.with_name(root.name + ".restoring")
    RealFileSystem().remove_tree(beside)
    folder.copy_out(listed, beside, sorted(set(listed.files) - {WORD_PATH}))
    for site in sorted((beside / "trust").glob("*")):
        # A folder that was empty is not in a backup.
        SiteFolder(site, RealFileSystem()).make()
    with Store.open(beside / STORE_FILE, clock) as store:
        store.audit.verify()
        for chain, head in listed.heads.items():
            if store.audit.digest_at(head.position, chain) != head.digest:
                raise DamagedError("an audit chain is not the one that was backed up", chain, expected=head.digest)
        restored = Restored(listed.workspace, listed.made_ms, clock.now_ms())
        with store.atomic():
            store.lives.begin_again(restored, f"ws-{secrets.token_hex(6)}")
    report = _settle(beside, clock, listed, restored)
    if root.exists():
        root.rmdir()
    # Under its own name it stands only when it knows everything about itself.
    RealFileSystem().rename(beside, root)
    return replace(report, root=str(root), signature=signature.sentence)


def _proven(folder: BackupFolder, listed: BackupList, clock: Clock, on_progress: Progress) -> Signature:
    total, done = listed.total_bytes // _MB, 0

    def told(size: int) -> None:
        nonlocal done
        done += size
        on_progress("verify MB", done // _MB, total)

    folder.verify(listed, told)
    return signature_inside(folder, listed, clock.now_ms())


def _settle(beside: Path, clock: Clock, listed: BackupList, restored: Restored) -> RestoreReport:
    with open_workspace(beside, clock=clock) as workspace:
        founded = [site.id for site in workspace.fleet.sites if workspace.trust(site.id).exists]
        highest = {site: max(workspace.trust(site).status().versions.values()) for site in founded}
        ahead = COUNTERS_AHEAD * DEPLOY_SLOTS
        least = {site: version + ahead for site, version in highest.items()}
        with workspace.store.atomic() as store:
            store.lives.set_restored(replace(restored, least_versions=least))
            digests = {chain: head.digest for chain, head in listed.heads.items()}
            store.audit.append(workspace.actor, "workspace.restore", restored.workspace, "from a backup", digests)
        return RestoreReport(
            root="",
            workspace=workspace.store.workspace,
            restored_from=restored.workspace,
            backup_ms=restored.backup_ms,
            files=len(listed.files),
            bytes=listed.total_bytes,
            unheard=len(workspace.store.devices.identities()),
        )
