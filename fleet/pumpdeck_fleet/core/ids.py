"""Names that are safe in a path, on a FAT stick and in a URL, and the identity of a pump."""

from __future__ import annotations

import re

from pumpdeck_fleet.core.errors import FormatError

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9_-])?")
_TAG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,30}[A-Za-z0-9_-])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{stem}{n}" for stem in ("com", "lpt") for n in range(10)}


def is_reserved(text: str) -> bool:
    """True for the names that Windows keeps for itself, whatever follows their first dot: `NUL`, `con.txt`."""
    return text.lower().split(".")[0].rstrip(" ") in _RESERVED


def is_name(text: str) -> bool:
    """True for 1-64 characters of `[a-z0-9._-]` that no file system of ours treats specially."""
    return _NAME.fullmatch(text) is not None and ".." not in text and not is_reserved(text)


def check_name(text: str, what: str) -> str:
    """`text` when it is a safe name.

    Raises:
        FormatError: it is not; `what` says whose name it is.
    """
    if not is_name(text):
        raise FormatError("is not a safe name", what, expected="1-64 of a-z 0-9 . _ -", found=repr(text[:80]))
    return text


def check_tag(text: str, what: str) -> str:
    """A pump tag such as `P-101A`: 1-32 of letters, digits, dot, underscore, dash; unique in its site whatever the case.

    Raises:
        FormatError: it is not such a tag.
    """
    if _TAG.fullmatch(text) is None or ".." in text or is_reserved(text):
        raise FormatError("is not a pump tag", what, expected="1-32 of A-Z a-z 0-9 . _ -", found=repr(text[:80]))
    return text


def check_digest(text: str, what: str) -> str:
    """A SHA-256 digest in lower-case hex.

    Raises:
        FormatError: it is not.
    """
    if _DIGEST.fullmatch(text) is None:
        raise FormatError("is not a digest", what, expected="64 of 0-9 a-f", found=repr(text[:80]))
    return text


def pump_id(site: str, tag: str) -> str:
    """The fleet-wide identity of a pump: `<site>/<tag>`."""
    return f"{site}/{tag}"


def split_pump_id(identity: str) -> tuple[str, str]:
    """Site and tag of a pump identity.

    Raises:
        FormatError: there is no `/` in it.
    """
    site, slash, tag = identity.partition("/")
    if not slash:
        raise FormatError("is not a pump identity", identity, expected="<site>/<tag>")
    return check_name(site, "site"), check_tag(tag, "pump tag")
