"""Words from outside as they may be shown: a terminal obeys control characters, whoever they come from."""

from __future__ import annotations


def plain(text: str) -> str:
    """`text` with everything that is no visible character written out, as `\\x1b`; line ends stay."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in "\n\u00a0\u202f" else _written(sign) for sign in text)


def _written(sign: str) -> str:
    number = ord(sign)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65_536 else f"\\U{number:08x}"
