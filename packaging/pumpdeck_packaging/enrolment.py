"""Enrolment on a stick: the form that a console signs for a device, and the answer that the device signs with its new key.

    forms/<device>          DSSE envelope of EnrolForm, by a deploy key
    sites/<site>/<name>     the site's TUF metadata, whole
    answers/<device>        DSSE envelope of EnrolAnswer, by the device key that stands in it
    answers/<device>.txt    the words of that key, for the person who carries the stick

The stick grants nothing: at the device a person compares the root's words with a sheet of paper, at the console the device key's.
No I/O here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, TrustError
from pumpdeck_fleet.core.ids import check_digest, check_name
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_fleet.core.words import fingerprint_words
from pumpdeck_packaging.age_box import check_recipient
from pumpdeck_packaging.bundle_layout import DEPLOY, ROOT, parse_metadata_name
from pumpdeck_packaging.signing import key_id_of, pem_of_key, public_key_of, sign_dsse, verify_dsse
from pumpdeck_packaging.trust_rules import keys_of_role
from pumpdeck_packaging.verify import TrustState, verify_site

FORM_PAYLOAD_TYPE = "application/vnd.pumpdeck.enrol-form.v1+json"
ANSWER_PAYLOAD_TYPE = "application/vnd.pumpdeck.enrol-answer.v1+json"
ENROL_FORMAT = 1
FORM_MAX_BYTES = 128 * 1024
ANSWER_MAX_BYTES = 64 * 1024
MAX_HOST_KEYS = 8
FORMS, SITES, ANSWERS = "forms", "sites", "answers"


@dataclass(frozen=True, slots=True)
class EnrolPump:
    """One pump beside the device."""

    tag: str
    type: str
    criticality: int = 3
    redundancy_group: str = ""


@dataclass(frozen=True, slots=True)
class EnrolForm:
    """What the device shall be. `root` is the digest of the root metadata it will trust, `at_ms` tells one form from the next."""

    format: int
    device: str
    site: str
    device_class: str
    pumps: tuple[EnrolPump, ...]
    min_seq: int
    root: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class EnrolAnswer:
    """What the device became: its public key (PEM), its SSH host keys as OpenSSH lines, the form's envelope by digest.

    `age_key` is the public half of the key that packages and words for this device alone are encrypted to; empty where the
    device cannot decrypt, or has an older agent.
    """

    format: int
    device: str
    site: str
    form: str
    root: str
    public_key: str
    host_keys: tuple[str, ...] = ()
    age_key: str = ""


@dataclass(frozen=True, slots=True)
class CheckedForm:
    """A form that the site's own deploy key signed, and the newest root with it, whose words a person still has to compare."""

    form: EnrolForm
    digest: str
    root: bytes

    @property
    def root_words(self) -> str:
        """What must stand on the sheet of paper."""
        return fingerprint_words(self.root)


def form_place(folder: Path, device: str) -> Path:
    """Where a device's form stands."""
    return folder / FORMS / check_name(device, "device")


def answer_place(folder: Path, device: str) -> Path:
    """Where a device's answer stands."""
    return folder / ANSWERS / check_name(device, "device")


def sign_form(form: EnrolForm, signer: Signer) -> bytes:
    """The envelope of a form."""
    return sign_dsse(canonical.encode(form), FORM_PAYLOAD_TYPE, signer)


def check_form(envelope: bytes, device: str, files: Mapping[str, bytes], now_ms: int) -> CheckedForm:
    """A form and the site's metadata as they lie on the stick, checked against each other.

    Everything hangs on the root that comes with them: show its words before anything is made of this.

    Raises:
        TrustError: no deploy key of the site signed it, it is for another device, or the metadata does not hold.
        DamagedError: something is cut or does not follow its form.
    """
    versions = [parse_metadata_name(name).version for name in files if parse_metadata_name(name).role == ROOT]
    if not versions:
        raise FormatError("holds no root metadata", f"form of {device}", hint="write the stick again")
    root = files[f"{max(versions)}.{ROOT}.json"]
    site = claimed_site(envelope)
    verified = verify_site(TrustState(device, site, root), files, now_ms=now_ms, clock_synced=False)
    keys = {key_id: pem_of_key(key) for key_id, key in keys_of_role(verified.trusted.targets, DEPLOY).items()}
    payload = verify_dsse(envelope, FORM_PAYLOAD_TYPE, keys, FORM_MAX_BYTES)
    form = canonical.decode(EnrolForm, payload, f"form of {device}", max_bytes=FORM_MAX_BYTES)
    if form.format != ENROL_FORMAT:
        raise FormatError("has an unknown format", f"form of {device}", expected=ENROL_FORMAT, found=form.format)
    if (form.device, form.site) != (device, site):
        raise TrustError("is for another device", "form", expected=device, found=f"{form.device} at {form.site}")
    if form.root != canonical.digest(root) or form.min_seq < 0:
        raise TrustError("was signed for another root", f"form of {device}", expected=form.root[:12])
    return CheckedForm(form, canonical.digest(envelope), root)


def sign_answer(
    checked: CheckedForm, public_pem: str, host_keys: tuple[str, ...], signer: Signer, age_key: str = ""
) -> bytes:
    """The envelope that proves that the device holds the key it names."""
    form = checked.form
    answer = EnrolAnswer(
        ENROL_FORMAT, form.device, form.site, checked.digest, form.root, public_pem, host_keys[:MAX_HOST_KEYS], age_key
    )
    return sign_dsse(canonical.encode(answer), ANSWER_PAYLOAD_TYPE, signer)


def check_answer(envelope: bytes, form_envelope: bytes, form: EnrolForm) -> EnrolAnswer:
    """An answer to exactly that form, signed by the key in it.

    That it is the device's key and not a courier's, only a person can say who compares its words.

    Raises:
        TrustError: it answers another form, names another device or root, or its own key did not sign it.
        FormatError: it is none.
    """
    claimed = canonical.from_plain(EnrolAnswer, _payload_of(envelope), f"answer of {form.device}")
    if claimed.format != ENROL_FORMAT:
        raise FormatError(
            "has an unknown format", f"answer of {form.device}", expected=ENROL_FORMAT, found=claimed.format
        )
    key_id = key_id_of(claimed.public_key, f"device key of {form.device}")
    if claimed.public_key != pem_of_key(public_key_of(claimed.public_key)):
        raise FormatError("names a key in an unusual spelling", f"answer of {form.device}")
    verify_dsse(envelope, ANSWER_PAYLOAD_TYPE, {key_id: claimed.public_key}, ANSWER_MAX_BYTES)
    check_digest(claimed.form, "answer.form")
    if (claimed.device, claimed.site) != (form.device, form.site):
        said = f"{claimed.device} at {claimed.site}"
        raise TrustError("speaks for another device", "answer", expected=f"{form.device} at {form.site}", found=said)
    if claimed.form != canonical.digest(form_envelope) or claimed.root != form.root:
        hint = "the form on the stick was not the one written here; write it again"
        raise TrustError("answers another form", f"answer of {form.device}", expected=form.root[:12], hint=hint)
    for line in claimed.host_keys:
        if not _is_host_key(line):
            raise FormatError("names a host key that is none", f"answer of {form.device}", found=repr(line[:60]))
    if claimed.age_key:
        check_recipient(claimed.age_key, f"age key of {form.device}")
    return claimed


def key_words(public_pem: str) -> str:
    """The words of a device key, as the device showed them."""
    return fingerprint_words(bytes.fromhex(str(public_key_of(public_pem).keyval["public"])))


def _is_host_key(line: str) -> bool:
    words = line.split(" ")
    return len(words) == 2 and words[0].startswith(("ssh-", "ecdsa-")) and len(line) < 4096 and line.isprintable()


def claimed_site(envelope: bytes) -> str:
    """The site that a form speaks of, before any of it is believed."""
    plain = _payload_of(envelope)
    site = plain.get("site") if isinstance(plain, dict) else None
    return check_name(site if isinstance(site, str) else "", "form.site")


def _payload_of(envelope: bytes) -> object:
    """What an envelope says before any of it is believed: who has to be asked whether it holds stands inside."""
    plain = canonical.parse_json(envelope, "signed envelope", max_bytes=FORM_MAX_BYTES * 2)
    try:
        payload = base64.b64decode(str(plain["payload"]), validate=True)
    except (KeyError, TypeError, ValueError) as error:
        # ValueError: base64 raises it for text that is not ASCII.
        raise FormatError("is not a signed envelope", "enrolment") from error
    return canonical.parse_json(payload, "enrolment", max_bytes=FORM_MAX_BYTES)
