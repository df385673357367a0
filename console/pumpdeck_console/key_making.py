"""Making the keys of a fleet: three root keys as files in a folder that a person names, and the working keys of this computer.

The same keys may found several sites; each site's metadata says for which site it was signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.credentials import (
    AskPassphrase,
    Credentials,
    Source,
    check_outside,
    read_key_file,
    write_key_file,
)
from pumpdeck_fleet.core.errors import NotFoundError, TrustError, UsageError
from pumpdeck_fleet.core.ports import FileSystem, Signer
from pumpdeck_packaging.people import person_of_key
from pumpdeck_packaging.signing import Ed25519Signer, PublicKey, generate_key
from pumpdeck_packaging.site_keys import DeployKey, SiteKeys, SiteSigners

ROOT_KEYS = 3
ROOT_THRESHOLD = 2
WORKING_KEYS = ("targets", "release", "deploy")
SSH_KEY = "ssh"


@dataclass(frozen=True, slots=True)
class RootPlace:
    """Where the root key files go and with which passphrases; empty ones are only for throwaway fleets.

    `workspace` is where they must not be; None for a throwaway fleet.
    """

    folder: Path
    passphrases: tuple[str, str, str] = ("", "", "")
    insecure_storage: bool = False
    workspace: Path | None = None


def make_root_keys(fs: FileSystem, place: RootPlace) -> tuple[Ed25519Signer, ...]:
    """Make `root-1.key` .. `root-3.key`, one for each of three people. Returns them still open, to sign the first roots.

    Raises:
        UsageError: a passphrase is missing and insecure storage was not asked for, or the folder lies in the workspace.
        TrustError: there are keys already; none is written then.
    """
    check_outside(place.folder, place.workspace)
    if not place.insecure_storage and not all(place.passphrases):
        raise UsageError("each root key needs a passphrase", "root keys", expected=f"{ROOT_KEYS} passphrases")
    paths = root_paths(place.folder)
    present = [path for path in paths if fs.exists(path)]
    if present:
        raise TrustError("there is a root key already", str(present[0]), hint="name another folder")
    keys = tuple(generate_key() for _ in paths)
    for path, key, passphrase in zip(paths, keys, place.passphrases, strict=True):
        write_key_file(fs, path, key, passphrase)
    return keys


def root_paths(folder: Path) -> tuple[Path, ...]:
    """The files of the three root keys."""
    return tuple(folder / f"root-{number}.key" for number in range(1, ROOT_KEYS + 1))


def read_root_keys(fs: FileSystem, folder: Path, ask: AskPassphrase | None) -> tuple[Ed25519Signer, ...]:
    """The root keys that are at hand in a folder; at least the threshold of them.

    Raises:
        NotFoundError: fewer than two.
        TrustError: others can read one, or a passphrase is wrong.
    """
    found = tuple(read_key_file(fs, path, ask) for path in root_paths(folder) if fs.exists(path))
    if len(found) < ROOT_THRESHOLD:
        raise NotFoundError("too few root keys", str(folder), expected=ROOT_THRESHOLD, found=len(found))
    return found


def make_working_keys(
    credentials: Credentials, source: Source, passphrase: str = "", names: Sequence[str] = (*WORKING_KEYS, SSH_KEY)
) -> dict[str, Ed25519Signer]:
    """Make targets, release, deploy and ssh keys and keep them in `source`.

    Raises:
        As `Credentials.save`.
    """
    made = {}
    for name in names:
        key = generate_key()
        credentials.save(name, key, source, passphrase)
        made[name] = key
    return made


def site_keys(root: Sequence[PublicKey], targets: PublicKey, release: PublicKey, deploy: PublicKey) -> SiteKeys:
    """The public keys of a site with one release key and one laptop, in slot 0, both of one person."""
    people = dict.fromkeys((release.key_id, deploy.key_id), person_of_key(deploy.key_id))
    return SiteKeys(tuple(root), targets, (release,), (DeployKey(deploy, 0),), ROOT_THRESHOLD, people=people)


def site_signers(root: Sequence[Signer], working: dict[str, Ed25519Signer]) -> SiteSigners:
    """The private keys that found a site."""
    return SiteSigners(tuple(root), working["targets"], (working["release"],), working["deploy"])
