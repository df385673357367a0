"""Snapshots: manifests that name a training set by the digests of telemetry chunks; they hold no row (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pumpdeck_fleet.core.canonical import digest, encode, parse_json
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.ids import check_digest

PART_MAX_BYTES = 16 * 1024 * 1024
MANIFEST_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PumpSnapshot:
    """What a snapshot holds of one pump: `start_ms <= t < end_ms` of these chunks, without what is left out.

    chunks: (start, digest) in order of time. left_out: (start, end, reason).
    """

    start_ms: int
    end_ms: int
    chunks: tuple[tuple[int, str], ...]
    left_out: tuple[tuple[int, int, str], ...] = ()

    def encode(self) -> bytes:
        """The bytes whose SHA-256 is the digest of this part."""
        chunks = [list(one) for one in self.chunks]
        return encode([self.start_ms, self.end_ms, chunks, [list(one) for one in self.left_out]])

    @classmethod
    def parse(cls, data: bytes, which: str) -> PumpSnapshot:
        """Raises: FormatError - not such a part."""
        found = parse_json(data, which, max_bytes=PART_MAX_BYTES)
        try:
            start_ms, end_ms, chunks, left_out = found
            part = cls(
                _whole(start_ms),
                _whole(end_ms),
                tuple((_whole(start), check_digest(name, which)) for start, name in chunks),
                tuple((_whole(start), _whole(end), str(reason)) for start, end, reason in left_out),
            )
        except (TypeError, ValueError) as error:
            raise FormatError("is no snapshot of a pump", which, expected="[start, end, chunks, left out]") from error
        return part


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


@dataclass(frozen=True)
class SnapshotManifest:
    """The whole: the digest of each pump's part, by pump. Its own digest is the snapshot's."""

    pumps: Mapping[str, str]

    def encode(self) -> bytes:
        """The bytes whose SHA-256 is the snapshot's digest."""
        return encode(dict(self.pumps))

    @cached_property
    def digest(self) -> str:
        """The snapshot's identity."""
        return digest(self.encode())

    @classmethod
    def parse(cls, data: bytes, which: str) -> SnapshotManifest:
        """Raises: FormatError - not a manifest."""
        found = parse_json(data, which, max_bytes=MANIFEST_MAX_BYTES)
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
            raise FormatError("is no manifest of a snapshot", which, expected="pumps with digests")
        return cls({pump: check_digest(name, which) for pump, name in found.items()})
