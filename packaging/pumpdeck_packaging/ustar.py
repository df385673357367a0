"""The narrow tar that a package is: regular USTAR members and nothing else, the same bytes for the same members.

A header is accepted only when it is, byte for byte, the header this module would have written for that name and size. So there is
no link, device, long name, sparse map, extension header, owner, mode or time to interpret, and nothing to get wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from pumpdeck_fleet.core.errors import FormatError

BLOCK = 512
RECORD = 20 * BLOCK
MAX_MEMBER_BYTES = 0o77777777777

_NAME = re.compile(rb"[\x21-\x7e]{1,100}")
_PREFIX = re.compile(rb"[\x21-\x7e]{0,155}")
_OCTAL = re.compile(rb"[0-7]{11}")


def header(name: str, size: int) -> bytes:
    """The 512-byte USTAR header of a regular file: mode 0644, owner 0, no names, time 0.

    A name of more than 100 characters is split at its last `/`, as USTAR has it.

    Raises:
        ValueError: the name is not printable ASCII, does not fit, or the size does not.
    """
    raw, prefix = name.encode("ascii"), b""
    if len(raw) > 100:
        prefix, _, raw = raw.rpartition(b"/")
    if _NAME.fullmatch(raw) is None or _PREFIX.fullmatch(prefix) is None or not 0 <= size <= MAX_MEMBER_BYTES:
        raise ValueError(f"no USTAR header for {name!r} of {size} bytes")
    start = raw.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"0" * 11 + b"\0"
    rest = b"0" + bytes(100) + b"ustar\x0000" + bytes(80) + prefix.ljust(155, b"\0")
    checksum = sum(start) + sum(rest) + 8 * 0x20
    return (start + b"%06o\0 " % checksum + rest).ljust(BLOCK, b"\0")


def length(sizes: Mapping[str, int]) -> int:
    """How long the tar of members with these sizes is."""
    members = sum(BLOCK + padded(size) for size in sizes.values())
    return -(-(members + 2 * BLOCK) // RECORD) * RECORD


def write(files: Mapping[str, bytes]) -> bytes:
    """The tar of `files`, members sorted by name.

    Raises:
        ValueError: a name does not fit.
    """
    parts = []
    for name in sorted(files):
        data = files[name]
        parts += [header(name, len(data)), data, bytes(padded(len(data)) - len(data))]
    whole = b"".join(parts)
    return whole.ljust(length({name: len(data) for name, data in files.items()}), b"\0")


def padded(size: int) -> int:
    """The length of a member's bytes in whole blocks."""
    return -(-size // BLOCK) * BLOCK


def read(take: Callable[[int], bytes], what: str) -> Iterator[tuple[str, int, Callable[[int], bytes]]]:
    """Walk a tar: for each member its name, size and a function that hands out its next bytes.

    `take(n)` yields exactly n bytes of the stream or raises. The consumer must take all of a member before it asks for the next.
    After the last member everything up to the end of the record is checked to be zero.

    Raises:
        FormatError: any byte is not what `write` would have put there.
    """
    position = 0
    while True:
        block = take(BLOCK)
        position += BLOCK
        if not any(block):
            break
        name, size = parse_header(block, what)
        left = size

        def take_member(count: int) -> bytes:
            nonlocal left
            count = min(count, left)
            left -= count
            return take(count)

        yield name, size, take_member
        if left:
            raise FormatError("was left in the middle of a member", what, found=name)
        padding = padded(size) - size
        if any(take(padding)):
            raise FormatError("has bytes hidden in the padding", what, found=name)
        position += padded(size)
    if any(take(-(-(position + BLOCK) // RECORD) * RECORD - position)):
        raise FormatError("has bytes hidden after the last member", what)


def parse_header(block: bytes, what: str) -> tuple[str, int]:
    """Name and size from a header that this module could have written.

    Raises:
        FormatError: it could not: a link, a device, an extension, an owner, a mode, a time, a strange name.
    """
    raw, digits, prefix = block[:100].rstrip(b"\0"), block[124:135], block[345:500].rstrip(b"\0")
    if _NAME.fullmatch(raw) is None or _OCTAL.fullmatch(digits) is None or _PREFIX.fullmatch(prefix) is None:
        raise FormatError("has a member that is not a plain file with a plain name", what, found=repr(raw[:100]))
    whole = prefix + b"/" + raw if prefix else raw
    name, size = whole.decode("ascii"), int(digits, 8)
    try:
        is_ours = block == header(name, size)
    except ValueError:
        is_ours = False
    if not is_ours:
        raise FormatError("has a member that is not a plain file", what, found=repr(name[:160]))
    return name, size
