"""The word of two people that one device may, once, go back to one older package.

It travels inside the assignment, so every way an assignment takes carries it. Who may sign: holders of a deploy key or of a root
key, each the key of one person; release and targets keys do not count, because a console keeps them beside its deploy key and a
stolen laptop would be two people. The device checks the signatures against its own verified metadata and uses the word up.
"""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, ReplayError, TrustError
from pumpdeck_fleet.core.ids import check_digest, check_name
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_fleet.core.receipts import DOWNGRADE_PAYLOAD_TYPE, Assignment, DowngradeWord
from pumpdeck_packaging.bundle_layout import DEPLOY, ROOT
from pumpdeck_packaging.people import people_in
from pumpdeck_packaging.signing import (
    add_dsse_signature,
    pem_of_key,
    public_key_of,
    sign_dsse,
    signed_payload,
    verify_dsse,
)
from pumpdeck_packaging.trust_rules import keys_of_role
from pumpdeck_packaging.tuf_adapter import TrustedSet

DOWNGRADE_FORMAT = 1
DOWNGRADE_MAX_BYTES = 3 * 1024
DOWNGRADE_SIGNERS = 2
REASON_MAX = 200
_NONCE_DIGITS = 32


@dataclass(frozen=True, slots=True)
class DowngradeToken:
    """A word that two people signed. `digest` names it: that of what was signed, whoever signed it."""

    word: DowngradeWord
    digest: str
    signers: tuple[str, ...]


def sign_downgrade(word: DowngradeWord, signer: Signer) -> bytes:
    """The envelope with the first signature."""
    return sign_dsse(canonical.encode(word), DOWNGRADE_PAYLOAD_TYPE, signer)


def add_signature(envelope: bytes, signer: Signer) -> bytes:
    """The envelope with one more signature. Raises: TrustError: this key has signed it already. FormatError: not a word."""
    parse_word(envelope)
    return add_dsse_signature(envelope, signer, DOWNGRADE_MAX_BYTES)


def parse_word(envelope: bytes) -> DowngradeWord:
    """What an envelope says, whoever signed it: for people to read before they sign. Raises: FormatError, TooLargeError."""
    return _word(signed_payload(envelope, DOWNGRADE_PAYLOAD_TYPE, DOWNGRADE_MAX_BYTES))


def verify_downgrade(envelope: bytes, trusted: TrustedSet, site: str) -> DowngradeToken:
    """The token, when two people of this site signed it.

    Raises:
        TrustError: a stranger's, a release or a broken signature, one person only (on however many laptops, as far as the
            targets role names people), or another site.
        DamagedError: it is not such an envelope.
    """
    holders = keys_of_role(trusted.targets, DEPLOY) | keys_of_role(trusted.root, ROOT)
    keys = {key_id: pem_of_key(key) for key_id, key in holders.items()}
    payload = verify_dsse(envelope, DOWNGRADE_PAYLOAD_TYPE, keys, DOWNGRADE_MAX_BYTES)
    signers = signers_of(envelope)
    # The material counts, not the name it goes by: one key under two ids is one person, as are two that headquarters calls so.
    named = people_in(trusted.targets)
    people = {named.get(key_id) or public_key_of(keys[key_id]).keyval["public"] for key_id in signers}
    if len(people) < DOWNGRADE_SIGNERS:
        raise TrustError(
            "needs two people's signatures", "downgrade word", expected=DOWNGRADE_SIGNERS, found=len(people),
            hint="let a second person sign it: pumpdeck trust downgrade sign",
        )
    word = _word(payload)
    if word.site != site:
        raise TrustError("is for another site", "downgrade word", expected=site, found=word.site)
    return DowngradeToken(word, canonical.digest(payload), signers)


def token_for(assignment: Assignment, trusted: TrustedSet, site: str) -> DowngradeToken | None:
    """The token that an assignment carries, when it is for this very assignment; None when it carries none.

    Raises:
        ReplayError: its time, counted in sequence numbers, is over.
        TrustError, DamagedError: as `verify_downgrade`; or it is for another device or package.
    """
    if assignment.token is None:
        return None
    token = verify_downgrade(assignment.token.encode("utf-8"), trusted, site)
    word = token.word
    if word.device != assignment.device:
        raise TrustError("is for another device", "downgrade word", expected=assignment.device, found=word.device)
    if word.package_sha256 != assignment.package_sha256:
        raise TrustError(
            "is for another package", "downgrade word", expected=assignment.package_sha256, found=word.package_sha256
        )
    if assignment.seq > word.until_seq:
        raise ReplayError(
            "has run out", "downgrade word", expected=f"an assignment up to seq {word.until_seq}", found=assignment.seq,
            hint="make a new word and let two people sign it",
        )
    return token


def _word(payload: bytes) -> DowngradeWord:
    what = "downgrade word"
    word = canonical.decode(DowngradeWord, payload, what, max_bytes=DOWNGRADE_MAX_BYTES)
    if word.format != DOWNGRADE_FORMAT:
        raise FormatError("has an unknown format", what, expected=DOWNGRADE_FORMAT, found=word.format)
    check_name(word.device, f"{what}.device")
    check_name(word.site, f"{what}.site")
    check_digest(word.package_sha256, f"{what}.package_sha256")
    if word.until_seq < 1 or len(word.nonce) != _NONCE_DIGITS or not 0 < len(word.reason) <= REASON_MAX:
        raise FormatError("lacks an end, a nonce or a reason", what)
    return word


def signers_of(envelope: bytes) -> tuple[str, ...]:
    """The key ids under which an envelope is signed; whether the signatures hold is `verify_downgrade`'s to say."""
    plain = canonical.parse_json(envelope, "downgrade word", max_bytes=DOWNGRADE_MAX_BYTES)
    return tuple(signature["keyid"] for signature in plain["signatures"])
