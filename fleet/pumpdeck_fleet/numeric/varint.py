"""Whole numbers in as few bytes as they need: seven bits a byte, low ones first, zigzag for signed. Strict when read back."""

from __future__ import annotations

from collections.abc import Iterable

from pumpdeck_fleet.core.errors import FormatError

_LONGEST = 10


def write_unsigned(numbers: Iterable[int]) -> bytes:
    """Each number >= 0 in 1-10 bytes, one after the other."""
    out = bytearray()
    for number in numbers:
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
    return bytes(out)


def write_signed(numbers: Iterable[int]) -> bytes:
    """Each number in zigzag form: small whatever the sign."""
    return write_unsigned(2 * number if number >= 0 else -2 * number - 1 for number in numbers)


class VarintReader:
    """Reads numbers back from bytes.

    Raises (every method): FormatError - cut, longer than 63 bits, or padded with empty bytes.
    """

    def __init__(self, data: bytes, what: str, offset: int = 0) -> None:
        self._data = data
        self._what = what
        self.offset = offset

    def unsigned(self, count: int) -> list[int]:
        """The next `count` numbers."""
        data, offset, limit = self._data, self.offset, len(self._data)
        numbers = []
        for _ in range(count):
            number = shift = 0
            while True:
                if offset >= limit or shift >= 7 * _LONGEST:
                    raise FormatError("is cut or holds a number too long", self._what, found=f"byte {offset}")
                byte = data[offset]
                offset += 1
                number |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            if number >= 1 << 63 or (byte == 0 and shift > 7):
                raise FormatError("holds a number that is not in its shortest form", self._what, found=f"byte {offset}")
            numbers.append(number)
        self.offset = offset
        return numbers

    def signed(self, count: int) -> list[int]:
        """The next `count` zigzag numbers."""
        return [number // 2 if number % 2 == 0 else -(number // 2) - 1 for number in self.unsigned(count)]

    def one(self, low: int, high: int) -> int:
        """The next number, which must lie in `low`..`high`."""
        (number,) = self.unsigned(1)
        if not low <= number <= high:
            raise FormatError("holds a number out of range", self._what, expected=f"{low}..{high}", found=number)
        return number

    def take(self, count: int) -> bytes:
        """The next raw bytes."""
        piece = self._data[self.offset : self.offset + count]
        if len(piece) != count:
            raise FormatError("is cut", self._what, expected=f"{count} bytes at {self.offset}", found=len(piece))
        self.offset += count
        return piece

    def finish(self) -> None:
        """Nothing may follow."""
        if self.offset != len(self._data):
            raise FormatError("has bytes after its end", self._what, expected=self.offset, found=len(self._data))
