"""Profile of a model version: measured on this computer, held against the rule of each device class that is to run it."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.models import find_version
from pumpdeck_console.operations.profiles import PROFILE_ACTION, ClassAdvice, ProfileReport
from pumpdeck_console.operations.quality_gates import load_spec
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.registry import GateVerdict, ModelVersion, QualityGate
from pumpdeck_fleet.numeric.detectors import PumpBlock, decode_block
from pumpdeck_packaging.device_settings import DeviceSettings, ModelSize, device_settings
from pumpdeck_trainer.foreign_reader import OWN_OPSET, graph_opset
from pumpdeck_trainer.profile import BATCHES, ProfileFigures, ProfileRequest, settings_to_try, sweep

MOST_THREADS = 2
NEAR = 1.2


@operation("models.profile", runs_in="worker")
def profile_version(
    workspace: Workspace, *, model: str, which: str = "", on_progress: Progress = no_progress
) -> ProfileReport:
    """Sweep threads x spinning x batch in fresh processes; the report is kept and named in the audit chain.

    The figures change nothing that is shipped: packages take their settings from the rule.

    Raises:
        NotFoundError: no such version, or its files are not here.
    """
    version = find_version(workspace, model, which)
    onnx = workspace.artifacts.get(version.onnx_digest)
    cadence_s = workspace.fleet.pump_types[version.pump_type].cadence_s
    figures = sweep(onnx, _requests(_block(workspace, version)), cadence_s, on_progress)
    single = [one for one in figures if one.batch == 1]
    fastest = min(single, key=lambda one: (one.p50_us, one.threads))
    opset = graph_opset(version.model_type, onnx)
    advised = {one.threads for one in class_advice(workspace, version.pump_type, GraphSize(len(onnx), opset))}
    threads = min(max(advised, default=1), MOST_THREADS)
    share = load_spec(workspace, version).gates.profile_latency_warn
    ruled = next(one for one in single if (one.threads, one.spinning) == (threads, False))
    report = ProfileReport(
        model=model,
        version=version.number,
        onnx_digest=version.onnx_digest,
        machine=f"{platform.machine()} {platform.system()}",
        cadence_s=cadence_s,
        figures=figures,
        classes=class_advice(workspace, version.pump_type, GraphSize(len(onnx), opset), (ruled, share)),
        fastest_threads=fastest.threads,
        fastest_spinning=fastest.spinning,
        agrees=ruled.p50_us <= NEAR * min(one.p50_us for one in single),
    )
    digest = workspace.artifacts.put(canonical.encode(report))
    digests = {"content": version.content_digest, "profile": digest}
    with workspace.store.atomic() as store:
        store.audit.append(workspace.actor, PROFILE_ACTION, f"{model} {version.number}", digests=digests)
    return replace(report, profile_digest=digest)


def _block(workspace: Workspace, version: ModelVersion) -> PumpBlock:
    spec, pump = load_spec(workspace, version), version.pumps[0]
    channels = tuple(one.name for one in spec.channels)
    return decode_block(workspace.artifacts.get(pump.block_digest), channels, f"block of {pump.pump}")


def _requests(block: PumpBlock) -> list[ProfileRequest]:
    columns = (block.centre, block.width, block.votes.astype(float))
    centre, scale, votes = (tuple(float(value) for value in column) for column in columns)
    return [
        ProfileRequest(threads, spinning, batch, centre, scale, votes, block.limit)
        for threads, spinning in settings_to_try(MOST_THREADS)
        for batch in BATCHES
    ]


@dataclass(frozen=True, slots=True)
class GraphSize:
    """What of a graph the rule asks for."""

    onnx_bytes: int
    opset: int = OWN_OPSET


def class_advice(
    workspace: Workspace, pump_type: str, graph: GraphSize, measured: tuple[ProfileFigures, float] | None = None
) -> tuple[ClassAdvice, ...]:
    """The rule for every device class with a pump of this type, and whether the model fits it.

    `measured`: figures of this computer, and the share of a class's latency limit that they may take.
    """
    most: dict[str, int] = {}
    for device in workspace.fleet.devices:
        pumps = workspace.fleet.pumps_by_device.get(device.id, ())
        held = sum(pump.type == pump_type for pump in pumps)
        if held:
            most[device.device_class] = max(most.get(device.device_class, 0), held)
    found = []
    for name, count in sorted(most.items()):
        held_class = workspace.fleet.device_classes[name]
        rule = device_settings(held_class, ModelSize(graph.onnx_bytes, graph.opset, pumps=count))
        verdict, reason = _fits(rule, (graph.opset, held_class.highest_opset), measured)
        settings = rule.settings
        found.append(
            ClassAdvice(
                device_class=name,
                pumps=count,
                threads=settings.threads,
                spinning=settings.spinning,
                latency_limit_us=settings.latency_limit_us,
                memory_limit_mb=settings.memory_limit_mb,
                memory_max_mb=rule.memory_max_mb,
                cpu_quota_pct=rule.cpu_quota_pct,
                verdict=verdict.value,
                reason=reason,
            )
        )
    return tuple(found)


def _fits(
    rule: DeviceSettings, opsets: tuple[int, int], measured: tuple[ProfileFigures, float] | None
) -> tuple[GateVerdict, str]:
    opset, highest_opset = opsets
    if opset > highest_opset:
        return GateVerdict.REFUSE, f"needs opset {opset}, the class runs {highest_opset}"
    words = f"needs {rule.needed_mb} MB with a trial beside it, may take {rule.memory_max_mb} MB"
    if rule.needed_mb > rule.memory_max_mb:
        return GateVerdict.REFUSE, words
    if measured is None:
        return GateVerdict.PASS, words
    (figures, share), limit = measured, rule.settings.latency_limit_us
    words += f"; a row took {figures.p99_us:.0f} us (p99) here, may take {limit:.0f} us there"
    if figures.p50_us > limit:
        return GateVerdict.REFUSE, words
    return (GateVerdict.PASS if figures.p99_us <= share * limit else GateVerdict.WARN), words


def _held_against(one: ClassAdvice, measured: ProfileFigures) -> ClassAdvice:
    """The advice, refused where rows that a device catches up with took more memory here than its class gives a graph."""
    if measured.rss_mb <= one.memory_limit_mb:
        return one
    words = f"took {measured.rss_mb:.0f} MB here with the rows of a device that catches up, may take {one.memory_limit_mb} there"
    return replace(one, verdict=GateVerdict.REFUSE.value, reason=words)


def profile_gate(
    workspace: Workspace, pump_type: str, graph: GraphSize, measured: tuple[ProfileFigures, float] | None = None
) -> QualityGate:
    """Whether every device class with pumps of this type can run the model, by the rule and by what was measured, if anything."""
    advice = class_advice(workspace, pump_type, graph, measured)
    if not advice:
        return QualityGate("profile", GateVerdict.WARN, "no device has a pump of this type")
    if measured:
        advice = tuple(_held_against(one, measured[0]) for one in advice)
    refused = [one for one in advice if one.verdict == GateVerdict.REFUSE]
    shown = refused or list(advice)
    reason = "; ".join(f"{one.device_class}: {one.reason}" for one in shown)
    slow = any(one.verdict == GateVerdict.WARN for one in advice)
    verdict = GateVerdict.REFUSE if refused else GateVerdict.WARN if slow else GateVerdict.PASS
    return QualityGate("profile", verdict, reason, float(graph.onnx_bytes))
