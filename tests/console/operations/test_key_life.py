"""Key life over real repositories and real agents: four eyes, what a lost key signed, who has heard of the change."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_console.credentials import Source, read_key_file
from pumpdeck_console.operations.bundles import export_bundle, intake_bundle
from pumpdeck_console.operations.delivering import collect
from pumpdeck_console.operations.releasing import propose_release, publish_release
from pumpdeck_console.operations.trust_changing import (
    ChangeRequest,
    NewKey,
    make_change,
    publish_proposals,
    read_proposal,
    sign_with_own_keys,
    write_proposal,
)
from pumpdeck_console.operations.trust_contact import exposed, news_of, tell_device
from pumpdeck_console.operations.trust_making import NewKeyRequest, make_key
from pumpdeck_console.operations.trust_view import list_keys, signed_by
from pumpdeck_console.operations.workspace import doctor
from pumpdeck_fleet.core.errors import PumpdeckError, RefusedError, TrustError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_packaging.age_box import generate_identity
from pumpdeck_packaging.sealed_package import seal_package
from pumpdeck_packaging.signing import Ed25519Signer, generate_key
from pumpdeck_packaging.trust_proposal import Proposal, sign_proposal
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease
from support.courier_fleet import MODEL, CourierFleet, courier_fleet
from support.devices import LoopChannel, package


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[CourierFleet]:
    made = courier_fleet(tmp_path)
    yield made
    made.workspace.close()


def roots(yard: CourierFleet) -> list[Ed25519Signer]:
    folder = yard.folder / "keys" / "root"
    return [read_key_file(RealFileSystem(), folder / f"root-{number}.key", None) for number in (1, 2)]


def put_into_force(yard: CourierFleet, request: ChangeRequest, *more: Ed25519Signer) -> Proposal:
    """Propose, sign with everything at hand, publish."""
    proposal = sign_with_own_keys(yard.workspace, make_change(yard.workspace, request))
    for signer in (*roots(yard), *more):
        try:
            proposal = sign_proposal(proposal, [signer], yard.clock.now_ms())[0]
        except TrustError:
            continue
    publish_proposals(yard.workspace, [proposal])
    return proposal


def new_laptop(yard: CourierFleet) -> str:
    """A second deploy key on this computer, in force at every site; the key id of the first."""
    made = make_key(yard.workspace, NewKeyRequest("deploy", Source.PLAIN_FILE))
    text = Path(made.public_file).read_text(encoding="ascii")
    old = next(row.key_id for row in list_keys(yard.workspace) if row.role == "deploy")
    put_into_force(yard, ChangeRequest(role="deploy", add=(NewKey(text, "laptop 2"),)))
    return old


def names(yard: CourierFleet) -> list[str]:
    return [device.id for device in yard.devices]


def test_who_has_not_heard_of_a_revocation_is_named_until_it_has(yard: CourierFleet) -> None:
    """Both sites lose a laptop; one device is reached over a conversation, the other by a stick with a new package."""
    old = new_laptop(yard)
    put_into_force(yard, ChangeRequest(remove=(old,), reason="stolen", is_lost=True))
    assert [one.device for one in exposed(yard.workspace)] == names(yard)
    assert {one.needs_root for one in exposed(yard.workspace)} == {3}
    first, second = yard.devices
    news = news_of(yard.workspace, [first.site])[first.site]
    channel = LoopChannel(yard.agent(first.id))
    store = yard.workspace.store
    assert tell_device(store, channel, first, news, yard.clock.now_ms())
    assert not tell_device(store, channel, first, news, yard.clock.now_ms())
    assert yard.agent(first.id).hello("test", "ws").fields["root_version"] == 3
    assert [one.device for one in exposed(yard.workspace)] == [second.id]
    yard.start()
    export_bundle(yard.workspace, query="", to=str(yard.folder / "stick"))
    assert yard.visit(second.id).outcome == "committed"
    assert [one.device for one in exposed(yard.workspace)] == [second.id]
    intake_bundle(yard.workspace, folder=str(yard.folder / "stick"))
    assert exposed(yard.workspace) == ()


def test_a_return_on_a_stick_proves_which_keys_a_device_has_taken(yard: CourierFleet) -> None:
    """No package is due, so no receipt comes; the device signs in its return what it has taken."""
    old = new_laptop(yard)
    put_into_force(yard, ChangeRequest(remove=(old,), is_lost=True))
    first, second = names(yard)
    export_bundle(yard.workspace, query="", to=str(yard.folder / "stick"))
    assert yard.visit(first).outcome == "none"
    assert [one.device for one in exposed(yard.workspace)] == [first, second]
    report = intake_bundle(yard.workspace, folder=str(yard.folder / "stick"))
    assert report.problems == () and [one.device for one in exposed(yard.workspace)] == [second]
    row = yard.workspace.store.devices.trusts()[first]
    assert (row.root, row.how) == (3, "return")
    key = generate_key()
    with yard.workspace.store.atomic() as store:
        store.devices.put_identity(first, key.public_pem, key.key_id, "", yard.clock.now_ms())
    assert [one.device for one in exposed(yard.workspace)] == [first, second]


def test_a_device_that_does_not_take_the_news_stays_named(yard: CourierFleet) -> None:
    old = new_laptop(yard)
    put_into_force(yard, ChangeRequest(remove=(old,), is_lost=True))
    first = yard.devices[0]
    news = news_of(yard.workspace, [first.site])[first.site]
    withheld = dataclasses.replace(news, files=tuple((name, data) for name, data in news.files if name != "2.root.json"))
    with pytest.raises(PumpdeckError, match=r"2\.root\.json"):
        tell_device(yard.workspace.store, LoopChannel(yard.agent(first.id)), first, withheld, yard.clock.now_ms())
    assert first.id in {one.device for one in exposed(yard.workspace)}
    assert yard.agent(first.id).hello("test", "ws").fields["root_version"] == 1


def test_what_a_lost_key_signed_is_listed_with_how_far_it_got(yard: CourierFleet) -> None:
    site = yard.devices[0].site
    keys = {row.role: row.key_id for row in list_keys(yard.workspace, sites=(site,))}
    assert {one.state for one in signed_by(yard.workspace, key=keys["release"])} == {"released, no device was told of it"}
    yard.start()
    export_bundle(yard.workspace, query="", to=str(yard.folder / "stick"))
    found = signed_by(yard.workspace, key=keys["deploy"][:12], sites=(site,))
    assert [(one.kind, one.device, one.state) for one in found] == [("assignment", yard.devices[0].id, "no receipt yet")]
    assert {one.state for one in signed_by(yard.workspace, key=keys["release"])} == {"assigned"}
    for device in names(yard):
        yard.visit(device)
    intake_bundle(yard.workspace, folder=str(yard.folder / "stick"))
    assert {one.state for one in signed_by(yard.workspace, key=keys["deploy"])} == {"answered by a receipt"}
    assert {one.state for one in signed_by(yard.workspace, key=keys["release"])} == {"runs on the device"}


@pytest.mark.parametrize("is_confidential", [False, True])
def test_a_site_with_four_eyes_releases_only_what_two_people_signed(yard: CourierFleet, is_confidential: bool) -> None:
    """The second person signs on another computer, from the file alone; before that nothing can be assigned."""
    device, other = yard.devices[0], generate_key()
    site = device.site
    request = ChangeRequest(
        role="release", add=(NewKey(other.openssh_public, "the reviewer"),), threshold=2, sites=(site,), reason="critical"
    )
    put_into_force(yard, request, other)
    assert {row.threshold for row in list_keys(yard.workspace, sites=(site,)) if row.role == "release"} == {2}
    tags = tuple(pump.tag for pump in yard.workspace.fleet.pumps_by_device[device.id])
    built = package(device.id, tags, shift=2.0)
    yard.workspace.artifacts.put(built.data)
    mine = yard.workspace.signing_key("release", site).signer
    sealed, ciphertext = seal_package(built.data, device.id, generate_identity().public)
    yard.workspace.artifacts.put(ciphertext)
    release = [PackageRelease(built, {MODEL: 2}, sealed if is_confidential else None)]
    path = propose_release(yard.workspace, site, release, mine)
    assert path is not None and propose_release(yard.workspace, site, release, mine) == path
    before = len(yard.workspace.store.packages.for_device(device.id))
    with pytest.raises(RefusedError, match="another person"):
        publish_release(yard.workspace, files=[str(path)])
    trust, laptop = yard.workspace.trust(site), yard.workspace.signing_key("deploy", site).signer
    with pytest.raises(TrustError, match="not released"):
        trust.assign([AssignmentRequest(device.id, built.sha256, "t")], laptop)
    with pytest.raises(TrustError, match="more release signatures"):
        trust.release(release, [mine])
    assert len(yard.workspace.store.packages.for_device(device.id)) == before
    copy = yard.folder / "second-computer.json"
    write_proposal(copy, sign_proposal(read_proposal(path), [other], yard.clock.now_ms())[0])
    report = publish_release(yard.workspace, files=[str(path), str(copy)])
    assert [row.sha256 for row in report.packages] == [built.sha256]
    assert built.sha256 in {row.sha256 for row in yard.workspace.store.packages.for_device(device.id)}
    trust.assign([AssignmentRequest(device.id, built.sha256, "t")], laptop)
    assert propose_release(yard.workspace, site, release, mine) is None


def test_the_policy_and_the_metadata_are_compared(yard: CourierFleet) -> None:
    site = yard.devices[0].site
    path = yard.workspace.root / "policies.toml"
    path.write_text(path.read_text(encoding="utf-8") + f'\n[trust]\nfour_eyes = ["{site}"]\n', encoding="utf-8")
    warned = {row.site: row.warning for row in list_keys(yard.workspace) if row.role == "release"}
    assert "asks for 2 signatures" in warned[site] and not any(text for name, text in warned.items() if name != site)


def test_a_root_without_a_spare_key_is_warned_of(yard: CourierFleet) -> None:
    site = yard.devices[0].site
    third = next(row.key_id for row in list_keys(yard.workspace, sites=(site,)) if row.holder == "root-3")
    put_into_force(yard, ChangeRequest(role="root", remove=(third,), sites=(site,), reason="lost"))
    rows = [row for row in list_keys(yard.workspace, sites=(site,)) if row.role == "root"]
    assert len(rows) == 2 and "no spare key" in rows[0].warning
    with pytest.raises(RefusedError):
        make_change(yard.workspace, ChangeRequest(role="root", remove=(rows[0].key_id,), sites=(site,)))


def findings(yard: CourierFleet) -> dict[str, tuple[str, str]]:
    return {one.what: (one.verdict, one.found) for one in doctor(yard.workspace)}


def test_doctor_says_which_key_is_where_and_whether_it_still_counts(yard: CourierFleet) -> None:
    deploy = next(row.key_id for row in list_keys(yard.workspace) if row.role == "deploy")
    verdict, words = findings(yard)["keys"]
    assert verdict == "warn" and f"deploy: plain file ({deploy[:12]})" in words
    assert findings(yard)["key changes"] == ("ok", "every enrolled device has the newest keys")
    other = generate_key()
    site = yard.devices[0].site
    release = next(row.key_id for row in list_keys(yard.workspace, sites=(site,)) if row.role == "release")
    request = ChangeRequest(
        role="release", add=(NewKey(other.openssh_public, "trainer 2"),), remove=(release,), sites=(site,), reason="moved"
    )
    put_into_force(yard, request, other)
    verdict, words = findings(yard)["keys"]
    assert verdict == "warn" and f"the release key here is no release key of {site}" in words
    verdict, words = findings(yard)["key changes"]
    assert verdict == "warn" and words.startswith("1 devices are not known to have the newest keys")


def test_a_collect_tells_devices_of_newer_keys_and_says_who_did_not_take_them(yard: CourierFleet) -> None:
    """Nothing waits on the devices and no rollout runs; the collect brings the revocation all the same."""
    old = new_laptop(yard)
    put_into_force(yard, ChangeRequest(remove=(old,), is_lost=True))
    fleet = yard.workspace.fleet
    sites = tuple(dataclasses.replace(site, link=Link.SSH) for site in fleet.sites)
    yard.workspace.__dict__["fleet"] = dataclasses.replace(fleet, sites=sites)
    first, second = names(yard)
    layout = yard.agent(second).layout
    layout.trust_root.write_bytes(yard.workspace.trust(yard.devices[0].site).root_bytes())
    layout.trust_root_copy.unlink()
    yard.workspace.__dict__["connect"] = lambda device: LoopChannel(yard.agent(device.id))
    summary = collect(yard.workspace)
    problems = {report.device: report.problems for report in summary.devices}
    assert problems[first] == () and "did not take the newer keys" in problems[second][0]
    assert [one.device for one in exposed(yard.workspace)] == [second]
    assert yard.agent(first).hello("test", "ws").fields["root_version"] == 3
