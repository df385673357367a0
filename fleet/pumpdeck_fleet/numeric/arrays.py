"""Golden container: named arrays as reproducible bytes (docs/formats.md). No pickles, no clock, no compression."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.core.canonical import encode, parse_json
from pumpdeck_fleet.core.errors import FormatError, TooLargeError

MAGIC = b"PDA1"
HEADER_MAX_BYTES = 16_384
DTYPES = ("float32", "float64", "int64", "uint16", "uint8")
_KINDS = {np.dtype(name): name for name in DTYPES}


def encode_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The same arrays always give the same bytes: header sorted by name, little-endian, C order.

    Raises:
        FormatError: a type that the container does not hold.
    """
    header: dict[str, Any] = {}
    body: list[bytes] = []
    for name in sorted(arrays):
        array = arrays[name]
        kind = _KINDS.get(array.dtype.newbyteorder("="))
        if kind is None:
            raise FormatError("has a type the container does not hold", name, expected=DTYPES, found=array.dtype)
        header[name] = {"dtype": kind, "shape": list(array.shape)}
        body.append(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return MAGIC + encode(header) + b"\n" + b"".join(body)


def decode_arrays(data: bytes, what: str, *, max_bytes: int) -> dict[str, NDArray[Any]]:
    """The arrays of a container, read-only views where the machine is little-endian.

    Raises:
        TooLargeError: more than `max_bytes`.
        FormatError: not such a container, or its length is not what its header says.
    """
    if len(data) > max_bytes:
        raise TooLargeError("is too large", what, expected=f"at most {max_bytes} bytes", found=f"{len(data)} bytes")
    end = data.find(b"\n", 0, HEADER_MAX_BYTES)
    if not data.startswith(MAGIC) or end < 0:
        raise FormatError("is not a golden container", what, expected=f"{MAGIC.decode()} and a header line")
    raw = data[len(MAGIC) : end]
    header = parse_json(raw, what, max_bytes=HEADER_MAX_BYTES)
    if not isinstance(header, dict) or encode(header) != raw:
        raise FormatError("has a header that is not canonical", what)
    arrays: dict[str, NDArray[Any]] = {}
    offset = end + 1
    for name, entry in header.items():
        dtype, shape = _entry(entry, f"{what}.{name}")
        count = math.prod(shape)
        if offset + count * dtype.itemsize > len(data):
            raise FormatError("is cut", f"{what}.{name}", expected=f"{count * dtype.itemsize} bytes")
        try:
            array = np.frombuffer(data, dtype, count, offset).reshape(shape)
        except ValueError as error:
            # No rows of far too many columns take no room in the file, and numpy cannot hold the shape.
            raise FormatError("has a shape that no array can have", f"{what}.{name}", found=repr(shape)[:60]) from error
        arrays[name] = array.astype(dtype.newbyteorder("="), copy=False)
        offset += count * dtype.itemsize
    if offset != len(data):
        raise FormatError("has bytes after its end", what, expected=f"{offset} bytes", found=f"{len(data)} bytes")
    return arrays


def _entry(entry: object, where: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape"} or entry["dtype"] not in DTYPES:
        raise FormatError("has a wrong header entry", where, expected="dtype and shape", found=repr(entry)[:60])
    shape = entry["shape"]
    if not isinstance(shape, list) or len(shape) > 4 or any(type(size) is not int or size < 0 for size in shape):
        raise FormatError("has a wrong shape", where, expected="up to 4 sizes", found=repr(shape)[:60])
    return np.dtype(entry["dtype"]).newbyteorder("<"), tuple(shape)
