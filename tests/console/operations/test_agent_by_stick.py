"""The console writes a released agent onto a stick or into a letter; the device renews itself and its signed word comes home."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.install_from import StickVisit, install_from
from pumpdeck_agent.install_from_tar import answer_path, install_from_tar
from pumpdeck_agent.probation import AgentReceipts, confirm
from pumpdeck_agent.self_check import CheckReport, CheckRequest
from pumpdeck_agent.slot_record import AgentBuild, SlotPhase, fresh_record
from pumpdeck_agent.slots import SlotFiles
from pumpdeck_console.operations.agent_releases import BuiltAgent, build_agent_release
from pumpdeck_console.operations.bundle_agent import add_agent
from pumpdeck_console.operations.bundles import export_bundle, export_tar, intake_bundle
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_packaging import ustar
from pumpdeck_packaging.bundle_tar import read_members
from support.courier_fleet import courier_fleet
from support.sticks import wheel_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an agent in slots runs on devices, and needs POSIX")

OLD = b"the old agent " * 40


class PassingCheck:
    """The new agent works; whether it does is asked elsewhere, with real ones."""

    def __init__(self, version: str, device: str) -> None:
        self._report = CheckReport(version, device, "key", "NO_MODEL")

    def run(self, wanted: CheckRequest) -> CheckReport:
        return self._report


class Yard:
    """A courier's fleet whose first device has its agent in slots; `released` is the agent that its site released."""

    def __init__(self, folder: Path) -> None:
        self.fleet = courier_fleet(folder)
        self.device = self.fleet.devices[0].id
        wheel_folder(self.fleet.workspace.root / "agent" / "wheels", "x86_64-cp311")
        self.released: BuiltAgent = build_agent_release(self.fleet.workspace, release=True)
        agent = self.agent()
        self.slots = SlotFiles(agent.platform, agent.layout.root)
        agent.platform.fs.mkdir(self.slots.folder)
        self.slots.put("a", OLD)
        self.slots.save(fresh_record(AgentBuild("a", canonical.digest(OLD), "0.0.1", 0)))

    def agent(self) -> Agent:
        one = self.fleet.agent(self.device)
        one.checks = PassingCheck((getattr(self, "released", None) and self.released.version) or "", self.device)
        return one

    def entries(self) -> list[str]:
        """What the audit chain says of renewed agents."""
        store = self.fleet.workspace.store
        return [entry.reason for entry in store.audit.entries() if entry.action == "device.upgrade"]

    def confirm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the new agent does at its first start."""
        monkeypatch.setattr(SlotFiles, "runs", lambda _self, build: build.sha256 == self.released.sha256)
        assert confirm(self.slots, AgentReceipts(self.device, self.agent().platform))


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


@pytest.mark.parametrize("way", ["stick", "letter"])
def test_a_released_agent_travels_is_taken_and_answered(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    workspace, place, letter = yard.fleet.workspace, tmp_path / "stick", tmp_path / "gannet.tar"

    def visit() -> StickVisit:
        if way == "letter":
            return install_from_tar(yard.agent(), letter)
        return install_from(yard.agent(), yard.fleet.stick())

    yard.fleet.start()
    if way == "letter":
        report = export_tar(workspace, file=str(letter), has_agent=True).agent
    else:
        export_bundle(workspace, to=str(place))
        report = add_agent(workspace, to=str(place))
    assert report is not None and set(report.released) == {site.id for site in workspace.fleet.sites} and not report.notes
    first = visit()
    # The package first, by the agent that is known to work; then the agent itself.
    assert (first.outcome, first.agent.outcome) == ("committed", "probation")
    yard.confirm(monkeypatch)
    second = visit()
    assert (second.outcome, second.agent.outcome, second.exit_code) == ("committed", "committed", 0)
    back = answer_path(letter, yard.device) if way == "letter" else place
    taken = intake_bundle(workspace, folder=str(back))
    assert taken.stored["agent_receipt"] == 1 and not taken.problems
    assert yard.entries() == [f"{yard.released.version} committed"]
    again = intake_bundle(workspace, folder=str(back))
    assert not again.stored.get("agent_receipt") and len(yard.entries()) == 1
    record = yard.slots.load()
    assert record is not None and (record.phase, record.active.sha256) == (SlotPhase.ACTIVE, yard.released.sha256)


def test_a_site_without_a_release_is_named_and_its_devices_keep_their_agent(tmp_path: Path) -> None:
    fleet = courier_fleet(tmp_path)
    wheel_folder(fleet.workspace.root / "agent" / "wheels", "x86_64-cp311")
    report = add_agent(fleet.workspace, to=str(tmp_path / "stick"))
    assert report.released == () and len(report.notes) == len(fleet.workspace.fleet.sites)
    assert all("no agent was released" in note for note in report.notes)
    assert fleet.visit(fleet.devices[0].id).agent.outcome in ("", "refused")


def test_an_agent_that_stands_in_no_slot_is_told_so_and_stays(yard: Yard, tmp_path: Path) -> None:
    export_bundle(yard.fleet.workspace, to=str(tmp_path / "stick"))
    add_agent(yard.fleet.workspace, to=str(tmp_path / "stick"))
    found = yard.fleet.visit(yard.fleet.devices[1].id)
    assert found.agent.outcome == "refused" and "does not stand in slots" in found.agent.reason
    assert found.exit_code == 0


def test_the_same_letter_with_the_agent_gives_the_same_bytes(yard: Yard, tmp_path: Path) -> None:
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    first = export_tar(yard.fleet.workspace, file=str(one), has_agent=True)
    second = export_tar(yard.fleet.workspace, file=str(two), has_agent=True)
    assert one.read_bytes() == two.read_bytes() and first.bundle == second.bundle
    plain = export_tar(yard.fleet.workspace, file=str(tmp_path / "plain.tar"))
    assert plain.bundle != first.bundle and plain.agent is None


def test_a_letter_with_a_strange_path_beside_the_agent_is_refused() -> None:
    """`..` and depth: the agent's folder is no way out of a letter's names."""
    for path in ("agent/../x", "agent/a/b/c/d", "agent", "agent/CON", "agent//x"):
        data = ustar.header(path, 0).ljust(ustar.RECORD, b"\0") if "//" not in path else b"x" * ustar.RECORD

        class Source:
            size = len(data)

            def read_at(self, offset: int, count: int, data: bytes = data) -> bytes:
                return data[offset : offset + count]

            def close(self) -> None: ...

        with pytest.raises(FormatError):
            read_members(Source(), path)
