"""A training run as one file (record, spec, installed packages, every chunk of its snapshot), and doing it again from there.

The file is a ustar archive without times or names of people: `head.json`, `run.json`, `spec.json`, `lock.json`, `manifest.json`,
`parts/<digest>`, `chunks/<digest>`, `answers/<digest>`, of an import `foreign.onnx` and `reference.csv`. Every member is proven
by a digest before it is used (docs/formats.md).
Whoever wrote the file wrote `head.json` too, so nothing in it is taken to have the right shape.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.foreign_files import foreign_members, foreign_of_members
from pumpdeck_console.operations.held_source import held_source
from pumpdeck_console.operations.replaying import Recorded, ReplayReport, replay_report
from pumpdeck_console.operations.runs import RUN_RECORD_MAX_BYTES, RunRow, find_run
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError, FormatError, TooLargeError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem, Progress
from pumpdeck_fleet.core.snapshots import PumpSnapshot, SnapshotManifest
from pumpdeck_fleet.numeric.columns import MAX_CHANNELS, MAX_ROWS, pack_rows, unpack_rows
from pumpdeck_fleet.numeric.frame import TelemetryFrame, concatenate, empty_frame
from pumpdeck_fleet.store.chunk_frames import frame_digest
from pumpdeck_trainer.answers import Trained
from pumpdeck_trainer.foreign_scorer import ForeignModel
from pumpdeck_trainer.lineage import code_digest, installed, lock_digest
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import Exclusion, TrainingRequest
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, PipelineSpec

FILE_MAX_BYTES = 4 << 30
_HEAD_MAX_BYTES = 65_536

T = TypeVar("T")


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
    run = read_exported(workspace.fs, Path(path))
    context = RunContext(code_digest(), lock_digest(), on_progress=on_progress, foreign=run.foreign)
    trained = train(run.spec, run.request, run.source, context)
    head, snapshot = run.head, _of(run.record, str, "lineage", "snapshot_digest")
    row = RunRow(head.run, _of(run.record, str, "model"), head.version, 0, "", snapshot, head.content, "")
    return replay_report(Recorded(row, run.record, run.answered), trained, run.request, run.source)


@dataclass(frozen=True, slots=True)
class _Head:
    """`head.json`."""

    format: int
    run: str
    content: str
    version: int
    onnx: str = ""


@dataclass(frozen=True, slots=True)
class ExportedRun:
    """What an exported run holds, proven, and of the shape that a run has."""

    head: _Head
    record: Mapping[str, Any]
    spec: PipelineSpec
    request: TrainingRequest
    source: FileSource
    foreign: ForeignModel | None
    answered: Trained | None


def read_exported(fs: FileSystem, path: Path) -> ExportedRun:
    """The run in that file; its rows are proven when they are asked for.

    Raises:
        DamagedError: as `replay_file`. OSError: it cannot be read.
    """
    members = _untar(fs, path)
    head = canonical.decode(_Head, _member(members, "head.json"), "head.json", max_bytes=_HEAD_MAX_BYTES)
    if head.format != 1:
        raise FormatError("has an unknown format", "head.json", expected=1, found=head.format)
    _prove(members, "run.json", head.run)
    record = canonical.parse_json(members["run.json"], "run record", max_bytes=RUN_RECORD_MAX_BYTES)
    for needed in (("model",), ("lineage", "code_digest"), ("lineage", "lock_digest")):
        _of(record, str, *needed)
    _prove(members, "manifest.json", _of(record, str, "lineage", "snapshot_digest"))
    _prove(members, "spec.json", _of(record, str, "lineage", "pipeline_digest"))
    spec = canonical.decode(PipelineSpec, members["spec.json"], "recorded pipeline", max_bytes=SPEC_MAX_BYTES)
    source = FileSource(members)
    return ExportedRun(
        head=head,
        record=record,
        spec=spec,
        request=TrainingRequest(
            source.pumps, _of(record, int, "request", "start_ms"), _of(record, int, "request", "end_ms")
        ),
        source=source,
        foreign=foreign_of_members(spec, members),
        answered=_answered(members, head, record),
    )


def _answered(members: dict[str, bytes], head: _Head, record: Mapping[str, Any]) -> Trained | None:
    """Graph and blocks of then; None in a file of an older program, which has none."""
    if not head.onnx:
        return None
    digests = {pump: _of(record, str, "pumps", pump, "block") for pump in _of(record, dict, "pumps")}
    for digest in {head.onnx, *digests.values()}:
        _prove(members, f"answers/{digest}", digest)
    return Trained(members[f"answers/{head.onnx}"], {pump: members[f"answers/{one}"] for pump, one in digests.items()})


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
    rows, channels, is_flagged = canonical.from_plain(
        tuple[int, tuple[str, ...], bool], canonical.parse_json(head, name, max_bytes=_HEAD_MAX_BYTES), name
    )
    if not 0 <= rows <= MAX_ROWS or len(channels) > MAX_CHANNELS:
        raise TooLargeError("is too large", name, expected=f"at most {MAX_ROWS} rows and {MAX_CHANNELS} channels", found=rows)
    frame = unpack_rows(data, rows, channels, is_flagged, name)
    if frame_digest(frame) != digest:
        raise DamagedError("was altered", name, expected=digest, found=frame_digest(frame))
    return frame


def _member(members: dict[str, bytes], name: str) -> bytes:
    if name not in members:
        raise DamagedError("lacks a member", "exported run", expected=name, hint="export it again")
    return members[name]


def _of(record: Any, kind: type[T], *keys: str) -> T:
    found = record
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise FormatError("is none that can be done again", f"run record: {'.'.join(keys)}", expected=kind.__name__, found=found)
    return found


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
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise DamagedError(f"is no exported run ({error})", str(path)) from error


def _members(tar: tarfile.TarFile) -> Iterable[tuple[str, bytes]]:
    """Read into memory by name; nothing is ever written from it, so no name can lead anywhere."""
    while (info := tar.next()) is not None:
        # A sparse member is "regular" to tarfile and unfolds to any length it says.
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
            raise DamagedError("holds what no exported run holds", "exported run", found=repr(info.name[:80]))
        stream = tar.extractfile(info)
        if stream is not None:
            yield info.name, stream.read()
