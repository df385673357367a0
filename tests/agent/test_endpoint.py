"""The endpoint's sockets: lengths, deadlines, how many at once; a bad or slow client gets a sentence and hurts nobody."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse

import pytest

from pumpdeck_agent.endpoint import Endpoint, EndpointLimits
from pumpdeck_agent.http_wire import BODY_MAX_BYTES, HEAD_MAX_BYTES, Head, Response
from pumpdeck_fleet.core.errors import UnreachableError

LIMITS = EndpointLimits(connections=3, request_s=0.4, idle_s=0.8)


def echo(head: Head, body: bytes) -> Response:
    return Response(200, json.dumps({"path": head.path, "body": body.decode("latin-1")}).encode())


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    one = Endpoint("127.0.0.1", 0, echo, LIMITS)
    one.start()
    yield one
    one.close()


def send(endpoint: Endpoint, data: bytes, *, ends: bool = True) -> tuple[int, dict[str, str]]:
    with socket.create_connection(endpoint.address, 60) as connection:
        connection.sendall(data)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        response = HTTPResponse(connection)
        response.begin()
        return response.status, json.loads(response.read())


def is_served(endpoint: Endpoint) -> bool:
    """Whether a new connection gets its answer. One that is turned away may be closed before it has said what it wants."""
    try:
        return send(endpoint, b"GET / HTTP/1.1\r\n\r\n")[0] == 200
    except OSError:
        return False


def test_several_requests_on_one_connection(endpoint: Endpoint) -> None:
    client = HTTPConnection(*endpoint.address, timeout=5)
    for number in range(5):
        client.request("POST", "/score?x=1", body=b"b" * number)
        assert json.loads(client.getresponse().read()) == {"path": "/score", "body": "b" * number}
    client.close()


def test_requests_sent_at_once_are_answered_in_order(endpoint: Endpoint) -> None:
    data = b"".join(b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(4))
    with socket.create_connection(endpoint.address, 60) as connection:
        connection.sendall(data + b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n")
        found = b"".join(iter(lambda: connection.recv(65536), b""))
    assert [found.index(b'"/%s"' % name) for name in (b"0", b"1", b"2", b"3", b"last")] == sorted(
        found.index(b'"/%s"' % name) for name in (b"0", b"1", b"2", b"3", b"last")
    )


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 70 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\na: " + b"x" * HEAD_MAX_BYTES + b"\r\n\r\n", 431),
        (b"G" * (HEAD_MAX_BYTES + 20_000), 431),
        (b"POST / HTTP/1.1\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\nx", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (BODY_MAX_BYTES + 1), 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nshort", 400),
        (b"GET / HTTP/1.1\r\nHost", 400),
    ],
)
def test_a_bad_request_gets_a_status_and_a_sentence(endpoint: Endpoint, data: bytes, status: int) -> None:
    found, answer = send(endpoint, data)
    assert found == status
    assert answer["error"].endswith(".")
    assert send(endpoint, b"GET /after HTTP/1.1\r\n\r\n")[0] == 200


@pytest.mark.parametrize("part", [b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf", b"POST /\r\n"])
def test_a_slow_request_is_ended_by_a_deadline_for_all_of_it(endpoint: Endpoint, part: bytes) -> None:
    began = time.monotonic()
    with socket.create_connection(endpoint.address, 60) as connection:
        connection.sendall(part)
        stop = threading.Event()

        def drip() -> None:
            # A byte now and then, so that no single wait is long.
            while not stop.wait(0.1):
                try:
                    connection.send(b"x")
                except OSError:
                    return

        threading.Thread(target=drip, daemon=True).start()
        found = connection.recv(65536)
        stop.set()
    assert b" 408 " in found.split(b"\r\n")[0]
    # It drips for ever; whoever waits for single bytes never answers.
    assert time.monotonic() - began < 60


def test_too_many_connections_are_turned_away_and_later_ones_served(endpoint: Endpoint) -> None:
    idle = [socket.create_connection(endpoint.address, 60) for _ in range(LIMITS.connections)]
    time.sleep(0.1)
    status, answer = send(endpoint, b"", ends=False)
    assert (status, answer["error"]) == (503, "Too many connections; try again in a moment.")
    for one in idle:
        one.close()
    deadline = time.monotonic() + 60
    while not is_served(endpoint):
        assert time.monotonic() < deadline


def test_an_idle_connection_is_closed(endpoint: Endpoint) -> None:
    with socket.create_connection(endpoint.address, 60) as connection:
        assert connection.recv(10) == b""


def test_a_taken_port_is_said(endpoint: Endpoint) -> None:
    with pytest.raises(UnreachableError, match="cannot listen"):
        Endpoint(*endpoint.address, echo)


def test_closing_ends_open_connections() -> None:
    one = Endpoint("127.0.0.1", 0, echo)
    one.start()
    with socket.create_connection(one.address, 5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(65536)
        one.close()
        assert connection.recv(10) == b""
    with pytest.raises(OSError):
        socket.create_connection(one.address, 1)
