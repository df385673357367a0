"""Taking in a return that may be encrypted: whoever holds a recipient's key reads it, everybody else is told who can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pumpdeck_console.operations.confidential_packages import note_age_key
from pumpdeck_console.operations.delivering import collector_of
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_fleet.core.receipts import ReturnItem
from pumpdeck_packaging.bundle_returns import read_envelope, read_item
from pumpdeck_packaging.bundle_stick import Stick
from pumpdeck_packaging.sealed_return import OpenedReturn, is_sealed


@dataclass(frozen=True, slots=True)
class ReadableReturn:
    """The signed index of a return and how its items are read, whatever lay around them. Nothing in it is believed yet."""

    envelope: bytes
    read_item: Callable[[ReturnItem], bytes]


def open_return(workspace: Workspace, stick: Stick, device: str, *, allow_plain: bool = False) -> ReadableReturn:
    """A device's return from a stick, decrypted where it is encrypted.

    Raises:
        NotFoundError: the device did not finish it, is not known or not enrolled.
        TrustError: not signed by the device, or no key here opens it: the sentence names those who can.
        RefusedError: it is plain and its site demands encryption.
        DamagedError: a file was cut or altered. OSError: use inside `stick_errors`.
    """
    envelope = read_envelope(stick.fs, stick.folder, device)
    if not is_sealed(envelope):
        if not allow_plain:
            _check_plain_allowed(workspace, device)
        return ReadableReturn(envelope, lambda item: read_item(stick.fs, stick.folder, device, item))
    workspace.fleet.device(device)
    identity = collector_of(workspace).identity(device)
    keys = {identity.key_id: identity.public_pem}
    opened = OpenedReturn(stick, envelope, device, keys, workspace.recipient_keys.find())
    note_age_key(workspace, device, opened.sealed.age_key, "told in a return")
    return ReadableReturn(opened.envelope, opened.read_item)


def _check_plain_allowed(workspace: Workspace, device: str) -> None:
    site = workspace.fleet.device(device).site
    trust = workspace.trust(site)
    policy = trust.returns_policy() if trust.exists else None
    if policy is not None and policy.readers:
        raise RefusedError(
            "is not encrypted, and its site demands it",
            f"return of {device}",
            expected=f"encrypted to {', '.join(policy.readers)}",
            hint="it may be of a device that has not heard of this yet: take it in with --allow-plain",
        )
