"""The HTTP endpoint's sockets: a few connections at once, each with deadlines. Scoring never waits for a client.

A request is read whole before anything is scored, and a response is sent after everything is; both within seconds, or the
connection is closed. What is not among the first few connections gets 503 at once.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pumpdeck_agent.http_wire import (
    HEAD_MAX_BYTES,
    Head,
    HttpError,
    Response,
    encode_response,
    parse_head,
    refusal,
)
from pumpdeck_fleet.core.errors import UnreachableError

Answer = Callable[[Head, bytes], Response]
Admit = Callable[[Head], Response | None]
"""The refusal of a request by its head alone, before a byte of its body is read; None: go on."""

_PIECE_BYTES = 16 * 1024
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """How long and how many. `request_s`: for a whole request, from its first byte to its last, and for the first byte of a
    connection; `idle_s`: between two requests.
    """

    connections: int = 8
    request_s: float = 5.0
    idle_s: float = 30.0


class Endpoint:
    """Listens from `start` to `close`; requests are answered in threads of their own."""

    def __init__(
        self, host: str, port: int, answer: Answer, limits: EndpointLimits | None = None, admit: Admit = lambda _: None
    ) -> None:
        self._answer = answer
        self._admit = admit
        self._limits = limits or EndpointLimits()
        self._free = threading.BoundedSemaphore(self._limits.connections)
        self._open: set[socket.socket] = set()
        self._closing = False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if sys.platform != "win32":
                # There the option means that anybody may take over the port.
                self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((host, port))
            self._listener.listen(32)
        except OSError as error:
            self._listener.close()
            raise UnreachableError(f"cannot listen ({error})", f"{host}:{port}") from error

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Take connections from now on."""
        threading.Thread(target=self._accept, name="endpoint", daemon=True).start()

    def close(self) -> None:
        """Take no more and end those that are open."""
        self._closing = True
        for one in (self._listener, *self._open):
            # A thread that waits in accept or recv wakes up on a shutdown, not on a close.
            for end in (lambda one=one: one.shutdown(socket.SHUT_RDWR), one.close):
                try:
                    end()
                except OSError:
                    continue

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._listener.fileno() < 0:
                    return
                # Out of descriptors: a moment later some are free again.
                time.sleep(0.1)
                continue
            if not self._free.acquire(blocking=False):
                self._turn_away(connection)
                continue
            threading.Thread(target=self._converse, args=(connection,), name="request", daemon=True).start()

    def _turn_away(self, connection: socket.socket) -> None:
        with connection:
            connection.setblocking(False)
            busy = refusal(503, "Too many connections; try again in a moment.", **{"Retry-After": "1"})
            try:
                connection.send(encode_response(busy, keeps_open=False))
            except OSError:
                return

    def _converse(self, connection: socket.socket) -> None:
        self._open.add(connection)
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                rest, idle_s = b"", self._limits.request_s
                while not self._closing:
                    keeps_open, rest = self._one(connection, rest, idle_s)
                    idle_s = self._limits.idle_s
                    if not keeps_open:
                        return
        except OSError:
            # The client went away, or was too slow: its affair.
            return
        finally:
            self._open.discard(connection)
            self._free.release()

    def _one(self, connection: socket.socket, rest: bytes, idle_s: float) -> tuple[bool, bytes]:
        """Read and answer one request. Returns whether another may follow, and what of it was read already."""
        reader = _Reader(connection, rest, self._limits.request_s, idle_s)
        has_body = True
        try:
            head = reader.head()
            if head is None:
                return False, b""
            has_body = head.method != "HEAD"
            refused = self._admit(head)
            if refused is not None:
                response, keeps_open = refused, head.keeps_open and not head.body_bytes
            else:
                response, keeps_open = self._answer(head, reader.body(head.body_bytes)), head.keeps_open
        except HttpError as error:
            response, keeps_open = refusal(error.status, error.what), False
        connection.settimeout(self._limits.request_s)
        connection.sendall(encode_response(response, keeps_open=keeps_open, has_body=has_body))
        if not keeps_open:
            self._linger(connection)
        return keeps_open, reader.rest

    def _linger(self, connection: socket.socket) -> None:
        # Closed with bytes unread, the kernel would reset the connection and the client might lose the answer.
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(0.2)
        until = time.monotonic() + 0.5
        while time.monotonic() < until and connection.recv(_PIECE_BYTES):
            pass


class _Reader:
    def __init__(self, connection: socket.socket, rest: bytes, request_s: float, idle_s: float) -> None:
        self._connection = connection
        self._request_s = request_s
        self.rest = rest
        self._has_begun = bool(rest)
        self._deadline = time.monotonic() + (request_s if rest else idle_s)

    def head(self) -> Head | None:
        """The head of the next request; None when there is none."""
        while _END not in self.rest:
            if len(self.rest) > HEAD_MAX_BYTES:
                raise HttpError(431, f"The headers are too large: at most {HEAD_MAX_BYTES} bytes.")
            if not self._read():
                if self.rest:
                    raise HttpError(400, "The request is cut.")
                return None
        data, _, self.rest = self.rest.partition(_END)
        if len(data) > HEAD_MAX_BYTES:
            raise HttpError(431, f"The headers are too large: at most {HEAD_MAX_BYTES} bytes.")
        return parse_head(data)

    def body(self, count: int) -> bytes:
        """That many bytes."""
        parts, have = [self.rest], len(self.rest)
        while have < count:
            self.rest = b""
            if not self._read():
                raise HttpError(400, "The body is shorter than Content-Length says.")
            parts.append(self.rest)
            have += len(self.rest)
        data = b"".join(parts)
        self.rest = data[count:]
        return data[:count]

    def _read(self) -> bool:
        """More bytes into `rest`; False at the end of the stream."""
        self._connection.settimeout(max(0.001, self._deadline - time.monotonic()))
        try:
            piece = self._connection.recv(_PIECE_BYTES)
        except TimeoutError as error:
            if self._has_begun:
                raise HttpError(408, "The request took too long.") from error
            raise
        if piece and not self._has_begun:
            self._has_begun = True
            self._deadline = time.monotonic() + self._request_s
        self.rest += piece
        return bool(piece)
