"""What a site demands of assignments: signed beside its keys, kept over every change, refused when it cannot be followed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import TrustError
from pumpdeck_packaging.device_rules import RULES_FIELD, DeviceRules, SiteRules, rules_in
from pumpdeck_packaging.returns_policy import ReturnsPolicy
from support.forge import edited
from support.trust import SampleSite, verify

RULES = SiteRules(DeviceRules(needs_permit=True), {"edge-x86": DeviceRules(undo_needs_token=True)})


@pytest.fixture
def site(tmp_path: Path) -> SampleSite:
    made = SampleSite(tmp_path)
    made.deliver()
    return made


def say(site: SampleSite, rules: SiteRules) -> int:
    return site.trust.set_rules(rules, site.keys.targets, site.keys.laptops[0])


def test_what_a_class_or_its_site_demands_is_demanded() -> None:
    assert RULES.of_class("edge-x86") == DeviceRules(True, True)
    assert RULES.of_class("other") == DeviceRules(True, None)
    lenient = SiteRules(DeviceRules(False, False), {"edge-x86": DeviceRules(True, None)})
    assert lenient.of_class("edge-x86") == DeviceRules(True, False)
    assert DeviceRules(False, None).over(DeviceRules(True, True)) == DeviceRules(False, True)


def test_a_site_that_never_said_anything_has_the_bytes_it_always_had(site: SampleSite) -> None:
    targets = next(data for name, data in site.files().items() if name.endswith(".targets.json"))
    assert RULES_FIELD not in json.loads(targets)["signed"]
    assert (site.trust.device_rules(), rules_in(dict(site.files()))) == (None, None)


def test_rules_are_signed_once_and_reach_a_device_with_what_it_is_assigned(site: SampleSite) -> None:
    before = site.trust.base().site.forms["targets"].version
    assert say(site, RULES) == before + 1
    assert say(site, RULES) == before + 1, "saying the same again signs nothing"
    # In what a device verified and keeps, not only in the file.
    verified = verify(site.state(), site.files())
    kept = {name: data for name, data in verified.keep.items() if name != "assign.json"}
    assert rules_in(kept) == RULES


def test_rules_and_readers_do_not_disturb_each_other_and_outlive_a_change_of_keys(site: SampleSite) -> None:
    plain = ReturnsPolicy(plain=True)
    say(site, RULES)
    site.trust.set_returns(plain, site.keys.targets, site.keys.laptops[0])
    assert (site.trust.device_rules(), site.trust.returns_policy()) == (RULES, plain)
    site.trust.rotate(site.keys.public(), site.keys.signers())
    assert (site.trust.device_rules(), site.trust.returns_policy()) == (RULES, plain)


def test_the_golden_words_are_read_and_written_today() -> None:
    golden = (Path(__file__).parents[1] / "golden" / "formats" / "device_rules.json").read_bytes()
    assert canonical.decode(SiteRules, golden, "golden", max_bytes=4096) == RULES
    assert canonical.encode(RULES) == golden


def test_a_field_laptop_cannot_sign_rules(site: SampleSite) -> None:
    before = site.files()
    with pytest.raises(TrustError):
        site.trust.set_rules(RULES, site.keys.laptops[0], site.keys.laptops[0])
    assert site.files() == before


@pytest.mark.parametrize(
    "rules", [replace(RULES, format=2), SiteRules(DeviceRules(), {"Bad Name": DeviceRules()})], ids=["format", "class"]
)
def test_rules_that_nobody_could_follow_are_not_signed(site: SampleSite, rules: SiteRules) -> None:
    before = site.files()
    with pytest.raises(TrustError):
        say(site, rules)
    assert site.files() == before


def test_rules_of_a_later_format_are_refused_by_a_reader_of_today(site: SampleSite) -> None:
    def of_tomorrow(signed: dict[str, Any]) -> None:
        signed[RULES_FIELD] = {"format": 2, "site": {}, "classes": {}}

    files = edited(site.files(), site.keys, "targets", of_tomorrow)
    with pytest.raises(TrustError, match="unknown format"):
        rules_in(files)
