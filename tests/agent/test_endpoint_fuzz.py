"""Malformed requests against the real endpoint and the real API: a status and a sentence, never a crash, a hang or a score."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pumpdeck_agent.api import Api, ApiSettings
from pumpdeck_agent.endpoint import Endpoint, EndpointLimits
from pumpdeck_agent.http_wire import BODY_MAX_BYTES
from pumpdeck_agent.retrain import RetrainDesk
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from support.devices import NAMES, NOW_MS, Bench, package, quiet_rows

TOKEN = "t" * 40
LIMITS = EndpointLimits(connections=4, request_s=0.4, idle_s=0.6)
ROW = {"time": NOW_MS, "pump": "P-101A", **dict(zip(NAMES, map(float, quiet_rows(1, 1)[0]), strict=True))}
GOOD = json.dumps(ROW).encode()


class Served:
    """An endpoint over a device's API."""

    def __init__(self, bench: Bench, token: str = "") -> None:
        agent = bench.agent()
        self.scorer = Scorer(bench.platform, agent.layout, agent.config, bench.limits, ModelCache())
        self.scorer.package()
        desk = RetrainDesk(agent.config, self.scorer)
        api = Api(self.scorer, desk, (bench.platform, agent.layout), ApiSettings(token, lambda: None))
        self.endpoint = Endpoint("127.0.0.1", 0, api.answer, LIMITS, admit=api.admit)
        self.endpoint.start()

    def send(self, data: bytes, *, ends: bool = True) -> tuple[int, bytes]:
        with socket.create_connection(self.endpoint.address, 60) as connection:
            try:
                connection.sendall(data)
                if ends:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                # It was refused before all of it was sent.
                pass
            response = HTTPResponse(connection)
            response.begin()
            return response.status, response.read()

    def is_well(self) -> bool:
        return self.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 200


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    bench = Bench(tmp_path_factory.mktemp("device"))
    bench.install(package())
    one = Served(bench)
    yield one
    one.endpoint.close()


def post(body: bytes, path: str = "/score", *more: str, length: int | None = None) -> bytes:
    count = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {count}", *more]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


CASES: dict[str, tuple[bytes, set[int]]] = {
    "length too long": (post(GOOD, length=len(GOOD) + 5), {400}),
    "length too short": (post(GOOD, length=len(GOOD) - 5), {400}),
    "two lengths": (post(GOOD, "/score", "Content-Length: 3"), {400}),
    "length with sign": (post(GOOD).replace(b"Content-Length: ", b"Content-Length: +"), {400}),
    "length in other digits": (post(GOOD).replace(b"Content-Length: ", b"Content-Length: \xb2"), {400}),
    "chunked": (post(b"", "/score", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n", {411}),
    "chunked and length": (post(GOOD, "/score", "transfer-encoding: identity"), {411}),
    "too large a body": (post(b"x", length=BODY_MAX_BYTES + 1), {413}),
    "folded header": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n\r\n", {400}),
    "zero byte": (b"GET /health HTTP/1.1\r\nHost: local\0host\r\n\r\n", {400}),
    "bare line feeds": (b"GET /health HTTP/1.1\nHost: localhost\n\n", {400, 408}),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", {421}),
    "host of a page elsewhere": (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", {421}),
    "host that only begins so": (b"GET /health HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", {421}),
    "form of a page": (post(GOOD).replace(b"application/json", b"text/plain"), {415}),
    "wrong method": (b"DELETE /score HTTP/1.1\r\nHost: localhost\r\n\r\n", {405}),
    "wrong path": (b"GET /../agent.json HTTP/1.1\r\nHost: localhost\r\n\r\n", {404}),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), {400, 431}),
    "half a surrogate as pump": (post(b'{"pump": "\\ud800", "time": 1}'), {404}),
    "half a surrogate as channel": (post(b'{"pump": "P-101A", "time": 1, "\\udfff": 1}'), {400}),
    "half a surrogate as reason": (post(b'{"pump": "P-101A", "reason": "\\ud800"}', "/retrain-request"), {400}),
    "half a surrogate as name": (post(b'{"pump": "P-101A", "by": "\\ud800"}', "/acknowledge"), {400, 404}),
    "integer of 5,000 digits": (post(b'{"pump": "P-101A", "time": ' + b"9" * 5000 + b"}"), {400}),
    "number beyond double": (post(b'{"pump": "P-101A", "time": 1, "speed_rpm": 1e999}'), {400}),
    "nesting": (post(b'{"rows": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"), {400}),
    "utf-16": (post('{"pump": "P-101A"}'.encode("utf-16")), {400}),
    "empty body": (post(b""), {400}),
    "nothing but ends of lines": (b"\r\n\r\n\r\n\r\n", {400}),
    "a request in a body is no request": (post(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"), {400}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_malformed_request_gets_a_sentence_and_scores_nothing(served: Served, name: str) -> None:
    data, statuses = CASES[name]
    status, body = served.send(data)
    assert status in statuses, body
    assert json.loads(body)["error"].strip()
    assert not served.scorer.has_unsaved()
    assert served.is_well()


PIECES = st.one_of(
    st.sampled_from([data for data, _ in CASES.values()]),
    st.just(post(GOOD).replace(b"P-101A", b"P-1O1A")),
    st.binary(max_size=200),
)


@given(st.lists(PIECES, min_size=1, max_size=3), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_comes_the_endpoint_answers_or_closes_and_lives(
    served: Served, pieces: list[bytes], flips: list[tuple[int, int]]
) -> None:
    """Pipelined and mutated; threads that die of anything but the connection fail the run (pytest's own check)."""
    data = bytearray(b"".join(pieces))
    for place, value in flips:
        if place < len(data):
            data[place] = value
    try:
        status, _ = served.send(bytes(data))
    except (HTTPException, OSError):
        # No request was there: it closed.
        status = 0
    assert status in {0, 200, 202, 400, 404, 405, 408, 409, 411, 413, 415, 421, 431, 503, 505}
    assert served.is_well()


def test_without_the_token_no_byte_of_a_body_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.install(package())
    one = Served(bench, TOKEN)
    try:
        for authorization in ("", "Authorization: Bearer", "Authorization: Bearer " + "t" * 39, "Authorization: Basic " + TOKEN):
            head = post(b"", "/score", *filter(None, [authorization]), length=BODY_MAX_BYTES)
            status, body = one.send(head, ends=False)
            # Who waits for the body answers 408.
            assert status == 401, body
        status, _ = one.send(post(GOOD, "/score", f"Authorization: Bearer {TOKEN}"))
        assert status == 200
    finally:
        one.endpoint.close()


def test_connections_that_say_nothing_do_not_keep_others_out_for_long(served: Served) -> None:
    """Slowloris: all places taken by connections without a byte are free again after `request_s`."""
    idle = [socket.create_connection(served.endpoint.address, 60) for _ in range(LIMITS.connections)]
    deadline = time.monotonic() + 60
    while not served.is_well():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for one in idle:
        one.close()
