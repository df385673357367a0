"""What the core needs from the world, as Protocols. Adapters live beside what they need; `wiring` picks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from pumpdeck_fleet.core.clock import Clock

__all__ = ["Clock", "Device", "FileSystem", "OpenFile", "Progress", "RpcChannel", "Signer"]

Progress = Callable[[str, int, int], None]
"""Called with a step's name, how much is done and how much there is (0 when unknown). May raise to cancel."""


class OpenFile(Protocol):
    """A file open for writing."""

    def write(self, data: bytes) -> int: ...

    def seek(self, offset: int) -> int: ...

    def fsync(self) -> None:
        """Return only when the bytes are on the medium."""
        ...

    def close(self) -> None: ...


class FileSystem(Protocol):
    """Every durable step that can be cut by a power loss. `tests/support` holds the disk that forgets unsynced bytes."""

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile: ...

    def read_bytes(self, path: Path, max_bytes: int) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: it is not there.
            TooLargeError: it is larger than `max_bytes`; nothing was read into memory beyond the limit.
        """
        ...

    def exists(self, path: Path) -> bool: ...

    def size(self, path: Path) -> int: ...

    def listdir(self, path: Path) -> list[str]: ...

    def mkdir(self, path: Path) -> None:
        """Make the folder and its parents; fine when it is there."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Replace `target` with `source` in one step."""
        ...

    def unlink(self, path: Path) -> None: ...

    def remove_tree(self, path: Path) -> None: ...

    def fsync_dir(self, path: Path) -> None: ...

    def free_bytes(self, path: Path) -> int: ...


class Signer(Protocol):
    """A private key that signs; the key itself never leaves the adapter."""

    key_id: str

    def sign(self, payload: bytes) -> bytes: ...


class RpcChannel(Protocol):
    """One open conversation with a device's agent (docs/formats.md, RPC frame)."""

    def call(self, op: str, header: Mapping[str, Any], body: bytes = b"") -> tuple[Mapping[str, Any], bytes]:
        """Send one request and wait for its answer (header, body).

        Raises:
            UnreachableError: the link broke or timed out.
            PumpdeckError: the agent refused; its own class and exit code are rebuilt.
        """
        ...

    def close(self) -> None: ...


class Device(Protocol):
    """How to reach one device; a transport is a function from this to an `RpcChannel`."""

    @property
    def id(self) -> str: ...


class Rows(Protocol):
    """Anything that yields telemetry rows as (pump id, time in ms, values by channel)."""

    def __iter__(self) -> Iterator[tuple[str, int, Mapping[str, float]]]: ...
