"""Model card: what a person should know before trusting the model. Every date is a row's; there is no clock in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.registry import Lineage, QualityGate
from pumpdeck_trainer.classifiers import EVEN
from pumpdeck_trainer.foreign_input import FOREIGN, NEVER_FOLLOWS_S, ForeignInput
from pumpdeck_trainer.labelled import SUPERVISED
from pumpdeck_trainer.limits import FittedLimit
from pumpdeck_trainer.spec import PipelineSpec

REASON_MAX = 110
_HOW_LIMITS = {
    "daily": "own daily block maxima (Gumbel)",
    "windows": "own maxima of blocks of 10 windows (Gumbel, with extremal correction)",
    "pooled": "the pump type's pooled limit, provisional",
}


def write_card(
    spec: PipelineSpec,
    span_ms: tuple[int, int],
    limits: Sequence[FittedLimit],
    metrics: Mapping[str, float],
    verdicts: tuple[Sequence[QualityGate], Lineage],
) -> bytes:
    """The card as Markdown, UTF-8."""
    gates, lineage = verdicts
    parts = [
        f"# {spec.model}\n",
        *([origin_text(spec.foreign, metrics)] if spec.foreign else []),
        purpose_text(spec),
        _data(span_ms, metrics, spec),
        limits_text(limits, spec),
        _figures(metrics),
        "## Gates\n\n" + "\n".join(_gate(gate) for gate in gates) + "\n",
        "## Where it fails\n\n"
        "- A fault that moves no voting channel, or moves it by less than the limit, is not seen.\n"
        f"{slow_faults(spec)}"
        f"{BLIND_SPOTS.get(spec.model_type, '')}"
        f"{CHANCES.get(spec.model_type, _PLAIN_CHANCE)}",
        "## Lineage\n\n"
        f"snapshot {lineage.snapshot_digest}\n\npipeline {lineage.pipeline_digest}\n\nseed {lineage.seed}\n",
    ]
    return "\n".join(parts).encode("utf-8")


def slow_faults(spec: PipelineSpec) -> str:
    """What becomes of faults that creep."""
    if spec.alarm.tau_s >= NEVER_FOLLOWS_S:
        return "- Slow, harmless change is not followed: it raises the score until the model is made anew.\n"
    return "- A fault slower than the adaptive baseline is first seen as drift, and alarms when that has no further to go.\n"


def origin_text(said: ForeignInput, metrics: Mapping[str, float]) -> str:
    """That a model is foreign, whose it is, and how its score is read."""
    zero, unit = metrics["foreign_zero"], metrics["foreign_unit"]
    how = f"({zero:.6g} - raw) / {unit:.6g}" if said.is_lower_worse else f"(raw - {zero:.6g}) / {unit:.6g}"
    limit = "" if said.limit is None else f" Its maker states the limit {said.limit:.6g}; the alarm budget did not set it."
    proof = f"compared with the rows of reference {said.reference}" if said.reference else "no reference was given"
    return (
        "## Foreign\n\n"
        "This model was not learned here: it was imported as a file. What it learned from, and how, its maker alone knows.\n\n"
        f"- made by: {said.made_by}\n- licence: {said.licence}\n- origin: {said.says}\n- score: {said.meaning}\n"
        f"- file: {said.file}, {said.source}; {proof}\n"
        f"- score on devices: {how}, never below 0; a row without a score counts as the worst.{limit}\n"
    )


def _gate(gate: QualityGate) -> str:
    """In one short line: the card travels in every package, the whole reason stands in the registry."""
    reason = gate.reason if len(gate.reason) <= REASON_MAX else f"{gate.reason[: REASON_MAX - 3].rstrip()}..."
    return f"- {gate.name}: {gate.verdict.value}. {reason}"


HOW_SCORED = {
    "maxz": "distance from the pump's baseline in widths, largest of the voting channels",
    "pca": "how far the channels together leave the plane in which healthy pumps of this type move (T2 and Q combined)",
    "iforest": "how few random cuts isolate the row from rows of healthy pumps of this type",
    "ocsvm": "distance from the region that holds 95 % of the rows of healthy pumps of this type",
    "gmm": "distance from a mixture of the regimes of healthy pumps of this type",
    "logistic": "log-odds of a labelled fault, 10 being a probability of one half, linear in each channel's widths",
    FOREIGN: "the score of an imported graph (see Foreign), read from the median of healthy rows in steps of their spread",
    "gboost": "log-odds of a labelled fault, 10 being a probability of one half, by boosted trees over widths",
}
_OF_ODDS = (
    "the channel's part of the log-odds where it speaks for a fault; all parts, those against it too, and the bias add up to the "
    "log-odds"
)
_OF_CLOUD = "how fast half the squared score rises with this channel, over what it usually rises by"
HOW_BLAMED = {
    "maxz": "the channel's own distance in widths; the largest is the score",
    "pca": "its square is what the squared score falls by when this channel alone is put right",
    "gmm": _OF_CLOUD,
    "ocsvm": _OF_CLOUD,
    "iforest": (
        "the channel's part of how much shorter than usual the paths are; all together at least 1 - 1 / score, at most 1"
    ),
    "logistic": _OF_ODDS,
    "gboost": _OF_ODDS,
    FOREIGN: "what the imported graph says of it, without its sign; where it says nothing, the channel's own distance in widths",
}
"""What a channel's contribution is, and what contributions add up to: tests/trainer/test_contributions.py asks the graph."""
BLIND_SPOTS = {
    "maxz": "- Channels that each stay within their own range while they no longer fit each other are not seen.\n",
    "iforest": "- A fault that shows in one channel alone is hardly seen: few random cuts ask for that channel.\n",
}

_KNOWN_ONLY = "- A fault unlike every labelled one may not be seen: the model knows what it was shown.\n"
BLIND_SPOTS |= dict.fromkeys(SUPERVISED, _KNOWN_ONLY)
BLIND_SPOTS[FOREIGN] = "- What it was never shown is not known here; its maker must say.\n"
_PLAIN_CHANCE = "- The probability is score / (score + limit): 0.5 at the limit, not a calibrated frequency.\n"
_CALIBRATED = (
    "- The probability is calibrated on pumps left out in turn (`unseen_*` above); it holds while faults stay as frequent as in "
    "the reference window.\n"
)
CHANCES = dict.fromkeys(SUPERVISED, _CALIBRATED)


def purpose_text(spec: PipelineSpec) -> str:
    """What the model does with which channels."""
    rows = "\n".join(
        f"| {channel.name} | {channel.unit} | {'yes' if channel.votes else 'no'} |" for channel in spec.channels
    )
    return (
        f"Raises an alarm when a pump of type `{spec.pump_type}` leaves its own normal state. Model type `{spec.model_type}`: "
        f"mean of each channel over {spec.window_s:g} s, {HOW_SCORED[spec.model_type]}."
        f"\n\n| channel | unit | votes |\n|---|---|---|\n{rows}\n"
    )


def _data(span_ms: tuple[int, int], metrics: Mapping[str, float], spec: PipelineSpec) -> str:
    taught = "; labelled faults are learned from as faults" if spec.model_type in SUPERVISED else ""
    return (
        "## Data\n\n"
        f"Reference window {format_ms(span_ms[0])} to {format_ms(span_ms[1])}, {metrics['pumps']:.0f} pumps, "
        f"{metrics['rows_used']:.0f} of {metrics['rows']:.0f} rows used as healthy; flagged rows, labelled faults, "
        f"standstill and maintenance are not{taught}.\n"
    )


def limits_text(limits: Sequence[FittedLimit], spec: PipelineSpec) -> str:
    """How limits came about and when they alarm."""
    low, middle, high = np.quantile([limit.limit for limit in limits], [0, 0.5, 1])
    counts = Counter(limit.branch.value for limit in limits)
    how = "\n".join(f"- {counts[name]} pumps: {words}" for name, words in _HOW_LIMITS.items() if counts[name])
    alarm, budget = spec.alarm, spec.budget
    if spec.model_type in SUPERVISED:
        how += f"\n- none stands below {EVEN:g}, a probability of one half, whatever its own maxima say"
    return (
        "## Limits and alarms\n\n"
        f"Budget {budget.alarms:g} false alarm{'' if budget.alarms == 1 else 's'} per pump in {budget.period_s / 86400:g} days. "
        f"Limits {low:.2f} to {high:.2f}, "
        f"median {middle:.2f}:\n\n{how}\n\nAlarm above the limit for {alarm.persistence_s:g} s, cleared below "
        f"{alarm.deadband:g} limits for as long; {baseline_text(spec)}.\n"
    )


def baseline_text(spec: PipelineSpec) -> str:
    """How far the baseline follows slow change."""
    alarm = spec.alarm
    if alarm.tau_s >= NEVER_FOLLOWS_S:
        return "the baseline stands still, rows are scored as they were measured"
    most = "one limit" if alarm.follow == 1 else f"{alarm.follow:g} limits"
    return f"adaptive baseline with tau {alarm.tau_s:g} s, which follows at most {most}"


def _figures(metrics: Mapping[str, float]) -> str:
    rows = "\n".join(f"| {name} | {figure:g} |" for name, figure in sorted(metrics.items()))
    return f"## Figures\n\n| figure | value |\n|---|---|\n{rows}\n"
