"""Pages about one run, snapshot, request or experiment, and what differs between two runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pumpdeck_console.operations.requests import RequestRow
from pumpdeck_console.operations.run_diff import RunDiff
from pumpdeck_console.operations.run_views import ExperimentLine, LiveLog, PointLine, RunDetail, RunsView, ToldLine
from pumpdeck_console.operations.runs import RunRow
from pumpdeck_console.operations.snapshots import SnapshotRow
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.merging import version_name

from .cells import Parts, age, clock_text, fit, number
from .live_pane import span_text
from .task_log import TaskLog
from .texts import commands, heading, pairs, verdicts, wrapped

_SIGNS: Mapping[str, str] = {"chosen": "panel_ok", "second": "panel_drift"}


def run_summary(view: RunsView, now_ms: int) -> Parts:
    """One line: when was the last training, what was refused, what devices ask for."""
    refused = sum(one.state == "refused" for one in view.runs)
    parts: list[tuple[str, str]] = []
    if view.runs:
        last = view.runs[0]
        name = f"{last.model} v{version_name(last.version)}" if last.version else last.model
        ago = age(last.at_ms, now_ms)
        parts.append((f" newest: {name}, {ago if ago == 'now' else f'{ago} ago'}", "panel"))
    else:
        parts.append((" nothing was trained yet", "panel_dim"))
    if refused:
        parts.append((f"   {refused} refused by a gate", "panel_alarm"))
    if view.asked:
        pumps = len({row.entry.pump for row in view.asked})
        parts.append((f"   devices ask for new models of {pumps} pumps", "panel_drift"))
    return parts


def run_lines(run: RunRow, detail: RunDetail | None, width: int) -> list[Parts]:
    """One training run; without its record what the audit chain says of it."""
    name = f"{run.model} v{version_name(run.version)}" if run.version else run.model
    style = "panel_alarm" if run.state == "refused" else "panel_ok"
    lines: list[Parts] = [
        [(f" {name}  ", "panel_title"), (run.state.upper(), style)],
        [(f" {format_ms(run.at_ms // 1000 * 1000)}   run {run.run[:12] or '-'}", "panel_dim")],
        *wrapped(run.reason, width, style),
    ]
    if detail is None:
        note = " reading its record ..." if run.run else " it left no record"
        return [*lines, [], [(note, "panel_dim")]]
    window = f"{_day(detail.start_ms)} to {_day(detail.end_ms)}"
    kind = [("model type", detail.model_type), ("learned from", window), ("pumps", _pump_words(detail))]
    lines += [[], *pairs(kind, width), *heading("gates"), *verdicts(detail.gates, width)]
    if detail.points:
        lines += [*heading(f"search: {len(detail.points)} points"), *_point_lines(detail.points, width)]
    lines += heading("figures")
    for metric, value in detail.metrics:
        label = fit(metric.replace("_", " "), min(30, width - 16))
        lines.append([(f" {label}{fit(_figure(value), 12, 'right')}", "panel")])
    if detail.left_out:
        lines += heading(f"left out: {detail.left_out_count} pumps")
        lines += pairs(detail.left_out, width)
    lines += [*heading("lineage"), *pairs([(word, value[: width - 14]) for word, value in detail.lineage], width, 11)]
    if detail.log:
        lines += [*heading("log"), *_log_lines(detail.log, width)]
    again = [("the same again, and whether the same bytes come out", f"pumpdeck runs replay {run.run[:12]}")]
    return [*lines, *heading("prove it"), *commands(again, width)]


_LOUD = {"pump": "panel_drift", "warning": "panel_drift", "end": "panel_title"}


def _log_lines(log: tuple[ToldLine, ...], width: int) -> list[Parts]:
    lines: list[Parts] = []
    for one in log:
        if one.event in ("step", "progress", "gate", "begin"):
            continue
        count = f"{one.done:,} of {one.total:,}" if one.total else ""
        took = f"{span_text(one.seconds)}" if one.seconds is not None else ""
        words = " ".join(word for word in (one.step if one.event == "done" else "", count, one.text, took) if word)
        clock = clock_text(one.at_ms)
        for place, piece in enumerate(wrapped(words, width - 9, _LOUD.get(one.event, "panel"), 1)):
            lines.append([(f" {clock}" if not place else " " * 9, "panel_dim"), *piece])
    return lines


def log_of(run: LiveLog) -> TaskLog:
    """A training of another process as the story of an action."""
    log = TaskLog("train", run.name, run.began_ms, is_ours=False)
    for one in run.lines:
        if one.step and one.event in ("step", "progress", "done"):
            log.told(one.step, one.total if one.event == "done" and one.total else one.done, one.total, one.at_ms)
    log.notes = log_notes(run)
    return log


def log_notes(run: LiveLog) -> list[str]:
    """What a training told beside its steps, newest last."""
    return [f"{one.event}: {one.text}" for one in run.lines if one.event in ("pump", "warning", "note") and one.text]


def _pump_words(detail: RunDetail) -> str:
    words = f"{detail.pumps:,}"
    if detail.provisional:
        words += f", {detail.provisional:,} with a provisional limit"
    return words + (f"; {detail.left_out_count:,} left out" if detail.left_out_count else "")


def _point_lines(points: tuple[PointLine, ...], width: int) -> list[Parts]:
    lines: list[Parts] = [[(f" {'':<7}{'FALSE':>6}{'FAULTS MET':>12}  POINT", "panel_dim")]]
    for one in points:
        style = _SIGNS.get(one.place, "panel")
        met = f"{one.faults_met} of {one.faults}" if one.faults else "-"
        budget = " over budget" if one.over_budget else ""
        head = f" {one.place:<7}{one.false_alarms:>6}{met:>12}  "
        body = wrapped(one.words + budget, width - len(head), "panel_drift" if one.over_budget else "panel", 0)
        for place, line in enumerate(body):
            lines.append([(head if not place else " " * len(head), style), *line])
    return lines


def snapshot_lines(row: SnapshotRow, width: int) -> list[Parts]:
    """One snapshot and what can be done with it."""
    digest = row.snapshot_digest
    names = ", ".join(f"{row.model} v{version_name(one)}" for one in row.versions) or "none: its training was cut or refused"
    facts = [
        ("pump type", row.pump_type or "-"),
        ("versions", names),
        ("aliases", ", ".join(row.aliases) or "-"),
        ("pumps", f"{row.pumps:,}"),
        ("data to", format_ms(row.data_end_ms) if row.data_end_ms else "-"),
        ("rows", "can be read here" if row.held else "are not here: another workspace or a backup has them"),
    ]
    lines: list[Parts] = [[(f" snapshot {digest[:12]}", "panel_title")], *wrapped(digest, width, "panel_dim")]
    lines += [[], *pairs(facts, width)]
    todo = [
        ("what it holds of each pump", f"pumpdeck snapshots show {digest[:12]}"),
        ("what differs from another", f"pumpdeck snapshots diff {digest[:12]} OTHER"),
        ("as Parquet files, for notebooks", f"pumpdeck snapshots export {digest[:12]} --to DIR"),
    ]
    return [*lines, *heading("look into it"), *commands(todo, width)]


def asked_lines(row: RequestRow, pump_type: str, width: int) -> list[Parts]:
    """What one device asks for, and the two ways to answer."""
    entry = row.entry
    facts = [
        ("asked", f"{format_ms(entry.at_ms // 1000 * 1000)} by the device's clock"),
        ("trigger", entry.trigger),
        ("reason", entry.reason),
        ("device", entry.device),
        ("it runs", entry.package_sha256[:12] or "nothing"),
        ("pump type", pump_type or "not in the inventory any more"),
    ]
    lines: list[Parts] = [[(f" {entry.pump} ", "panel_title"), ("asks for a new model", "panel")], [], *pairs(facts, width)]
    train = f"pumpdeck train {pump_type}" if pump_type else "pumpdeck train --requested"
    todo = [("T trains its pump type and answers it", train),
            ("D dismisses it with a reason", f'pumpdeck devices dismiss {entry.pump} --reason "..."')]  # fmt: skip
    return [*lines, *heading("answer it"), *commands(todo, width)]


def experiment_lines(row: ExperimentLine, width: int) -> list[Parts]:
    """One branch of a pipeline and what can be done with it."""
    facts = [
        ("pump type", row.pump_type),
        ("changes", row.changes),
        ("runs", str(row.runs)),
        ("newest run", row.run[:12] or "none yet"),
        ("gates", row.verdict or "-"),
    ]
    todo = [
        ("T trains it; nothing is registered", f"pumpdeck experiments run {row.name}"),
        ("against what is registered", f"pumpdeck experiments compare {row.name}"),
        ("into the pipeline, once enough people say so", f'pumpdeck experiments merge {row.name} --reason "..."'),
        ("away with it; its runs stay", f"pumpdeck experiments drop {row.name}"),
    ]
    return [[(f" {row.name}", "panel_title")], [], *pairs(facts, width), *heading("what next"), *commands(todo, width)]


def diff_lines(diff: RunDiff, width: int) -> list[Parts]:
    """What differs between two runs."""
    same = "the same bytes reach devices" if diff.same_content else "other bytes reach devices"
    lines: list[Parts] = [[(f"  {diff.before[:12]} against {diff.after[:12]}", "panel_title"), (f"   {same}", "panel_key")]]
    if not diff.parts:
        lines += [[], [("  The two runs are the same in every part.", "panel")]]
    part = ""
    for one in diff.parts:
        if one.part != part:
            part = one.part
            lines += heading(part)
        value = f"{_plain(one.before)} -> {_plain(one.after)}"
        lines += pairs([(one.name, value)], width, 34)
    lines += heading("steps")
    for step in diff.steps:
        words = "the same" if step.same else f"anew for {step.pumps} pumps: {step.why}" if step.pumps else f"anew: {step.why}"
        lines += pairs([(step.step, words)], width, 34)
    return lines


def _plain(value: str | None) -> str:
    if value is None:
        return "not there"
    is_digest = len(value) == 64 and all(sign in "0123456789abcdef" for sign in value)
    return value[:12] if is_digest else value


def _figure(value: float) -> str:
    whole = math.isfinite(value) and value == round(value)
    return f"{int(value):,}" if whole else number(value, 3)


def _day(at_ms: int) -> str:
    return format_ms(at_ms // 1000 * 1000)[:10]
