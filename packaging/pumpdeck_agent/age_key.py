"""The device's own age key: made on the device beside the device key, 0600, never sent. Opens what is meant for it alone.

Loaded by the short-lived child only, and the library that decrypts only when something is encrypted.
"""

from __future__ import annotations

from pumpdeck_agent.config import Layout
from pumpdeck_agent.incoming import Incoming
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_packaging.age_box import AGE_MARK, AgeIdentity, decrypt, generate_identity, parse_identities
from pumpdeck_packaging.sealed_package import unseal_package
from pumpdeck_packaging.trust_rules import ReleasedPackage

_KEY_MAX_BYTES = 1024


def make_age_key(fs: FileSystem, layout: Layout) -> str:
    """The public half of the device's age key, made if there is none; empty where the library is not installed."""
    try:
        return fs.read_bytes(layout.age_public, _KEY_MAX_BYTES).decode("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    try:
        identity = _read(fs, layout) if fs.exists(layout.age_key) else generate_identity()
    except PumpdeckError:
        return ""
    if not fs.exists(layout.age_key):
        replace_file(fs, layout.age_key, f"{identity.secret}\n".encode("ascii"))
    # Last: a public half whose private half was never synced must not get about.
    replace_file(fs, layout.age_public, f"{identity.public}\n".encode("ascii"))
    return identity.public


def open_word(fs: FileSystem, layout: Layout, data: bytes, what: str, max_bytes: int) -> bytes:
    """What a console wrote for this device, decrypted where it is encrypted.

    Raises:
        WrongKeyError, DamagedError, NotFoundError: it cannot be.
    """
    return decrypt(data, [_read(fs, layout)], what, max_bytes) if data.startswith(AGE_MARK) else data


def open_package(fs: FileSystem, layout: Layout, incoming: Incoming, package: ReleasedPackage) -> bytes:
    """The package inside a pushed ciphertext, in memory: on the disk it stands open in the store alone (docs/adr/0086).

    The ciphertext stays until the package is committed: asked again, it need not come again.

    Raises:
        NotFoundError: it was not pushed, or this device has no age key.
        WrongKeyError: encrypted to another key than this device's.
        DamagedError: the disk damaged it, or it is not what was signed; nothing of it stays.
    """
    sealed = incoming.read(package.sealed)
    try:
        return unseal_package(sealed, package.sha256, _read(fs, layout))
    except PumpdeckError:
        incoming.forget({package.sealed})
        raise


def _read(fs: FileSystem, layout: Layout) -> AgeIdentity:
    try:
        data = fs.read_bytes(layout.age_key, _KEY_MAX_BYTES)
    except FileNotFoundError as error:
        hint = "release the package again once the console knows this device's age key"
        raise NotFoundError("this device has no age key", "device.age", hint=hint) from error
    return parse_identities(data.decode("ascii", "replace"), "device.age")[0]
