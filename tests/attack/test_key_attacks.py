"""Attacks on a change of keys: too few, wrong, late or altered signatures change nothing, lost keys are worth nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import (
    ConflictError,
    FormatError,
    NotFoundError,
    PumpdeckError,
    RefusedError,
    TrustError,
    UsageError,
)
from pumpdeck_packaging.signing import PublicKey, generate_key, pem_of_key, public_key_of
from pumpdeck_packaging.trust_change import KeyEdit, Renewal, edited_keys, site_keys_of
from pumpdeck_packaging.trust_proposal import (
    Proposal,
    encode_proposal,
    lacks,
    make_proposal,
    merge_proposals,
    parse_proposal,
    sign_proposal,
)
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease
from support.ceremony import changed, proposed, signed, tree
from support.devices import Bench, package
from support.forge import edited, refitted, refused
from support.packages import built_package
from support.trust import SampleKeys, SampleSite, verify


@pytest.fixture
def own(tmp_path: Path) -> SampleSite:
    """A site with something assigned, to change."""
    site = SampleSite(tmp_path)
    site.deliver()
    return site


def held(site: SampleSite) -> dict[str, bytes]:
    return tree(site.trust._folder)


def lost_laptop(site: SampleSite) -> KeyEdit:
    return KeyEdit("deploy", remove=(site.keys.laptops[0].key_id,))


def refuses(site: SampleSite, proposal: Proposal, error: type[PumpdeckError], match: str = "", laptop: int = 1) -> None:
    """Publishing is refused and no file of the site has changed."""
    before = held(site)
    with pytest.raises(error, match=match or None):
        site.trust.publish(proposal.sites[0], site.keys.laptops[laptop])
    assert held(site) == before
    assert verify(site.state(), site.files()).assignment.device == "gannet-d1"


# -- the ceremony -----------------------------------------------------------------------------------------------------


def test_a_change_without_enough_root_holders_is_refused(own: SampleSite) -> None:
    """One root holder alone revokes a laptop."""
    proposal = proposed(own, [lost_laptop(own)])
    for signers in ([], [own.keys.root[0]], [own.keys.targets], [own.keys.root[0], own.keys.targets]):
        refuses(own, signed(own, proposal, *signers), TrustError, "enough people")


def test_root_holders_without_the_targets_key_are_refused(own: SampleSite) -> None:
    """Two root holders want to change who deploys; that also stands in targets."""
    refuses(own, signed(own, proposed(own, [lost_laptop(own)]), *own.keys.root), TrustError, "targets")


def test_a_key_of_no_role_signs_nothing(own: SampleSite) -> None:
    """A stranger, a laptop and a release key offer their signature."""
    proposal = proposed(own, [lost_laptop(own)])
    for signer in (generate_key(), own.keys.laptops[1], own.keys.release[0]):
        with pytest.raises(TrustError, match="may sign nothing"):
            signed(own, proposal, signer)
    assert {(one.role, one.has) for one in lacks(proposal)} == {("root", 0), ("targets", 0)}


def test_new_root_keys_cannot_bring_themselves_in(own: SampleSite) -> None:
    """Three keys of a thief sign a root that lists only them."""
    thief = [generate_key() for _ in range(3)]
    edit = KeyEdit("root", add=tuple(key.public for key in thief), remove=tuple(key.key_id for key in own.keys.root))
    refuses(own, signed(own, proposed(own, [edit]), *thief), TrustError, "enough people")
    refuses(own, signed(own, proposed(own, [edit]), *thief, own.keys.root[0]), TrustError, "enough people")


def test_a_lost_root_key_is_replaced_by_the_other_two(own: SampleSite) -> None:
    """The safe with one root key burns; afterwards the old key counts for nothing, devices follow."""
    new, lost = generate_key(), own.keys.root[2]
    edit = KeyEdit("root", add=(new.public,), remove=(lost.key_id,))
    assert changed(own, [edit], own.keys.root[:2]) == 2
    device = verify(own.state(), own.files())
    assert device.floor.roles["root"].number == 2
    again = proposed(own, [lost_laptop(own)])
    with pytest.raises(TrustError, match="may sign nothing"):
        signed(own, again, lost)
    own.trust.publish(signed(own, again, new, own.keys.root[0], own.keys.targets).sites[0], own.keys.laptops[1])
    assert verify(own.state(), own.files()).floor.roles["root"].number == 3


def test_two_lost_root_keys_cannot_be_replaced_by_the_last_one(own: SampleSite) -> None:
    """No weakening by itself: with one root key left nothing at the root changes any more."""
    new = [generate_key(), generate_key()]
    edit = KeyEdit("root", add=tuple(key.public for key in new), remove=tuple(key.key_id for key in own.keys.root[1:]))
    refuses(own, signed(own, proposed(own, [edit]), own.keys.root[0], *new), TrustError, "enough people")
    with pytest.raises(RefusedError):
        edited_keys(site_keys_of(own.trust.base().site), [KeyEdit("root", threshold=1)])


def test_an_altered_proposal_is_refused_once_somebody_has_signed(own: SampleSite) -> None:
    """Between two holders somebody changes who will deploy, or the site, or the version."""
    proposal = signed(own, proposed(own, [lost_laptop(own)]), own.keys.root[0])
    data = encode_proposal(proposal)
    other = generate_key()
    text = data.decode()
    old = own.keys.laptops[1].public
    raw = {one: str(public_key_of(one.pem).keyval["public"]) for one in (old, other.public)}
    swapped = text.replace(raw[old], raw[other.public]).replace(old.key_id, other.key_id)
    moved = text.replace('\\"site\\":\\"gannet\\"', '\\"site\\":\\"heron\\"')
    later = text.replace('\\"version\\":2', '\\"version\\":3')
    for bad in (swapped, moved, later):
        assert bad != text
        with pytest.raises(PumpdeckError):
            parse_proposal(bad.encode())
    assert parse_proposal(data) == proposal


def test_every_flipped_byte_of_a_proposal_is_seen_or_is_another_proposal(own: SampleSite) -> None:
    """A hand editor: what still reads has another id, so that the words differ, and keeps no signature it did not get."""
    proposal = signed(own, proposed(own, [lost_laptop(own)]), own.keys.root[0])
    data = encode_proposal(proposal)
    accepted = []
    for position in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[position] ^= 1
        try:
            accepted.append(parse_proposal(bytes(flipped)))
        except PumpdeckError:
            continue
    assert all(one.id != proposal.id for one in accepted)
    parts = proposal.sites[0].parts
    kept = [(role, part) for one in accepted for role, part in one.sites[0].parts.items() if part.signatures]
    assert all(part.signed == parts[role].signed for role, part in kept)


def test_a_signature_moved_from_another_proposal_is_refused(own: SampleSite) -> None:
    """Two proposals circulate; the signature given to one is pasted into the other."""
    first = signed(own, proposed(own, [lost_laptop(own)]), own.keys.root[0])
    second = proposed(own, [KeyEdit("deploy", add=(generate_key().public,))])
    plain = json.loads(encode_proposal(second))
    plain["sites"][0]["parts"]["root"]["signatures"] = dict(first.sites[0].parts["root"].signatures)
    with pytest.raises(TrustError, match="altered"):
        parse_proposal(canonical.encode(plain))
    with pytest.raises(ConflictError, match="two different"):
        merge_proposals([first, second])


def test_copies_signed_apart_come_together(own: SampleSite) -> None:
    """The holders sit on two continents and sign copies; three media come home."""
    proposal = proposed(own, [lost_laptop(own)])
    people = [own.keys.root[0], own.keys.root[2], own.keys.targets]
    copies = [parse_proposal(encode_proposal(signed(own, proposal, one))) for one in people]
    merged = merge_proposals(copies)
    assert lacks(merged) == () and merged.id == proposal.id and merged.words == proposal.words
    assert own.trust.publish(merged.sites[0], own.keys.laptops[1]) == 2


def test_a_proposal_that_ran_out_is_neither_signed_nor_merged_on(own: SampleSite) -> None:
    """An old proposal is found in a drawer."""
    proposal = proposed(own, [lost_laptop(own)])
    before = encode_proposal(proposal)
    with pytest.raises(TrustError, match="ran out"):
        sign_proposal(proposal, own.keys.root, own.clock.now_ms() + 61 * DAY_MS)
    assert encode_proposal(proposal) == before


def test_a_proposal_from_before_another_change_is_refused(own: SampleSite) -> None:
    """Two ceremonies at once: the second one starts from keys that are no more."""
    early = signed(own, proposed(own, [lost_laptop(own)]), *own.keys.root, own.keys.targets)
    changed(own, [KeyEdit("deploy", add=(generate_key().public,))], [*own.keys.root[:2], own.keys.targets])
    refuses(own, early, ConflictError, "does not start from")


def test_a_revoked_laptop_cannot_publish_its_own_revocation_away(own: SampleSite) -> None:
    """The thief offers to put the change into force."""
    done = signed(own, proposed(own, [lost_laptop(own)]), *own.keys.root, own.keys.targets)
    refuses(own, done, TrustError, "not a deploy key after", laptop=0)


def test_a_proposal_for_another_site_is_refused(own: SampleSite, tmp_path: Path) -> None:
    """The same people hold the keys of two sites; the file of one is published at the other."""
    there = SampleSite(tmp_path, "heron", own.keys)
    there.deliver("heron-d1")
    done = signed(there, proposed(there, [lost_laptop(there)]), *own.keys.root, own.keys.targets)
    refuses(own, done, TrustError, "another site")
    renamed = replace(done, sites=(replace(done.sites[0], site="gannet"),))
    with pytest.raises(PumpdeckError):
        parse_proposal(encode_proposal(renamed))


def _one_root_key(plain: dict[str, Any]) -> None:
    plain["roles"]["root"]["threshold"] = 1


def _wide_deploy(plain: dict[str, Any]) -> None:
    plain["delegations"]["roles"][1]["paths"] = ["*"]


def _skip(plain: dict[str, Any]) -> None:
    plain["version"] += 1


BENT = [("root", _one_root_key), ("targets", _wide_deploy), ("root", _skip), ("targets", _skip)]


@pytest.mark.parametrize(("role", "change"), BENT)
def test_a_proposal_that_no_device_would_take_is_not_even_opened(
    own: SampleSite, role: str, change: Callable[[dict[str, Any]], None]
) -> None:
    """The proposer is the thief: a root that one person can change, a laptop that may release."""
    plain = json.loads(encode_proposal(proposed(own, [lost_laptop(own)])))
    part = json.loads(plain["sites"][0]["parts"][role]["signed"])
    change(part)
    plain["sites"][0]["parts"][role]["signed"] = canonical.encode(part).decode()
    with pytest.raises(TrustError):
        parse_proposal(canonical.encode(plain))


def test_a_proposal_over_a_forged_base_changes_nothing_here(own: SampleSite) -> None:
    """The thief shows the holder a root of his own in which the change looks harmless."""
    fake_keys = SampleKeys(root=[own.keys.root[0], generate_key(), generate_key()])
    fake = SampleSite(own.trust._folder.parent / "fake", "gannet", fake_keys)
    edit = KeyEdit("deploy", add=(generate_key().public,))
    done = signed(fake, proposed(fake, [edit]), *fake_keys.root, fake_keys.targets)
    refuses(own, done, ConflictError, "does not start from")


# -- key material -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["root", "release", "deploy"])
def test_the_same_key_twice_is_refused_in_whatever_encoding(own: SampleSite, role: str) -> None:
    """One person brings one key as PEM, as OpenSSH line and from raw bytes, to be two people."""
    base = site_keys_of(own.trust.base().site)
    key = {"root": own.keys.root[1], "release": own.keys.release[0], "deploy": own.keys.laptops[1]}[role]
    from_ssh = public_key_of(key.openssh_public)
    again = PublicKey(from_ssh.keyid, pem_of_key(from_ssh))
    for one in (key.public, again):
        with pytest.raises(ConflictError, match="already"):
            edited_keys(base, [KeyEdit(role, add=(one,))])
    fresh = generate_key().public
    with pytest.raises(ConflictError, match="already"):
        edited_keys(base, [KeyEdit(role, add=(fresh, fresh))])


@pytest.mark.parametrize("role", ["root", "targets", "release", "deploy"])
def test_a_key_of_one_role_is_not_taken_into_another(own: SampleSite, role: str) -> None:
    """A laptop key becomes a release key, a release key a root key: one theft would break two locks."""
    base = site_keys_of(own.trust.base().site)
    others = {
        "root": own.keys.root[0], "targets": own.keys.targets, "release": own.keys.release[0], "deploy": own.keys.laptops[0],
    }  # fmt: skip
    for name, key in others.items():
        if name != role:
            with pytest.raises(ConflictError, match=f"{name} key"):
                edited_keys(base, [KeyEdit(role, add=(key.public,), remove=(base.targets.key_id,) if role == "targets" else ())])


def test_the_last_key_of_a_role_cannot_be_removed(own: SampleSite) -> None:
    """A site that nobody can release to or deploy to, by one careless command."""
    base = site_keys_of(own.trust.base().site)
    everyone = tuple(key.key_id for key in own.keys.laptops)
    for edit in (KeyEdit("release", remove=(own.keys.release[0].key_id,)), KeyEdit("deploy", remove=everyone)):
        with pytest.raises(RefusedError):
            edited_keys(base, [edit])
    with pytest.raises(NotFoundError):
        edited_keys(base, [KeyEdit("release", remove=(own.keys.laptops[0].key_id,))])
    with pytest.raises(UsageError):
        edited_keys(base, [KeyEdit("mirrors", remove=("x",))])


# -- afterwards -------------------------------------------------------------------------------------------------------


def test_a_device_three_roots_behind_follows_the_chain(own: SampleSite) -> None:
    """Withheld for years: the device knows root 1, the site is at root 4; no root may be left out."""
    before = verify(own.state(), own.files())
    device = replace(own.state(), kept=before.keep, floor=before.floor)
    people = [*own.keys.root[:2], own.keys.targets]
    for _ in range(3):
        changed(own, [KeyEdit("deploy", add=(generate_key().public,))], people)
    own.deliver(onnx=b"new", laptop=1)
    for version in (2, 3, 4):
        missing = {name: data for name, data in own.files().items() if name != f"{version}.root.json"}
        refused(device, missing, PumpdeckError)
    assert verify(device, own.files()).floor.roles["root"].number == 4


def test_a_lost_laptop_is_refused_by_a_device_that_saw_the_change_only(own: SampleSite) -> None:
    """The thief assigns on; a device that saw the new root refuses, one that did not is still exposed."""
    own.deliver(laptop=1)
    stolen = own.files()
    changed(own, [lost_laptop(own)], [*own.keys.root[:2], own.keys.targets])
    own.deliver(onnx=b"honest", laptop=1)
    found = verify(own.state(), own.files())
    told = replace(own.state(), kept=found.keep, floor=found.floor)

    def ahead(signed: dict[str, Any]) -> None:
        signed["version"] += 64 * 1000

    forged = edited(edited(stolen, own.keys, "deploy", ahead), own.keys, "snapshot", ahead)
    forged = edited(refitted(forged, own.keys), own.keys, "timestamp", ahead)
    refused(told, forged, TrustError)
    assert verify(own.state(), forged).floor.roles["root"].number == 1


def test_a_lost_release_key_introduces_nothing_more(own: SampleSite) -> None:
    """The reviewer's laptop is gone: the others drop its key, what it signed unseen is left out, what it signs now is refused."""
    old, new = own.keys.release[0], generate_key()
    unseen = built_package(onnx=b"signed by the thief, not yet given out")
    own.trust.release([PackageRelease(unseen, {})], [old])
    edit = KeyEdit("release", add=(new.public,), remove=(old.key_id,))
    done = signed(own, proposed(own, [edit], Renewal(drop_unpublished=True)), own.keys.targets, new)
    assert own.trust.publish(done.sites[0], own.keys.laptops[1]) == 1
    after = held(own)
    with pytest.raises(TrustError, match="not released"):
        own.trust.assign([AssignmentRequest("gannet-d1", unseen.sha256, "x")], own.keys.laptops[1])
    with pytest.raises(TrustError, match="not a release key"):
        own.trust.release([PackageRelease(built_package(onnx=b"y"), {})], [old])
    assert held(own) == after
    assert verify(own.state(), own.files()).assignment.device == "gannet-d1"


def test_a_release_file_of_a_revoked_key_put_back_on_disk_is_passed_over(own: SampleSite) -> None:
    """Somebody with access to the workspace copies the thief's newest release beside the honest one."""
    old, new = own.keys.release[0], generate_key()
    unseen = built_package(onnx=b"unseen")
    own.trust.release([PackageRelease(unseen, {})], [old])
    edit = KeyEdit("release", add=(new.public,), remove=(old.key_id,))
    done = signed(own, proposed(own, [edit], Renewal(drop_unpublished=True)), own.keys.targets, new)
    own.trust.publish(done.sites[0], own.keys.laptops[1])
    folder = own.trust._folder / "metadata"
    stale = json.loads((folder / "3.release.json").read_bytes())
    stale["signed"]["version"] = 9
    (folder / "9.release.json").write_bytes(canonical.encode(stale))
    assert own.trust.base().release.version == 4
    with pytest.raises(TrustError, match="not released"):
        own.trust.assign([AssignmentRequest("gannet-d1", unseen.sha256, "x")], own.keys.laptops[1])


def test_four_eyes_release_needs_two_people(tmp_path: Path) -> None:
    """At a site that asks for two, one reviewer alone makes nothing assignable; the same person twice is one."""
    keys = SampleKeys(release=[generate_key(), generate_key()], release_threshold=2)
    site = SampleSite(tmp_path, keys=keys)
    built = built_package()
    proposal = site.trust.propose_release([PackageRelease(built, {"esp-health": 1})], keys.release[0])
    assert proposal is not None
    one = signed(site, make_proposal([proposal], "release", {}, site.clock.now_ms()), keys.release[0], keys.release[0])
    before = held(site)
    with pytest.raises(TrustError):
        site.trust.publish_release(one.sites[0])
    with pytest.raises(TrustError, match="may sign nothing"):
        signed(site, one, keys.laptops[0])
    with pytest.raises(TrustError, match="not released"):
        site.trust.assign([AssignmentRequest("gannet-d1", built.sha256, "x")], keys.laptops[0])
    assert held(site) == before
    site.trust.publish_release(signed(site, one, keys.release[1]).sites[0])
    site.trust.assign([AssignmentRequest("gannet-d1", built.sha256, "x")], keys.laptops[0])
    assert verify(site.state(), site.files()).package.sha256 == built.sha256


def test_raising_the_release_threshold_signs_the_old_releases_again(own: SampleSite) -> None:
    """A site begins to ask for four eyes: what one person released does not stay believed without the second."""
    second = generate_key()
    edit = KeyEdit("release", add=(second.public,), threshold=2)
    refuses(own, signed(own, proposed(own, [edit]), own.keys.targets, own.keys.release[0]), TrustError, "enough people")
    changed(own, [edit], [own.keys.targets, own.keys.release[0], second])
    assert verify(own.state(), own.files()).assignment.device == "gannet-d1"


def test_a_proposal_in_another_form_is_refused(own: SampleSite) -> None:
    """Not JSON, another format, a field more, a site twice, no site."""
    data = encode_proposal(proposed(own, [lost_laptop(own)]))
    plain = json.loads(data)
    site = plain["sites"][0]
    for bad in (
        b"", b"\0" * 10, data[:-1], data + b" ", canonical.encode(plain | {"format": 2}), canonical.encode(plain | {"x": 1}),
        canonical.encode(plain | {"sites": [site, site]}), canonical.encode(plain | {"sites": []}),
    ):  # fmt: skip
        with pytest.raises(FormatError):
            parse_proposal(bad)


def test_a_thief_of_targets_and_laptop_who_ran_up_the_numbers_is_undone(own: SampleSite) -> None:
    """Fast forward of every role below root: targets, release, deploy, snapshot and timestamp at enormous versions."""
    far = 2**40 * 64

    def ahead(signed: dict[str, Any]) -> None:
        signed["version"] = far

    files = own.files()
    for role in ("targets", "release", "deploy", "snapshot"):
        files = edited(files, own.keys, role, ahead)
    files = edited(refitted(files, own.keys), own.keys, "timestamp", ahead)
    found = verify(own.state(), files)
    device = replace(own.state(), kept=found.keep, floor=found.floor)
    own.deliver(onnx=b"honest", laptop=1)
    refused(device, own.files(), TrustError)
    new_targets, new_release = generate_key(), generate_key()
    edits = [
        KeyEdit("targets", add=(new_targets.public,), remove=(own.keys.targets.key_id,)),
        KeyEdit("release", add=(new_release.public,), remove=(own.keys.release[0].key_id,)),
        lost_laptop(own),
    ]
    changed(own, edits, [*own.keys.root[:2], new_targets, new_release])
    own.keys = replace(own.keys, release=[new_release])
    own.deliver(onnx=b"honest again", laptop=1)
    after = verify(device, own.files())
    assert all(entry.number < far for entry in after.floor.roles.values())


# -- devices take a change at their next contact ----------------------------------------------------------------------


def standing(bench: Bench) -> dict[str, object]:
    """What runs on the device, and by which number."""
    state = bench.agent().status().fields["state"]
    return {key: state.get(key) for key in ("state", "active", "previous", "seq", "pumps")}


def assign_files(bench: Bench, files: dict[str, bytes]) -> str:
    """What a console sends; the outcome the device answers."""
    return str(bench.agent().assign(files).fields["outcome"])


@pytest.mark.parametrize("with_assignment", [True, False])
def test_a_device_takes_a_revocation_without_a_new_package(tmp_path: Path, with_assignment: bool) -> None:
    """Nothing is due on the device when a laptop is stolen: the next contact brings the new keys all the same."""
    bench = Bench(tmp_path)
    bench.install(package(), "task-1")
    stolen = dict(bench.site.trust.files_for(bench.device))
    runs = standing(bench)
    changed(bench.site, [lost_laptop(bench.site)], [*bench.site.keys.root[:2], bench.site.keys.targets])
    news = dict(bench.site.trust.files_for(bench.device) if with_assignment else bench.site.trust.current_files())
    for _ in range(2):
        # An assignment of the revoked key is taken anew from the honest one, and answered with a receipt of its own.
        assert assign_files(bench, news) == ("already" if with_assignment else "")
    assert bench.agent().hello("test", "ws").fields["root_version"] == 2
    with pytest.raises(TrustError):
        assign_files(bench, stolen)
    assert standing(bench) == runs


def test_metadata_without_an_assignment_is_verified_as_strictly(tmp_path: Path) -> None:
    """A stranger sends metadata alone, or yesterday's: refused and unchanged."""
    bench = Bench(tmp_path)
    bench.install(package(), "task-1")
    old = dict(bench.site.trust.current_files())
    changed(bench.site, [lost_laptop(bench.site)], [*bench.site.keys.root[:2], bench.site.keys.targets])
    assign_files(bench, dict(bench.site.trust.current_files()))
    before = tree(bench.root)
    stranger = SampleSite(tmp_path / "stranger")
    for bad in (old, dict(stranger.trust.current_files()), {}):
        with pytest.raises(PumpdeckError):
            assign_files(bench, bad)
    assert tree(bench.root) == before
