"""The signed word on an agent: which bytes a site's devices may run as their agent, by the keys that release packages.

A DSSE envelope beside the TUF metadata, not a target in it (docs/adr/0053): repositories and devices that know nothing of it stay
as they are. Who may sign, and how many must, is what the site's own targets metadata says of the release role.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signature

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, TrustError
from pumpdeck_fleet.core.ids import check_digest, check_name
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_packaging.bundle_layout import RELEASE
from pumpdeck_packaging.signing import pem_of_key, verify_dsse
from pumpdeck_packaging.trust_rules import keys_of_role
from pumpdeck_packaging.verify import VerifiedSite

AGENT_WORD_NAME = "agent.dsse.json"
AGENT_PAYLOAD_TYPE = "application/vnd.pumpdeck.agent.v1+json"
AGENT_WORD_FORMAT = 1
AGENT_WORD_MAX_BYTES = 32 * 1024
AGENT_MAX_BYTES = 16 * 1024 * 1024
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,40}")


@dataclass(frozen=True, slots=True)
class AgentWord:
    """One release of the agent for one site. `serial` grows with every release of a site; a device never takes a lower one.

    `wheels`: for each kind of computer, such as `aarch64-cp311`, the digest of the `wheels.json` it needs.
    """

    format: int
    site: str
    version: str
    serial: int
    sha256: str
    bytes: int
    issued_at_ms: int
    wheels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VerifiedAgent:
    """A word that holds, and the release keys that signed it: its serial counts as long as one of them is trusted."""

    word: AgentWord
    keys: tuple[str, ...]


def sign_agent_word(word: AgentWord, signers: Sequence[Signer]) -> bytes:
    """The envelope; the same word and keys always give the same bytes."""
    envelope = Envelope(canonical.encode(word), AGENT_PAYLOAD_TYPE, {})
    for signer in sorted(signers, key=lambda one: one.key_id):
        envelope.signatures[signer.key_id] = Signature(signer.key_id, signer.sign(envelope.pae()).hex())
    return canonical.encode(envelope.to_dict())


def verify_agent_word(envelope: bytes, site: VerifiedSite, name: str) -> VerifiedAgent:
    """The word, when enough release keys of this very site signed it. `name` is the site that the device belongs to.

    Raises:
        TrustError: other keys, too few of them, or for another site.
        DamagedError: it does not follow its form.
    """
    role = site.trusted.targets.get_delegated_role(RELEASE)
    keys = {key_id: pem_of_key(key) for key_id, key in keys_of_role(site.trusted.targets, RELEASE).items()}
    payload = verify_dsse(envelope, AGENT_PAYLOAD_TYPE, keys, AGENT_WORD_MAX_BYTES)
    # Keys stand once each in an envelope of canonical form, and a key's id is the digest of the key: none counts twice.
    signatures = canonical.parse_json(envelope, AGENT_WORD_NAME, max_bytes=AGENT_WORD_MAX_BYTES)["signatures"]
    signed = tuple(sorted(one["keyid"] for one in signatures))
    if len(signed) < role.threshold:
        raise TrustError("needs more release signatures", AGENT_WORD_NAME, expected=role.threshold, found=len(signed))
    word = canonical.decode(AgentWord, payload, AGENT_WORD_NAME, max_bytes=AGENT_WORD_MAX_BYTES)
    _check_form(word)
    if word.site != name:
        raise TrustError("was released for another site", AGENT_WORD_NAME, expected=name, found=word.site)
    return VerifiedAgent(word, signed)


def _check_form(word: AgentWord) -> None:
    if word.format != AGENT_WORD_FORMAT:
        raise FormatError("has an unknown format", AGENT_WORD_NAME, expected=AGENT_WORD_FORMAT, found=word.format)
    check_name(word.site, f"{AGENT_WORD_NAME}.site")
    check_digest(word.sha256, f"{AGENT_WORD_NAME}.sha256")
    for target, digest in word.wheels.items():
        check_name(target, f"{AGENT_WORD_NAME}.wheels")
        check_digest(digest, f"{AGENT_WORD_NAME}.wheels")
    if not 0 < word.bytes <= AGENT_MAX_BYTES or word.serial < 1 or _VERSION.fullmatch(word.version) is None:
        raise FormatError("has an impossible size, serial or version", AGENT_WORD_NAME, found=f"{word.bytes} / {word.serial}")
