"""Going back to an older package on one device: two people sign a word for it, each on their own computer.

The first makes the word and signs it into a file, the second reads it, signs it too, and whoever delivers takes the file into the
workspace; the next rollout of that package to that device carries it. The device checks it all again and uses it up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.base import operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import NotFoundError, RefusedError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_fleet.core.receipts import DowngradeWord
from pumpdeck_packaging.bundle_layout import DEPLOY, ROOT
from pumpdeck_packaging.downgrade import (
    DOWNGRADE_MAX_BYTES,
    DOWNGRADE_SIGNERS,
    add_signature,
    parse_word,
    sign_downgrade,
    signers_of,
)
from pumpdeck_packaging.downgrade_shelf import STEPS, last_seq
from pumpdeck_packaging.trust_rules import keys_of_role


@dataclass(frozen=True, slots=True)
class DowngradeRequest:
    """What the first person asks for: `package` is a digest or its beginning, `root_key` signs in place of the deploy key."""

    device: str
    package: str
    reason: str
    file: Path
    steps: int = STEPS
    root_key: Path | None = None


@dataclass(frozen=True, slots=True)
class DowngradeReport:
    """A word and who signed it so far: ids of keys."""

    word: DowngradeWord
    signers: tuple[str, ...]
    file: str

    @property
    def missing(self) -> int:
        """How many people must still sign."""
        return max(0, DOWNGRADE_SIGNERS - len(self.signers))


def ask(workspace: Workspace, request: DowngradeRequest) -> DowngradeReport:
    """Make the word and sign it as the first person. Not an operation of the worker process: it may ask for a passphrase.

    Raises:
        NotFoundError: no such device or package, or no key.
        RefusedError: the file is there already.
    """
    device = workspace.fleet.device(request.device)
    package = _package(workspace, device.id, request.package)
    if workspace.fs.exists(request.file):
        raise RefusedError("is there already", str(request.file), hint="name another file; a word is never written over")
    shelf, trust = workspace.downgrades(device.site), workspace.trust(device.site)
    word = shelf.new_word(device.id, package, request.reason, last_seq(trust.next_seq(), request.steps))
    envelope = sign_downgrade(word, _signer(workspace, device.site, request.root_key))
    with workspace.store.atomic() as store:
        store.audit.append(workspace.actor, "downgrade.ask", device.id, reason=word.reason, digests={"package": package})
        replace_file(workspace.fs, request.file, envelope)
    return _report(word, envelope, request.file)


def look(workspace: Workspace, file: Path) -> DowngradeReport:
    """What a file asks for and who signed it so far: read this before you sign. Raises: NotFoundError, FormatError."""
    envelope = _read(workspace, file)
    return _report(parse_word(envelope), envelope, file)


def sign(workspace: Workspace, file: Path, root_key: Path | None = None) -> DowngradeReport:
    """Add this person's signature to the file.

    Raises:
        TrustError: this key signed it before, or is not one of the site's.
    """
    envelope = _read(workspace, file)
    word = parse_word(envelope)
    site = workspace.fleet.device(word.device).site
    if site != word.site:
        raise RefusedError("names another site than the inventory", word.device, expected=site, found=word.site)
    signed = add_signature(envelope, _signer(workspace, site, root_key))
    with workspace.store.atomic() as store:
        digests = {"package": word.package_sha256}
        store.audit.append(workspace.actor, "downgrade.sign", word.device, reason=word.reason, digests=digests)
        replace_file(workspace.fs, file, signed)
    return _report(word, signed, file)


def take(workspace: Workspace, file: Path) -> DowngradeReport:
    """Keep the word for the next rollout of its package to its device, checked as the device will check it.

    Raises:
        TrustError, DamagedError: two people of the site did not sign it.
    """
    envelope = _read(workspace, file)
    word = parse_word(envelope)
    shelf = workspace.downgrades(workspace.fleet.device(word.device).site)
    with workspace.store.atomic() as store:
        token = shelf.put(envelope)
        digests = {"package": word.package_sha256, "downgrade": token.digest}
        store.audit.append(workspace.actor, "downgrade.take", word.device, reason=word.reason, digests=digests)
    return _report(word, envelope, file)


@operation("downgrade.list", runs_in="reader")
def waiting(workspace: Workspace) -> tuple[DowngradeWord, ...]:
    """The words that wait for a rollout, site by site."""
    return tuple(word for site in workspace.fleet.sites for word in workspace.downgrades(site.id).waiting())


def _package(workspace: Workspace, device: str, beginning: str) -> str:
    rows = [row for row in workspace.store.packages.for_device(device) if row.sha256.startswith(beginning.lower())]
    if len(rows) != 1 or not beginning:
        known = ", ".join(row.sha256[:12] for row in workspace.store.packages.for_device(device)) or "none"
        raise NotFoundError("is not one package of this device", beginning or "package", expected=f"one of {known}")
    return rows[0].sha256


def _signer(workspace: Workspace, site: str, root_key: Path | None) -> Signer:
    if root_key is None:
        return workspace.signing_key(DEPLOY, site).signer
    from pumpdeck_console.credentials import read_key_file  # deferred: only where a root key is at hand

    signer = read_key_file(workspace.fs, root_key, workspace.keys.ask_passphrase)
    if signer.key_id not in keys_of_role(workspace.downgrades(site).verified().trusted.root, ROOT):
        raise RefusedError("is not a root key of this site", str(root_key), expected=f"a root key of {site}")
    return signer


def _read(workspace: Workspace, file: Path) -> bytes:
    try:
        return workspace.fs.read_bytes(file, DOWNGRADE_MAX_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError("no such file", str(file)) from error


def _report(word: DowngradeWord, envelope: bytes, file: Path) -> DowngradeReport:
    return DowngradeReport(word, signers_of(envelope), str(file))
