"""Making one more key on this computer: it counts for nothing before a change that names it is in force."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.credentials import INSECURE_WARNING, Source, check_outside, write_key_file
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import UsageError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_packaging.signing import generate_key


@dataclass(frozen=True, slots=True)
class NewKeyRequest:
    """Which role it is for, where it is kept; `path` names the file of a root key, which leaves this computer."""

    role: str
    source: Source
    passphrase: str = ""
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key: its name and place, and the file with its public half."""

    key_id: str
    name: str
    where: str
    public_file: str
    warning: str


def make_key(workspace: Workspace, request: NewKeyRequest) -> MadeKey:
    """Make a key, keep its private half, write its public half beside it. Audited.

    Not an operation of the worker process: passphrases never travel between processes.

    Raises:
        UsageError: a root key without a file of its own, or a file in the workspace.
        TrustError: there is a key already.
    """
    key = generate_key()
    if request.role == "root":
        if request.path is None:
            raise UsageError("needs a file of its own", "root key", hint="name one on another medium with --to")
        check_outside(request.path.absolute().parent, workspace.root)
        if request.source is Source.PROTECTED_FILE and not request.passphrase:
            raise UsageError("needs a passphrase", "root key")
        write_key_file(workspace.fs, request.path.absolute(), key, request.passphrase)
        name, where = request.path.stem, str(request.path)
        public = request.path.absolute().with_suffix(".pub")
        replace_file(workspace.fs, public, f"{key.openssh_public} {name}\n".encode("ascii"))
        warning = "" if request.passphrase else INSECURE_WARNING
    else:
        name = workspace.credentials.new_name(request.role)
        found = workspace.credentials.save(name, key, request.source, request.passphrase)
        where, warning, public = found.where, found.warning, workspace.key_folder / f"{name}.pub"
    with workspace.store.atomic() as store:
        store.audit.append(workspace.actor, "trust.new_key", request.role, reason=f"key {key.key_id[:12]}")
    return MadeKey(key.key_id, name, where, str(public), warning)
