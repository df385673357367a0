"""A package that one device alone can read: the package as it is, encrypted with age to the device's own key.

The digest of the package inside stays its name everywhere: rollouts, receipts, the store on the device. TUF signs the ciphertext,
under `models/<device>/<digest of the package inside>.tar.xz.age`, so what travels is verified before it is decrypted.
"""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DigestMismatchError
from pumpdeck_packaging.age_box import AgeIdentity, decrypt, encrypt
from pumpdeck_packaging.manifest import PACKAGE_MAX_BYTES


@dataclass(frozen=True, slots=True)
class SealedPackage:
    """A package's ciphertext, by digest and length, and whose key opens it."""

    sha256: str
    bytes: int
    age_key: str


def seal_package(data: bytes, device: str, age_key: str) -> tuple[SealedPackage, bytes]:
    """The ciphertext for that device; another one every time, so keep it.

    Raises:
        FormatError: not an age public key.
    """
    sealed = encrypt(data, [age_key], f"package for {device}")
    return SealedPackage(canonical.digest(sealed), len(sealed), age_key), sealed


def unseal_package(sealed: bytes, sha256: str, identity: AgeIdentity) -> bytes:
    """The package inside a ciphertext that was verified.

    Raises:
        WrongKeyError: it is for another device. DamagedError: it does not decrypt, or holds too much.
        DigestMismatchError: it is another package than was signed for.
    """
    what = f"package {sha256[:12]}"
    data = decrypt(sealed, [identity], what, PACKAGE_MAX_BYTES)
    found = canonical.digest(data)
    if found != sha256:
        raise DigestMismatchError("is not the package that was signed for", what, expected=sha256, found=found)
    return data
