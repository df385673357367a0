"""Who signed a backup, as the trust here says or, where there is no workspace yet, as the trust inside the backup says."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.words import fingerprint_words
from pumpdeck_packaging.backup import BackupFolder, BackupList
from pumpdeck_packaging.backup_word import check_word, read_word
from pumpdeck_packaging.people import Signatory, signatories
from pumpdeck_packaging.site_folder import SiteFolder

if TYPE_CHECKING:
    from pumpdeck_console.operations.vouching import Circle

NOBODY = "nobody signed it as a whole"


@dataclass(frozen=True, slots=True)
class Signature:
    """Who signed a backup. `key_id` and `person` are empty where nobody did; `roots` are the words of the roots that say so."""

    key_id: str = ""
    person: str = ""
    roots: Mapping[str, str] | None = None

    @property
    def sentence(self) -> str:
        """For people."""
        if not self.key_id:
            return f"Backup: {NOBODY}; only what is signed inside is proven."
        return f"Backup: signed by key {self.key_id[:12]} of {self.person or 'a person whom nobody named'}."


def signature_here(circle: Circle, folder: BackupFolder, listed: BackupList) -> Signature:
    """Who signed, by the trust of this workspace. Raises: TrustError, DamagedError: the signature does not hold."""
    people = {key: one for site in circle.founded for key, one in circle.people(site).items()}
    return _checked(folder, listed, people)


def signature_inside(folder: BackupFolder, listed: BackupList, now_ms: int) -> Signature:
    """Who signed, by the trust that the backup itself brings: it is worth what the words of its roots are worth.

    Raises:
        TrustError, DamagedError: the signature does not hold.
    """
    people: dict[str, Signatory] = {}
    roots = {}
    with tempfile.TemporaryDirectory(prefix=".trust-") as name:
        paths = [path for path in listed.files if path.startswith("trust/")]
        folder.copy_out(listed, Path(name), paths)
        for site in sorted((Path(name) / "trust").glob("*")):
            found = SiteFolder(site, RealFileSystem())
            if found.exists:
                people |= signatories(found.verified(now_ms))
                roots[site.name] = fingerprint_words(found.newest_root())
    signed = _checked(folder, listed, people)
    return Signature(signed.key_id, signed.person, roots)


def _checked(folder: BackupFolder, listed: BackupList, people: Mapping[str, Signatory]) -> Signature:
    envelope = read_word(folder, listed)
    if not envelope:
        return Signature()
    key_id = check_word(envelope, listed, {key: one.public_pem for key, one in people.items()})
    return Signature(key_id, people[key_id].person)
