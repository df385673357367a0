"""The items of Annex IV (technical documentation of high-risk AI systems) and what answers each: the run, the product, or nobody.

Whether a pump monitor is a high-risk system is for its provider to judge; the items are useful either way. Item numbers are
those of Regulation (EU) 2024/1689.
"""

from __future__ import annotations

from pumpdeck_trainer.card import HOW_BLAMED, HOW_SCORED, baseline_text
from pumpdeck_trainer.foreign_reader import graph_opset
from pumpdeck_trainer.labelled import SUPERVISED
from pumpdeck_trainer.spec import PipelineSpec
from pumpdeck_trainer.trained import TrainedModel


def stated(spec: PipelineSpec, name: str) -> str:
    """The provider's words, or that they are missing and where they belong."""
    found: str = getattr(spec.card, name)
    return found or f"*to be stated by the provider: `{name}` under `[card]` in `pipelines/{spec.pump_type}.toml`*"


def annex_lines(trained: TrainedModel, span: str) -> list[str]:
    """One line for each item."""
    spec = trained.spec
    opset = graph_opset(spec.model_type, trained.onnx)
    channels = ", ".join(f"{one.name} ({one.unit}, {one.low:g} to {one.high:g})" for one in spec.channels)
    items = [
        ("1(a) purpose, provider, version", _identity(trained)),
        ("1(b) interaction", "reads rows of the pump's channels from a device's spool, bus or loopback endpoint; raises alarms"),
        ("1(c) software versions", f"ONNX opset {opset}; packages of the training by digest {trained.lineage.lock_digest[:16]}"),
        ("1(d) forms", "a signed package for one device, brought over SSH or on removable media"),
        ("1(e) hardware", "the device classes of the fleet; see the gate `profile`"),
        ("1(f) illustrations", "none: software only"),
        ("1(g) user interface", "terminal console and command line; local alarm outputs on site"),
        ("1(h) instructions for use", stated(spec, "instructions")),
        ("2(a) development", _development(trained)),
        ("2(b) design", _design(spec)),
        ("2(c) architecture", f"one graph of {len(trained.onnx)} bytes, {len(trained.pumps)} parameter blocks"),
        ("2(d) data", f"rows of {span}; selection, cleaning and labels under Data and exclusions"),
        ("2(e) human oversight", stated(spec, "human_oversight")),
        ("2(f) pre-determined changes", f"none but this: {baseline_text(spec)}"),
        ("2(g) validation and testing", f"{_validation(spec)} Tested by: {stated(spec, 'tested_by')}"),
        ("2(h) cybersecurity", "packages are signed and verified on the device (TUF); unsigned or altered ones are refused"),
        ("3 capabilities and limits", f"Figures, Slices and Known failure cases above; inputs: {channels}"),
        ("4 metrics", "false alarms a pump and month against a stated budget, and faults found: what a crew pays and gains"),
        ("5 risk management", stated(spec, "risk_management")),
        ("6 changes", "every version, promotion, override and rollout is an entry of the audit chain"),
        ("7 harmonised standards", stated(spec, "standards")),
        ("8 declaration of conformity", stated(spec, "declaration")),
        ("9 post-market monitoring", stated(spec, "post_market")),
    ]
    return ["| item | answer |", "|---|---|", *(f"| {item} | {answer} |" for item, answer in items)]


def _development(trained: TrainedModel) -> str:
    pipeline = f"pipeline {trained.lineage.pipeline_digest[:16]} over a frozen snapshot"
    said = trained.spec.foreign
    if said is None:
        return f"{pipeline}; no pre-trained model"
    return f"a pre-trained model of {said.made_by} (licence {said.licence}), file {said.source[:16]}; limits by {pipeline}"


def _identity(trained: TrainedModel) -> str:
    spec = trained.spec
    return f"{stated(spec, 'intended_use')} Provider: {stated(spec, 'provider')} Version: content {trained.content_digest[:16]}"


def _design(spec: PipelineSpec) -> str:
    return (
        f"`{spec.model_type}`: {HOW_SCORED[spec.model_type]}; limit from an alarm budget, see Limits and alarms. With each score "
        f"a contribution of each channel: {HOW_BLAMED[spec.model_type]}"
    )


def _validation(spec: PipelineSpec) -> str:
    if spec.model_type in SUPERVISED:
        return (
            "each pump judged by a classifier fitted without it; limits and replay split by time; exact parity of trainer and "
            "runtime; 30-day replay of every pump; Quality gates above."
        )
    held = f"the last {spec.holdout:.0%} of the window held out, one feature window between" if spec.holdout else "no hold-out"
    return f"split by time, {held}; exact parity of trainer and runtime; 30-day replay of every pump; Quality gates above."
