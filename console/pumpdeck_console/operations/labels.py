"""Labels: what the crew found, written beside the telemetry. They come from a person, one by one or as a CSV file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.base import operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import format_ms, parse_ms
from pumpdeck_fleet.core.errors import FormatError, InputError, NotFoundError, UsageError
from pumpdeck_fleet.core.telemetry import Label, Verdict

LABELS_MAX_BYTES = 16 * 1024 * 1024
_COLUMNS = ("pump", "start", "end", "verdict")
_MORE = ("kind", "note")


@dataclass(frozen=True, slots=True)
class LabelsReport:
    """How many labels were new and how many were there before."""

    added: int
    already: int


def parse_verdict(text: str) -> tuple[Verdict, str]:
    """Verdict and fault kind from `fault:<kind>`, `false_alarm` or `normal`.

    Raises:
        UsageError: it is none of these, or a fault without a kind.
    """
    word, _, kind = text.strip().partition(":")
    try:
        verdict = Verdict(word)
    except ValueError as error:
        raise UsageError("is not a verdict", repr(text), expected="fault:<kind>, false_alarm or normal") from error
    if (verdict is Verdict.FAULT) != bool(kind):
        raise UsageError("is not a verdict", repr(text), expected="a kind after fault: and none after the others")
    return verdict, kind


@operation("label", runs_in="worker")
def add_label(
    workspace: Workspace, *, pump: str, start_ms: int, end_ms: int, verdict: str, note: str = ""
) -> LabelsReport:
    """Write one label.

    Raises:
        NotFoundError: no such pump. UsageError: an empty interval or an unknown verdict.
    """
    parsed, kind = parse_verdict(verdict)
    identity = workspace.fleet.pump(pump).id
    if end_ms <= start_ms:
        raise UsageError("ends before it starts", f"label of {identity}", expected="a start before the end")
    now_ms = workspace.clock.now_ms()
    return _add(workspace, [Label(identity, start_ms, end_ms, parsed, kind, workspace.actor, now_ms, note)])


@operation("label.import", runs_in="worker")
def import_labels(workspace: Workspace, *, path: str) -> LabelsReport:
    """Write the labels of a CSV file with columns pump, start, end, verdict and optionally kind, note: all of them or none.

    Raises:
        InputError: names file, line and column. NotFoundError: there is no such file.
    """
    return _add(workspace, _parse_labels(workspace, Path(path)))


@operation("label.list", runs_in="reader")
def list_labels(workspace: Workspace, *, pump: str = "") -> tuple[Label, ...]:
    """All labels, or those of one pump, in order of their start."""
    labels = workspace.store.labels.all()
    if pump:
        identity = workspace.fleet.pump(pump).id
        labels = [label for label in labels if label.pump == identity]
    return tuple(sorted(labels, key=lambda label: (label.start_ms, label.pump)))


def _add(workspace: Workspace, labels: list[Label]) -> LabelsReport:
    # The row's own identity holds who wrote it and when; the same finding from the same list is still one label.
    known = {_identity(label) for label in workspace.store.labels.all()}
    new = [label for label in {_identity(label): label for label in labels}.values() if _identity(label) not in known]
    with workspace.store.atomic() as store:
        for label in new:
            store.labels.add(label)
            what = f"{label.verdict.value}:{label.kind}" if label.kind else label.verdict.value
            when = f"{format_ms(label.start_ms)} to {format_ms(label.end_ms)}"
            store.audit.append(workspace.actor, "label.add", label.pump, reason=f"{what}, {when}")
    return LabelsReport(len(new), len(labels) - len(new))


def _identity(label: Label) -> tuple[str, int, int, Verdict, str]:
    return (label.pump, label.start_ms, label.end_ms, label.verdict, label.kind)


def _parse_labels(workspace: Workspace, path: Path) -> list[Label]:
    try:
        text = workspace.fs.read_bytes(path, LABELS_MAX_BYTES).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError("no such file", str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8", str(path), found=f"byte {error.start}") from error
    # With its own line ends: a lone carriage return ends a line too.
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            found = ", ".join(reader.fieldnames or ()) or "an empty file"
            raise InputError("lacks a column", f"{path}:1", expected=", ".join(_COLUMNS + _MORE), found=found[:200])
        return [_parse_label(workspace, row, f"{path}:{reader.line_num}") for row in reader]
    except csv.Error as error:
        raise InputError(f"cannot be read ({error})", f"{path}:{reader.line_num}", expected="a CSV file") from error


def _parse_label(workspace: Workspace, row: dict[str, str | None], where: str) -> Label:
    def cell(name: str) -> str:
        return (row.get(name) or "").strip()

    try:
        verdict, kind = parse_verdict(f"{cell('verdict')}:{cell('kind')}" if cell("kind") else cell("verdict"))
        pump = workspace.fleet.pump(cell("pump")).id
        start_ms, end_ms = parse_ms(cell("start"), "start"), parse_ms(cell("end"), "end")
    except (UsageError, FormatError, NotFoundError) as error:
        raise InputError(error.what, f"{where}: {error.which}", expected=error.expected, found=error.found) from error
    if end_ms <= start_ms:
        raise InputError("ends before it starts", where, expected="a start before the end")
    return Label(pump, start_ms, end_ms, verdict, kind, workspace.actor, workspace.clock.now_ms(), cell("note"))
