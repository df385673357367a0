"""Steps `ingest`, `train` and `package`: from the sites' files to a signed package for each device."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pumpdeck_console.demo.home import DemoHome
from pumpdeck_console.demo.steps import Found, Stage
from pumpdeck_console.operations.ingest import ingest_files
from pumpdeck_console.operations.labels import import_labels
from pumpdeck_console.operations.packages import build_packages, show_package
from pumpdeck_console.operations.training import train_models
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.files import read_at_most
from pumpdeck_fleet.core.registry import Alias, GateVerdict, ModelVersion
from pumpdeck_fleet.core.telemetry import IngestReport
from pumpdeck_fleet.store.models import PackageRow

FILE_MAX_BYTES = 512 * 1024 * 1024


def history_files(home: DemoHome) -> list[Path]:
    """The files that the sites handed over, in order of name."""
    return sorted(
        path for path in home.history.iterdir() if path.suffix in (".parquet", ".csv") and path.stem != "labels"
    )


def ingest(stage: Stage) -> Found:
    """Take in every file; a file that was taken in before must change nothing."""
    found = Found()
    files = history_files(stage.home)
    reports = [report for path in files for report in _ingest(stage, path)]
    import_labels(stage.workspace, path=str(stage.home.history / "labels.csv"))
    store = stage.workspace.store
    truth = json.loads((stage.home.history / "truth.json").read_text(encoding="utf-8"))
    # Read back row by row: what an index says of itself is no evidence.
    span = (int(truth["start_ms"]), int(truth["end_ms"]) + 1)
    rows = {pump.id: len(store.telemetry.frame(pump.id, *span).at_ms) for pump in stage.workspace.fleet.pumps}
    listed: list[dict[str, Any]] = []
    for report in reports:
        with Path(report.path).open("rb") as stream:
            digest = canonical.digest(read_at_most(stream, FILE_MAX_BYTES, report.path))
        known = store.sources.seen(report.digest)
        found.expect(known is not None, f"{report.path}: the store does not know that it was taken in")
        found.expect(not report.refused, f"{report.path}: {report.refused} rows were refused")
        listed.append(
            {
                "file": Path(report.path).name,
                "sha256": digest,
                "source": report.digest,
                "rows": report.accepted + report.already,
                "new": report.accepted,
                "flagged": report.flagged,
            }
        )
    in_files = sum(one["rows"] for one in listed)
    found.expect(in_files == truth["rows"], f"{truth['rows']} rows were handed over, {in_files} were accepted")
    kept = sum(rows.values())
    found.expect(kept == truth["rows"], f"{truth['rows']} rows were handed over, {kept} are in the store")
    found.evidence = {
        "files": listed,
        "rows": in_files,
        "rows_in_store": kept,
        "pumps": sum(count > 0 for count in rows.values()),
        "flagged": sum(one["flagged"] for one in listed),
        "labels": len(store.labels.all()),
    }
    return found


def train(stage: Stage) -> Found:
    """Train every pump type on all days but the last, which the devices are to be judged by."""
    found = Found()
    registry = stage.workspace.store.registry
    # Before training, which puts altered bytes right without a word.
    for version in (version for model in registry.models() for version in registry.versions(model)):
        _check_artifacts(stage, version, found)
    report = train_models(
        stage.workspace, until_ms=stage.mark.end_ms - DAY_MS + 1, note="demo", on_progress=stage.on_progress
    )
    listed = []
    for row in report.models:
        found.expect(row.version > 0, f"{row.model}: {row.reason}")
        if not row.version:
            continue
        version = stage.workspace.store.registry.version(row.model, row.version)
        _check_artifacts(stage, version, found)
        listed.append(
            {
                "model": version.model,
                "version": version.number,
                "content_digest": version.content_digest,
                "snapshot_digest": version.lineage.snapshot_digest,
                "onnx_digest": version.onnx_digest,
                "card_digest": version.card_digest,
                "run_record_digest": version.run_record_digest,
                "pumps": len(version.pumps),
                "gates": {gate.name: gate.verdict.value for gate in version.gates},
            }
        )
    found.expect(len(listed) == len({pump.type for pump in stage.workspace.fleet.pumps}), "a pump type has no model")
    found.evidence = {"models": listed}
    return found


def _ingest(stage: Stage, path: Path) -> Sequence[IngestReport]:
    # A site's own loggers write bare tags and local times: who hands the file over says which site it is from.
    site = next(site.id for site in stage.workspace.fleet.sites if path.name.startswith(f"{site.id}-"))
    return ingest_files(stage.workspace, paths=[str(path)], options={"site": site}, on_progress=stage.on_progress)


def _check_artifacts(stage: Stage, version: ModelVersion, found: Found) -> None:
    digests = [version.onnx_digest, version.card_digest, version.golden_digest, version.run_record_digest]
    digests += [digest for pump in version.pumps for digest in (pump.block_digest, pump.edges_digest)]
    for digest in digests:
        try:
            stage.workspace.artifacts.get(digest)
        except PumpdeckError as error:
            found.problems.append(f"{version.model} {version.number}: {error.sentence()}")
    for gate in version.gates:
        found.expect(
            gate.verdict is not GateVerdict.REFUSE, f"{version.model}: gate {gate.name} refused: {gate.reason}"
        )


def package(stage: Stage) -> Found:
    """Build and release a package for each device, then read every one of them back from both places that keep it."""
    found = Found()
    # Before building, which puts altered bytes right without a word.
    _check_packages(stage, found)
    report = build_packages(stage.workspace, models=candidates(stage), on_progress=stage.on_progress)
    for one in report.left_out:
        found.problems.append(f"{one.device}: {one.reason}")
    listed = []
    for row in report.packages:
        try:
            view = show_package(stage.workspace, which=row.sha256)
        except PumpdeckError as error:
            found.problems.append(f"{row.device}: {error.sentence()}")
            continue
        found.expect(
            view.manifest.device == row.device, f"{row.device}: its package was built for {view.manifest.device}"
        )
        listed.append(
            {
                "device": row.device,
                "sha256": row.sha256,
                "bytes": row.bytes,
                "pumps": [pump.tag for pump in view.manifest.pumps],
            }
        )
    found.expect(len(listed) == len(stage.workspace.fleet.devices), "a device has no package")
    found.evidence = {"packages": listed, "bytes": sum(one["bytes"] for one in listed)}
    return found


def _check_packages(stage: Stage, found: Found) -> None:
    for device in stage.workspace.fleet.devices:
        for row in stage.workspace.store.packages.for_device(device.id):
            try:
                show_package(stage.workspace, which=row.sha256)
            except PumpdeckError as error:
                found.problems.append(f"{device.id}: {error.sentence()}")


def candidates(stage: Stage) -> dict[str, str]:
    """The version to bring, by model."""
    registry = stage.workspace.store.registry
    chosen = {}
    for model in registry.models():
        version = registry.alias(model, Alias.CANDIDATE)
        if version is not None:
            chosen[model] = str(version.number)
    return chosen


def packages_by_device(stage: Stage) -> dict[str, PackageRow]:
    """The newest package of each device."""
    table = stage.workspace.store.packages
    newest = {}
    for device in stage.workspace.fleet.devices:
        rows = table.for_device(device.id)
        if rows:
            newest[device.id] = rows[0]
    return newest
