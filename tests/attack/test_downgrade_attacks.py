"""Attempts to bring an old package back without two people's word. Each is refused, and the device runs what it ran before."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_agent.state import DeviceState
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError, ReplayError, TrustError
from pumpdeck_fleet.core.receipts import Terms
from pumpdeck_fleet.transports.rpc_client import push_blob
from pumpdeck_packaging.downgrade import add_signature, sign_downgrade
from pumpdeck_packaging.people import person_of_key
from pumpdeck_packaging.signing import generate_key
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease, TrustSettings
from support.devices import Bench, package
from support.downgrades import signed, word
from support.trust import SampleKeys

OLD, MIDDLE, NEW = package(shift=0.0), package(shift=0.5), package(shift=0.9)


class Scene:
    """A device that ran OLD, then MIDDLE, then NEW; going back to OLD is the downgrade."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder)
        self.bench.site.trust._settings = TrustSettings(keep_packages=9)
        for number, built in enumerate((OLD, MIDDLE, NEW)):
            self.bench.install(built, f"task-{number}")
        self.keys: SampleKeys = self.bench.site.keys
        self.two = self.keys.laptops[:2]

    def state(self) -> DeviceState:
        state = StateFiles(self.bench.fs, self.bench.agent().layout).load()
        assert state is not None
        return state

    def try_back(self, token: str | None, task: str = "back", built: Any = OLD) -> dict[str, Any]:
        """Assign the old package with this token and deliver it."""
        request = AssignmentRequest(self.bench.device, built.sha256, task, token=token)
        self.bench.site.trust.assign([request], self.keys.laptops[0])
        channel = self.bench.channel()
        push_blob(channel, built.sha256, built.data)
        return self.bench.send_assignment(channel, dict(self.bench.site.trust.files_for(self.bench.device)))

    def refuses(self, token: str, kind: type[PumpdeckError] = TrustError, match: str | None = None) -> None:
        """The assignment is not believed and not one byte of the state changes."""
        before, trials = self.state(), len(self.bench.runner.requests)
        with pytest.raises(kind, match=match):
            self.try_back(token)
        assert self.state() == before
        assert len(self.bench.runner.requests) == trials
        assert self.state().active_sha256 == NEW.sha256


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_honest_word_of_two_people_is_taken_once(scene: Scene) -> None:
    answer = scene.try_back(signed(word(OLD.sha256), scene.two))
    assert (answer["outcome"], answer["active"]) == ("committed", OLD.sha256)
    one = word(OLD.sha256)
    assert answer["receipt"]["token"] == canonical.digest(canonical.encode(one))
    assert [used.digest for used in scene.state().tokens] == [answer["receipt"]["token"]]


def test_a_root_key_and_a_laptop_are_two_people(scene: Scene) -> None:
    answer = scene.try_back(signed(word(OLD.sha256), [scene.keys.root[1], scene.keys.laptops[0]]))
    assert answer["active"] == OLD.sha256


def test_one_person_with_two_laptops_is_one_person(scene: Scene) -> None:
    """Both keys are good, and headquarters has signed that both are the same person's."""
    person = person_of_key(scene.two[0].key_id)
    keys = replace(scene.keys.public(), people=dict.fromkeys([key.key_id for key in scene.two], person))
    scene.bench.site.trust.rotate(keys, scene.keys.signers())
    scene.refuses(signed(word(OLD.sha256), scene.two), match="two people")
    honest = signed(word(OLD.sha256), [scene.keys.root[1], scene.two[1]])
    assert scene.try_back(honest, "with a second person")["active"] == OLD.sha256


def test_a_downgrade_without_a_word_is_refused(scene: Scene) -> None:
    """A stolen laptop assigns an old package with a known weakness, which was once released for this device."""
    answer = scene.try_back(None)
    assert (answer["outcome"], answer["active"]) == ("refused", NEW.sha256)
    assert "older than what ran here" in answer["reason"]
    assert scene.bench.status()["active"] == NEW.sha256
    assert len(scene.bench.runner.requests) == 3


def test_asking_for_a_retry_is_no_downgrade_word(scene: Scene) -> None:
    """The laptop's own terms cannot stand for two people."""
    request = AssignmentRequest(scene.bench.device, OLD.sha256, "back", terms=Terms(permit="WO-1", retry=True))
    scene.bench.site.trust.assign([request], scene.keys.laptops[0])
    channel = scene.bench.channel()
    push_blob(channel, OLD.sha256, OLD.data)
    answer = scene.bench.send_assignment(channel, dict(scene.bench.site.trust.files_for(scene.bench.device)))
    assert (answer["outcome"], scene.state().active_sha256) == ("refused", NEW.sha256)


def test_one_step_back_is_an_undo_and_no_second_step_follows(scene: Scene) -> None:
    """Undoing one step must not become a way down, step by step."""
    assert scene.try_back(None, "undo", MIDDLE)["active"] == MIDDLE.sha256
    answer = scene.try_back(None, "and further")
    assert (answer["outcome"], answer["active"]) == ("refused", MIDDLE.sha256)
    assert scene.try_back(None, "forward", NEW)["active"] == NEW.sha256


def test_a_site_can_ask_for_a_word_even_to_undo(scene: Scene) -> None:
    scene.bench.config = replace(scene.bench.config, undo_needs_token=True)
    path = scene.bench.root / "agent.json"
    path.write_bytes(canonical.encode(scene.bench.config))
    assert scene.try_back(None, "undo", MIDDLE)["outcome"] == "refused"
    assert scene.state().active_sha256 == NEW.sha256


def test_a_word_used_again_is_refused(scene: Scene) -> None:
    """Replay: the same word in a second assignment, after the device moved on."""
    token = signed(word(OLD.sha256), scene.two)
    assert scene.try_back(token, "first")["active"] == OLD.sha256
    assert scene.try_back(None, "forward", NEW)["active"] == NEW.sha256
    scene.refuses(token, ReplayError, "was used already")


def test_a_used_word_with_other_signatures_is_refused(scene: Scene) -> None:
    """Replay in another envelope: two others sign the very same word."""
    one = word(OLD.sha256)
    scene.try_back(signed(one, scene.two), "first")
    scene.try_back(None, "forward", NEW)
    scene.refuses(signed(one, scene.keys.root[:2]), ReplayError, "was used already")


def test_a_used_word_stays_used_when_both_state_copies_are_lost(scene: Scene) -> None:
    """A thief with the device in hand wipes its state to use the word again."""
    token = signed(word(OLD.sha256), scene.two)
    scene.try_back(token, "first")
    scene.try_back(None, "forward", NEW)
    for which in (0, 1):
        (scene.bench.root / f"state.{which}").unlink()
    scene.bench.agent().resume()
    scene.refuses(token, ReplayError, "was used already")
    answer = scene.try_back(None, "and without")
    assert (answer["outcome"], scene.state().active_sha256) == ("refused", NEW.sha256)


def test_a_word_for_the_neighbour_is_refused(scene: Scene) -> None:
    """Wrong device."""
    scene.refuses(signed(word(OLD.sha256, device="gannet-d2"), scene.two), match="another device")


def test_a_word_for_another_package_is_refused(scene: Scene) -> None:
    """Wrong digest."""
    scene.refuses(signed(word(MIDDLE.sha256), scene.two), match="another package")


def test_a_word_for_another_site_is_refused(scene: Scene) -> None:
    """Key holders serve several sites; their word for one is none for the other."""
    scene.refuses(signed(word(OLD.sha256, site="heron"), scene.two), match="another site")


def test_one_signature_is_refused(scene: Scene) -> None:
    """One person alone."""
    scene.refuses(signed(word(OLD.sha256), scene.two[:1]), match="two people")


def test_the_same_signer_twice_is_refused(scene: Scene) -> None:
    """One person's signature listed twice under one key id."""
    plain = json.loads(signed(word(OLD.sha256), scene.two[:1]))
    plain["signatures"] *= 2
    scene.refuses(canonical.encode(plain).decode(), PumpdeckError)


def test_the_same_key_under_another_id_is_refused(scene: Scene) -> None:
    """One person's signature a second time, as if another key had made it."""
    plain = json.loads(signed(word(OLD.sha256), scene.two[:1]))
    again = dict(plain["signatures"][0], keyid=scene.two[1].key_id)
    plain["signatures"] = sorted([*plain["signatures"], again], key=lambda one: str(one["keyid"]))
    scene.refuses(canonical.encode(plain).decode(), TrustError, "does not hold")


def test_signing_twice_with_one_key_is_refused_at_the_console(scene: Scene) -> None:
    """One person on two computers with a copy of the same key."""
    with pytest.raises(TrustError, match="already"):
        add_signature(sign_downgrade(word(OLD.sha256), scene.two[0]), scene.two[0])


@pytest.mark.parametrize("role", ["release", "targets"])
def test_keys_that_lie_beside_the_deploy_key_do_not_count(scene: Scene, role: str) -> None:
    """A stolen laptop holds several keys; together they are one person."""
    other = {"release": scene.keys.release[0], "targets": scene.keys.targets}[role]
    scene.refuses(signed(word(OLD.sha256), [scene.two[0], other]), match="unknown key")


def test_a_strangers_signature_is_refused(scene: Scene) -> None:
    """The second person is nobody this site knows."""
    scene.refuses(signed(word(OLD.sha256), [scene.two[0], generate_key()]), match="unknown key")


def test_a_word_that_ran_out_is_refused(scene: Scene) -> None:
    """Expired by sequence number: the device's own clock is not asked."""
    scene.refuses(signed(word(OLD.sha256, until_seq=scene.state().seq), scene.two), ReplayError, "run out")


def _cut(token: str) -> str:
    return token[:-1]


def _spaced(token: str) -> str:
    return token.replace(":", ": ")


def _other_type(token: str) -> str:
    return token.replace("downgrade.v1", "receipt.v1")


@pytest.mark.parametrize("spoil", [_cut, _spaced, _other_type, lambda _: "", lambda _: "{}", lambda token: token * 3])
def test_a_bent_envelope_is_refused(scene: Scene, spoil: Callable[[str], str]) -> None:
    """Cut, re-spelled, of another type, empty, too long."""
    scene.refuses(spoil(signed(word(OLD.sha256), scene.two)), PumpdeckError)


@pytest.mark.parametrize(
    "changes",
    [{"format": 2}, {"until_seq": 0}, {"nonce": ""}, {"reason": ""}, {"reason": "x" * 201}, {"device": "../d1"}],
)
def test_a_word_of_another_form_is_refused(scene: Scene, changes: dict[str, Any]) -> None:
    """Fields that an honest console never writes."""
    scene.refuses(signed(word(OLD.sha256, **changes), scene.two), PumpdeckError)


def test_a_flipped_bit_in_any_byte_of_the_word_is_refused(scene: Scene) -> None:
    """Bit rot, or a thief who makes the reason read better, after signing."""
    agent, trust = scene.bench.agent(), scene.bench.site.trust
    token = signed(word(OLD.sha256), scene.two)
    before = scene.state()
    for place in range(0, len(token), 7):
        bad = token[:place] + chr(ord(token[place]) ^ 1) + token[place + 1 :]
        request = AssignmentRequest(scene.bench.device, OLD.sha256, f"flip-{place}", token=bad)
        trust.assign([request], scene.keys.laptops[0])
        with pytest.raises(PumpdeckError):
            agent.assign(dict(trust.files_for(scene.bench.device)))
        assert scene.state() == before


def test_a_revoked_signer_does_not_count(scene: Scene) -> None:
    """The word was signed with a laptop that was lost since."""
    token = signed(word(OLD.sha256), scene.two)
    lost = scene.keys.laptops[1]
    scene.keys.laptops[1] = generate_key()
    scene.bench.site.trust.rotate(scene.keys.public(), scene.keys.signers())
    assert lost is not scene.keys.laptops[1]
    scene.refuses(token, match="unknown key")


def test_an_old_package_signed_anew_by_release_is_no_downgrade(scene: Scene) -> None:
    """What the release role signs today is today's word, whatever the package's age."""
    scene.bench.site.trust._settings = TrustSettings(keep_packages=1)
    scene.bench.site.trust.release([PackageRelease(package(shift=1.5), {"esp-health": 1})], scene.keys.release)
    scene.bench.site.trust.release([PackageRelease(OLD, {"esp-health": 1})], scene.keys.release)
    assert scene.try_back(None)["active"] == OLD.sha256
