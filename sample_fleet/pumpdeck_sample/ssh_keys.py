"""Host keys of simulated devices, on disk as OpenSSH writes them."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pumpdeck_fleet.core.errors import DamagedError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem

KEY_MAX_BYTES = 16 * 1024


def make_host_key(fs: FileSystem, path: Path) -> str:
    """A new Ed25519 host key at `path` (0600), unless one is there; returns its public line `ssh-ed25519 AAAA..`."""
    if fs.exists(path):
        return public_line(load_host_key(fs, path))
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    fs.mkdir(path.parent)
    replace_file(fs, path, text)
    return public_line(key)


def load_host_key(fs: FileSystem, path: Path) -> Ed25519PrivateKey:
    """The host key at `path`.

    Raises:
        DamagedError: there is no Ed25519 key in it.
    """
    try:
        key = serialization.load_ssh_private_key(fs.read_bytes(path, KEY_MAX_BYTES), password=None)
    except ValueError as error:
        raise DamagedError("is not a private key", str(path), hint="remove it to have a new one made") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise DamagedError("is not an Ed25519 key", str(path), hint="remove it to have a new one made")
    return key


def public_line(key: Ed25519PrivateKey) -> str:
    """The public half as an OpenSSH line without a comment."""
    data = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return data.decode("ascii")
