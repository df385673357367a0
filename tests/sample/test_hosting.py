"""Many devices in one process: what is marked is scored, one device's trouble stays its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pumpdeck_fleet.core.errors import DamagedError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_sample.hosting import LostAgent, SimulatedDevices
from pumpdeck_sample.plan import SimulationPlan, host_key_path, inbox_path
from pumpdeck_sample.ssh_keys import make_host_key, public_line
from support.ssh_client import connect, open_rpc

CLIENT_KEY = Ed25519PrivateKey.generate()
DEVICES = ("gannet-d1", "gannet-d2")
PLAN = SimulationPlan(1, 7, 1, 2, 4, "x86_64", "linux", 1_760_000_040_000, public_line(CLIENT_KEY), {})


class CountingAgent:
    """Counts what it is asked; its scoring can be made to fail."""

    def __init__(self) -> None:
        self.scored = 0
        self.conversations = 0
        self.closed = False
        self.trouble: Exception | None = None
        self.threads: set[str] = set()

    def rpc(self, read: BinaryIO, write: BinaryIO) -> int:
        self.conversations += 1
        return 0

    def score(self) -> int:
        self.threads.add(threading.current_thread().name)
        if self.trouble is not None:
            raise self.trouble
        self.scored += 1
        return 10

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def agents() -> dict[str, CountingAgent]:
    return {device: CountingAgent() for device in DEVICES}


@pytest.fixture
def devices(agents, tmp_path: Path) -> Iterator[SimulatedDevices]:
    fs = RealFileSystem()
    for device in DEVICES:
        make_host_key(fs, host_key_path(tmp_path, device))
        fs.mkdir(inbox_path(tmp_path, device))
    devices = SimulatedDevices(PLAN, tmp_path, agents, fs)
    devices.start()
    yield devices
    devices.close()
    assert all(agent.closed for agent in agents.values())


def test_all_devices_are_scored_at_the_start_and_then_only_those_that_are_marked(devices, agents) -> None:
    assert devices.score_marked(0.01) == 20
    assert devices.score_marked(0.01) == 0
    devices.mark(["gannet-d2"])
    assert devices.score_marked(5.0) == 10
    assert (agents["gannet-d1"].scored, agents["gannet-d2"].scored) == (1, 2)
    assert devices.scored_rows == 30


def test_a_conversation_marks_its_device_when_it_ends(devices, agents) -> None:
    devices.score_marked(0.01)
    port, _ = devices.endpoints["gannet-d1"]
    transport = connect(port, CLIENT_KEY)
    assert open_rpc(transport).recv_exit_status() == 0
    transport.close()
    assert devices.score_marked(5.0) == 10
    assert (agents["gannet-d1"].scored, agents["gannet-d2"].scored) == (2, 1)


def test_a_device_that_lost_its_folder_ends_conversations_and_leaves_the_others_alone(tmp_path: Path) -> None:
    fs = RealFileSystem()
    for device in DEVICES:
        make_host_key(fs, host_key_path(tmp_path, device))
    fs.mkdir(inbox_path(tmp_path, "gannet-d2"))
    other = CountingAgent()
    devices = SimulatedDevices(PLAN, tmp_path, {"gannet-d1": LostAgent("is gone"), "gannet-d2": other}, fs)
    devices.start()
    try:
        assert devices.present == ["gannet-d2"]
        devices.mark_waiting()
        assert devices.score_marked(0.01) == 10
        assert devices.refusals == {"gannet-d1": "is gone"}
        transport = connect(devices.endpoints["gannet-d1"][0], CLIENT_KEY)
        assert open_rpc(transport).recv_exit_status() == 6
        transport.close()
    finally:
        devices.close()


def test_rows_that_nobody_announced_are_found(devices, agents, tmp_path: Path) -> None:
    devices.score_marked(0.01)
    devices.mark_waiting()
    assert devices.score_marked(0.01) == 0
    (inbox_path(tmp_path, "gannet-d2") / "1.csv").write_text("time,pump,x\n", encoding="utf-8")
    devices.mark_waiting()
    assert devices.score_marked(5.0) == 10
    assert agents["gannet-d2"].scored == 2


@pytest.mark.parametrize("trouble", [DamagedError("is damaged", "package"), OSError(28, "No space left on device")])
def test_a_device_that_cannot_score_is_named_and_the_others_go_on(devices, agents, trouble: Exception) -> None:
    agents["gannet-d1"].trouble = trouble
    assert devices.score_marked(0.01) == 10
    assert set(devices.refusals) == {"gannet-d1"}
    assert agents["gannet-d2"].scored == 1
    agents["gannet-d1"].trouble = None
    devices.mark(DEVICES)
    assert devices.score_marked(5.0) == 20
    assert devices.refusals == {}
