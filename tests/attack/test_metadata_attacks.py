"""Attacks on a site's metadata. Each is refused, and afterwards the device still believes the honest set and nothing more."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError, DigestMismatchError, FormatError, PumpdeckError, TrustError
from pumpdeck_packaging.signing import Ed25519Signer, generate_key
from pumpdeck_packaging.site_keys import SiteSigners
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease
from pumpdeck_packaging.tuf_adapter import ExpiredError
from pumpdeck_packaging.verify import NotAssignedError, TrustState, VerifiedAssignment
from support.forge import Files, edited, metadata, name_of, reassigned, refitted, refused, signed_of
from support.packages import built_package
from support.trust import NOW_MS, SampleKeys, SampleSite, verify

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SampleSite:
    """One device, one package, assigned; tests only read it."""
    sample = SampleSite(tmp_path_factory.mktemp("site"))
    sample.deliver()
    return sample


@pytest.fixture
def own(tmp_path: Path) -> SampleSite:
    """A site of the test's own, to change."""
    return SampleSite(tmp_path)


def accepted(state: TrustState, files: Files, **more: object) -> tuple[TrustState, VerifiedAssignment]:
    """The device after it believed a set."""
    verified = verify(state, files, **more)
    return replace(state, kept=verified.keep, floor=verified.floor), verified


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_in_any_byte_of_any_file_is_refused(site: SampleSite) -> None:
    """Bit rot or a hand editor: every byte of every file, one bit each."""
    files, state, rng = site.files(), site.state(), random.Random(20)
    honest = verify(state, files)
    for name, data in files.items():
        for position in range(len(data)):
            flipped = bytearray(data)
            flipped[position] ^= 1 << rng.randrange(8)
            refused(state, {**files, name: bytes(flipped)}, PumpdeckError)
    assert verify(state, files) == honest


def test_an_expiry_in_small_letters_is_refused(site: SampleSite) -> None:
    """TUF reads a date whatever its case and verifies what it wrote anew: a second file with one meaning."""
    files = site.files()
    for name in files:
        small = files[name].replace(b"T02:40:00Z", b"t02:40:00Z")
        if small != files[name]:
            refused(site.state(), {**files, name: small}, PumpdeckError)


def test_capitals_in_a_signature_are_refused(site: SampleSite) -> None:
    """Another spelling of a good signature makes another file with the same meaning."""
    files = site.files()
    for name in files:
        plain = json.loads(files[name])
        if "signatures" in plain:
            plain["signatures"][0]["sig"] = plain["signatures"][0]["sig"].upper()
            refused(site.state(), {**files, name: canonical.encode(plain)}, FormatError)


@pytest.mark.parametrize("cut", [0, 1, 10, 100, -1])
def test_a_cut_file_is_refused(site: SampleSite, cut: int) -> None:
    """The stick was pulled: a file is empty or ends early."""
    files = site.files()
    for name, data in files.items():
        refused(site.state(), {**files, name: data[:cut]}, PumpdeckError)


@pytest.mark.parametrize("filler", [b"", b"\0" * 500, b"\n", b"   "])
def test_an_empty_file_after_a_power_cut_is_named_as_such(site: SampleSite, filler: bytes) -> None:
    """Zero-length or zero-filled metadata: a file system's way to forget."""
    files = site.files()
    for name in files:
        if name != "assign.json":
            refused(site.state(), {**files, name: filler}, DamagedError, "is empty")


def test_any_missing_file_is_refused(site: SampleSite) -> None:
    """A set from which one file was left out. The root alone may be missing: the device has it."""
    files = site.files()
    for name in files:
        rest = {other: data for other, data in files.items() if other != name}
        if name == "1.root.json":
            assert verify(site.state(), rest).assignment.device == "gannet-d1"
        else:
            refused(site.state(), rest, DamagedError, "is missing")


@pytest.mark.parametrize("name", ["../1.root.json", "0.root.json", "01.root.json", "1.mirrors.json", "readme", "1.root.JSON"])
def test_a_file_that_has_no_place_in_the_set_is_refused(site: SampleSite, name: str) -> None:
    """Something is smuggled in beside the metadata."""
    files = site.files()
    refused(site.state(), {**files, name: files["1.root.json"]}, FormatError)


def test_two_versions_of_one_role_are_refused(site: SampleSite) -> None:
    """Let the reader choose which of two it believes."""
    files = site.files()
    refused(site.state(), {**files, "7.targets.json": files["1.targets.json"]}, PumpdeckError)


# -- signatures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["targets", "release", "deploy", "snapshot", "timestamp"])
def test_metadata_signed_by_a_stranger_is_refused(site: SampleSite, role: str) -> None:
    """Wrong key: one that nobody delegated to."""
    forged = edited(site.files(), site.keys, role, lambda _signed: None, [generate_key()])
    refused(site.state(), forged, PumpdeckError)


@pytest.mark.parametrize("role", ["root", "targets", "release", "deploy", "snapshot", "timestamp"])
def test_unsigned_metadata_is_refused(site: SampleSite, role: str) -> None:
    """All signatures stripped."""
    refused(site.state(), edited(site.files(), site.keys, role, lambda _signed: None, []), FormatError)


def test_a_signature_that_does_not_hold_is_refused_even_above_the_threshold(site: SampleSite) -> None:
    """TUF passes over bad signatures once enough good ones are there; then many files carry one meaning."""
    files = site.files()
    plain = json.loads(files["timestamp.json"])
    plain["signatures"].append({"keyid": "a" * 64, "sig": "b" * 128})
    refused(site.state(), {**files, "timestamp.json": canonical.encode(plain)}, TrustError, "does not hold")


def test_one_signature_does_not_pass_where_four_eyes_are_asked_for(tmp_path: Path) -> None:
    """Short threshold: a critical site asks for two release keys; one thief has one."""
    keys = SampleKeys(release=[generate_key(), generate_key()], release_threshold=2)
    site = SampleSite(tmp_path, keys=keys)
    site.deliver()
    forged = edited(site.files(), keys, "release", lambda _signed: None, keys.release[:1])
    refused(site.state(), forged, TrustError, "not signed by enough")
    with pytest.raises(TrustError, match="more release signatures"):
        site.trust.release([PackageRelease(built_package(onnx=b"x"), {})], keys.release[:1])


def test_a_role_signed_by_the_key_of_another_role_is_refused(site: SampleSite) -> None:
    """The laptop signs a release, the release key signs an assignment, targets signs for the laptop."""
    files, keys = site.files(), site.keys
    for role, thief in (
        ("release", keys.laptops[0]),
        ("deploy", keys.release[0]),
        ("targets", keys.laptops[0]),
        ("snapshot", keys.targets),
        ("timestamp", keys.release[0]),
    ):
        refused(site.state(), edited(files, keys, role, lambda _signed: None, [thief]), TrustError, "not signed by enough")


# -- keys and thresholds ----------------------------------------------------------------------------------------------


def bent_root(site: SampleSite, change: Callable[[dict[str, Any]], None], signers: list[Ed25519Signer]) -> Files:
    """The set with a next root on top, which says whatever the change makes it say."""
    files = site.files()
    signed = signed_of(files, "root") | {"version": 2}
    change(signed)
    return {**files, "2.root.json": metadata(signed, signers)}


def test_one_key_under_two_ids_does_not_meet_a_threshold_of_two(tmp_path: Path) -> None:
    """TUF takes any key id: one person lists the same key twice and signs twice."""
    site = SampleSite(tmp_path)
    site.deliver()
    thief = generate_key()
    public = {"keytype": "ed25519", "keyval": {"public": _raw(thief)}, "scheme": "ed25519"}

    def twice(signed: dict[str, Any]) -> None:
        signed["keys"] = {**signed["keys"], thief.key_id: public, "a" * 64: public}
        signed["roles"]["root"] = {"keyids": [thief.key_id, "a" * 64], "threshold": 2}

    files = bent_root(site, twice, site.keys.root)
    plain = json.loads(files["2.root.json"])
    payload_sig = metadata(plain["signed"], [thief])
    own = json.loads(payload_sig)["signatures"][0]["sig"]
    plain["signatures"] += [{"keyid": thief.key_id, "sig": own}, {"keyid": "a" * 64, "sig": own}]
    refused(site.state(), {**files, "2.root.json": canonical.encode(plain)}, TrustError, "under another id")


def _raw(key: Ed25519Signer) -> str:
    import base64

    return base64.b64decode("".join(key.public_pem.split("\n")[1:-2]))[-32:].hex()


def test_a_key_in_capitals_is_the_same_key_and_refused(site: SampleSite) -> None:
    """The digest of another spelling is another id; the key is the same."""

    def capitals(signed: dict[str, Any]) -> None:
        for key in signed["keys"].values():
            key["keyval"]["public"] = key["keyval"]["public"].upper()

    refused(site.state(), bent_root(site, capitals, site.keys.root), PumpdeckError)


@pytest.mark.parametrize("threshold", [1, 0, -1, 4, True, "2"])
def test_a_root_with_another_threshold_is_refused(site: SampleSite, threshold: object) -> None:
    """Two careless people sign a root that one person can change alone, or that nobody can."""

    def lower(signed: dict[str, Any]) -> None:
        signed["roles"]["root"]["threshold"] = threshold

    refused(site.state(), bent_root(site, lower, site.keys.root), PumpdeckError)


@pytest.mark.parametrize("count", [0, 1])
def test_a_root_without_two_of_the_old_keys_is_refused(site: SampleSite, count: int) -> None:
    """Short threshold: new keys sign their own coming to power."""
    new = [generate_key() for _ in range(3)]

    def replaced(signed: dict[str, Any]) -> None:
        signed["keys"] |= {
            key.key_id: {"keytype": "ed25519", "keyval": {"public": _raw(key)}, "scheme": "ed25519"} for key in new
        }
        signed["roles"]["root"] = {"keyids": [key.key_id for key in new], "threshold": 2}

    signers = [*site.keys.root[:count], *new]
    refused(site.state(), bent_root(site, replaced, signers), TrustError, "not signed by enough")


def test_a_root_that_skips_a_version_is_refused(site: SampleSite) -> None:
    """Skipped root: a chain with a hole: the root in between may have revoked the signers."""
    files = site.files()
    signed = signed_of(files, "root") | {"version": 3}
    refused(site.state(), {**files, "3.root.json": metadata(signed, site.keys.root)}, DamagedError, "2.root.json")


def test_another_root_of_the_same_version_is_refused(site: SampleSite) -> None:
    """The trusted root is swapped for one that was signed on the same day."""
    files = site.files()
    signed = signed_of(files, "root") | {"expires": "2099-01-01T00:00:00Z"}
    refused(site.state(), {**files, "1.root.json": metadata(signed, site.keys.root)}, TrustError, "differs")


def test_an_rsa_key_slipped_into_root_is_refused(site: SampleSite) -> None:
    """Another kind of key means another code path."""

    def other_kind(signed: dict[str, Any]) -> None:
        key = {"keytype": "rsa", "keyval": {"public": "x"}, "scheme": "rsassa-pss-sha256"}
        signed["keys"]["c" * 64] = key

    refused(site.state(), bent_root(site, other_kind, site.keys.root), TrustError, "not plain Ed25519")


# -- delegations ------------------------------------------------------------------------------------------------------


def _wider(signed: dict[str, Any]) -> None:
    signed["delegations"]["roles"][1]["paths"] = ["assign/*", "models/*/*"]


def _swapped(signed: dict[str, Any]) -> None:
    signed["delegations"]["roles"].reverse()


def _third(signed: dict[str, Any]) -> None:
    signed["delegations"]["roles"].append({**signed["delegations"]["roles"][0], "name": "extra"})


def _own_target(signed: dict[str, Any]) -> None:
    signed["targets"]["models/gannet-d1/x"] = {"hashes": {"sha256": "0" * 64}, "length": 1}


def _one_key(signed: dict[str, Any]) -> None:
    roles = signed["delegations"]["roles"]
    roles[0]["keyids"] = [*roles[0]["keyids"], *roles[1]["keyids"]]


def _open_end(signed: dict[str, Any]) -> None:
    signed["delegations"]["roles"][0]["terminating"] = False


def _hash_bins(signed: dict[str, Any]) -> None:
    role = signed["delegations"]["roles"][0]
    del role["paths"]
    role["path_hash_prefixes"] = [""]


def _shared_slot(signed: dict[str, Any]) -> None:
    signed["pumpdeck"]["deploy_slots"] = dict.fromkeys(signed["pumpdeck"]["deploy_slots"], 0)


def _no_slot(signed: dict[str, Any]) -> None:
    signed["pumpdeck"]["deploy_slots"] = {}


@pytest.mark.parametrize(
    "change", [_wider, _swapped, _third, _own_target, _one_key, _open_end, _hash_bins, _shared_slot, _no_slot]
)
def test_targets_that_delegate_otherwise_are_refused(site: SampleSite, change: Callable[[dict[str, Any]], None]) -> None:
    """A careless or stolen targets key opens models to the laptop, or adds a role of its own."""
    refused(site.state(), edited(site.files(), site.keys, "targets", change), TrustError)


@pytest.mark.parametrize("role", ["release", "deploy"])
def test_a_delegated_role_that_delegates_further_is_refused(site: SampleSite, role: str) -> None:
    """The thief gives his own key a role below the one he stole."""

    def further(signed: dict[str, Any]) -> None:
        signed["delegations"] = {"keys": {}, "roles": []}

    refused(site.state(), edited(site.files(), site.keys, role, further), TrustError, "delegates further")


def test_a_snapshot_with_another_list_is_refused(site: SampleSite) -> None:
    """A role is added to the snapshot, or one is hidden."""

    def more(signed: dict[str, Any]) -> None:
        signed["meta"]["extra.json"] = {"version": 1}

    files = edited(site.files(), site.keys, "snapshot", more)
    refused(site.state(), files, TrustError, "lists other roles")


def test_a_release_of_the_same_version_that_no_snapshot_names_is_refused(site: SampleSite) -> None:
    """A stolen release key alone: the snapshot holds the digest of the release it was made for."""
    files = site.files()
    signed = signed_of(files, "release")
    signed["targets"] = {}
    name = name_of(files, "release")
    refused(site.state(), {**files, name: metadata(signed, site.keys.release)}, DigestMismatchError)


# -- who signed which target ------------------------------------------------------------------------------------------


def test_a_thief_of_the_laptop_cannot_introduce_a_model(site: SampleSite) -> None:
    """He assigns a package of his own and lists it in the role he holds."""
    evil = built_package(onnx=b"evil")
    files = reassigned(site.files(), site.keys, "gannet-d1", package_sha256=evil.sha256)

    def list_it(signed: dict[str, Any]) -> None:
        signed["targets"][f"models/gannet-d1/{evil.sha256}.tar.xz"] = {
            "custom": {"release": 1, "unpacked_bytes": evil.unpacked_bytes, "versions": {}},
            "hashes": {"sha256": evil.sha256},
            "length": len(evil.data),
        }

    refused(site.state(), edited(files, site.keys, "deploy", list_it), TrustError, "not released for this device")


def test_a_package_released_for_another_device_is_refused(own: SampleSite) -> None:
    """The laptop assigns device 2's package to device 1."""
    other = own.deliver("gannet-d2")
    own.deliver("gannet-d1")
    files = reassigned(own.files(), own.keys, "gannet-d1", package_sha256=other.sha256)
    refused(own.state(), files, TrustError, "not released for this device")
    with pytest.raises(TrustError, match="not released"):
        own.trust.assign([AssignmentRequest("gannet-d1", other.sha256, "t")], own.keys.laptops[0])


def test_a_release_entry_whose_digest_contradicts_its_name_is_refused(site: SampleSite) -> None:
    """The path names one package, the hash another."""

    def bend(signed: dict[str, Any]) -> None:
        for target in signed["targets"].values():
            target["hashes"] = {"sha256": "0" * 64}

    refused(site.state(), edited(site.files(), site.keys, "release", bend), TrustError, "contradicts its name")


@pytest.mark.parametrize("custom", [None, {}, {"release": 1, "unpacked_bytes": 2**40, "versions": {}}, {"evil": 1}])
def test_a_release_entry_without_a_sane_signed_length_is_refused(site: SampleSite, custom: object) -> None:
    """Without a signed unpacked length a package could unpack without end."""

    def bend(signed: dict[str, Any]) -> None:
        for target in signed["targets"].values():
            target["custom"] = custom

    refused(site.state(), edited(site.files(), site.keys, "release", bend), PumpdeckError)


# -- assignments ------------------------------------------------------------------------------------------------------


def test_the_assignment_of_another_device_is_refused(own: SampleSite) -> None:
    """Sticks are swapped between two devices."""
    own.deliver("gannet-d1")
    own.deliver("gannet-d2")
    refused(own.state("gannet-d1"), own.files("gannet-d2"), DigestMismatchError)
    bent = reassigned(own.files("gannet-d1"), own.keys, "gannet-d1", device="gannet-d2")
    refused(own.state("gannet-d1"), bent, TrustError, "for another device")


def test_a_device_that_is_assigned_nothing_refuses(site: SampleSite) -> None:
    """A stranger's stick: all signatures hold, none is for this device."""
    refused(site.state("gannet-d9"), site.files(), NotAssignedError)


@pytest.mark.parametrize(
    "changes",
    [{"format": 2}, {"seq": 0}, {"seq": -5}, {"package_sha256": "../../etc/passwd"}, {"extra": 1}, {"task": None}, {"seq": "7"}],
)
def test_an_assignment_of_another_form_is_refused(site: SampleSite, changes: dict[str, Any]) -> None:
    """A signed assignment that says something no version of this program wrote."""
    refused(site.state(), reassigned(site.files(), site.keys, "gannet-d1", **changes), PumpdeckError)


def test_an_assignment_whose_target_names_another_seq_is_refused(site: SampleSite) -> None:
    """The metadata and the file disagree about the order of things."""

    def bend(signed: dict[str, Any]) -> None:
        signed["targets"]["assign/gannet-d1"]["custom"] = {"seq": 999}

    refused(site.state(), edited(site.files(), site.keys, "deploy", bend), TrustError, "contradicts its own target")


# -- sites ------------------------------------------------------------------------------------------------------------


def test_a_root_of_another_site_with_the_same_key_holders_is_refused(tmp_path: Path) -> None:
    """The same three people sign for two sites; site B's second root is shown to a device of site A."""
    keys = SampleKeys()
    here, there = SampleSite(tmp_path, "gannet", keys), SampleSite(tmp_path, "brent", keys)
    here.deliver("gannet-d1")
    there.trust.rotate(keys.public(), keys.signers())
    there.deliver("gannet-d1")
    stolen = there.files("gannet-d1")
    del stolen["1.root.json"]
    refused(here.state(), stolen, TrustError, "another site")


def test_metadata_of_another_site_with_the_same_keys_is_refused(tmp_path: Path) -> None:
    """One laptop serves two sites; its timestamp there is newer than here."""
    keys = SampleKeys()
    here, there = SampleSite(tmp_path, "gannet", keys), SampleSite(tmp_path, "brent", keys)
    here.deliver("gannet-d1")
    for graph in (b"1", b"2"):
        there.deliver("gannet-d1", graph)
    stolen = there.files("gannet-d1") | {"1.root.json": here.root}
    refused(here.state(), stolen, TrustError, "another site")


# -- rollback and replay ----------------------------------------------------------------------------------------------


def test_yesterdays_stick_is_refused(own: SampleSite) -> None:
    """Mix-and-match: an old set with good signatures, whole or with any of its files mixed into the new one."""
    own.deliver(onnx=b"old")
    old = own.files()
    device, _ = accepted(own.state(), old)
    own.deliver(onnx=b"new")
    new = own.files()
    device, verified = accepted(device, new)
    refused(device, old, PumpdeckError)
    for role in ("timestamp", "snapshot", "release", "deploy"):
        mixed = dict(new)
        del mixed[name_of(new, role)]
        refused(device, mixed | {name_of(old, role): old[name_of(old, role)]}, PumpdeckError)
    refused(device, new | {"assign.json": old["assign.json"]}, DigestMismatchError)
    again = verify(device, new)
    assert again.repeated and again.assignment == verified.assignment


def test_with_its_kept_metadata_gone_the_floor_still_refuses_yesterdays_stick(own: SampleSite) -> None:
    """The metadata cache was wiped or emptied by a power cut; the floor stands apart from it."""
    own.deliver(onnx=b"old")
    old = own.files()
    own.deliver(onnx=b"new")
    device, _ = accepted(own.state(), own.files())
    for kept in ({}, dict.fromkeys(device.kept, b""), {name: data[:-7] for name, data in device.kept.items()}):
        wiped = replace(device, kept=kept)
        refused(wiped, old, TrustError, "older than what this device has accepted")
        found = verify(wiped, own.files())
        assert found.repeated and len(found.warnings) == len([name for name in kept if name != "assign.json"])


def test_a_fresh_device_refuses_what_was_assigned_before_its_enrolment(own: SampleSite) -> None:
    """A device that was replaced knows nothing yet; the thief has a stick from before."""
    own.deliver(onnx=b"old")
    old = own.files()
    fresh = replace(own.state(), min_seq=own.trust.next_seq())
    refused(fresh, old, TrustError, "older than what this device has accepted")
    own.deliver(onnx=b"new")
    assert verify(fresh, own.files()).assignment.seq >= fresh.min_seq


def test_two_assignments_with_one_seq_are_refused(own: SampleSite) -> None:
    """The laptop signs twice under one number: the second never counts."""
    own.deliver(onnx=b"one")
    device, first = accepted(own.state(), own.files())
    two = built_package(onnx=b"two")
    own.trust.release([PackageRelease(two, {})], own.keys.release)
    wiped = replace(device, kept={})
    again = reassigned(own.files(), own.keys, "gannet-d1", task="another")
    refused(wiped, again, TrustError, "older than what this device has accepted")
    refused(device, again, TrustError, "same version")
    assert verify(device, own.files()).assignment == first.assignment


def test_a_version_in_another_laptops_slot_is_refused(site: SampleSite) -> None:
    """Two laptops could otherwise sign two different things under one version."""

    def other_slot(signed: dict[str, Any]) -> None:
        signed["version"] += 1

    refused(site.state(), edited(site.files(), site.keys, "deploy", other_slot), TrustError, "another key's slot")


# -- revoked keys -----------------------------------------------------------------------------------------------------


def rotated(site: SampleSite, *, without_laptop: int) -> SampleKeys:
    """Revoke one laptop; the other one goes on in its own slot."""
    keys = site.keys.public()
    rest = replace(keys, deploy=tuple(one for slot, one in enumerate(keys.deploy) if slot != without_laptop))
    signer = site.keys.laptops[1 - without_laptop]
    site.trust.rotate(rest, SiteSigners(tuple(site.keys.root), site.keys.targets, tuple(site.keys.release), signer))
    return site.keys


def test_a_revoked_laptop_is_not_believed_any_more(own: SampleSite) -> None:
    """The thief signs on with a newer version than anyone, but under a root that revoked him."""
    own.deliver(laptop=1)
    stolen = own.files()
    rotated(own, without_laptop=0)
    own.deliver(onnx=b"new", laptop=1)
    device, _ = accepted(own.state(), own.files())
    assert "2.root.json" in device.kept

    def ahead(signed: dict[str, Any]) -> None:
        signed["version"] += 64 * 1000

    forged = edited(edited(stolen, own.keys, "deploy", ahead), own.keys, "snapshot", ahead)
    forged = edited(refitted(forged, own.keys), own.keys, "timestamp", ahead)
    refused(device, forged, TrustError, "not signed by enough")
    refused(replace(device, kept={}), forged | {"2.root.json": device.kept["2.root.json"]}, TrustError)


def test_a_root_that_revokes_a_key_cannot_be_held_back(own: SampleSite) -> None:
    """Withheld root: the thief leaves out the new root, so that his key still counts on this device."""
    own.deliver()
    before = own.files()
    rotated(own, without_laptop=0)
    own.deliver(onnx=b"new", laptop=1)
    without = {name: data for name, data in own.files().items() if name != "2.root.json"}
    refused(own.state(), without, DamagedError, "2.root.json")
    device, _ = accepted(own.state(), own.files())
    refused(replace(device, kept={}), before, TrustError, "older than what this device has accepted")


def test_revoking_a_thief_also_takes_back_the_numbers_he_ran_up(own: SampleSite) -> None:
    """Fast-forward and recovery: the thief signs with an enormous version and seq, so that nothing honest is ever newer."""
    own.deliver()
    far = 64 * 2**40

    def ahead(signed: dict[str, Any]) -> None:
        signed["version"] = far

    files = reassigned(own.files(), own.keys, "gannet-d1", seq=far)
    files = edited(edited(files, own.keys, "deploy", ahead), own.keys, "snapshot", ahead)
    files = edited(refitted(files, own.keys), own.keys, "timestamp", ahead)
    device, verified = accepted(own.state(), files)
    assert verified.assignment.seq == far
    own.deliver(onnx=b"honest", laptop=1)
    refused(device, own.files(), TrustError)
    rotated(own, without_laptop=0)
    own.deliver(onnx=b"honest again", laptop=1)
    _, after = accepted(device, own.files())
    assert after.assignment.seq < far and after.floor.seq.number == after.assignment.seq


# -- time -------------------------------------------------------------------------------------------------------------


def test_expired_metadata_is_refused_when_the_time_is_proven(site: SampleSite) -> None:
    """Freeze: the device is shown last year's news, with a clock it can trust."""
    late = NOW_MS + 400 * DAY_MS
    refused(site.state(), site.files(), ExpiredError, now_ms=late, clock_synced=True)
    assert verify(site.state(), site.files(), now_ms=NOW_MS + DAY_MS, clock_synced=True).warnings == ()


@pytest.mark.parametrize("now_ms", [0, NOW_MS + 400 * DAY_MS, 2**52])
def test_a_wrong_clock_never_stops_an_honest_delivery(site: SampleSite, now_ms: int) -> None:
    """A flat battery, or a thief at the clock: what runs out by an unproven clock is reported, not refused."""
    found = verify(site.state(), site.files(), now_ms=now_ms)
    assert found.assignment.device == "gannet-d1"
    assert bool(found.warnings) == (now_ms > NOW_MS)


def test_what_had_run_out_when_the_rest_was_signed_is_refused_without_any_clock(site: SampleSite) -> None:
    """The signing times in the set itself prove that so much time has passed."""

    def old(signed: dict[str, Any]) -> None:
        signed["expires"] = "2020-01-01T00:00:00Z"

    refused(site.state(), edited(site.files(), site.keys, "targets", old), ExpiredError, now_ms=0)


def test_a_laptop_with_a_wrong_clock_does_not_poison_a_device(own: SampleSite) -> None:
    """One set was signed with a clock 300 days ahead; the next one, by a laptop with the right time, is believed all the same."""
    own.clock.advance(300 * DAY_MS)
    own.deliver(onnx=b"one")
    device, _ = accepted(own.state(), own.files())
    own.clock.advance(-300 * DAY_MS)
    own.deliver(onnx=b"two")
    assert not verify(device, own.files()).repeated
