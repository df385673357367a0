"""The simulator as the demo runs it: real processes, real SSH, the real agent, from a package to a scored last day."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pumpdeck_fleet.core.clock import DAY_MS, MINUTE_MS
from pumpdeck_fleet.core.errors import TrustError, UnreachableError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.core.receipts import RECEIPT_PAYLOAD_TYPE
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.transports.rpc_client import push_blob
from pumpdeck_fleet.transports.ssh import SshConnector, SshLogin
from pumpdeck_packaging.signing import verify_dsse
from pumpdeck_sample.fleet import with_endpoints
from pumpdeck_sample.history import write_last_day
from pumpdeck_sample.launcher import SimulatorOptions, SimulatorProcess, simulator_command
from pumpdeck_sample.plan import inbox_path
from pumpdeck_sample.scenario import is_alarm_expected
from support.sample_site import EnrolledSite, enrolled_site

pytestmark = pytest.mark.e2e

HOSTED, PROCESS = "gannet-d1", "gannet-d2"
END_MS = 1_760_000_040_000
WAIT_S = 60.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> EnrolledSite:
    return enrolled_site(tmp_path_factory.mktemp("site"), END_MS)


@pytest.fixture(scope="module")
def simulator(site: EnrolledSite) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(site.root, SimulatorOptions(processes=(PROCESS,), speed=0.0), os.environ) as simulator:
        simulator.wait_ready()
        yield simulator


@pytest.fixture(scope="module")
def device(site: EnrolledSite, simulator: SimulatorProcess) -> Callable[[str], Device]:
    return with_endpoints(site.fleet, simulator.endpoints).device


@pytest.fixture(scope="module")
def connect(site: EnrolledSite) -> SshConnector:
    return SshConnector(SshLogin(key_text=site.client_key_text))


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.1)


def status(connect: SshConnector, device: Device) -> dict:
    channel = connect(device)
    try:
        return dict(channel.call(Op.STATUS, {})[0]["state"])
    finally:
        channel.close()


def test_every_device_says_who_it_is(site, connect, device) -> None:
    for name in (HOSTED, PROCESS):
        channel = connect(device(name))
        header, _ = channel.call(Op.HELLO, {"console": "test", "workspace": "w"})
        channel.close()
        assert header["device"] == name
        assert header["site"] == "gannet"
        assert header["public_key"] == site.enrolled[name].public_pem
        assert header["pumps"] == [pump.tag for pump in site.fleet.pumps_by_device[name]]


def test_another_devices_host_key_is_not_accepted(site, connect, device) -> None:
    import dataclasses

    wrong = dataclasses.replace(device(HOSTED), host_key=site.enrolled[PROCESS].host_key)
    with pytest.raises(TrustError, match="host key is not the pinned one"):
        connect(wrong)


def test_a_package_is_committed_and_the_last_day_is_scored_with_an_alarm_on_the_faulty_pump_only(
    site, connect, device, simulator
) -> None:
    trained = site.trained()
    fs = RealFileSystem()
    for name in (HOSTED, PROCESS):
        built = site.package(name, trained)
        files = site.assign(name, built, f"task-{name}")
        channel = connect(device(name))
        push_blob(channel, built.sha256, built.data)
        listed = [{"name": file, "bytes": len(data)} for file, data in files.items()]
        header, envelope = channel.call(Op.ASSIGN, {"files": listed}, b"".join(files.values()))
        channel.close()
        assert (header["outcome"], header["state"], header["active"]) == ("committed", "ACTIVE", built.sha256), header
        keys = {site.enrolled[name].key_id: site.enrolled[name].public_pem}
        receipt = json.loads(verify_dsse(envelope, RECEIPT_PAYLOAD_TYPE, keys, 64 * 1024))
        assert (receipt["device"], receipt["package_sha256"]) == (name, built.sha256)
    inboxes = {name: inbox_path(site.root, name) for name in (HOSTED, PROCESS)}
    write_last_day(site.fleet, site.rows, inboxes, fs)
    until(lambda: not any(list(inbox.iterdir()) for inbox in inboxes.values()), "the spools are empty")
    found = {name: status(connect, device(name))["pumps"] for name in (HOSTED, PROCESS)}
    for name, pumps in found.items():
        assert {tag: one["scored_rows"] for tag, one in pumps.items()} == {
            pump.tag: 1440 for pump in site.fleet.pumps_by_device[name]
        }
    alarmed = {f"gannet/{tag}" for pumps in found.values() for tag, one in pumps.items() if one["alarmed"]}
    faults = site.plan.scenario().faults
    assert alarmed == {fault.pump_id for fault in faults if is_alarm_expected(fault, END_MS - DAY_MS, END_MS)}


def test_the_heartbeat_tells_what_was_scored(site, simulator) -> None:
    path = site.root / "heartbeats" / "simulator.json"

    def said() -> bool:
        heartbeat = json.loads(path.read_text(encoding="utf-8"))
        return heartbeat["pid"] == simulator.pid and heartbeat["refusals"] == {}

    until(said, "a heartbeat of this process without refusals")


def test_it_ends_with_its_parent_and_takes_its_agents_along(tmp_path: Path) -> None:
    """The parent dies without a word; the end of standard input is all that the simulator learns of it."""
    site = enrolled_site(tmp_path, END_MS)
    command = simulator_command(site.root, SimulatorOptions(processes=(PROCESS,), speed=0.0))
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    family = [process.pid, *ready["agent_pids"].values()]
    family += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.stdin.close()
    assert process.wait(WAIT_S) == 0
    process.stdout.close()
    until(lambda: not any(psutil.pid_exists(pid) for pid in family), "all processes are gone")
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", ready["devices"][HOSTED]["port"]), timeout=2)


def test_a_killed_simulator_leaves_no_agent_behind(tmp_path: Path) -> None:
    site = enrolled_site(tmp_path, END_MS)
    simulator = SimulatorProcess(site.root, SimulatorOptions(processes=(PROCESS,), speed=0.0), os.environ)
    simulator.wait_ready()
    family = [child.pid for child in psutil.Process(simulator.pid).children(recursive=True)]
    assert simulator.agent_pids[PROCESS] in family
    psutil.Process(simulator.pid).kill()
    until(lambda: not any(psutil.pid_exists(pid) for pid in family), "all processes are gone")
    simulator.close()


def test_ports_are_kept_when_they_are_free_and_replaced_when_they_are_not(tmp_path: Path) -> None:
    import dataclasses

    from pumpdeck_sample.plan import write_plan

    site = enrolled_site(tmp_path, END_MS)
    options = SimulatorOptions(speed=0.0)
    with SimulatorProcess(site.root, options, os.environ) as first:
        ports = {name: endpoint.port for name, endpoint in first.wait_ready().items()}
    write_plan(RealFileSystem(), site.root, dataclasses.replace(site.plan, ports=ports))
    with socket.create_server(("127.0.0.1", ports[HOSTED])), SimulatorProcess(site.root, options, os.environ) as again:
        endpoints = again.wait_ready()
    assert endpoints[PROCESS].port == ports[PROCESS]
    assert endpoints[HOSTED].port != ports[HOSTED]
    assert endpoints[HOSTED].host_key == site.enrolled[HOSTED].host_key


def test_new_rows_keep_coming_and_a_later_run_goes_on_where_this_one_stopped(tmp_path: Path) -> None:
    site = enrolled_site(tmp_path, END_MS, devices=1)
    inbox = inbox_path(site.root, HOSTED)
    options = SimulatorOptions(speed=600.0)

    def run_until(files: int) -> None:
        with SimulatorProcess(site.root, options, os.environ) as simulator:
            simulator.wait_ready()
            until(lambda: len(list(inbox.glob("*.csv"))) >= files, f"{files} files in the spool")

    run_until(3)
    run_until(len(list(inbox.glob("*.csv"))) + 3)
    times = [
        int(line.split(",")[0])
        for path in sorted(inbox.glob("*.csv"))
        for line in path.read_text(encoding="utf-8").splitlines()[1:]
    ]
    assert times == sorted(times)
    assert sorted(set(times)) == list(range(END_MS + MINUTE_MS, max(times) + MINUTE_MS, MINUTE_MS))
    assert len(times) == 4 * len(set(times))


def test_a_root_without_a_plan_is_refused_with_a_reason(tmp_path: Path) -> None:
    with (
        SimulatorProcess(tmp_path, SimulatorOptions(), os.environ) as simulator,
        pytest.raises(UnreachableError, match=r"simulation\.json"),
    ):
        simulator.wait_ready()
