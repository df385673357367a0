"""The word that a return is safe: a deploy key's envelope over the digest of the return's own envelope, both in one file.

Without it a device keeps what it has said, and a full outbox drops old telemetry; with it, a courier's device is as free as one
that is reached by SSH. A word played again is harmless: what was safe once stays safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DigestMismatchError, FormatError, TrustError
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_fleet.core.receipts import KEPT_PAYLOAD_TYPE, RETURN_PAYLOAD_TYPE, KeptWord, ReturnIndex
from pumpdeck_packaging.bundle_layout import DEPLOY
from pumpdeck_packaging.bundle_returns import ENVELOPE_MAX_BYTES
from pumpdeck_packaging.signing import PublicKey, pem_of_key, sign_dsse, verify_dsse
from pumpdeck_packaging.trust_rules import keys_of_role
from pumpdeck_packaging.verify import VerifiedSite

KEPT_FORMAT = 1
KEPT_MAX_BYTES = ENVELOPE_MAX_BYTES + 16 * 1024
_WORD_MAX_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class DeviceName:
    """Which device, where."""

    site: str
    device: str


def sign_kept(name: DeviceName, envelope: bytes, signer: Signer) -> bytes:
    """The file that tells this device that the return with that envelope is safe."""
    word = KeptWord(KEPT_FORMAT, name.site, name.device, canonical.digest(envelope))
    return sign_dsse(canonical.encode(word), KEPT_PAYLOAD_TYPE, signer) + b"\n" + envelope


def verify_kept(data: bytes, name: DeviceName, site: VerifiedSite, device_key: PublicKey) -> list[str]:
    """The digests of the items that are safe.

    Raises:
        TrustError: no deploy key of this site signed it, it is for another device, or the return is not this device's own.
        DamagedError: it does not follow its form.
    """
    signed, _, envelope = data.partition(b"\n")
    deploy = {key_id: pem_of_key(key) for key_id, key in keys_of_role(site.trusted.targets, DEPLOY).items()}
    payload = verify_dsse(signed, KEPT_PAYLOAD_TYPE, deploy, _WORD_MAX_BYTES)
    word = canonical.decode(KeptWord, payload, "kept word", max_bytes=_WORD_MAX_BYTES)
    if word.format != KEPT_FORMAT:
        raise FormatError("has an unknown format", "kept word", expected=KEPT_FORMAT, found=word.format)
    if (word.site, word.device) != (name.site, name.device):
        raise TrustError("is for another device", "kept word", expected=name.device, found=f"{word.device} at {word.site}")
    if word.index != canonical.digest(envelope):
        raise DigestMismatchError("is about another return", "kept word", expected=word.index)
    return _own_items(envelope, name.device, {device_key.key_id: device_key.pem})


def _own_items(envelope: bytes, device: str, keys: Mapping[str, str]) -> list[str]:
    payload = verify_dsse(envelope, RETURN_PAYLOAD_TYPE, keys, ENVELOPE_MAX_BYTES)
    index = canonical.decode(ReturnIndex, payload, "own return", max_bytes=ENVELOPE_MAX_BYTES)
    if index.device != device:
        raise TrustError("is of another device", "own return", expected=device, found=index.device)
    return [item.digest for item in index.items]
