"""HTTP/1.1 as far as the endpoint speaks it: bytes to a request, a response to bytes, every length limited. No socket in here.

Why not the standard library's `http.server`: it loads the TLS library and the mail parser, 7 MB of the 64 a device may spend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError

HEAD_MAX_BYTES = 8 * 1024
BODY_MAX_BYTES = 1024 * 1024
_MAX_HEADERS = 64
_REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class HttpError(PumpdeckError):
    """A request that is answered with this status and a sentence."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Head:
    """The first part of a request. Header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body_bytes: int
    keeps_open: bool


@dataclass(frozen=True, slots=True)
class Response:
    """What is sent back."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def parse_head(data: bytes) -> Head:
    """The head of a request, without the empty line that ends it.

    Raises:
        HttpError: not HTTP/1.x, a header that makes no sense or stands twice, a body of unknown or too large length.
    """
    lines = data.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[0].isalpha() or not words[1].startswith("/"):
        raise HttpError(400, "This is not an HTTP request.")
    method, target, version = words
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise HttpError(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    headers = _parse_headers(lines[1:])
    if "transfer-encoding" in headers:
        raise HttpError(411, "Send the body with Content-Length; chunked bodies are not taken.")
    connection = headers.get("connection", "").lower()
    keeps_open = connection == "keep-alive" if version == "HTTP/1.0" else connection != "close"
    return Head(method, target.partition("?")[0], headers, _body_bytes(method, headers), keeps_open)


def encode_response(response: Response, *, keeps_open: bool, has_body: bool = True) -> bytes:
    """The response as bytes; without its body for HEAD."""
    lines = [
        f"HTTP/1.1 {response.status} {_REASONS[response.status]}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        f"Connection: {'keep-alive' if keeps_open else 'close'}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        *(f"{name}: {value}" for name, value in response.headers.items()),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (response.body if has_body else b"")


def refusal(status: int, sentence: str, **headers: str) -> Response:
    """An error as JSON with one sentence for people."""
    # Half a surrogate pair may stand in JSON, and so in a name that a sentence repeats, but not in UTF-8.
    text = sentence.encode("utf-8", "replace").decode("utf-8")
    return Response(status, canonical.encode({"error": text}) + b"\n", headers=headers)


def _parse_headers(lines: list[str]) -> dict[str, str]:
    if len(lines) > _MAX_HEADERS:
        raise HttpError(431, f"More than {_MAX_HEADERS} headers.")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or any(mark < " " and mark != "\t" for mark in line):
            raise HttpError(400, "A header line makes no sense.")
        if headers.setdefault(name.lower(), value.strip()) != value.strip():
            raise HttpError(400, f"The header {name[:40]} stands twice and differs.")
    return headers


def _body_bytes(method: str, headers: Mapping[str, str]) -> int:
    text = headers.get("content-length")
    if text is None:
        if method == "POST":
            raise HttpError(411, "A POST needs Content-Length.")
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise HttpError(400, "Content-Length is not a number.")
    if int(text) > BODY_MAX_BYTES:
        raise HttpError(413, f"The body is too large: at most {BODY_MAX_BYTES} bytes.")
    return int(text)
