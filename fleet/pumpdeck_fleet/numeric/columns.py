"""Telemetry column chunk: rows of one pump as compact bytes, the same for store chunks, segments and scores (docs/formats.md).

Sensors speak in decimal steps, so a channel whose every value is a whole number of 10**-d is kept as differences of whole
numbers; that is exact and halves the bytes. Any other channel keeps its float32 bits. Bytes are shuffled, then deflated.
Strict: a chunk that is cut, padded, or says more than the limits is refused before memory is taken.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.core.errors import FormatError, TooLargeError
from pumpdeck_fleet.numeric.frame import Float32, Int64, TelemetryFrame, UInt16

MAGIC = b"PDC1"
MAX_ROWS = 65_536
MAX_CHANNELS = 256
MAX_NAME_BYTES = 128
RAW = 255
MAX_DECIMALS = 5

_HEAD = struct.Struct("<4sIHBB")
_HAS_FLAGS = 1
_POWERS = 10.0 ** np.arange(MAX_DECIMALS + 1)
_MISSING = np.uint32(1 << 31)
_LARGEST = float(1 << 30)

UInt32 = NDArray[np.uint32]


def encode_chunk(frame: TelemetryFrame) -> bytes:
    """The frame as one chunk; the flags column is left out when all its flags are 0.

    Exact but for two spellings: every missing value becomes the one NaN, and -0 may become 0.

    Raises:
        TooLargeError: more than 65,536 rows or 256 channels.
        FormatError: a channel without a name, or with too long a one.
    """
    _check_size(len(frame), len(frame.channels), "chunk")
    parts = [_HEAD.pack(MAGIC, len(frame), len(frame.channels), _HAS_FLAGS if frame.flags.any() else 0, 0)]
    for name in frame.channels:
        raw = name.encode("utf-8")
        if not 0 < len(raw) <= MAX_NAME_BYTES:
            raise FormatError("has a channel name of the wrong length", "chunk", expected=f"1-{MAX_NAME_BYTES} bytes")
        parts.append(struct.pack("<H", len(raw)) + raw)
    return b"".join([*parts, pack_rows(frame)])


def decode_chunk(data: bytes, what: str = "chunk") -> TelemetryFrame:
    """The rows of a chunk.

    Raises:
        FormatError: not such a chunk, cut, padded, or its rows are not sorted by time.
        TooLargeError: it says that it holds more than the limits.
    """
    if len(data) < _HEAD.size:
        raise FormatError("is cut", what, expected=f"at least {_HEAD.size} bytes", found=len(data))
    magic, rows, count, bits, reserved = _HEAD.unpack_from(data)
    if magic != MAGIC or reserved or bits & ~_HAS_FLAGS:
        raise FormatError("is not a telemetry chunk", what, expected=MAGIC.decode(), found=data[:8].hex())
    _check_size(rows, count, what)
    channels, offset = _read_names(data, count, what)
    return unpack_rows(data[offset:], rows, channels, bool(bits & _HAS_FLAGS), what)


def pack_rows(frame: TelemetryFrame) -> bytes:
    """The rows alone, for a place that knows row count, channels and whether there are flags.

    One byte of decimals a channel, then one zlib stream: times, channels, flags.
    """
    decimals, words = _to_words(frame.values)
    steps = frame.at_ms.astype("<i8")
    steps[1:] -= frame.at_ms[:-1]
    parts = [_shuffled(steps), _shuffled_columns(words)]
    if frame.flags.any():
        parts.append(_shuffled(frame.flags.astype("<u2", copy=False)))
    # Shuffled differences hold runs, hardly any longer repeats: Z_RLE finds those, faster and smaller than a search.
    deflater = zlib.compressobj(1, zlib.DEFLATED, 15, 8, zlib.Z_RLE)
    return decimals.tobytes() + deflater.compress(b"".join(parts)) + deflater.flush()


def unpack_rows(
    data: bytes, rows: int, channels: tuple[str, ...], has_flags: bool, what: str = "chunk"
) -> TelemetryFrame:
    """What `pack_rows` packed.

    Raises:
        FormatError: cut, padded, damaged, or time does not rise.
    """
    count = len(channels)
    decimals = np.frombuffer(data[:count], np.uint8)
    if len(decimals) != count or (decimals[decimals > MAX_DECIMALS] != RAW).any():
        raise FormatError(
            "has wrong decimals", what, expected=f"{count} of 0-{MAX_DECIMALS} or {RAW}", found=data[:count].hex()
        )
    values_at, flags_at = 8 * rows, (8 + 4 * count) * rows
    raw = _inflate(data[count:], flags_at + (2 * rows if has_flags else 0), what)
    at_ms: Int64 = np.cumsum(_unshuffled(raw[:values_at], "<i8"), dtype=np.int64)
    flags: UInt16 = np.zeros(rows, np.uint16)
    if has_flags:
        flags = _unshuffled(raw[flags_at:], "<u2").astype(np.uint16, copy=False)
    planes = raw[values_at:flags_at].reshape(count, 4, rows).transpose(0, 2, 1)
    words = np.ascontiguousarray(planes).view("<u4").reshape(count, rows).astype(np.uint32, copy=False)
    return TelemetryFrame(channels, at_ms, _from_words(decimals, words), flags)


def _check_size(rows: int, channels: int, what: str) -> None:
    if rows > MAX_ROWS or channels > MAX_CHANNELS:
        expected = f"at most {MAX_ROWS} rows and {MAX_CHANNELS} channels"
        raise TooLargeError("is too large", what, expected=expected, found=f"{rows} rows, {channels} channels")


def _read_names(data: bytes, count: int, what: str) -> tuple[tuple[str, ...], int]:
    names, offset = [], _HEAD.size
    for _ in range(count):
        size = int.from_bytes(data[offset : offset + 2], "little")
        raw = data[offset + 2 : offset + 2 + size]
        offset += 2 + size
        if not 0 < size <= MAX_NAME_BYTES or len(raw) != size:
            raise FormatError("has a channel name of the wrong length", what, found=size)
        try:
            names.append(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise FormatError("has a channel name that is not UTF-8", what) from error
    return tuple(names), offset


def _to_words(values: Float32) -> tuple[NDArray[np.uint8], UInt32]:
    """Decimals of each channel (RAW where there are none), and its words: uint32 [c, n]."""
    columns = np.ascontiguousarray(values.T)
    missing = np.isnan(columns)
    has_missing = bool(missing.any())
    wide = np.where(missing, 0.0, columns) if has_missing else columns.astype(np.float64)
    plain = wide.astype(np.float32) if has_missing else columns
    decimals = np.full(len(columns), RAW, np.uint8)
    numbers = np.zeros(columns.shape, np.int32)
    left = np.arange(len(columns))
    for power, factor in enumerate(_POWERS):
        whole = np.rint(wide[left] * factor)
        exact = ((whole / factor).astype(np.float32) == plain[left]) & (np.abs(whole) < _LARGEST)
        fits = exact.all(axis=1)
        decimals[left[fits]] = power
        numbers[left[fits]] = whole[fits]
        left = left[~fits]
        if not len(left):
            break
    words = numbers.view(np.uint32)
    words[missing] = _MISSING
    words = _zigzag_steps(words)
    if len(left):
        words[left] = np.where(missing[left], np.float32(np.nan), columns[left]).view(np.uint32)
    return decimals, words


def _zigzag_steps(numbers: UInt32) -> UInt32:
    """Differences along time modulo 2**32, folded so that small numbers of either sign become small words."""
    steps = numbers.copy()
    np.subtract(numbers[:, 1:], numbers[:, :-1], out=steps[:, 1:])
    folded: UInt32 = (steps << np.uint32(1)) ^ (np.uint32(0) - (steps >> np.uint32(31)))
    return folded


def _from_words(decimals: NDArray[np.uint8], words: UInt32) -> Float32:
    raw = decimals == RAW
    columns: Float32 = words.view(np.float32)
    exact = np.flatnonzero(~raw)
    if len(exact):
        zigzag = words if len(exact) == len(words) else words[exact]
        steps = (zigzag >> np.uint32(1)) ^ (np.uint32(0) - (zigzag & np.uint32(1)))
        numbers = np.cumsum(steps, axis=1, dtype=np.uint32)
        whole = (numbers.view(np.int32) / _POWERS[decimals[exact]][:, np.newaxis]).astype(np.float32)
        missing = numbers == _MISSING
        if missing.any():
            whole[missing] = np.nan
        if len(exact) == len(words):
            columns = whole
        else:
            columns = columns.copy()
            columns[exact] = whole
    return np.ascontiguousarray(columns.T)


def _shuffled(column: NDArray[np.generic]) -> bytes:
    return column.view(np.uint8).reshape(len(column), column.itemsize).T.tobytes()


def _shuffled_columns(words: UInt32) -> bytes:
    little = words.astype("<u4", copy=False)
    return little.view(np.uint8).reshape(*words.shape, 4).transpose(0, 2, 1).tobytes()


def _unshuffled(raw: NDArray[np.uint8], dtype: str) -> NDArray[np.int64]:
    size = np.dtype(dtype).itemsize
    return np.ascontiguousarray(raw.reshape(size, -1).T).view(dtype).reshape(-1)


def _inflate(data: bytes, wanted: int, what: str) -> NDArray[np.uint8]:
    inflater = zlib.decompressobj()
    try:
        # One byte more than wanted: a chunk that would grow beyond its word is refused without growing.
        raw = inflater.decompress(data, wanted + 1)
    except zlib.error as error:
        raise FormatError(f"is damaged ({error})", what) from error
    if len(raw) != wanted or not inflater.eof or inflater.unused_data:
        found = "bytes behind its end" if inflater.unused_data else f"{len(raw)} bytes"
        raise FormatError("has the wrong length", what, expected=f"{wanted} bytes", found=found)
    return np.frombuffer(raw, np.uint8)
