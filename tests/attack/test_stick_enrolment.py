"""Enrolment on a stick that passed through strange hands: forged and foreign forms and answers are refused."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.config import AgentLimits
from pumpdeck_agent.enrol_stick import EnrolPlace, StickEnrolment, enrol_from
from pumpdeck_agent.main import main as agent_main
from pumpdeck_agent.platform_port import Platform
from pumpdeck_console.main import main as console_main
from pumpdeck_console.operations.stick_enrolment import accept_answer, read_answers, write_forms
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, PumpdeckError, RefusedError, TrustError, UsageError
from pumpdeck_fleet.core.words import fingerprint_words
from pumpdeck_packaging.bundle_stick import real_stick
from pumpdeck_packaging.enrolment import ANSWER_PAYLOAD_TYPE, FORM_PAYLOAD_TYPE
from pumpdeck_packaging.signing import generate_key, load_key, sign_dsse
from support.ceremony import tree
from support.courier_fleet import CourierFleet, courier_fleet
from support.devices import MemoryLocks, UnsyncedFileSystem
from support.small_fleet import NOW_MS

NEW = "new-disk"


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[CourierFleet]:
    """The first device lost its disk and was retired; a form for it lies on a stick."""
    made = courier_fleet(tmp_path)
    with made.workspace.store.atomic() as store:
        store.devices.retire(first(made), NOW_MS, "lost disk")
    write_forms(made.workspace, devices=[first(made)], folder=str(tmp_path / "enrol"))
    yield made
    made.workspace.close()


def first(yard: CourierFleet) -> str:
    return yard.devices[0].id


def site_of(yard: CourierFleet) -> str:
    return yard.devices[0].site


def paper(yard: CourierFleet, site: str = "") -> str:
    """The words that headquarters printed."""
    return fingerprint_words(yard.workspace.trust(site or site_of(yard)).root_bytes())


def at_device(yard: CourierFleet, device: str = "", words: str | None = None) -> StickEnrolment:
    """The courier at the device with the stick and the sheet of paper."""
    host = yard.folder / "ssh_host_ed25519_key.pub"
    host.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB root@pump\n", encoding="ascii")
    place = EnrolPlace(UnsyncedFileSystem(), yard.folder / NEW, NOW_MS, (host,))
    printed = paper(yard) if words is None else words
    return enrol_from(real_stick(yard.folder / "enrol"), place, device, lambda _site, found: found == printed)


def refused_at_device(yard: CourierFleet, error: type[PumpdeckError], device: str = "") -> None:
    """Refused, and no device was made of it."""
    with pytest.raises(error):
        at_device(yard, device)
    assert not (yard.folder / NEW).exists()
    assert tree(yard.folder / "enrol" / "answers") == {}


def refused_at_console(yard: CourierFleet, words: str, error: type[PumpdeckError] = TrustError, **more: bool) -> None:
    """Refused, and nobody new is enrolled."""
    before = yard.workspace.store.devices.identities()
    with pytest.raises(error):
        accept_answer(yard.workspace, folder=str(yard.folder / "enrol"), device=first(yard), words=words, **more)
    assert yard.workspace.store.devices.identities() == before


def test_a_stick_goes_out_with_a_form_and_comes_back_with_a_device(yard: CourierFleet) -> None:
    done = at_device(yard)
    assert (done.device, done.is_new, done.host_keys) == (first(yard), True, 1)
    assert at_device(yard).key_id == done.key_id
    (row,) = read_answers(yard.workspace, folder=str(yard.folder / "enrol"))
    assert (row.key_id, row.words, row.problem) == (done.key_id, done.key_words, "")
    folder = str(yard.folder / "enrol")
    assert accept_answer(yard.workspace, folder=folder, device=first(yard), words=done.key_words).is_new
    assert not accept_answer(yard.workspace, folder=folder, device=first(yard), words=done.key_words).is_new
    identity = yard.workspace.store.devices.identity(first(yard))
    assert identity is not None and identity.key_id == done.key_id and identity.host_key.startswith("ssh-ed25519")
    keys = yard.workspace.store.devices.keys(first(yard))
    assert [bool(key.ended) for key in keys] == [True, False]
    platform = Platform(UnsyncedFileSystem(), yard.clock, MemoryLocks(), lambda: False)
    agent = Agent(yard.folder / NEW, platform=platform, runner=yard.runner, limits=AgentLimits(keep_free_bytes=0))
    told = agent.hello("test", "ws").fields
    assert told["key_id"] == done.key_id
    assert yard.workspace.store.age_keys.get(first(yard)) == told["age_key"] != ""
    actions = [entry.action for entry in yard.workspace.store.audit.entries()]
    assert actions.count("device.enrol_form") == 1 and actions.count("device.enrol") == len(yard.devices) + 1


def test_a_root_that_is_not_the_one_on_paper_is_refused(yard: CourierFleet, tmp_path: Path) -> None:
    """The whole stick was made by a stranger, consistent in itself; only the words of his root are others."""
    stranger = courier_fleet(tmp_path / "stranger")
    shutil.rmtree(yard.folder / "enrol")
    write_forms(stranger.workspace, devices=[first(yard)], folder=str(yard.folder / "enrol"))
    refused_at_device(yard, RefusedError)
    stranger.workspace.close()


def edited(envelope: bytes, **changes: object) -> dict[str, object]:
    """The payload of an envelope, changed."""
    return json.loads(base64.b64decode(json.loads(envelope)["payload"])) | changes


ALTERED = [{"min_seq": 0}, {"device": "other"}, {"pumps": []}, {"root": "0" * 64}, {"device_class": "x"}]


@pytest.mark.parametrize("changes", ALTERED)
def test_an_altered_form_is_refused_by_the_device(yard: CourierFleet, changes: dict[str, object]) -> None:
    """The courier lowers min_seq, takes a pump away, names another device; with the old signature or a key of his own."""
    path = yard.folder / "enrol" / "forms" / first(yard)
    honest = path.read_bytes()
    payload = canonical.encode(edited(honest, **changes))
    kept = json.loads(honest) | {"payload": base64.b64encode(payload).decode()}
    for bad in (canonical.encode(kept), sign_dsse(payload, FORM_PAYLOAD_TYPE, generate_key())):
        path.write_bytes(bad)
        refused_at_device(yard, PumpdeckError)


@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 100, b"[" * 1000])
def test_a_form_that_is_none_is_refused(yard: CourierFleet, data: bytes) -> None:
    """A bad block, or a joke."""
    (yard.folder / "enrol" / "forms" / first(yard)).write_bytes(data)
    refused_at_device(yard, PumpdeckError)


def test_the_form_of_another_device_under_this_name_is_refused(yard: CourierFleet) -> None:
    """Two forms are swapped, so that each device takes the other's pumps."""
    other = yard.devices[1].id
    write_forms(yard.workspace, devices=[other], folder=str(yard.folder / "enrol"))
    forms = yard.folder / "enrol" / "forms"
    (forms / first(yard)).write_bytes((forms / other).read_bytes())
    refused_at_device(yard, TrustError, first(yard))
    refused_at_device(yard, UsageError)
    refused_at_device(yard, NotFoundError, "nobody")


def test_metadata_without_the_deploy_key_that_signed_is_refused(yard: CourierFleet) -> None:
    """Files of another site lie in this site's folder."""
    folder, other = yard.folder / "enrol" / "sites" / site_of(yard), yard.devices[1].site
    shutil.rmtree(folder)
    folder.mkdir()
    for name, data in yard.workspace.trust(other).current_files():
        (folder / name).write_bytes(data)
    refused_at_device(yard, TrustError)
    shutil.rmtree(folder)
    refused_at_device(yard, NotFoundError)


def test_a_computer_that_is_a_device_already_is_not_made_another(yard: CourierFleet) -> None:
    """The stick is put into the wrong computer."""
    at_device(yard)
    before = tree(yard.folder / NEW)
    yard.clock.advance(1000)
    write_forms(yard.workspace, devices=[yard.devices[1].id], folder=str(yard.folder / "enrol"))
    with pytest.raises(ConflictError):
        at_device(yard, yard.devices[1].id, paper(yard, yard.devices[1].site))
    assert tree(yard.folder / NEW) == before


def test_a_key_that_the_courier_put_in_is_refused_by_its_words(yard: CourierFleet) -> None:
    """The courier answers the honest form with a key of his own: all signatures hold, the words are not the device's."""
    done, thief = at_device(yard), generate_key()
    path = yard.folder / "enrol" / "answers" / first(yard)
    payload = canonical.encode(edited(path.read_bytes(), public_key=thief.public_pem))
    path.write_bytes(sign_dsse(payload, ANSWER_PAYLOAD_TYPE, thief))
    (row,) = read_answers(yard.workspace, folder=str(yard.folder / "enrol"))
    assert row.key_id == thief.key_id and row.words != done.key_words
    refused_at_console(yard, done.key_words)


ELSEWHERE = [
    {"device": "other"},
    {"site": "wadi-rahl"},
    {"form": "0" * 64},
    {"root": "1" * 64},
    {"host_keys": ["nonsense"]},
    {"format": 2},
    {"x": 1},
]


@pytest.mark.parametrize("changes", ELSEWHERE)
def test_an_answer_to_something_else_is_refused(yard: CourierFleet, changes: dict[str, object]) -> None:
    """Signed by the device's own key, but for another device, site, form, root, or in no form we know."""
    done = at_device(yard)
    path = yard.folder / "enrol" / "answers" / first(yard)
    key = load_key((yard.folder / NEW / "device.key").read_bytes())
    path.write_bytes(sign_dsse(canonical.encode(edited(path.read_bytes(), **changes)), ANSWER_PAYLOAD_TYPE, key))
    (row,) = read_answers(yard.workspace, folder=str(yard.folder / "enrol"))
    assert row.problem and not row.words
    refused_at_console(yard, done.key_words)


def test_an_answer_whose_key_did_not_sign_it_is_refused(yard: CourierFleet) -> None:
    """Somebody names a public key he does not hold."""
    done = at_device(yard)
    path = yard.folder / "enrol" / "answers" / first(yard)
    payload = canonical.encode(edited(path.read_bytes()))
    path.write_bytes(sign_dsse(payload, ANSWER_PAYLOAD_TYPE, generate_key()))
    refused_at_console(yard, done.key_words)


def test_the_answer_to_an_earlier_form_is_refused(yard: CourierFleet) -> None:
    """An old stick comes back after the form was written anew."""
    done = at_device(yard)
    yard.clock.advance(60_000)
    write_forms(yard.workspace, devices=[first(yard)], folder=str(yard.folder / "another"))
    refused_at_console(yard, done.key_words)


def test_the_key_of_another_or_a_retired_device_is_refused(yard: CourierFleet) -> None:
    """One computer wants to be two devices, or comes back after it was retired."""
    folder = yard.folder / "enrol"
    for device in (yard.devices[1].id, first(yard)):
        at_device(yard)
        key = load_key((yard.folder / "devices" / device / "device.key").read_bytes())
        path = folder / "answers" / first(yard)
        path.write_bytes(
            sign_dsse(canonical.encode(edited(path.read_bytes(), public_key=key.public_pem)), ANSWER_PAYLOAD_TYPE, key)
        )
        (row,) = read_answers(yard.workspace, folder=str(folder))
        assert "known already" in row.problem
        refused_at_console(yard, "any words", replace_identity=True)


def test_a_device_nobody_wrote_a_form_for_is_refused(yard: CourierFleet) -> None:
    """A second answer appears on the stick."""
    at_device(yard)
    answers, other = yard.folder / "enrol" / "answers", yard.devices[1].id
    (answers / other).write_bytes((answers / first(yard)).read_bytes())
    rows = {row.device: row.problem for row in read_answers(yard.workspace, folder=str(yard.folder / "enrol"))}
    assert rows[first(yard)] == "" and "no form was written here" in rows[other]
    identity = yard.workspace.store.devices.identity(other)
    with pytest.raises(TrustError):
        accept_answer(yard.workspace, folder=str(yard.folder / "enrol"), device=other, words="x", replace_identity=True)
    assert yard.workspace.store.devices.identity(other) == identity


def test_both_command_lines_compare_words_and_refuse_others(
    yard: CourierFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the right words at the device nothing is made there; without the right words here nobody is enrolled."""
    stick, root, at = yard.folder / "enrol", yard.folder / NEW, str(yard.workspace.root)
    agent = ["enrol", "--root", str(root), "--from", str(stick), "--host-keys", str(yard.folder)]
    assert agent_main([*agent, "--root-words", paper(yard, yard.devices[1].site)]) == 3
    assert agent_main(agent) == 2
    assert not root.exists() and tree(stick / "answers") == {}
    assert agent_main([*agent, "--root-words", paper(yard)]) == 0
    done = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert console_main(["-w", at, "devices", "enrol-intake", str(stick), "--json"]) == 3
    wrong = f"{first(yard)}={paper(yard)}"
    assert console_main(["-w", at, "devices", "enrol-intake", str(stick), "--key-words", wrong, "--json"]) == 3
    assert yard.workspace.store.devices.identity(first(yard)) is None
    capsys.readouterr()
    right = f"{first(yard)}={done['key_words']}"
    assert console_main(["-w", at, "devices", "enrol-intake", str(stick), "--key-words", right, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["enrolled"] and row["key_id"] == done["key_id"]
