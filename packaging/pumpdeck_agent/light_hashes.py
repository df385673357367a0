"""Import this before `hashlib`: SHA-256 then comes from the interpreter itself and OpenSSL's libcrypto is not loaded.

`serve` hashes kilobytes and lives for months; the library would take 3.4 MB of the 64 that a device may spend on it. Where the
interpreter was built without hashes of its own, or has OpenSSL loaded already, nothing is changed. Children start anew: they
verify with OpenSSL.
"""

from __future__ import annotations

import importlib.util
import sys

_OWN = ("_sha2", "_sha256")


def use_own_hashes() -> None:
    """From here on `hashlib` does without OpenSSL in this process, when it can."""
    has_own = any(name in sys.builtin_module_names or importlib.util.find_spec(name) is not None for name in _OWN)
    if has_own and "hashlib" not in sys.modules:
        # The documented way to make an import fail; hashlib and hmac are written for its absence.
        sys.modules["_hashlib"] = None  # type: ignore[assignment]
