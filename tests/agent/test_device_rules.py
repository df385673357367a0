"""What a site demands in signed words binds its devices, whatever their own files say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_agent.state import DeviceState
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import TrustError
from pumpdeck_fleet.core.receipts import Terms
from pumpdeck_fleet.transports.rpc_client import push_blob
from pumpdeck_packaging.device_rules import RULES_FIELD, DeviceRules, SiteRules
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease
from support.devices import Bench, package
from support.downgrades import signed, word
from support.forge import edited

FIRST, SECOND = package(shift=0.0), package(shift=0.5)
PERMIT = SiteRules(DeviceRules(needs_permit=True))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def say(bench: Bench, rules: SiteRules) -> None:
    bench.site.trust.set_rules(rules, bench.site.keys.targets, bench.site.keys.laptops[0])


def files_for(bench: Bench, built: BuiltPackage, task: str, **terms: Any) -> dict[str, bytes]:
    token = terms.pop("token", None)
    bench.site.trust.release([PackageRelease(built, {"esp-health": 1})], bench.site.keys.release)
    request = AssignmentRequest(bench.device, built.sha256, task, terms=Terms(**terms), token=token)
    bench.site.trust.assign([request], bench.site.keys.laptops[0])
    return dict(bench.site.trust.files_for(bench.device))


def install(bench: Bench, built: BuiltPackage, task: str, **terms: Any) -> dict[str, Any]:
    files = files_for(bench, built, task, **terms)
    channel = bench.channel()
    push_blob(channel, built.sha256, built.data)
    return bench.send_assignment(channel, files)


def write_config(bench: Bench, **changes: Any) -> None:
    (bench.root / "agent.json").write_bytes(canonical.encode(replace(bench.config, **changes)))


def state(bench: Bench) -> DeviceState:
    found = StateFiles(bench.fs, bench.agent().layout).load()
    assert found is not None
    return found


def test_a_signed_demand_binds_a_device_that_was_enrolled_without(bench: Bench) -> None:
    assert install(bench, FIRST, "t-1")["outcome"] == "committed"
    say(bench, PERMIT)
    refused = install(bench, SECOND, "t-2")
    assert (refused["outcome"], refused["active"]) == ("refused", FIRST.sha256)
    assert "permit or work-order number" in refused["reason"]
    taken = install(bench, SECOND, "t-3", permit="WO-7")
    assert (taken["outcome"], taken["receipt"]["permit"]) == ("committed", "WO-7")


def test_no_file_on_the_device_weakens_a_signed_demand(bench: Bench) -> None:
    say(bench, PERMIT)
    write_config(bench, needs_permit=False)
    assert install(bench, FIRST, "t-1")["outcome"] == "refused"
    assert state(bench).active is None


def test_older_metadata_without_the_demand_is_not_believed_any_more(bench: Bench) -> None:
    install(bench, FIRST, "t-1")
    old = files_for(bench, SECOND, "t-2")
    say(bench, PERMIT)
    install(bench, SECOND, "t-3")
    before = state(bench)
    with pytest.raises(TrustError):
        bench.agent().assign(old)
    assert (state(bench), state(bench).active_sha256) == (before, FIRST.sha256)


def test_a_signed_word_lifts_what_was_written_at_enrolment(bench: Bench) -> None:
    write_config(bench, needs_permit=True)
    assert install(bench, FIRST, "t-1")["outcome"] == "refused"
    say(bench, SiteRules(DeviceRules(undo_needs_token=True)))
    assert install(bench, FIRST, "t-2")["outcome"] == "refused", "it says nothing of permits"
    say(bench, SiteRules(DeviceRules(needs_permit=False)))
    assert install(bench, FIRST, "t-3")["outcome"] == "committed"


def test_a_demand_of_another_class_binds_nobody_here(bench: Bench) -> None:
    say(bench, SiteRules(DeviceRules(), {"edge-arm": DeviceRules(needs_permit=True)}))
    assert install(bench, FIRST, "t-1")["outcome"] == "committed"
    say(bench, SiteRules(DeviceRules(), {"edge-x86": DeviceRules(needs_permit=True)}))
    assert install(bench, SECOND, "t-2")["outcome"] == "refused"


def test_a_signed_demand_makes_even_one_step_back_a_matter_of_two_people(bench: Bench) -> None:
    install(bench, FIRST, "t-1")
    install(bench, SECOND, "t-2")
    say(bench, SiteRules(DeviceRules(undo_needs_token=True)))
    assert install(bench, FIRST, "t-3")["outcome"] == "refused"
    token = signed(word(FIRST.sha256), [bench.site.keys.laptops[0], bench.site.keys.root[1]])
    assert install(bench, FIRST, "t-4", token=token)["outcome"] == "committed"


def test_rules_that_this_agent_cannot_follow_change_nothing(bench: Bench) -> None:
    install(bench, FIRST, "t-1")

    def of_tomorrow(part: dict[str, Any]) -> None:
        part[RULES_FIELD] = {"format": 2, "site": {}, "classes": {}}

    files = edited(files_for(bench, SECOND, "t-2"), bench.site.keys, "targets", of_tomorrow)
    push_blob(bench.channel(), SECOND.sha256, SECOND.data)
    before = state(bench)
    with pytest.raises(TrustError, match="unknown format"):
        bench.agent().assign(files)
    assert state(bench) == before
