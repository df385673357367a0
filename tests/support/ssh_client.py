"""A plain paramiko client for tests of servers: our own transport must not be what judges them."""

from __future__ import annotations

import io
import socket

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def paramiko_key(key: Ed25519PrivateKey) -> paramiko.PKey:
    """The key as paramiko wants it."""
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return paramiko.Ed25519Key.from_private_key(io.StringIO(text.decode()))


def connect(port: int, key: Ed25519PrivateKey, user: str = "pumpdeck") -> paramiko.Transport:
    """A logged-in connection to loopback; closed again when the login is refused."""
    transport = paramiko.Transport(socket.create_connection(("127.0.0.1", port), timeout=10))
    transport.start_client(timeout=20)
    try:
        transport.auth_publickey(user, paramiko_key(key))
    except Exception:
        transport.close()
        raise
    return transport


def open_rpc(transport: paramiko.Transport, command: str = "pumpdeck-agent rpc") -> paramiko.Channel:
    """A session running the one command."""
    channel = transport.open_session(timeout=10)
    channel.settimeout(20)
    channel.exec_command(command)
    return channel
