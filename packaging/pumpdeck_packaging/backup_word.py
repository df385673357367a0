"""A person's word on a whole backup: which files it holds, where the audit chains in it end, and which one of many it is.

The envelope is one more file of the backup, the only one that its own word does not cover; readers before it take it for an
ordinary file. Without it nobody signed the backup, and that is said; with one that does not hold nothing of it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, TrustError
from pumpdeck_fleet.core.files import read_plain
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_packaging.backup import BackupFolder, BackupHead, BackupList
from pumpdeck_packaging.signing import sign_dsse, signed_payload, verify_dsse

BACKUP_PAYLOAD_TYPE = "application/vnd.pumpdeck.backup.v1+json"
WORD_FORMAT = 1
WORD_PATH = "signature/backup.dsse.json"
WORD_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class BackupWord:
    """What is signed. `digest` covers canonical JSON of the list of `files`; `seq` is where the own chain ends."""

    format: int
    workspace: str
    made_ms: int
    seq: int
    files: int
    digest: str
    heads: Mapping[str, BackupHead] = field(default_factory=dict)


def word_of(listed: BackupList) -> BackupWord:
    """The word on a list, whether or not an envelope stands among its files."""
    files = {path: one for path, one in listed.files.items() if path != WORD_PATH}
    seq = listed.heads[listed.workspace].position if listed.workspace in listed.heads else 0
    digest = canonical.digest(canonical.encode(files))
    return BackupWord(WORD_FORMAT, listed.workspace, listed.made_ms, seq, len(files), digest, listed.heads)


def sign_backup(listed: BackupList, signer: Signer) -> bytes:
    """The envelope over a list that does not hold it yet."""
    return sign_dsse(canonical.encode(word_of(listed)), BACKUP_PAYLOAD_TYPE, signer)


def read_word(folder: BackupFolder, listed: BackupList) -> bytes:
    """The envelope of a backup, unproven; empty where nobody signed it."""
    if WORD_PATH not in listed.files:
        return b""
    return read_plain(folder.path(listed.files[WORD_PATH].digest), WORD_MAX_BYTES)


def check_word(envelope: bytes, listed: BackupList, keys: Mapping[str, str]) -> str:
    """The id of the key that signed exactly this backup; `keys` are those that may (key id -> PEM).

    Raises:
        TrustError: another key signed it, the signature does not hold, or it is of another backup. FormatError: it is no word.
    """
    payload = verify_dsse(envelope, BACKUP_PAYLOAD_TYPE, keys, WORD_MAX_BYTES)
    found = canonical.decode(BackupWord, payload, "signed word on the backup", max_bytes=WORD_MAX_BYTES)
    if found.format != WORD_FORMAT:
        raise FormatError("has an unknown format", "signed word on the backup", expected=WORD_FORMAT, found=found.format)
    wanted = word_of(listed)
    if found != wanted:
        expected, said = f"{wanted.files} files, {wanted.digest[:12]}", f"{found.files} files, {found.digest[:12]}"
        raise TrustError("was signed for another state of it", "backup", expected=expected, found=said, hint="use another backup")
    (signed,) = signatures_of(envelope)
    return signed


def signatures_of(envelope: bytes) -> tuple[str, ...]:
    """The ids of the keys whose signatures an envelope carries, unproven."""
    signed_payload(envelope, BACKUP_PAYLOAD_TYPE, WORD_MAX_BYTES)
    plain = canonical.parse_json(envelope, "signed word on the backup", max_bytes=WORD_MAX_BYTES)
    return tuple(str(one["keyid"]) for one in plain["signatures"])
