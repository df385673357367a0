"""Keys of small order: whoever brings one signs nothing, and whoever knows one signs everything in that person's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pumpdeck_fleet.core.errors import FormatError, PumpdeckError, TrustError
from pumpdeck_packaging.enrolment import ENROL_FORMAT, EnrolAnswer, check_answer
from pumpdeck_packaging.signing import PublicKey, is_weak_key, key_id_of, public_key_of, public_key_of_raw
from pumpdeck_packaging.trust_change import KeyEdit
from support.ceremony import proposed, tree
from support.forge import edited, refused
from support.fuzz_samples import DEVICE, Samples
from support.trust import SampleSite

Y = ("00" * 32, "01" + "00" * 31, "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
     "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", "ec" + "ff" * 30 + "7f", "ed" + "ff" * 30 + "7f",
     "ee" + "ff" * 30 + "7f")  # fmt: skip
WEAK = [bytes.fromhex(text)[:-1] + bytes([bytes.fromhex(text)[-1] | sign]) for text in Y for sign in (0, 0x80)]
ANYONES = b"\x01" + bytes(31) + bytes(32)
"""The signature that holds for every message under the neutral point; nobody's secret is in it."""


def pem_of(raw: bytes) -> str:
    return (
        Ed25519PublicKey.from_public_bytes(raw).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    )


def test_the_danger_is_real() -> None:
    """The library itself takes a constant signature under such a key, for whatever was signed."""
    key = Ed25519PublicKey.from_public_bytes(WEAK[2])
    for message in (b"pay the thief", b"run this model"):
        key.verify(ANYONES, message)


@pytest.mark.parametrize("raw", WEAK, ids=lambda raw: raw.hex()[:4] + raw.hex()[-2:])
def test_a_weak_key_is_no_key(raw: bytes) -> None:
    """Wrong key: as PEM and as raw bytes, with either sign bit."""
    assert is_weak_key(raw)
    for read in (lambda: public_key_of(pem_of(raw)), lambda: key_id_of(pem_of(raw)), lambda: public_key_of_raw(raw)):
        with pytest.raises(FormatError, match="anybody can sign"):
            read()


@pytest.mark.parametrize("role", ["root", "release", "deploy"])
def test_a_weak_key_does_not_enter_a_ceremony(tmp_path: Path, role: str) -> None:
    """Short threshold: one of three root holders brings a key that everybody holds, so that one other person is enough."""
    site = SampleSite(tmp_path)
    site.deliver()
    before = tree(tmp_path)
    with pytest.raises(PumpdeckError, match="anybody can sign"):
        proposed(site, [KeyEdit(role, add=(PublicKey("0" * 64, pem_of(WEAK[2])),))])
    assert tree(tmp_path) == before


def test_a_root_with_a_weak_key_is_refused_by_the_device(tmp_path: Path) -> None:
    """The ceremony ran on a program that does not look: the device still refuses the root, and its state stays."""
    site = SampleSite(tmp_path)
    site.deliver()
    files = site.files()

    def weaken(signed: dict) -> None:  # type: ignore[type-arg]
        from pumpdeck_fleet.core import canonical

        key = {"keytype": "ed25519", "keyval": {"public": WEAK[2].hex()}, "scheme": "ed25519"}
        name = canonical.digest(canonical.encode(key))
        signed["keys"][name] = key
        signed["roles"]["root"]["keyids"][2] = name
        signed["version"] = 2

    bent = edited(files, site.keys, "root", weaken, site.keys.root[:2])
    bent["1.root.json"] = files["1.root.json"]
    refused(site.state(), bent, TrustError, "anybody can sign")


def test_a_device_is_not_enrolled_with_a_weak_key(tmp_path: Path) -> None:
    """A technician answers for the device with a key that is everybody's: receipts could then be forged by all."""
    from pumpdeck_fleet.core import canonical
    from pumpdeck_packaging.enrolment import ANSWER_PAYLOAD_TYPE

    samples = Samples(tmp_path)
    pem = pem_of(WEAK[2])
    answer = EnrolAnswer(ENROL_FORMAT, DEVICE, "gannet", canonical.digest(samples.form), samples.plain_form.root, pem)

    class Nobody:
        key_id = "0" * 64

        def sign(self, _payload: bytes) -> bytes:
            return ANYONES

    from pumpdeck_packaging.signing import sign_dsse

    envelope = sign_dsse(canonical.encode(answer), ANSWER_PAYLOAD_TYPE, Nobody())  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="anybody can sign"):
        check_answer(envelope, samples.form, samples.plain_form)
