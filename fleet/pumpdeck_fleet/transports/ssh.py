"""SSH to devices: one connection, one exec channel, one RPC conversation. The only importer of paramiko.

What the network taught (each point measured): TCP_NODELAY on the own socket, AES-GCM first, 64 KiB pieces, a watchdog that closes
a dead transport, at most 8 handshakes at a time per server, no bare TCP probe, one ssh-agent object per connection.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko

from pumpdeck_fleet.core.errors import FormatError, NotFoundError, RefusedError, TrustError, UnreachableError
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.transports.rpc_client import RpcClient
from pumpdeck_fleet.transports.watchdog import Watchdog

COMMAND = "pumpdeck-agent rpc"
SEND_BYTES = 64 * 1024
STDERR_MAX_BYTES = 4096
OUTPUT_MAX_BYTES = 1024 * 1024
HANDSHAKES_PER_SERVER = 8
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr", "aes192-ctr", "aes128-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
_LOG_CHANNEL = "pumpdeck.ssh"
# Without a handler of its own, logging would print paramiko's tracebacks over the console's screen.
logging.getLogger(_LOG_CHANNEL).addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class SshLogin:
    """With which key to log in: the text of an OpenSSH private key, or a file of it, or what an ssh-agent holds."""

    key_text: str = field(default="", repr=False)
    key_path: Path | None = None
    passphrase: str = field(default="", repr=False)
    use_agent: bool = False


@dataclass(frozen=True, slots=True)
class SshTimeouts:
    """All in seconds. `answer_s` must exceed the longest trial on a device: it is how long silence is borne."""

    connect_s: float = 10.0
    handshake_s: float = 20.0
    answer_s: float = 180.0
    keepalive_s: int = 15
    attempts: int = 4
    pause_s: float = 0.4


class SshConnector:
    """Opens conversations with devices; safe to call from many threads. Holds the key, the gates and the watchdog."""

    def __init__(
        self,
        login: SshLogin,
        timeouts: SshTimeouts = SshTimeouts(),
        *,
        command: str = COMMAND,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._timeouts = timeouts
        self._command = command
        self._sleep = sleep
        self._key = _load_key(login)
        if self._key is None and not login.use_agent:
            raise NotFoundError("no SSH key was given", "login", hint="give a key file, or use an ssh-agent")
        self._watchdog = Watchdog()
        self._gates: dict[tuple[str, int], threading.BoundedSemaphore] = {}
        self._lock = threading.Lock()

    def shell(self, device: Device) -> SshShell:
        """A login that runs commands, for setting a device up. Raises: as a conversation."""
        return SshShell(device.id, self._connected(device), self._watchdog, self._timeouts.answer_s)

    def __call__(self, device: Device) -> RpcClient:
        """An open conversation with the device's agent; close it when done.

        Raises:
            TrustError: no host key is pinned, the host key is another, or the device does not accept our key. Never retried.
            UnreachableError: no connection, even after a few attempts.
        """
        transport = self._connected(device)
        try:
            with self._watchdog.guard(transport.close, self._timeouts.handshake_s):
                channel = _start_agent(transport, device, self._command, self._timeouts)
            transport.set_keepalive(self._timeouts.keepalive_s)
        except BaseException:
            transport.close()
            raise
        stream = _Stream(device.id, transport, channel, self._watchdog, self._timeouts.answer_s)
        return RpcClient(stream.send, stream.recv, close=stream.close, name=device.id)

    def _connected(self, device: Device) -> paramiko.Transport:
        pinned = parse_host_key(device)
        gate = self._gate(device)
        for attempt in range(1, self._timeouts.attempts + 1):
            try:
                with gate:
                    return self._open(device, pinned)
            except _DroppedInHandshakeError as error:
                # A busy sshd drops connections at random (MaxStartups); the next one may well get in.
                if attempt == self._timeouts.attempts:
                    raise UnreachableError("the SSH handshake failed", device.id, found=str(error)) from error
                self._sleep(self._timeouts.pause_s * attempt)
        raise AssertionError("at least one attempt is made")

    def _gate(self, device: Device) -> threading.BoundedSemaphore:
        with self._lock:
            return self._gates.setdefault(
                (device.address, device.port), threading.BoundedSemaphore(HANDSHAKES_PER_SERVER)
            )

    def _open(self, device: Device, pinned: paramiko.PKey) -> paramiko.Transport:
        transport = paramiko.Transport(_connect_socket(device, self._timeouts.connect_s))
        try:
            with self._watchdog.guard(transport.close, self._timeouts.handshake_s):
                _handshake(transport, device, pinned, self._timeouts)
                self._authenticate(transport, device)
        except BaseException:
            transport.close()
            raise
        return transport

    def _authenticate(self, transport: paramiko.Transport, device: Device) -> None:
        refused: Exception | None = None
        # An ssh-agent connection is not safe to share between threads: each connection opens its own.
        agent = paramiko.Agent() if self._key is None else None
        try:
            for key in [self._key] if agent is None else agent.get_keys():
                try:
                    transport.auth_publickey(device.user, key)
                    return
                except paramiko.BadAuthenticationType as error:
                    refused = error
                    break
                except paramiko.AuthenticationException as error:
                    # The same class stands for "no" and for a line that went dead meanwhile.
                    if not transport.is_active() and ("EOF" in str(error) or "timeout" in str(error)):
                        raise _DroppedInHandshakeError(_text(error)) from error
                    refused = error
                    if not transport.is_active():
                        break
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise _DroppedInHandshakeError(_text(error)) from error
        finally:
            if agent is not None:
                agent.close()
        raise TrustError(
            "the device does not accept our SSH key",
            device.id,
            expected=f"a key authorised for user {device.user}",
            found=_text(refused) if refused else "no key in the ssh-agent",
            hint="authorise the public key on the device, or choose another key",
        ) from refused


def open_ssh(device: Device, login: SshLogin, timeouts: SshTimeouts = SshTimeouts()) -> RpcClient:
    """One conversation with one device. For many devices make one `SshConnector`: it shares the key and the gates."""
    return SshConnector(login, timeouts)(device)


def offered_host_key(device: Device, timeouts: SshTimeouts = SshTimeouts()) -> str:
    """The host key line that the server at this device's address shows now. It proves nothing: a person must compare it.

    Raises:
        UnreachableError: no connection.
    """
    transport = paramiko.Transport(_connect_socket(device, timeouts.connect_s))
    try:
        transport.set_log_channel(_LOG_CHANNEL)
        options = transport.get_security_options()
        # The kinds that a device's inventory may pin, the strongest first.
        options.key_types = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512")
        transport.start_client(timeout=timeouts.handshake_s)
        key = transport.get_remote_server_key()
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise UnreachableError("the SSH handshake failed", device.id, found=_text(error)) from error
    finally:
        transport.close()
    return f"{key.get_name()} {key.get_base64()}"


def host_key_fingerprint(device: Device) -> str:
    """The pinned host key as `ssh-keygen -l` shows it. Raises: as `parse_host_key`."""
    return _fingerprint(parse_host_key(device))


@dataclass(frozen=True, slots=True)
class ShellAnswer:
    """How a command ended, and the first part of what it wrote."""

    status: int
    out: bytes
    err: bytes


class SshShell:
    """A login on which commands run one after the other."""

    def __init__(self, name: str, transport: paramiko.Transport, watchdog: Watchdog, answer_s: float) -> None:
        self._name = name
        self._transport = transport
        self._watchdog = watchdog
        self._answer_s = answer_s

    def run(self, command: str, data: bytes = b"", *, on_sent: Callable[[int], None] = lambda _sent: None) -> ShellAnswer:
        """Run a command with `data` as its standard input. Raises: UnreachableError: the link broke or hangs."""
        try:
            channel = self._transport.open_session(timeout=self._answer_s)
            channel.settimeout(self._answer_s)
            channel.exec_command(command)
            for at in range(0, len(data), SEND_BYTES):
                with self._watchdog.guard(self._transport.close, self._answer_s):
                    channel.sendall(data[at : at + SEND_BYTES])
                on_sent(min(at + SEND_BYTES, len(data)))
            channel.shutdown_write()
            out = self._read(channel.recv)
            err = self._read(channel.recv_stderr)
            with self._watchdog.guard(self._transport.close, self._answer_s):
                status = channel.recv_exit_status()
            channel.close()
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise UnreachableError("the link broke during a command", self._name, found=_text(error)) from error
        if status < 0:
            raise UnreachableError("the link broke during a command", self._name, found="no exit status")
        return ShellAnswer(status, out, err)

    def close(self) -> None:
        """Log out."""
        self._transport.close()

    def _read(self, take: Callable[[int], bytes]) -> bytes:
        data = b""
        while len(data) < OUTPUT_MAX_BYTES:
            with self._watchdog.guard(self._transport.close, self._answer_s):
                piece = take(SEND_BYTES)
            if not piece:
                break
            data += piece
        return data


class _DroppedInHandshakeError(Exception):
    """The connection broke before we were logged in: worth another attempt."""


def _text(error: BaseException | None) -> str:
    return (str(error) or type(error).__name__)[:300]


def _load_key(login: SshLogin) -> paramiko.PKey | None:
    if not login.key_text and login.key_path is None:
        return None
    which = str(login.key_path) if login.key_path else "SSH key"
    try:
        text = login.key_text or Path(str(login.key_path)).read_text(encoding="utf-8")
        return _parse_key(text, login.passphrase or None)
    except FileNotFoundError as error:
        raise NotFoundError("no such SSH key file", which) from error
    except paramiko.PasswordRequiredException as error:
        raise RefusedError("the SSH key needs its passphrase", which) from error
    except (paramiko.SSHException, ValueError, UnicodeDecodeError, OSError) as error:
        raise FormatError("is not a usable SSH private key", which, found=_text(error)) from error


def _parse_key(text: str, passphrase: str | None) -> paramiko.PKey:
    last: Exception | None = None
    for cls in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return cls.from_private_key(io.StringIO(text), passphrase)
        except paramiko.PasswordRequiredException:
            raise
        except (paramiko.SSHException, ValueError, IndexError) as error:
            last = last or error
    raise last if last is not None else ValueError("no known key type")


def parse_host_key(device: Device) -> paramiko.PKey:
    """The host key that the inventory pins for the device.

    Raises:
        TrustError: none is pinned: a first contact is a decision of enrolment, never of a transport.
        FormatError: it is not an OpenSSH public key line.
    """
    if not device.host_key:
        raise TrustError(
            "no host key is pinned", device.id, expected="host_key in the inventory", hint="enrol the device first"
        )
    parts = device.host_key.split()
    try:
        return paramiko.PKey.from_type_string(parts[0], base64.b64decode(parts[1], validate=True))
    except (IndexError, binascii.Error, ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        raise FormatError(
            "is not a host key", f"{device.id}.host_key", expected="ssh-ed25519 AAAA..", found=repr(device.host_key[:60])
        ) from error


def _connect_socket(device: Device, timeout_s: float) -> socket.socket:
    try:
        sock = socket.create_connection((device.address, device.port), timeout=timeout_s)
    except OSError as error:
        where = f"{device.address}:{device.port}"
        raise UnreachableError("no connection", device.id, expected=where, found=_text(error)) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    user_timeout = getattr(socket, "TCP_USER_TIMEOUT", None)
    if user_timeout is not None:
        sock.setsockopt(socket.IPPROTO_TCP, user_timeout, 30_000)
    return sock


def _handshake(
    transport: paramiko.Transport, device: Device, pinned: paramiko.PKey, timeouts: SshTimeouts
) -> None:
    transport.set_log_channel(_LOG_CHANNEL)
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = timeouts.handshake_s
    transport.channel_timeout = timeouts.handshake_s
    options = transport.get_security_options()
    options.ciphers = _CIPHERS
    options.digests = _MACS
    rsa = pinned.get_name() == "ssh-rsa"
    options.key_types = ("rsa-sha2-512", "rsa-sha2-256") if rsa else (pinned.get_name(),)
    try:
        transport.start_client(timeout=timeouts.handshake_s)
        found = transport.get_remote_server_key()
    except paramiko.IncompatiblePeer as error:
        # With the key type pinned, a server that has no key of it cannot be the device we know.
        raise TrustError("the server offers no host key of the pinned kind", device.id, found=_text(error)) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _DroppedInHandshakeError(_text(error)) from error
    if found.asbytes() != pinned.asbytes():
        raise TrustError(
            "the host key is not the pinned one",
            device.id,
            expected=_fingerprint(pinned),
            found=_fingerprint(found),
            hint="if the device was replaced, enrol it again; otherwise somebody may be in between",
        )


def _fingerprint(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _start_agent(
    transport: paramiko.Transport, device: Device, command: str, timeouts: SshTimeouts
) -> paramiko.Channel:
    try:
        channel = transport.open_session(timeout=timeouts.handshake_s)
        channel.settimeout(timeouts.answer_s)
        channel.exec_command(command)
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise UnreachableError("the agent could not be started", device.id, found=_text(error)) from error
    return channel


class _Stream:
    """The exec channel as the two byte callables of an RpcClient."""

    def __init__(
        self, name: str, transport: paramiko.Transport, channel: Any, watchdog: Watchdog, answer_s: float
    ) -> None:
        self._name = name
        self._transport = transport
        self._channel = channel
        self._watchdog = watchdog
        self._answer_s = answer_s

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            with self._watchdog.guard(self._transport.close, self._answer_s):
                for at in range(0, len(view), SEND_BYTES):
                    self._channel.sendall(view[at : at + SEND_BYTES])
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise UnreachableError("the link broke while sending", self._name, found=self._why(error)) from error

    def recv(self, count: int) -> bytes:
        try:
            with self._watchdog.guard(self._transport.close, self._answer_s + 5):
                data: bytes = self._channel.recv(count)
        except TimeoutError as error:
            self._transport.close()
            raise UnreachableError("no answer in time", self._name, expected=f"within {self._answer_s:g} s") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise UnreachableError("the link broke", self._name, found=_text(error)) from error
        if not data:
            raise self._ended()
        return data

    def close(self) -> None:
        self._channel.close()
        self._transport.close()

    def _ended(self) -> UnreachableError:
        error = self._transport.get_exception()
        status = self._channel.recv_exit_status() if self._channel.status_event.wait(2.0) else -1
        words = self._stderr() or (_text(error) if error else f"exit status {status}")
        # A shell answers 126 or 127 when there is no agent to run: trying again changes nothing.
        return UnreachableError(
            "the agent ended the conversation", self._name, found=words, retryable=status not in (126, 127)
        )

    def _why(self, error: BaseException) -> str:
        return self._stderr() or _text(error)

    def _stderr(self) -> str:
        if not self._channel.recv_stderr_ready():
            return ""
        text: str = self._channel.recv_stderr(STDERR_MAX_BYTES).decode("utf-8", "replace")
        return text.strip()[-500:]
