"""Permits and downgrade words on their whole way: people, console, a real SSH server or a stick, the agent and its trial."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import TrustError
from pumpdeck_fleet.core.inventory import Link
from support.paper_fleet import PaperFleet, paper_fleet
from support.sshd import why_no_sshd

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(why_no_sshd()), reason=why_no_sshd() or "sshd is here"),
]

PERMIT = ("--permit", "WO-2031/7")


@pytest.fixture
def papers(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PaperFleet]:
    with paper_fleet(tmp_path, request.param) as found:
        yield found


@pytest.mark.parametrize("papers", [Link.SSH], indirect=True)
def test_over_ssh_a_device_asks_for_a_permit_and_for_two_people_and_takes_their_word_once(papers: PaperFleet) -> None:
    device = papers.device
    assert papers.roll_out(device, 1) == "COMMITTED"

    # Planned before anybody asked for papers: the device itself turns it down, whatever its own file says.
    unaware = papers.plan(device, 2)
    papers.demand(device.site, needs_permit=True, undo_needs_token=True)
    config = papers.root(device) / "agent.json"
    config.write_bytes(canonical.encode(json.loads(config.read_bytes()) | {"needs_permit": False}))
    assert papers.deliver(device, unaware) == "REFUSED"
    assert "permit or work-order number" in papers.last_receipt(device).reason
    assert papers.active(device) == 1
    refused = papers.call("rollout", "start", f"device:{device.id}", "--model", "esp-health=2", expect=3)
    assert "permit" in refused["what"], "the console says so before anybody flies"

    assert papers.roll_out(device, 2, *PERMIT) == "COMMITTED"
    assert papers.last_receipt(device).permit == "WO-2031/7"

    assert papers.roll_out(device, 1, *PERMIT) == "REFUSED"
    assert (papers.active(device), "two people" in papers.last_receipt(device).reason) == (2, True)
    alone = papers.word(device, 1, people=1)
    assert "two people" in papers.call("trust", "downgrade", "take", str(alone), expect=3)["what"]
    before = papers.state(device)
    for name, stolen in (("alone", alone), ("other", papers.word(papers.other, 1))):
        papers.sign_again(device, 1, f"task-{name}", stolen.read_text(encoding="ascii"))
        with pytest.raises(TrustError, match="two people" if name == "alone" else "another"):
            papers.send_signed(device)
    assert papers.state(device) == before, "refused, and not a byte of it written down"
    word = papers.word(device, 1)
    papers.call("trust", "downgrade", "take", str(word))
    assert papers.roll_out(device, 1, *PERMIT) == "COMMITTED"
    assert papers.active(device) == 1
    assert papers.last_receipt(device).token == papers.state(device).tokens[0].digest

    # The same word once more: the console cannot know, the device does.
    assert papers.roll_out(device, 2, *PERMIT) == "COMMITTED"
    papers.call("trust", "downgrade", "take", str(word))
    again = papers.plan(device, 1, *PERMIT)
    told = papers.call("tick", "--until-idle", "--limit", "60", expect=4)
    assert "used already" in json.dumps(told)
    assert (papers.task(again) == "COMMITTED", papers.active(device)) == (False, 2)


@pytest.mark.parametrize("papers", [Link.COURIER], indirect=True)
def test_on_a_stick_a_word_serves_its_own_device_in_its_own_time(papers: PaperFleet) -> None:
    device = papers.device
    papers.demand(device.site, needs_permit=True, undo_needs_token=True)
    assert papers.roll_out(device, 1, *PERMIT) == "COMMITTED"
    assert papers.roll_out(device, 2, *PERMIT) == "COMMITTED"
    assert papers.last_receipt(device).permit == "WO-2031/7"

    # A word whose time is over travels with nothing any more.
    papers.call("trust", "downgrade", "take", str(papers.word(device, 1, "--steps", "1")))
    for number in range(2):
        papers.sign_again(device, 2, f"task-meanwhile-{number}")
    assert papers.roll_out(device, 1, *PERMIT) == "REFUSED"
    assert (papers.active(device), "two people" in papers.last_receipt(device).reason) == (2, True)

    papers.call("trust", "downgrade", "take", str(papers.word(device, 1)))
    assert papers.roll_out(device, 1, *PERMIT) == "COMMITTED"
    page = (papers.folder / "stick" / "pumpdeck" / "returns" / device.id / "report.txt").read_text(encoding="utf-8")
    assert page.count("\n") == 3
    assert papers.active(device) == 1
    assert papers.last_receipt(device).token is not None
