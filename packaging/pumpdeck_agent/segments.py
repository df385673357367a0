"""Rows and scores that are gathered until there are enough of them to be worth an item in the outbox."""

from __future__ import annotations

from pumpdeck_fleet.numeric.columns import decode_chunk, encode_chunk
from pumpdeck_fleet.numeric.frame import TelemetryFrame, concatenate, empty_frame

TAIL_ROWS = 10


class OpenSegment:
    """Frames of one pump in time order, kept as they came until they are needed as one."""

    def __init__(self, chunk: bytes = b"") -> None:
        self._frames: list[TelemetryFrame] = [decode_chunk(chunk, "open segment")] if chunk else []

    @property
    def rows(self) -> int:
        """How many rows wait."""
        return sum(len(frame) for frame in self._frames)

    def add(self, frame: TelemetryFrame) -> None:
        """Put rows behind those that wait."""
        if len(frame):
            self._frames.append(frame)

    def frame(self) -> TelemetryFrame:
        """All rows as one frame; a channel that some of them lack is missing there."""
        if not self._frames:
            return empty_frame(())
        channels = tuple(dict.fromkeys(name for frame in self._frames for name in frame.channels))
        joined = concatenate(frame.select(channels) for frame in self._frames)
        self._frames = [joined]
        return joined

    def start_ms(self) -> int | None:
        """Time of the oldest row that waits."""
        return int(self._frames[0].at_ms[0]) if self._frames else None

    def tail(self) -> TelemetryFrame:
        """The newest few rows."""
        return self.frame().take(slice(-TAIL_ROWS, None)) if self._frames else empty_frame(())

    def to_bytes(self) -> bytes:
        """As one chunk; empty when no row waits."""
        return encode_chunk(self.frame()) if self._frames else b""
