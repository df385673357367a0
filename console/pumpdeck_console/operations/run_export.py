"""A training run as one file (record, spec, installed packages, every chunk of its snapshot), and doing it again from there.

The file is a ustar archive without times or names of people: `head.json`, `run.json`, `spec.json`, `lock.json`, `manifest.json`,
`parts/<digest>`, `chunks/<digest>`, `answers/<digest>`. Every member is proven by a digest before it is used (docs/formats.md).
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.foreign_files import foreign_members, foreign_of_members
from pumpdeck_console.operations.held_source import held_source
from pumpdeck_console.operations.replaying import Recorded, ReplayReport, replay_report
from pumpdeck_console.operations.runs import RUN_RECORD_MAX_BYTES, RunRow, find_run
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem, Progress
from pumpdeck_fleet.core.snapshots import PumpSnapshot, SnapshotManifest
from pumpdeck_fleet.numeric.columns import pack_rows, unpack_rows
from pumpdeck_fleet.numeric.frame import TelemetryFrame, concatenate, empty_frame
from pumpdeck_fleet.store.chunk_frames import frame_digest
from pumpdeck_trainer.answers import Trained
from pumpdeck_trainer.lineage import code_digest, installed, lock_digest
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import Exclusion, TrainingRequest
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, PipelineSpec

FILE_MAX_BYTES = 4 << 30
_HEAD_MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class RunExport:
    """What was written."""

    run: str
    content_digest: str
    chunks: int
    bytes: int


@operation("runs.export", runs_in="worker")
def export_run(workspace: Workspace, *, run: str, to: str) -> RunExport:
    """Write everything that doing the run again takes into the file `to`.

    Raises:
        NotFoundError: no such run, or its snapshot is not held here.
    """
    row = find_run(workspace, run)
    source = held_source(workspace, row.snapshot_digest)
    data = workspace.artifacts.get(row.run)
    record = canonical.parse_json(data, "run record", max_bytes=RUN_RECORD_MAX_BYTES)
    version = workspace.store.registry.by_digest(row.content_digest)
    onnx = version.onnx_digest if version else ""
    told = {"format": 1, "run": row.run, "content": row.content_digest, "version": row.version, "onnx": onnx}
    members = {
        "head.json": canonical.encode(told),
        "run.json": data,
        "spec.json": workspace.artifacts.get(record["lineage"]["pipeline_digest"]),
        "lock.json": canonical.encode(installed()),
        "manifest.json": SnapshotManifest({pump: _part_digest(source.part(pump)) for pump in source.pumps}).encode(),
    }
    members |= foreign_members(workspace, record["lineage"]["pipeline_digest"])
    for pump in source.pumps:
        part = source.part(pump)
        members[f"parts/{_part_digest(part)}"] = part.encode()
        for chunk in part.chunks:
            name = f"chunks/{chunk[1]}"
            if name not in members:
                members[name] = _pack(workspace.store.telemetry.held_chunk(pump, chunk))
    # What answered then: another kernel may give other bytes with the same answers.
    for digest in [onnx, *(one["block"] for one in record["pumps"].values())] if onnx else []:
        members[f"answers/{digest}"] = workspace.artifacts.get(digest)
    data = _tar(members)
    replace_file(workspace.fs, Path(to), data)
    return RunExport(row.run, row.content_digest, sum(name.startswith("chunks/") for name in members), len(data))


@operation("runs.replay_file", runs_in="worker")
def replay_file(workspace: Workspace, *, path: str, on_progress: Progress = no_progress) -> ReplayReport:
    """Do the run in that file again; of the workspace nothing but its file system is used.

    Raises:
        DamagedError: the file is none, or a member is not what its digest says.
    """
    members = _untar(workspace.fs, Path(path))
    head = canonical.parse_json(_member(members, "head.json"), "head.json", max_bytes=_HEAD_MAX_BYTES)
    _prove(members, "run.json", head["run"])
    record = canonical.parse_json(members["run.json"], "run record", max_bytes=RUN_RECORD_MAX_BYTES)
    lineage, asked = record["lineage"], record["request"]
    _prove(members, "manifest.json", lineage["snapshot_digest"])
    _prove(members, "spec.json", lineage["pipeline_digest"])
    spec = canonical.decode(PipelineSpec, members["spec.json"], "recorded pipeline", max_bytes=SPEC_MAX_BYTES)
    source = FileSource(members)
    request = TrainingRequest(source.pumps, asked["start_ms"], asked["end_ms"])
    foreign = foreign_of_members(spec, members)
    context = RunContext(code_digest(), lock_digest(), on_progress=on_progress, foreign=foreign)
    trained = train(spec, request, source, context)
    told = (head["run"], record["model"], head["version"], str(head["content"]))
    row = RunRow(*told[:3], 0, "", lineage["snapshot_digest"], told[3], "")
    return replay_report(Recorded(row, record, _answered(members, head, record)), trained, request, source)


def _answered(members: dict[str, bytes], head: Mapping[str, Any], record: Mapping[str, Any]) -> Trained | None:
    """Graph and blocks of then; None in a file of an older program, which has none."""
    onnx = head.get("onnx")
    if not onnx:
        return None
    digests = {pump: one["block"] for pump, one in record["pumps"].items()}
    for digest in {onnx, *digests.values()}:
        _prove(members, f"answers/{digest}", digest)
    return Trained(members[f"answers/{onnx}"], {pump: members[f"answers/{digest}"] for pump, digest in digests.items()})


class FileSource:
    """`trainer.source.TrainingSource` over the members of an exported run."""

    def __init__(self, members: dict[str, bytes]) -> None:
        self._members = members
        self._parts: dict[str, PumpSnapshot] = {}
        for pump, name in SnapshotManifest.parse(members["manifest.json"], "manifest.json").pumps.items():
            _prove(members, f"parts/{name}", name)
            self._parts[pump] = PumpSnapshot.parse(members[f"parts/{name}"], f"parts/{name}")

    @property
    def pumps(self) -> tuple[str, ...]:
        """The pumps of the run, sorted."""
        return tuple(sorted(self._parts))

    def frame(self, pump: str, start_ms: int, end_ms: int) -> TelemetryFrame:
        frames = [_unpack(self._members, name).between(start_ms, end_ms) for _, name in self._parts[pump].chunks]
        held = [frame for frame in frames if len(frame)]
        channels = tuple(sorted({name for frame in held for name in frame.channels}))
        return concatenate([frame.select(channels) for frame in held]) if held else empty_frame(channels)

    def chunk_digests(self, pump: str, _start_ms: int, _end_ms: int) -> Sequence[tuple[int, str]]:
        return self._parts[pump].chunks

    def exclusions(self, pump: str) -> Sequence[Exclusion]:
        return [Exclusion(*one) for one in self._parts[pump].left_out]


def _part_digest(part: PumpSnapshot) -> str:
    return canonical.digest(part.encode())


def _pack(frame: TelemetryFrame) -> bytes:
    """A line of canonical JSON (rows, channels, flagged), then the rows as chunks are packed."""
    head = canonical.encode([len(frame), list(frame.channels), bool(frame.flags.any())])
    return head + b"\n" + pack_rows(frame)


def _unpack(members: dict[str, bytes], digest: str) -> TelemetryFrame:
    name = f"chunks/{digest}"
    head, _, data = _member(members, name).partition(b"\n")
    rows, channels, flagged = canonical.parse_json(head, name, max_bytes=_HEAD_MAX_BYTES)
    frame = unpack_rows(data, rows, tuple(channels), flagged, name)
    if frame_digest(frame) != digest:
        raise DamagedError("was altered", name, expected=digest, found=frame_digest(frame))
    return frame


def _member(members: dict[str, bytes], name: str) -> bytes:
    if name not in members:
        raise DamagedError("lacks a member", "exported run", expected=name, hint="export it again")
    return members[name]


def _prove(members: dict[str, bytes], name: str, digest: Any) -> None:
    found = canonical.digest(_member(members, name))
    if found != digest:
        raise DamagedError("was altered", f"exported run: {name}", expected=digest, found=found)


def _tar(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(members):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(members[name]), 0o644
            tar.addfile(info, io.BytesIO(members[name]))
    return out.getvalue()


def _untar(fs: FileSystem, path: Path) -> dict[str, bytes]:
    data = fs.read_bytes(path, FILE_MAX_BYTES)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            return dict(_members(tar))
    except tarfile.TarError as error:
        raise DamagedError(f"is no exported run ({error})", str(path)) from error


def _members(tar: tarfile.TarFile) -> Iterable[tuple[str, bytes]]:
    """Read into memory by name; nothing is ever written from it, so no name can lead anywhere."""
    for info in tar:
        stream = tar.extractfile(info) if info.isreg() else None
        if stream is not None:
            yield info.name, stream.read()
