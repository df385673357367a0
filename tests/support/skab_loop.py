"""The whole loop on SKAB's files, by the command line alone: inventory, ingest, training, package, rollout, scores back.

The first 400 rows of each file are what the console learns from, as in the published protocol; the rest is given to the device
as spool files, which scores it by itself. Two devices: one behind a real OpenSSH server whose forced command is the
real `pumpdeck-agent rpc`, one simulated.
"""

from __future__ import annotations

import contextlib
import csv
import getpass
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pumpdeck_agent.hosted import HostedDevice
from pumpdeck_agent.platform_here import FileLocks, is_clock_synced
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.trial import FreshChildRunner
from pumpdeck_fleet.core.clock import SystemClock
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_sample.ssh_keys import public_line
from pumpdeck_sample.ssh_server import SshDevice, SshServer
from support.demo_runs import Ran, environment, run
from support.sshd import Sshd, agent_command, why_no_sshd

TRAIN_ROWS = 400
SITE = "skoltech"
OPENSSH, SIMULATED = "bench-openssh", "bench-simulated"
# Channel of the inventory by column of the files: name, unit, range, smallest step, vote. The two temperatures follow the time
# since start, so they are shown and do not vote.
CHANNELS = {
    "Accelerometer1RMS": ("vibration_1_g", "g", 0, 5, 0.0001, True),
    "Accelerometer2RMS": ("vibration_2_g", "g", 0, 5, 0.0001, True),
    "Current": ("motor_current_a", "A", 0, 50, 0.001, True),
    "Pressure": ("pressure_bar", "bar", -5, 10, 0.001, True),
    "Temperature": ("motor_temperature_c", "degC", -20, 150, 0.001, False),
    "Thermocouple": ("fluid_temperature_c", "degC", -20, 150, 0.001, False),
    "Voltage": ("motor_voltage_v", "V", 0, 500, 0.001, True),
    "Volume Flow RateRMS": ("flow_l_min", "L/min", 0, 500, 0.001, True),
}
PUMPS = {
    OPENSSH: {f"V1-{number}": f"valve1/{number}.csv" for number in range(4)},
    SIMULATED: {f"V2-{number}": f"valve2/{number}.csv" for number in range(4)},
}
_POLICIES = """\
format = 1

[rollout]
waves = ["1", "rest"]
soak_s = 0
keep_windows = false
approvals = 1
"""
_PIPELINE = """\
format = 1
pump_type = "circulation"
model_type = "maxz"

[features]
window_s = 15

[alarm]
persistence_s = 0
"""


@dataclass(frozen=True)
class Part:
    """The rows of one file that its device scored: times, and which of them belong to the anomaly."""

    at_ms: tuple[int, ...]
    anomaly: tuple[bool, ...]


@dataclass
class SkabLoop:
    """The loop under way: its folders and what each command said."""

    source: Path
    folder: Path
    pumps: Mapping[str, Mapping[str, str]]
    said: dict[str, Ran] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        return self.folder / "ws"

    def root(self, device: str) -> Path:
        """A device's root folder."""
        return self.folder / "devices" / device

    def call(self, *words: str) -> Ran:
        """A command of `pumpdeck` that must end well."""
        done = run("-w", str(self.workspace), *words)
        assert done.code == 0, f"{words}: exit {done.code}\n{done.err}\n{done.out[-2000:]}"
        self.said[" ".join(words[:2])] = done
        return done

    # The console's side

    def found(self) -> None:
        """Inventory with a maker's names of the channels, policies, pipeline, keys and trust."""
        self.call("init", "--name", "SKAB")
        aliases = "".join(f'"{column}" = "{words[0]}"\n' for column, words in CHANNELS.items())
        maker = f'format = 1\nid = "skab"\ntitle = "SKAB test bed"\n\n[aliases]\n{aliases}'
        (self.workspace / "makers").mkdir(exist_ok=True)
        (self.workspace / "makers" / "skab.toml").write_text(maker, encoding="utf-8")
        self.write_fleet({})
        (self.workspace / "policies.toml").write_text(_POLICIES, encoding="utf-8")
        pipelines = self.workspace / "pipelines"
        pipelines.mkdir(exist_ok=True)
        (pipelines / "circulation.toml").write_text(_PIPELINE, encoding="utf-8")
        keys = ("--key-folder", str(self.folder / "keys"), "--insecure-storage")
        self.call("trust", "init", "--root-keys", str(self.folder / "root-keys"), "--store", "file", *keys)

    def write_fleet(self, endpoints: Mapping[str, tuple[str, int, str]]) -> None:
        """`fleet.toml` of one site; `endpoints`: (user, port, host key) by device."""
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
        system = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
        channels = [
            f'  {{ name = "{name}", unit = "{unit}", low = {low}, high = {high}, resolution = {step},'
            f" votes = {str(votes).lower()} }},"
            for name, unit, low, high, step, votes in CHANNELS.values()
        ]
        lines = [
            'format = 1\nname = "SKAB"\n',
            f'[device_classes.bench]\narchitecture = "{machine}"\nos = "{system}"\nonnxruntime = "1.16"',
            "highest_opset = 13\nmemory_mb = 512\ncpu_quota_pct = 100\nthreads = 1\ncontainer = \"none\"\nconfidential = false\n",
            "[pump_types.circulation]\ncadence_s = 1\nchannels = [",
            *channels,
            f']\n\n[[sites]]\nid = "{SITE}"\nname = "Skoltech"\nkind = "test bed"\nlink = "ssh"\ntime_zone = "UTC"\n',
        ]
        for device, pumps in self.pumps.items():
            user, port, host_key = endpoints.get(device, ("pumpdeck", 22, ""))
            lines += [f'[[sites.devices]]\nid = "{device}"\ndevice_class = "bench"\naddress = "127.0.0.1"']
            lines += [f'port = {port}\nuser = "{user}"\nhost_key = "{host_key}"\npumps = [']
            lines += [f'  {{ tag = "{tag}", type = "circulation", maker = "skab", model = "bench" }},' for tag in pumps]
            lines += ["]\n"]
        (self.workspace / "fleet.toml").write_text("\n".join(lines), encoding="utf-8", newline="\n")

    def ingest(self) -> None:
        """The first 400 rows of each file; the maker's profile maps the columns, the command line leaves the labels out."""
        maps = ("--map", "anomaly=-", "--map", "changepoint=-")
        for pumps in self.pumps.values():
            for tag, name in pumps.items():
                lines = (self.source / name).read_text(encoding="utf-8").splitlines(keepends=True)
                head = self.folder / "learned" / f"{tag}.csv"
                head.parent.mkdir(exist_ok=True)
                head.write_text("".join(lines[: 1 + TRAIN_ROWS]), encoding="utf-8")
                self.call("ingest", "--pump", f"{SITE}/{tag}", *maps, "--json", str(head))

    def client_line(self) -> str:
        """The console's SSH key as a device's `authorized_keys` holds it."""
        return (self.folder / "keys" / "ssh.pub").read_text(encoding="ascii").strip()

    # The devices' side

    def make_device(self, device: str) -> None:
        """Enrolment on the device itself, with the site's root in hand."""
        self.call("trust", "root", SITE, "-o", str(self.folder / "root.json"))
        pumps = [{"tag": tag, "type": "circulation", "criticality": 3, "redundancy_group": ""} for tag in self.pumps[device]]
        config = {
            "format": 1,
            "device": device,
            "site": SITE,
            "device_class": "bench",
            "pumps": pumps,
            "min_seq": 0,
        }
        path = self.folder / f"{device}.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        self.agent("init", device, "--config", str(path), "--trusted-root", str(self.folder / "root.json"))

    def agent(self, subcommand: str, device: str, *words: str) -> str:
        """Run `pumpdeck-agent` on a device."""
        command = [sys.executable, "-m", "pumpdeck_agent.main", subcommand, "--root", str(self.root(device)), *words]
        done = subprocess.run(command, capture_output=True, env=environment(), timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def spool(self, device: str) -> None:
        """Give a device the rows behind the first 400 of its files, and let it score them."""
        inbox = self.root(device) / "spool" / "in"
        for tag, name in self.pumps[device].items():
            with (self.source / name).open(encoding="utf-8", newline="") as stream:
                rows = list(csv.DictReader(stream, delimiter=";"))[TRAIN_ROWS:]
            times = [datetime.fromisoformat(row["datetime"]).replace(tzinfo=UTC) for row in rows]
            at_ms = tuple(round(moment.timestamp() * 1000) for moment in times)
            self.parts[tag] = Part(at_ms, tuple(float(row["anomaly"]) > 0.5 for row in rows))
            lines = [",".join(("time", "pump", *(words[0] for words in CHANNELS.values())))]
            lines += [
                ",".join((str(at), tag, *(row[column] for column in CHANNELS)))
                for at, row in zip(at_ms, rows, strict=True)
            ]
            part = inbox / f"{tag}.csv.part"
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")
            part.rename(inbox / f"{tag}.csv")
        self.agent("serve", device, "--once")

    def roll_out(self) -> str:
        """Train, package, plan, approve, deliver; returns the rollout."""
        self.call("train", "--json")
        self.call("package", "build", "--json")
        rollout = str(self.call("rollout", "start", "--json").json["rollout"])
        self.call("approve", rollout, "--json")
        self.call("tick", "--until-idle", "--limit", "90", "--json")
        return rollout


@contextlib.contextmanager
def openssh_device(loop: SkabLoop) -> Iterator[tuple[str, int, str]]:
    """The device behind a real OpenSSH server: user, port and host key."""
    with Sshd(loop.folder / "sshd", agent_command(loop.root(OPENSSH))) as server:
        (server.folder / "authorized_keys").write_text(loop.client_line() + "\n", encoding="ascii")
        yield getpass.getuser(), server.port, server.host_key


@contextlib.contextmanager
def simulated_device(loop: SkabLoop) -> Iterator[tuple[str, int, str]]:
    """The same agent in this process, behind the simulator's SSH server: user, port and host key."""
    here = Platform(RealFileSystem(), SystemClock(), FileLocks(), is_clock_synced)
    hosted = HostedDevice(loop.root(SIMULATED), platform=here, runner=FreshChildRunner(), models=ModelCache())
    key = Ed25519PrivateKey.generate()
    server = SshServer()
    port = server.listen(SshDevice(SIMULATED, key, loop.client_line(), hosted.rpc))
    with server:
        yield "pumpdeck", port, public_line(key)


@contextlib.contextmanager
def skab_loop(source: Path, folder: Path) -> Iterator[tuple[SkabLoop, str]]:
    """The loop done once over every device that this machine can have, and the rollout's name."""
    links = {OPENSSH: openssh_device, SIMULATED: simulated_device}
    devices = [device for device in links if device != OPENSSH or not why_no_sshd()]
    loop = SkabLoop(source, folder, {device: PUMPS[device] for device in devices})
    loop.found()
    loop.ingest()
    with contextlib.ExitStack() as stack:
        for device in devices:
            loop.make_device(device)
        loop.write_fleet({device: stack.enter_context(links[device](loop)) for device in devices})
        loop.call("devices", "enrol", "--all", "--json")
        rollout = loop.roll_out()
        for device in devices:
            loop.spool(device)
        loop.call("collect", "--json")
        yield loop, rollout
