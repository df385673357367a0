"""Founding trust: keys of people and of this computer, and one trust repository for each site."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.credentials import FoundKey, PlaceReport, Source
from pumpdeck_console.key_holders import Holders, with_names, write_holders
from pumpdeck_console.key_making import (
    SSH_KEY,
    WORKING_KEYS,
    RootPlace,
    make_root_keys,
    make_working_keys,
    read_root_keys,
    root_paths,
    site_keys,
)
from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.recipients import founding_returns
from pumpdeck_console.wiring import SETTINGS_FILE, Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, RefusedError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_packaging.returns_policy import ReturnsPolicy
from pumpdeck_packaging.signing import Ed25519Signer, PublicKey
from pumpdeck_packaging.site_keys import SiteSigners
from pumpdeck_packaging.trust_repository import SiteTrustStatus

KEY_NAMES = (*WORKING_KEYS, SSH_KEY)
"""The private keys of one computer, by name."""


@dataclass(frozen=True, slots=True)
class TrustRequest:
    """How keys are made. `root_folder` takes the three root key files; `key_folder` those of this computer ("" keeps its place).

    `store` is where working keys go; passphrases are empty only with `insecure_storage`. `plain_returns`: what devices of new
    sites put on sticks stays readable by anybody.
    """

    root_folder: Path
    store: Source = Source.KEYRING
    key_folder: str = ""
    root_passphrases: tuple[str, str, str] = ("", "", "")
    passphrase: str = ""
    insecure_storage: bool = False
    plain_returns: bool = False


@dataclass(frozen=True, slots=True)
class TrustReport:
    """Which sites were founded now and which had been before; where the keys are, and warnings that people must see."""

    founded: tuple[str, ...]
    already: tuple[str, ...]
    made_keys: tuple[str, ...]
    root_folder: str
    key_folder: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyReport:
    """Where a key of this computer is found first, and what each place said."""

    name: str
    source: str
    places: tuple[PlaceReport, ...]


@dataclass(frozen=True, slots=True)
class TrustStatus:
    """Repositories by site (None where none was founded) and the keys of this computer."""

    sites: Mapping[str, SiteTrustStatus | None]
    keys: tuple[KeyReport, ...]


def init_trust(workspace: Workspace, request: TrustRequest) -> TrustReport:
    """Make the keys that are missing and found the trust repository of every site that has none. Repeating changes nothing.

    Not an operation of the worker process: passphrases never travel between processes.

    Raises:
        UsageError: a passphrase is missing, or a key folder lies in the workspace.
        NotFoundError: sites are to be founded but the root keys are not at hand.
    """
    _remember_keys(workspace, request)
    lacking = [site.id for site in workspace.fleet.sites if not workspace.trust(site.id).exists]
    already = tuple(site.id for site in workspace.fleet.sites if site.id not in lacking)
    made: list[str] = []
    root = _root_keys(workspace, request, made) if lacking else ()
    working = _working_keys(workspace, request, made)
    for site in lacking:
        _found_site(workspace, site, root, working, _returns(workspace, request, made))
    warnings = sorted({workspace.credentials.find(name).warning for name in KEY_NAMES} - {""})
    folders = (str(request.root_folder), str(workspace.key_folder))
    return TrustReport(tuple(lacking), already, tuple(made), *folders, tuple(warnings))


@operation("trust.status", runs_in="reader")
def trust_status(workspace: Workspace, *, site: str = "") -> TrustStatus:
    """The repository of a site, or of every site, verified as a device would, and where this computer's keys are found."""
    sites: dict[str, SiteTrustStatus | None] = {}
    for one in [workspace.fleet.site(site)] if site else workspace.fleet.sites:
        repository = workspace.trust(one.id)
        sites[one.id] = repository.status() if repository.exists else None
    return TrustStatus(sites, tuple(key_report(workspace, name) for name in KEY_NAMES))


def key_report(workspace: Workspace, name: str) -> KeyReport:
    """What each place says about one key, without asking for a passphrase."""
    places = workspace.credentials.probe(name)
    first = next((place.source.value for place in places if place.state == "found"), "")
    return KeyReport(name, first, places)


@operation("trust.root", runs_in="reader")
def root_bytes(workspace: Workspace, *, site: str) -> bytes:
    """The newest root of a site: what a device is enrolled with.

    Raises:
        NotFoundError: no such site, or it has no trust repository.
    """
    return workspace.trust(workspace.fleet.site(site).id).root_bytes()


def _root_keys(workspace: Workspace, request: TrustRequest, made: list[str]) -> Sequence[Ed25519Signer]:
    if any(workspace.fs.exists(path) for path in root_paths(request.root_folder)):
        return read_root_keys(workspace.fs, request.root_folder, workspace.keys.ask_passphrase)
    if any(workspace.trust(site.id).exists for site in workspace.fleet.sites):
        # New root keys beside old ones would split the fleet into devices of two roots.
        raise NotFoundError(
            "the root keys of this fleet are not here",
            str(request.root_folder),
            hint="name the folder that holds them with --root-keys",
        )
    place = RootPlace(request.root_folder, request.root_passphrases, request.insecure_storage, workspace.root)
    keys = make_root_keys(workspace.fs, place)
    made += [path.stem for path in root_paths(request.root_folder)]
    return keys


def _working_keys(workspace: Workspace, request: TrustRequest, made: list[str]) -> dict[str, FoundKey]:
    names = KEY_NAMES
    missing = []
    for name in names:
        try:
            workspace.credentials.find(name)
        except NotFoundError:
            missing.append(name)
    if not missing:
        return {name: workspace.credentials.find(name) for name in names}
    if any(workspace.trust(site.id).exists for site in workspace.fleet.sites) and set(missing) - {SSH_KEY}:
        raise RefusedError(
            "keys of this fleet are missing on this computer",
            ", ".join(missing),
            hint="give them with --key-file NAME=PATH; changing the keys of a site is a root ceremony",
        )
    made += make_working_keys(workspace.credentials, request.store, request.passphrase, missing)
    return {name: workspace.credentials.find(name) for name in names}


def _returns(workspace: Workspace, request: TrustRequest, made: list[str]) -> ReturnsPolicy:
    if request.plain_returns:
        return ReturnsPolicy(plain=True)
    return founding_returns(workspace, request.store, request.passphrase, made)


def _found_site(
    workspace: Workspace,
    site: str,
    root: Sequence[Ed25519Signer],
    working: Mapping[str, FoundKey],
    returns: ReturnsPolicy,
) -> None:
    public = {name: PublicKey(key.signer.key_id, key.public_pem) for name, key in working.items()}
    keys = site_keys([key.public for key in root], public["targets"], public["release"], public["deploy"])
    signers = SiteSigners(
        tuple(root), working["targets"].signer, (working["release"].signer,), working["deploy"].signer
    )
    root_metadata = workspace.trust(site).create(keys, signers, returns)
    people = {key.public.key_id: f"root-{number}" for number, key in enumerate(root, 1)}
    people |= {public[role].key_id: f"{workspace.person}, {role}" for role in WORKING_KEYS}
    holders = with_names(Holders(), people, workspace.clock.now_ms())
    write_holders(workspace.fs, workspace.trust_path / site, holders)
    with workspace.store.atomic() as store:
        digests = {"root": canonical.digest(root_metadata)}
        store.audit.append(workspace.actor, "trust.found", site, reason="root keys 2 of 3", digests=digests)


def _remember_keys(workspace: Workspace, request: TrustRequest) -> None:
    """Write the key folder into `settings.toml`, which stays on this computer and holds no secret."""
    lines = []
    if request.key_folder and not workspace.settings.keys.folder:
        lines.append(f"folder = {_toml_text(str(Path(request.key_folder).expanduser().resolve()))}")
    if request.insecure_storage and not workspace.settings.keys.insecure_storage:
        lines.append("insecure_storage = true")
    if not lines:
        return
    path = workspace.root / SETTINGS_FILE
    text = path.read_text(encoding="utf-8") if path.exists() else "format = 1\n"
    head, table, rest = text.partition("[keys]\n")
    added = "".join(f"{line}\n" for line in lines)
    new = f"{head}{table}{added}{rest}" if table else f"{text.rstrip()}\n\n[keys]\n{added}"
    replace_file(workspace.fs, path, new.encode("utf-8"))
    workspace.forget_settings()


def _toml_text(text: str) -> str:
    escaped = re.sub(r'(["\\])', r"\\\1", text)
    return f'"{escaped}"'
