"""A running ssh-agent as a place where a signing key may live: list the Ed25519 keys it holds, let it sign.

The agent protocol is a length, a type byte and strings (draft-ietf-sshm-ssh-agent). One connection for one question: a shared one
breaks under threads. OpenSSH's own agent on Windows is a named pipe that opens like a file.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pumpdeck_fleet.core.errors import TrustError, UnreachableError
from pumpdeck_packaging.signing import public_key_of_raw

_REQUEST_IDENTITIES, _IDENTITIES_ANSWER = 11, 12
_SIGN_REQUEST, _SIGN_RESPONSE = 13, 14
_KEY_TYPE = b"ssh-ed25519"
_MAX_ANSWER_BYTES = 256 * 1024
_WAIT_S = 30.0
_WINDOWS_PIPE = r"\\.\pipe\openssh-ssh-agent"


class Wire(Protocol):
    """An open connection to an agent."""

    def send(self, data: bytes) -> None: ...

    def receive(self, count: int) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """One Ed25519 key in an agent."""

    key_id: str
    public_pem: str
    comment: str
    blob: bytes


class SshAgent:
    """The agent that `SSH_AUTH_SOCK` names, or Windows' own."""

    def __init__(self, open_wire: Callable[[], Wire]) -> None:
        self._open = open_wire

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> SshAgent | None:
        """The agent of this session; None when there is none."""
        path = environ.get("SSH_AUTH_SOCK")
        if path and hasattr(socket, "AF_UNIX"):
            return cls(lambda: _SocketWire(path))
        if sys.platform == "win32" and Path(_WINDOWS_PIPE).exists():
            return cls(lambda: _PipeWire(_WINDOWS_PIPE))
        return None

    def identities(self) -> tuple[AgentIdentity, ...]:
        """The Ed25519 keys it holds; other kinds are passed over.

        Raises:
            UnreachableError: it does not answer as an agent does.
        """
        kind, body = self._ask(struct.pack(">B", _REQUEST_IDENTITIES))
        if kind != _IDENTITIES_ANSWER:
            raise UnreachableError("does not list its keys", "ssh-agent", found=f"answer {kind}")
        reader = _Reader(body)
        found = []
        for _ in range(reader.number()):
            blob, comment = reader.string(), reader.string()
            inner = _Reader(blob)
            if inner.string() != _KEY_TYPE:
                continue
            public = public_key_of_raw(inner.string())
            found.append(AgentIdentity(public.key_id, public.pem, comment.decode("utf-8", "replace"), blob))
        return tuple(found)

    def sign(self, identity: AgentIdentity, payload: bytes) -> bytes:
        """The 64-byte Ed25519 signature.

        Raises:
            TrustError: the agent does not sign with this key (locked, or the person said no).
            UnreachableError: it does not answer.
        """
        request = struct.pack(">B", _SIGN_REQUEST) + _string(identity.blob) + _string(payload) + struct.pack(">I", 0)
        kind, body = self._ask(request)
        if kind != _SIGN_RESPONSE:
            raise TrustError("does not sign with this key", "ssh-agent", found=identity.comment or identity.key_id[:12])
        inner = _Reader(_Reader(body).string())
        algorithm, signature = inner.string(), inner.string()
        if algorithm != _KEY_TYPE or len(signature) != 64:
            raise TrustError("gave another kind of signature", "ssh-agent", found=algorithm.decode("ascii", "replace"))
        return signature

    def _ask(self, message: bytes) -> tuple[int, bytes]:
        try:
            with closing(self._open()) as wire:
                wire.send(_string(message))
                size = struct.unpack(">I", wire.receive(4))[0]
                if not 1 <= size <= _MAX_ANSWER_BYTES:
                    raise UnreachableError("gave an answer of impossible length", "ssh-agent", found=size)
                answer = wire.receive(size)
        except OSError as error:
            raise UnreachableError(f"does not answer ({error})", "ssh-agent") from error
        return answer[0], answer[1:]


class AgentSigner:
    """A key that lives in an agent; it signs and never leaves."""

    def __init__(self, agent: SshAgent, identity: AgentIdentity) -> None:
        self._agent = agent
        self._identity = identity
        self.key_id = identity.key_id

    @property
    def public_pem(self) -> str:
        """The public half as PEM text."""
        return self._identity.public_pem

    def sign(self, payload: bytes) -> bytes:
        """As `SshAgent.sign`."""
        return self._agent.sign(self._identity, payload)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def number(self) -> int:
        return int(struct.unpack(">I", self._take(4))[0])

    def string(self) -> bytes:
        return self._take(self.number())

    def _take(self, count: int) -> bytes:
        if len(self._data) < count:
            raise UnreachableError("gave an answer that is cut short", "ssh-agent")
        part, self._data = self._data[:count], self._data[count:]
        return part


class _SocketWire:
    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_WAIT_S)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, count: int) -> bytes:
        return _exactly(self._socket.recv, count)

    def close(self) -> None:
        self._socket.close()


class _PipeWire:
    def __init__(self, path: str) -> None:
        self._pipe = Path(path).open("r+b", buffering=0)  # noqa: SIM115 - closed by `close`

    def send(self, data: bytes) -> None:
        self._pipe.write(data)

    def receive(self, count: int) -> bytes:
        return _exactly(lambda size: self._pipe.read(size) or b"", count)

    def close(self) -> None:
        self._pipe.close()


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    parts = []
    while count:
        part = read(count)
        if not part:
            raise OSError("the connection was closed")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
