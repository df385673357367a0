"""The one form a metadata file may have, checked before any of it is believed and before TUF reads it.

TUF verifies a re-serialised copy of what it parsed, so two different files can carry one good signature: other spacing, a key
that stands twice, signatures in capitals. Here a file is its canonical bytes or it is refused: what was signed is what we read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import parse_ms
from pumpdeck_fleet.core.errors import DamagedError, FormatError
from pumpdeck_packaging.bundle_layout import DEPLOY, METADATA_MAX_BYTES, RELEASE, TARGETS, parse_metadata_name

_HEX64 = re.compile(r"[0-9a-f]{64}")
_HEX128 = re.compile(r"[0-9a-f]{128}")
MAX_SIGNATURES = 16
OWN_FIELD = "pumpdeck"


@dataclass(frozen=True, slots=True)
class OwnWords:
    """What Pumpdeck adds to the signed part of every role: its site and when it was signed.

    `targets` also holds the deploy slots by key id, `timestamp` the newest root version there was when it was signed.
    """

    site: str
    signed_ms: int
    deploy_slots: dict[str, int] | None = None
    root: int | None = None


@dataclass(frozen=True, slots=True)
class MetadataForm:
    """A metadata file of the right form; nothing in it is verified yet."""

    name: str
    role: str
    version: int
    expires_ms: int
    own: OwnWords
    data: bytes


def parse_form(name: str, data: bytes) -> MetadataForm:
    """Check form, names and limits of one metadata file.

    Raises:
        DamagedError: it is empty, as after a power cut.
        TooLargeError, FormatError: it is not the canonical form of that role's metadata.
    """
    named = parse_metadata_name(name)
    if not data.strip(b"\0 \r\n\t"):
        raise DamagedError(
            "is empty", name, expected="metadata", hint="a copy was cut off; copy it again from the console"
        )
    plain = canonical.parse_json(data, name, max_bytes=METADATA_MAX_BYTES[named.role])
    if not isinstance(plain, dict) or set(plain) != {"signatures", "signed"} or not isinstance(plain["signed"], dict):
        raise FormatError("is not a metadata file", name, expected="signatures and signed")
    _check_signatures(plain["signatures"], name)
    signed: dict[str, Any] = plain["signed"]
    kind = TARGETS if named.role in (RELEASE, DEPLOY) else named.role
    if signed.get("_type") != kind:
        raise FormatError("is metadata of another role", name, expected=kind, found=repr(signed.get("_type"))[:40])
    version, expires = signed.get("version"), signed.get("expires")
    if type(version) is not int or version < 1 or (named.version and version != named.version):
        raise FormatError("has another version than its name", name, expected=named.version, found=repr(version)[:40])
    if type(expires) is not str:
        raise FormatError("lacks an expiry", name)
    own = canonical.from_plain(OwnWords, signed.get(OWN_FIELD), f"{name}.{OWN_FIELD}")
    if canonical.encode(plain) != data:
        raise FormatError("is not in canonical form", name, hint="copy it again from the console")
    return MetadataForm(name, named.role, version, parse_ms(expires, f"{name}.expires"), own, data)


def _check_signatures(signatures: Any, name: str) -> None:
    if not isinstance(signatures, list) or not 0 < len(signatures) <= MAX_SIGNATURES:
        raise FormatError("has no signatures, or too many", name, expected=f"1-{MAX_SIGNATURES}")
    seen = set()
    for signature in signatures:
        if not isinstance(signature, dict) or set(signature) != {"keyid", "sig"}:
            raise FormatError("has a signature of unknown form", name)
        key_id, value = signature["keyid"], signature["sig"]
        good = isinstance(key_id, str) and _HEX64.fullmatch(key_id) and isinstance(value, str)
        if not good or _HEX128.fullmatch(value) is None or key_id in seen:
            raise FormatError("has a signature of unknown form, or one key twice", name)
        seen.add(key_id)
