"""The doors of work: exported runs, backups, trips, pipelines, lists that people hand in, wheels, what a device keeps."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pumpdeck_agent import accepted, config, local_schedule, self_check, site_alarms, trips, veto
from pumpdeck_agent.journal import Journal, JournalKind, JournalLine
from pumpdeck_agent.libraries import unpack_libraries
from pumpdeck_console.config import load_settings
from pumpdeck_console.operations.install_steps import parse_look
from pumpdeck_console.operations.labels import _parse_labels
from pumpdeck_console.operations.run_export import ExportedRun, _pack, read_exported
from pumpdeck_console.operations.trips import Trip
from pumpdeck_console.ssh_agent import AgentIdentity, SshAgent
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import SystemClock
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_fleet.core.snapshots import PumpSnapshot, SnapshotManifest
from pumpdeck_fleet.services.ingest_options import IngestOptions
from pumpdeck_fleet.services.ingest_sources import open_source
from pumpdeck_fleet.services.inventory_file import parse_fleet
from pumpdeck_fleet.services.toml_file import read_toml
from pumpdeck_fleet.store.chunk_frames import frame_digest
from pumpdeck_packaging import backup
from pumpdeck_packaging.agent_release import agent_version
from pumpdeck_packaging.wheel_index import Wheel, WheelIndex
from pumpdeck_trainer.spec import PipelineSpec, default_pipeline, parse_pipeline
from support.forgetful_disk import ForgetfulDisk
from support.fuzz_samples import DOCS, FORMATS, HOST_KEY, Samples
from support.fuzz_targets import Make, Target, bytes_maker, decoder, file_parser, json_maker, text_of, with_outer

_LAYOUT = config.Layout(Path("/dev"))


def work_doors(samples: Samples, folder: Path) -> list[Target]:
    """Every door of this file; `folder` is for those that read files."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    return [
        *_runs(samples, work),
        *_archives(work),
        *_texts(work),
        *_kept(),
        *_talk(),
    ]


def tar_of(members: dict[str, bytes]) -> bytes:
    """A plain tar without dates."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_fleet(folder: Path) -> Fleet:
    """The example fleet; the folder holds its maker's file."""
    maker = folder / "northfield.toml"
    maker.write_bytes((DOCS / "maker.example.toml").read_bytes())
    return parse_fleet(read_toml(DOCS / "fleet.example.toml"), [read_toml(maker)])


def run_members(samples: Samples, spec: PipelineSpec) -> dict[str, bytes]:
    """An exported run of one pump."""
    chunk = _pack(samples.frame)
    start = int(samples.frame.at_ms[0])
    part = PumpSnapshot(start, start + 10**9, ((start, frame_digest(samples.frame)),), ((start, start + 1, "fault:x"),)).encode()
    manifest = SnapshotManifest({"gannet/P-101A": canonical.digest(part)}).encode()
    recorded = canonical.encode(spec)
    lineage = {
        "snapshot_digest": canonical.digest(manifest),
        "pipeline_digest": canonical.digest(recorded),
        "code_digest": "c" * 64,
        "lock_digest": "d" * 64,
    }
    record = canonical.encode({"model": "esp", "lineage": lineage, "request": {"start_ms": start, "end_ms": start + 10**6},
                               "pumps": {"gannet/P-101A": {"block": canonical.digest(b"block")}}})  # fmt: skip
    head = {"format": 1, "run": canonical.digest(record), "content": "e" * 64, "version": 3, "onnx": canonical.digest(b"graph")}
    return {
        f"answers/{canonical.digest(b'graph')}": b"graph",
        f"answers/{canonical.digest(b'block')}": b"block",
        "head.json": canonical.encode(head),
        "run.json": record,
        "spec.json": recorded,
        "lock.json": b"{}",
        "manifest.json": manifest,
        f"parts/{canonical.digest(part)}": part,
        f"chunks/{frame_digest(samples.frame)}": chunk,
    }


def read_whole_run(path: Path) -> ExportedRun:
    """All of an exported run, its rows too."""
    run = read_exported(RealFileSystem(), path)
    for pump in run.source.pumps:
        run.source.frame(pump, run.request.start_ms, run.request.end_ms)
        run.source.chunk_digests(pump, 0, 1)
        run.source.exclusions(pump)
    return run


def _runs(samples: Samples, folder: Path) -> list[Target]:
    spec = default_pipeline(next(iter(make_fleet(folder).pump_types.values())))
    members = run_members(samples, spec)
    path = folder / "run.tar"
    names = ("head.json", "run.json", "spec.json", "manifest.json", *(name for name in members if name.startswith("parts/")))
    makers = {name: json_maker([members[name]]) for name in names}
    chunk_name = next(name for name in members if name.startswith("chunks/"))
    rows = members[chunk_name]
    head, _, body = rows.partition(b"\n")
    chunk_makers: tuple[Make, ...] = (
        bytes_maker([rows]),
        json_maker([head], lambda one: one + b"\n" + body),
    )

    def make(rng: random.Random) -> bytes:
        name = rng.choice([*names, chunk_name])
        bent = rng.choice(chunk_makers)(rng) if name == chunk_name else makers[name](rng)
        given = _resealed(members, name, bent)
        data = tar_of(given)
        return bytes_maker([data])(rng) if rng.random() < 0.2 else data

    read = file_parser(path, lambda: read_whole_run(path))
    snapshot = canonical.encode({"gannet/P-101A": "a" * 64})
    part = PumpSnapshot(1, 9, ((1, "b" * 64),), ((2, 3, "fault:x"),)).encode()
    trip = Trip(1, "ws-1", "ws-2", "site:gannet", ("gannet-d1",), 5, 9, ("r0001-abcdef",))
    return [
        Target("exported run", read, make, 0.1),
        Target("snapshot manifest", lambda data: SnapshotManifest.parse(data, "snapshot"), json_maker([snapshot]), 0.5),
        Target("snapshot part", lambda data: PumpSnapshot.parse(data, "part"), json_maker([part]), 0.5),
        Target("recorded pipeline", decoder(PipelineSpec, "spec.json"), json_maker([canonical.encode(spec)]), 0.3),
        Target("trip.json", decoder(Trip, "trip.json"), json_maker([canonical.encode(trip)]), 0.5),
    ]


def _resealed(members: dict[str, bytes], name: str, data: bytes) -> dict[str, bytes]:
    """With one member bent, and every digest above it made to fit: what whoever writes the file can make."""
    found = dict(members)
    found[name] = data
    if name.startswith("parts/"):
        del found[name]
        found[f"parts/{canonical.digest(data)}"] = data
        found["manifest.json"] = SnapshotManifest({"gannet/P-101A": canonical.digest(data)}).encode()
    if name not in ("head.json", "run.json") and not name.startswith("chunks/"):
        record = json.loads(found["run.json"])
        record["lineage"]["snapshot_digest"] = canonical.digest(found["manifest.json"])
        record["lineage"]["pipeline_digest"] = canonical.digest(found["spec.json"])
        found["run.json"] = canonical.encode(record)
    if name != "head.json":
        head = {**json.loads(found["head.json"]), "run": canonical.digest(found["run.json"])}
        found["head.json"] = canonical.encode(head)
    return found


def _archives(folder: Path) -> list[Target]:
    home, disk = FORMATS / "backup", ForgetfulDisk()
    disk.mkdir(Path("/dev"))
    listed = {path.relative_to(home).as_posix(): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}
    letter, out = folder / "backup.tar", folder / "unpacked"

    def unpacked(_path: Path = letter) -> object:
        _remove(out)
        out.mkdir()
        backup.unpack(letter, out)
        return backup.BackupFolder(out).read()

    def wheel(data: bytes) -> object:
        one = Wheel("heron", "1.0", "heron-1.0.whl", "heron-1.0-py3-none-any.whl", len(data), canonical.digest(data))
        place = Path("/dev/libraries")
        disk.remove_tree(place)
        unpack_libraries(disk, place, WheelIndex(1, "x86_64-cp311", (one,)), lambda _wheel: data)
        return one

    wheels = [zip_of({"heron/__init__.py": b"VALUE = 7\n" * 9, "heron/a/b.txt": b"x"}, kind) for kind in _PACKINGS]
    agent = zip_of({"pumpdeck_agent/__init__.py": b'AGENT_VERSION = "0.1.0"\n', "__main__.py": b"pass"}, zipfile.ZIP_STORED)
    return [
        Target("backup in a tar", file_parser(letter, unpacked), with_outer(bytes_maker([tar_of(listed)]), bytes, 0.0), 0.05),
        Target("wheel", wheel, bytes_maker(wheels), 0.3),
        Target("agent.pyz", agent_version, bytes_maker([agent]), 0.3),
    ]


_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def zip_of(members: dict[str, bytes], kind: int) -> bytes:
    """A zip with fixed dates."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, kind)
    return buffer.getvalue()


def _remove(folder: Path) -> None:
    RealFileSystem().remove_tree(folder)


def _texts(folder: Path) -> list[Target]:
    fleet = make_fleet(folder)
    pump_type = next(iter(fleet.pump_types.values()))
    pump = next(iter(fleet.pumps))
    plan = (DOCS / "pipeline.example.toml").read_text(encoding="utf-8").encode()
    workspace: Any = SimpleNamespace(fs=RealFileSystem(), fleet=fleet, actor="a", clock=SystemClock())
    head = "pump,start,end,verdict,kind,note\n"
    labels = f'{head}{pump.id},2026-01-01T00:00:00Z,2026-01-02T00:00:00Z,fault,bearing,"worn, out"\n'.encode()
    listed, rows = folder / "labels.csv", folder / "rows.csv"
    text = b'time;pump;"flow, m3/h";speed\n2026-01-01 00:00:00;P-101A;1,5;3\n2026-01-01 00:01:00;P-101A;2,5;\n'
    settings = b'format = 1\nperson = "ada"\n[keys]\nfolder = "/media/a"\ninsecure_storage = true\n'

    def ingest() -> object:
        source = open_source(rows, IngestOptions(skip_bad=True))
        return [len(str(block)) for block in source.blocks(0, None, range(1, len(source.columns)))]

    return [
        Target("pipeline.toml", lambda data: parse_pipeline(text_of(data), pump_type, "p.toml"), bytes_maker([plan]), 0.1),
        Target("labels.csv", file_parser(listed, lambda: _parse_labels(workspace, listed)), bytes_maker([labels]), 0.3),
        Target("rows.csv", file_parser(rows, ingest), bytes_maker([text, text.decode().encode("utf-16")]), 0.2),
        Target(
            "settings.toml",
            file_parser(folder / "settings.toml", lambda: load_settings(folder)),
            bytes_maker([settings]),
            0.1,
        ),
    ]


class _OneFile(RealFileSystem):
    """Any path holds these bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_bytes(self, path: Path, max_bytes: int) -> bytes:
        return self._data[:max_bytes]


def _kept() -> list[Target]:
    """What a device finds on its own disk, after whatever has happened to it; most of it is passed over, never fallen over."""
    line = JournalLine(1, next(iter(JournalKind)), "a" * 64, "b" * 64, "c" * 64, 5, 6, "", "0" * 64)
    device = config.AgentConfig(1, "gannet-d1", "gannet", "edge-arm64", (config.PumpConfig("P-101A", "esp"),), 7)
    memory = local_schedule.PumpMemory("a" * 64, 5, 6, 7, {"drift": 8})
    alarm = site_alarms.SiteAlarm("P-101A", next(iter(site_alarms.AlarmState)), 5, 6, 1.5, 2.5, "speed_rpm")
    word = trips.TripWord("PSV lifted", 9, 1)
    report = self_check.CheckReport("0.1.0", "gannet-d1", "a" * 64, "ACTIVE")

    def on_disk(read: Callable[[Any], object]) -> Callable[[bytes], object]:
        nothing = read(_OneFile(b""))

        def parse(data: bytes) -> object:
            found = read(_OneFile(data))
            if found == nothing:
                raise FormatError("is passed over", "a file of the device's own")
            return found

        return parse

    doors: list[tuple[str, Callable[[bytes], object], Any]] = [
        ("journal", on_disk(lambda fs: Journal(fs, _LAYOUT.journal).lines()), line),
        ("agent.json of a device", lambda data: config.read_config(_OneFile(data), _LAYOUT), device),
        ("schedule.json", on_disk(lambda fs: local_schedule.load_memories(fs, _LAYOUT)), {"format": 1, "pumps": {"p": memory}}),
        ("alarms.json", on_disk(lambda fs: site_alarms.load_alarms(fs, _LAYOUT)), {"format": 1, "alarms": {"p": alarm}}),
        ("trips.json", on_disk(lambda fs: trips.read_trips(fs, _LAYOUT)), {"format": 1, "pumps": {"p-101a": word}}),
        ("veto.json", on_disk(lambda fs: veto.read_veto(fs, _LAYOUT, 5)), {"reason": "work", "until_ms": 9}),
        ("kept.json", decoder(accepted._Kept, "kept.json"), {"files": {"1.root.json": "{}"}}),
        ("check report", decoder(self_check.CheckReport, "check"), report),
    ]
    ends = {"journal": lambda one: one + b"\n"}
    return [
        Target(name, parse, json_maker([canonical.encode(value)], ends.get(name, bytes)), 0.3)
        for name, parse, value in doors
    ]


class _Wire:
    """An ssh-agent that says whatever it likes, and then hangs up."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def send(self, data: bytes) -> None:
        pass

    def receive(self, count: int) -> bytes:
        if len(self._left) < count:
            raise OSError("the connection was closed")
        found, self._left = self._left[:count], self._left[count:]
        return found

    def close(self) -> None:
        pass


def _talk() -> list[Target]:
    blob = base64.b64decode(HOST_KEY.split(" ")[1])

    def string(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    listed = b"\x0c" + struct.pack(">I", 2) + (string(blob) + string(b"ada")) * 2
    signed = b"\x0e" + string(string(b"ssh-ed25519") + string(bytes(64)))
    identity = AgentIdentity("a" * 64, "", "ada", blob)
    look = "\n".join(
        ("login=pump", "rights=sudo", "user=1", "systemd=1", "machine=aarch64", "python=/usr/bin/python3", "cpython=3.11",
         "libraries=", "free_kb=900000", "settled=", "enrolled=", "unit=")
    ).encode()  # fmt: skip

    def agent(data: bytes) -> SshAgent:
        return SshAgent(lambda: _Wire(data))

    return [
        Target("ssh-agent keys", lambda data: agent(data).identities(), bytes_maker([string(listed)]), 0.5),
        Target("ssh-agent signature", lambda data: agent(data).sign(identity, b"x"), bytes_maker([string(signed)]), 0.5),
        Target("look of a device", lambda data: parse_look(text_of(data), "gannet-d1"), bytes_maker([look]), 0.5),
    ]
