"""A simulated device is reached as a real one: real SSH, its own host key, one user key, one command, no lost bytes."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pumpdeck_fleet.core.errors import DamagedError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_sample.ssh_keys import load_host_key, make_host_key, public_line
from pumpdeck_sample.ssh_server import SshDevice, SshServer
from support.ssh_client import connect, open_rpc

CLIENT_KEY = Ed25519PrivateKey.generate()
HOST_KEYS = [Ed25519PrivateKey.generate() for _ in range(60)]


def echo(read: BinaryIO, write: BinaryIO) -> int:
    """Answer each length-prefixed piece with its digest and itself; end with status 7 when the input ends."""
    while head := read.read(4):
        data = read.read(struct.unpack(">I", head)[0])
        write.write(hashlib.sha256(data).digest() + data)
        write.flush()
    return 7


def converse(port: int, payload: bytes) -> tuple[bytes, int]:
    transport = connect(port, CLIENT_KEY)
    try:
        channel = open_rpc(transport)

        def send() -> None:
            channel.sendall(struct.pack(">I", len(payload)))
            for start in range(0, len(payload), 65536):
                channel.sendall(payload[start : start + 65536])
            channel.shutdown_write()

        sender = threading.Thread(target=send)
        sender.start()
        answer = channel.makefile("rb").read()
        sender.join()
        return answer, channel.recv_exit_status()
    finally:
        transport.close()


@pytest.fixture
def server() -> Iterator[SshServer]:
    server = SshServer()
    yield server
    server.close()


def listen(server: SshServer, serve=echo, number: int = 0) -> int:
    return server.listen(SshDevice(f"d{number}", HOST_KEYS[number], public_line(CLIENT_KEY), serve))


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_001])
def test_every_byte_arrives_both_ways_and_then_the_exit_status(server: SshServer, size: int) -> None:
    port = listen(server)
    server.start()
    payload = os.urandom(size)
    answer, status = converse(port, payload)
    assert answer == hashlib.sha256(payload).digest() + payload
    assert status == 7


def test_the_tail_is_not_lost_when_the_service_ends_right_after_a_large_answer(server: SshServer) -> None:
    tail = os.urandom(1_500_000)

    def pour(read: BinaryIO, write: BinaryIO) -> int:
        write.write(tail)
        return 0

    port = listen(server, pour)
    server.start()
    for _ in range(5):
        transport = connect(port, CLIENT_KEY)
        channel = open_rpc(transport)
        assert channel.makefile("rb").read() == tail
        assert channel.recv_exit_status() == 0
        transport.close()


def test_sixty_devices_answer_at_concurrency_eight_from_a_bounded_number_of_threads(server: SshServer) -> None:
    before = threading.active_count()
    ports = [listen(server, number=number) for number in range(60)]
    server.start()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda port: converse(port, str(port).encode()), ports))
        during = threading.active_count()
    assert [answer[32:] for answer, _ in answers] == [str(port).encode() for port in ports]
    assert during - before < 24 * 2 + 8 * 3


def test_more_clients_than_connections_wait_their_turn() -> None:
    with SshServer(max_connections=2) as server:
        port = listen(server)
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda number: converse(port, bytes([number])), range(12)))
    assert [answer[32:] for answer, _ in answers] == [bytes([number]) for number in range(12)]


def test_each_device_shows_its_own_host_key(server: SshServer) -> None:
    ports = [listen(server, number=number) for number in range(3)]
    server.start()
    for number, port in enumerate(ports):
        transport = connect(port, CLIENT_KEY)
        shown = f"ssh-ed25519 {transport.get_remote_server_key().get_base64()}"
        transport.close()
        assert shown == public_line(HOST_KEYS[number])


def test_another_key_and_another_user_are_refused_and_nothing_is_served(server: SshServer) -> None:
    served = []
    port = listen(server, lambda read, write: served.append(1) or 0)
    server.start()
    for user, key in (("pumpdeck", Ed25519PrivateKey.generate()), ("root", CLIENT_KEY)):
        with pytest.raises(paramiko.AuthenticationException):
            connect(port, key, user)
    transport = paramiko.Transport(socket.create_connection(("127.0.0.1", port), timeout=10))
    transport.start_client(timeout=20)
    with pytest.raises(paramiko.BadAuthenticationType):
        transport.auth_password("pumpdeck", "pumpdeck")
    transport.close()
    assert served == []


@pytest.mark.parametrize("command", ["sh", "pumpdeck-agent", "pumpdeck-agent rpc; id", " pumpdeck-agent rpc"])
def test_any_other_command_is_refused(server: SshServer, command: str) -> None:
    served = []
    port = listen(server, lambda read, write: served.append(1) or 0)
    server.start()
    transport = connect(port, CLIENT_KEY)
    channel = transport.open_session(timeout=10)
    with pytest.raises(paramiko.SSHException):
        channel.exec_command(command)
    transport.close()
    assert served == []


def test_a_shell_a_subsystem_and_forwarding_are_refused(server: SshServer) -> None:
    port = listen(server)
    server.start()
    transport = connect(port, CLIENT_KEY)
    for ask in (lambda c: c.invoke_shell(), lambda c: c.invoke_subsystem("sftp"), lambda c: c.get_pty()):
        with pytest.raises(paramiko.SSHException):
            ask(transport.open_session(timeout=10))
    with pytest.raises(paramiko.ChannelException):
        transport.open_channel("direct-tcpip", ("127.0.0.1", 22), ("127.0.0.1", 0), timeout=10)
    with pytest.raises(paramiko.SSHException):
        transport.request_port_forward("127.0.0.1", 0)
    transport.close()


def test_a_service_that_fails_ends_with_status_1_and_the_next_conversation_works(server: SshServer) -> None:
    fail = [True]

    def sometimes(read: BinaryIO, write: BinaryIO) -> int:
        if fail.pop():
            raise RuntimeError("defect")
        fail.append(False)
        return echo(read, write)

    port = listen(server, sometimes)
    server.start()
    transport = connect(port, CLIENT_KEY)
    assert open_rpc(transport).recv_exit_status() == 1
    transport.close()
    fail.append(False)
    assert converse(port, b"again")[1] == 7


def test_a_client_that_vanishes_frees_its_threads(server: SshServer) -> None:
    ended = threading.Event()

    def wait_for_end(read: BinaryIO, write: BinaryIO) -> int:
        try:
            read.read()
        finally:
            ended.set()
        return 0

    port = listen(server, wait_for_end)
    server.start()
    transport = connect(port, CLIENT_KEY)
    open_rpc(transport).sendall(b"half a frame")
    transport.sock.shutdown(socket.SHUT_RDWR)
    assert ended.wait(10)
    transport.close()


def test_closing_the_server_cuts_open_connections_and_frees_the_port() -> None:
    server = SshServer()
    port = listen(server)
    server.start()
    transport = connect(port, CLIENT_KEY)
    channel = open_rpc(transport)
    server.close()
    assert channel.makefile("rb").read() == b""
    transport.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=2).recv(1)


def test_a_host_key_is_made_once_and_kept(tmp_path: Path) -> None:
    fs = RealFileSystem()
    path = tmp_path / "ssh" / "host_ed25519"
    line = make_host_key(fs, path)
    assert make_host_key(fs, path) == line == public_line(load_host_key(fs, path))
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"not a key")
    with pytest.raises(DamagedError, match="not a private key"):
        make_host_key(fs, path)
