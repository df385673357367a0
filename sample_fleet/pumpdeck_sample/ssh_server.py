"""Simulated devices that speak real SSH on loopback: many listeners in one process, one service each.

Each device has its own Ed25519 host key and lets in one user with one key. The only thing it does is `exec` of
`pumpdeck-agent rpc`, whose standard streams are the channel; no shell, no forwarding, no other command.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import io
import logging
import queue
import selectors
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

RPC_COMMAND = "pumpdeck-agent rpc"
LOOPBACK = "127.0.0.1"
PIECE_BYTES = 64 * 1024
WINDOW_BYTES = 4 * 1024 * 1024
LOGIN_TIMEOUT_S = 20.0
IDLE_TIMEOUT_S = 120.0
SESSIONS_A_CONNECTION = 4
BACKLOG = 64
# AES-GCM does encryption and integrity in one pass; the rest of the list is for clients without it.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")
DIGESTS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")

RpcService = Callable[[BinaryIO, BinaryIO], int]
"""Carries one conversation from start to end over (read, write); returns the command's exit status."""

_log = logging.getLogger("pumpdeck_sample.ssh")
_log.addHandler(logging.NullHandler())
_log.propagate = False


@dataclass(frozen=True)
class SshDevice:
    """One simulated device: who it is, its host key, the one key it lets in (an OpenSSH line) and what it serves."""

    id: str
    host_key: Ed25519PrivateKey
    authorised_key: str
    serve: RpcService
    user: str = "pumpdeck"


class SshServer:
    """Listeners of many devices, served by at most `max_connections` connections of two threads each.

    Connections over the limit wait in the listener's backlog. Used as a context manager, it is closed at the end.
    """

    def __init__(self, *, max_connections: int = 24) -> None:
        self._slots = threading.Semaphore(max_connections)
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._waker, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._listeners: dict[str, socket.socket] = {}
        self._acceptor = threading.Thread(target=self._accept, name="ssh-accept", daemon=True)

    def listen(self, device: SshDevice, port: int = 0) -> int:
        """Listen for a device on loopback; returns the port, a free one when 0 was asked for.

        Raises:
            OSError: the port is taken.
        """
        listener = socket.create_server((LOOPBACK, port), backlog=BACKLOG)
        listener.setblocking(False)
        with self._lock:
            self._listeners[device.id] = listener
            self._selector.register(listener, selectors.EVENT_READ, _Host(device))
        return int(listener.getsockname()[1])

    def start(self) -> None:
        """Begin to accept; call once, after the first `listen`."""
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening, cut what is open and wait for the threads; never raises."""
        self._stopping.set()
        self._waker.close()
        if self._acceptor.is_alive():
            self._acceptor.join(5.0)
        with self._lock:
            for listener in self._listeners.values():
                self._selector.unregister(listener)
                listener.close()
            self._listeners.clear()
            connections = list(self._connections)
        self._selector.close()
        self._woken.close()
        for connection in connections:
            connection.cut()
        for connection in connections:
            connection.join(5.0)

    def __enter__(self) -> SshServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            for key, _ in self._selector.select():
                listener, host = key.fileobj, key.data
                if not isinstance(listener, socket.socket) or not isinstance(host, _Host):
                    continue
                # The listener stays readable, so a connection that finds no slot now is taken in a later round.
                if not self._slots.acquire(timeout=0.25):
                    break
                try:
                    client, _ = listener.accept()
                except OSError:
                    self._slots.release()
                    continue
                self._open(client, host)

    def _open(self, client: socket.socket, host: _Host) -> None:
        client.setblocking(True)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(client, host, self._closed)
        with self._lock:
            self._connections.add(connection)
        connection.start()

    def _closed(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
        self._slots.release()


class _Host:
    """What all connections to one device share: its key as paramiko wants it, and the key that may come in."""

    def __init__(self, device: SshDevice) -> None:
        self.device = device
        self.key = _paramiko_key(device.host_key)
        self.authorised = base64.b64decode(device.authorised_key.split()[1])


def _paramiko_key(key: Ed25519PrivateKey) -> paramiko.PKey:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return paramiko.Ed25519Key.from_private_key(io.StringIO(text.decode("ascii")))


class _Rules(paramiko.ServerInterface):  # type: ignore[misc]
    """What a connection may do: log in by the one key, open a session, run the one command. Runs on paramiko's thread."""

    def __init__(self, device: SshDevice, authorised: bytes) -> None:
        self._device = device
        self._authorised = authorised
        self.sessions: queue.Queue[paramiko.Channel] = queue.Queue(SESSIONS_A_CONNECTION)

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002 - paramiko calls it by position
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        is_known = username == self._device.user and hmac.compare_digest(key.asbytes(), self._authorised)
        return int(paramiko.AUTH_SUCCESSFUL if is_known else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002 - as above
        if kind == "session":
            return int(paramiko.OPEN_SUCCEEDED)
        return int(paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if command != RPC_COMMAND.encode("ascii"):
            return False
        try:
            self.sessions.put_nowait(channel)
        except queue.Full:
            return False
        return True


class _Connection(threading.Thread):
    """One client: handshake, then its sessions one after the other, until it goes or stays silent too long."""

    def __init__(self, client: socket.socket, host: _Host, on_closed: Callable[[_Connection], None]) -> None:
        super().__init__(name=f"ssh-{host.device.id}", daemon=True)
        self._device = host.device
        self._rules = _Rules(host.device, host.authorised)
        self._on_closed = on_closed
        self._client = client
        self._transport = paramiko.Transport(client, default_window_size=WINDOW_BYTES)
        self._transport.set_log_channel(_log.name)
        self._transport.add_server_key(host.key)
        options = self._transport.get_security_options()
        options.ciphers, options.digests = CIPHERS, DIGESTS

    def cut(self) -> None:
        """End the connection from outside."""
        self._transport.close()

    def run(self) -> None:
        try:
            self._converse()
        except (paramiko.SSHException, EOFError, OSError) as error:
            _log.info("%s: connection ended: %s", self._device.id, error)
        finally:
            self._transport.close()
            self._client.close()
            self._on_closed(self)

    def _converse(self) -> None:
        ready = threading.Event()
        self._transport.start_server(event=ready, server=self._rules)
        patience_s = LOGIN_TIMEOUT_S
        while (channel := self._next_session(patience_s)) is not None:
            self._serve(channel)
            patience_s = IDLE_TIMEOUT_S

    def _next_session(self, patience_s: float) -> paramiko.Channel | None:
        """The next session; `None` when the client is gone or none came in time.

        Waiting here after a session also lets the client read its tail: closing a socket that holds unread bytes resets it.
        """
        waited_s, step_s = 0.0, 0.02
        while waited_s < patience_s:
            try:
                return self._rules.sessions.get(timeout=step_s)
            except queue.Empty:
                waited_s += step_s
            if not self._transport.is_active():
                return None
        return None

    def _serve(self, channel: paramiko.Channel) -> None:
        status = 1
        channel.settimeout(IDLE_TIMEOUT_S)
        read = io.BufferedReader(_ChannelReader(channel), PIECE_BYTES)
        write = io.BufferedWriter(_ChannelWriter(channel), PIECE_BYTES)
        try:
            status = self._device.serve(read, write)
            write.flush()
        except Exception:  # noqa: BLE001 - one conversation must not take the other simulated devices with it
            _log.exception("%s: conversation failed", self._device.id)
        finally:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                channel.send_exit_status(status)
                channel.shutdown_write()
                channel.close()


class _ChannelReader(io.RawIOBase):
    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._channel.recv(view.nbytes)
        view[: len(data)] = data
        return len(data)


class _ChannelWriter(io.RawIOBase):
    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        # A bigger piece would be copied again for every packet that paramiko cuts from it.
        sent = int(self._channel.send(bytes(memoryview(data)[:PIECE_BYTES])))
        if sent == 0:
            raise BrokenPipeError("the client closed the channel")
        return sent
