"""`pumpdeck-agent tuf-client`: the verifier in the command form of the public tuf-conformance suite (its CLIENT-CLI.md).

For tests of the verifier only: it alone fetches over HTTP, from this computer's loopback and nowhere else, it judges expiry by
this computer's clock, and the device's own trust is neither read nor written.
"""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit

from pumpdeck_fleet.core.clock import SystemClock
from pumpdeck_fleet.core.errors import NotFoundError, RefusedError, TooLargeError, UnreachableError, UsageError
from pumpdeck_fleet.core.files import RealFileSystem, replace_file
from pumpdeck_packaging.spec_client import Fetch, SpecClient, download

_KEPT_MAX_BYTES = 5_000_000
_TIMEOUT_S = 10.0
_URL_SAFE = "/:?#[]@!$&'()*+,;=%~"


def run(options: argparse.Namespace) -> None:
    """Run `init`, `refresh` or `download`.

    Raises:
        PumpdeckError: it failed; what verified before that is kept.
    """
    store = _FolderStore(options.metadata_dir)
    if options.step == "init":
        if options.trusted_root is None:
            raise UsageError("needs a trusted root file", "init")
        store.write("root", _read(options.trusted_root))
        return
    client = SpecClient(store, _fetch_below(_given(options.metadata_url, "--metadata-url")), SystemClock().now_ms())
    client.refresh()
    if options.step == "download":
        _download(client, options)


def _download(client: SpecClient, options: argparse.Namespace) -> None:
    name = _given(options.target_name, "--target-name")
    folder: Path | None = options.target_dir
    if folder is None:
        raise UsageError("is needed", "--target-dir")
    place = folder / quote(name, "")
    kept = _read(place) if place.is_file() else None
    data = download(client, name, _fetch_below(_given(options.target_base_url, "--target-base-url")), kept)
    if data is not None:
        replace_file(RealFileSystem(), place, data)


class _FolderStore:
    """One file a role, `root.json` and so on, as the suite looks for them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, role: str) -> bytes | None:
        place = self._place(role)
        return _read(place) if place.is_file() else None

    def write(self, role: str, data: bytes) -> None:
        replace_file(RealFileSystem(), self._place(role), data)

    def _place(self, role: str) -> Path:
        return self._folder / f"{quote(role, '')}.json"


def _read(place: Path) -> bytes:
    try:
        return RealFileSystem().read_bytes(place, _KEPT_MAX_BYTES)
    except OSError as error:
        raise NotFoundError("cannot be read", str(place), hint=str(error)) from error


def _given(value: str | None, option: str) -> str:
    if not value:
        raise UsageError("is needed", option)
    return value


def _fetch_below(base_url: str) -> Fetch:
    """A fetcher of what lies below an http address on loopback; it follows no redirect.

    Raises:
        UsageError: not an http address.
        RefusedError: not on this computer.
    """
    parts = urlsplit(base_url)
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError("is not an http address", base_url)
    address = _loopback_address(parts.hostname)
    port = parts.port or 80
    prefix = parts.path.rstrip("/") + "/"

    def fetch(path: str, max_bytes: int) -> bytes | None:
        connection = http.client.HTTPConnection(address, port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", prefix + quote(path, safe=_URL_SAFE), headers={"Host": parts.netloc})
            return _answer(connection.getresponse(), path, max_bytes)
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError("did not answer as HTTP", base_url, hint=str(error)) from error
        finally:
            connection.close()

    return fetch


def _answer(response: http.client.HTTPResponse, path: str, max_bytes: int) -> bytes | None:
    if response.status in (403, 404):
        return None
    if response.status != 200:
        raise UnreachableError("was not served", path, expected=200, found=response.status)
    data = response.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLargeError("is larger than was signed for or allowed", path, expected=f"<= {max_bytes} bytes")
    return data


def _loopback_address(name: str) -> str:
    try:
        found = [entry[4][0] for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise UnreachableError("has no address", name, hint=str(error)) from error
    for address in found:
        if not isinstance(address, str) or not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            raise RefusedError("is not this computer", name, expected="a loopback address", found=address)
    return str(found[0])
