"""The connection to a broker lives on through what a broken network does to it, on a real socket."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("paho.mqtt", reason="paho-mqtt is not installed (extra mqtt)")

from pumpdeck_agent import mqtt_link
from pumpdeck_agent.mqtt_settings import MqttSettings
from support.sshd import free_port

GOOD = b"\x20\x02\x00\x00"
WRONG_VERSION = b"\x20\x02\x00\x01"
RESET = struct.pack("ii", 1, 0)


class RudeBroker:
    """Answers each connection as it is told, then resets it; GOOD keeps it. It listens during turns only."""

    def __init__(self) -> None:
        self.port = free_port()
        self.kept: list[socket.socket] = []
        self.reports: list[str] = []

    def _listen(self) -> socket.socket:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", self.port))
        server.listen(4)
        return server

    def take(self, answer: bytes) -> None:
        """One connection; nobody listens any more when it is answered."""
        with self._listen() as server:
            server.settimeout(20)
            connection, _ = server.accept()
        connection.settimeout(20)
        if answer:
            connection.recv(512)
            connection.sendall(answer)
        if answer == GOOD:
            self.kept.append(connection)
            return
        if answer:
            connection.settimeout(0.3)
            # Its answer is read before the reset: the other side has called anew, or has hung up.
            with contextlib.suppress(OSError):
                connection.recv(512)
        if answer == WRONG_VERSION:
            # The call that the client makes at once meets nobody.
            time.sleep(0.3)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()


@contextlib.contextmanager
def linked(broker: RudeBroker) -> Iterator[mqtt_link.MqttLink]:
    link = mqtt_link.MqttLink(
        MqttSettings(host="127.0.0.1", port=broker.port), "gannet-d1", lambda _: None, broker.reports.append
    )
    link.open(["gannet/p101a/rows"])
    try:
        yield link
    finally:
        link.close()
        for connection in broker.kept:
            connection.close()


@pytest.mark.parametrize("answer", [b"", b"\x20", GOOD[:3], WRONG_VERSION, b"\xff\xff\xff\xff\xff\xff"])
def test_a_connection_that_is_reset_at_any_moment_is_made_again(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """WRONG_VERSION is the one that ended paho's thread: it calls again at once, and that call is refused."""
    monkeypatch.setattr(mqtt_link, "_BROKEN_WAIT_S", 0.1)
    raised: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(f"{args.thread} {args.exc_value}"))
    broker = RudeBroker()
    with linked(broker) as link:
        broker.take(answer)
        broker.take(GOOD)
        assert link.wait_until_up(20), broker.reports
        assert raised == []


def test_an_error_of_any_kind_in_the_connections_thread_ends_that_connection_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mqtt_link, "_BROKEN_WAIT_S", 0.1)
    broker = RudeBroker()

    def once(*_: object) -> None:
        monkeypatch.undo()
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(mqtt_link.paho.Client, "loop_misc", once)
    with linked(broker) as link:
        broker.take(GOOD)
        broker.take(GOOD)
        assert link.wait_until_up(20), broker.reports
    assert any("lost 127.0.0.1 (ConnectionResetError" in one for one in broker.reports)


WITHOUT_TLS = """
import sys, threading
sys.modules["ssl"] = None
from pumpdeck_agent import mqtt_link
from pumpdeck_agent.mqtt_settings import MqttSettings
heard = threading.Event()
def receive(delivery):
    assert (delivery.topic, len(delivery.payload)) == ("t", 100), delivery
    heard.set()
settings = MqttSettings(host="127.0.0.1", port=int(sys.argv[1]))
link = mqtt_link.MqttLink(settings, "d", receive, lambda said: print(said, flush=True))
link.open(["t"])
sys.exit(0 if heard.wait(20) else 1)
"""


def test_without_tls_loaded_a_reset_and_a_message_in_two_halves_are_borne() -> None:
    """As `serve` loads it. paho's own `except ssl...` clauses raised there, and its thread was gone."""
    broker = RudeBroker()
    process = subprocess.Popen([sys.executable, "-c", WITHOUT_TLS, str(broker.port)], stdout=subprocess.PIPE, text=True)
    broker.take(GOOD[:3])
    broker.take(GOOD)
    message = b"\x30\x67\x00\x01t" + bytes(100)
    broker.kept[0].sendall(message[:20])
    time.sleep(0.3)
    broker.kept[0].sendall(message[20:])
    said, _ = process.communicate(timeout=30)
    broker.kept[0].close()
    assert (process.returncode, said.count("connected to"), "Attribute" in said) == (0, 1, False), said


def test_closing_does_not_wait_for_a_broken_connection() -> None:
    broker = RudeBroker()
    with linked(broker) as link:
        assert not link.is_up
