"""`pumpdeck models` and `runs`."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import (
    Column,
    json_option,
    query_argument,
    say,
    show_digest,
    time_text,
    write_object,
    write_rows,
)
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_fleet.core.errors import DamagedError
from pumpdeck_fleet.core.merging import version_word

if TYPE_CHECKING:
    from pumpdeck_console.operations.models import ModelRow, PromoteReport
    from pumpdeck_fleet.core.registry import Origin

_MODEL_COLUMNS = (
    Column("model"),
    Column("version", right=True),
    Column("pump_type"),
    Column("model_type"),
    Column("aliases"),
    Column("gates"),
    Column("pumps", right=True),
    Column("pumps_running", "running", right=True),
    Column("content_digest", "content", write=show_digest),
    Column("created"),
)
_RUN_COLUMNS = (
    Column("run", write=show_digest),
    Column("model"),
    Column("version", right=True),
    Column("state"),
    Column("at"),
    Column("snapshot_digest", "snapshot", write=show_digest),
    Column("kind"),
    Column("reason"),
)
_COMPARE_COLUMNS = {
    "figure": (Column("name"), Column("before", right=True), Column("after", right=True)),
    "slice": (Column("slice"), *(Column(name, right=True) for name in ("pumps", "before", "after"))),
    "pump": (
        Column("pump"),
        *(Column(name, right=True) for name in ("limit_before", "limit_after", "alarms_before", "alarms_after")),
        *(Column(name, right=True) for name in ("appear", "vanish")),
    ),
    "alarm": (Column("pump"), Column("change"), Column("raised"), Column("cleared")),
}
_DIFF_COLUMNS = {
    "part": (Column("part"), Column("name"), Column("before"), Column("after")),
    "step": (Column("step"), Column("same"), Column("pumps", right=True), Column("why")),
}
_PROFILE_COLUMNS = {
    "setting": tuple(
        Column(name, right=True)
        for name in ("threads", "spinning", "batch", "p50_us", "p99_us", "rows_per_s", "cpu_us", "cpu_pct", "rss_mb")
    ),
    "class": (
        Column("device_class"),
        *(Column(name, right=True) for name in ("pumps", "threads", "latency_limit_us", "memory_max_mb", "cpu_quota_pct")),
        Column("verdict"),
        Column("reason"),
    ),
}
_EMPTY = "No model version yet. Make one with: pumpdeck train"


_LAZY = {
    "import": (
        "pumpdeck_console.cli.importing:import_model",
        "Import a model that was learned elsewhere: FILE is ONNX; estimators as pickles are refused.",
    )
}


@click.group(cls=LazyGroup, lazy=_LAZY, default="list")
def models() -> None:
    """List model versions, show, compare, profile, import, promote or demote one."""


@models.command("list")
@query_argument
@json_option
@click.pass_obj
def list_models(session: Session, query: str, as_json: bool) -> None:
    """List model versions that QUERY selects, such as alias:champion gates<refuse; newest first within a model."""
    from pumpdeck_console.operations.models import list_models as listed  # deferred: help needs none of it

    rows = [_model(row) for row in listed(session.workspace(), query=query)]
    write_rows(rows, _MODEL_COLUMNS, as_json=as_json, empty=f"No model version matches: {query}" if query else _EMPTY)


@models.command("show")
@click.argument("model")
@click.argument("version", default="")
@click.option("--card", is_flag=True, help="Write the full model card (Markdown) and nothing else.")
@click.option("--shipped-card", is_flag=True, help="Write the short card that packages hold.")
@json_option
@click.pass_obj
def show_model(session: Session, model: str, version: str, card: bool, shipped_card: bool, as_json: bool) -> None:
    """Show one version of MODEL: its number, an alias, or nothing for the candidate, else the champion."""
    from pumpdeck_console.operations import models as operations  # deferred: help needs none of it
    from pumpdeck_console.operations.profiles import latest_profile  # deferred: as above

    workspace = session.workspace()
    which = _which(version)
    if card or shipped_card:
        sys.stdout.write(operations.read_card(workspace, model=model, which=which, shipped=shipped_card))
        return
    found = operations.find_version(workspace, model, which)
    row = next(row for row in operations.list_models(workspace) if row.version == found)
    lineage = found.lineage
    profile = latest_profile(workspace, found)
    row_of_one = next((one for one in profile.figures if one.batch == 1), None) if profile else None
    write_object(
        {
            **_model(row),
            "data_end": time_text(found.data_end_ms),
            "snapshot_digest": lineage.snapshot_digest,
            "pipeline_digest": lineage.pipeline_digest,
            "code_digest": lineage.code_digest,
            "lock_digest": lineage.lock_digest,
            "seed": lineage.seed,
            "git_commit": lineage.git_commit,
            "git_dirty": lineage.git_dirty,
            "run": found.run_record_digest,
            "onnx_digest": found.onnx_digest,
            "provisional": sum(pump.provisional for pump in found.pumps),
            "judged_against": found.judged_against or None,
            **_origin(found.origin),
            **{f"metric_{name}": value for name, value in sorted(found.metrics.items())},
            "profile_p99_us": row_of_one.p99_us if row_of_one else None,
            "profile_rss_mb": row_of_one.rss_mb if row_of_one else None,
            **{f"gate_{gate.name}": f"{gate.verdict}: {gate.reason}" for gate in found.gates},
        },
        as_json=as_json,
    )


@models.command("promote")
@click.argument("model")
@click.argument("version", default="")
@click.option("--reason", default="", help="Why; goes into the audit chain.")
@click.option("--override", is_flag=True, help="Although a quality gate refused it; takes two people, each with a --reason.")
@click.option("--accept-foreign", is_flag=True, help="Although it was not learned here; takes a --reason.")
@json_option
@click.pass_obj
def promote(
    session: Session, model: str, version: str, reason: str, override: bool, accept_foreign: bool, as_json: bool
) -> None:
    """Make a version of MODEL the champion; the one before becomes previous.

    VERSION is a number or an alias; without it the candidate.
    """
    from pumpdeck_console.operations.models import promote as do_promote  # deferred: help needs none of it

    said = {"override": override, "accept_foreign": accept_foreign}
    report = do_promote(session.workspace(), model=model, which=_which(version), reason=reason, **said)
    _write_aliases(report, as_json)
    if report.missing_people:
        option = "--accept-foreign" if accept_foreign and not override else "--override"
        say(f"Noted. Nothing changed yet: {report.missing_people} more must say the same with {option} and a reason.")
    elif not report.changed:
        say("It was the champion already; nothing changed.")
    elif report.was and report.judged_against != report.was:
        against = f"v{report.judged_against}" if report.judged_against else "no champion"
        say(f"It was judged against {against}, not v{report.was}: pumpdeck models compare {model} {report.was} {report.champion}")


@models.command("demote")
@click.argument("model")
@click.option("--reason", default="", help="Why; goes into the audit chain.")
@json_option
@click.pass_obj
def demote(session: Session, model: str, reason: str, as_json: bool) -> None:
    """Take the champion of MODEL back to the version before it; the two change places."""
    from pumpdeck_console.operations.models import demote as do_demote  # deferred: help needs none of it

    _write_aliases(do_demote(session.workspace(), model=model, reason=reason), as_json)


@models.command("rollback")
@click.argument("model")
@click.option("--reason", default="", help="Why; goes into the audit chain.")
@json_option
@click.pass_obj
def rollback(session: Session, model: str, reason: str, as_json: bool) -> None:
    """Take the champion of MODEL back to the version before it: the same as demote. Devices follow with a rollout."""
    from pumpdeck_console.operations.models import demote as do_demote  # deferred: help needs none of it

    report = do_demote(session.workspace(), model=model, reason=reason)
    _write_aliases(report, as_json)
    say(f"Devices still run what they run. Next: pumpdeck rollout plan --model {model}={report.champion}")


@models.command("profile")
@click.argument("model")
@click.argument("version", default="")
@click.option("--by", type=click.Choice(["setting", "class"]), default="setting", show_default=True, help="A row each.")
@json_option
@click.pass_obj
def profile(session: Session, model: str, version: str, by: str, as_json: bool) -> None:
    """Measure a version of MODEL on this computer: threads, spinning and rows a call, each in a fresh process.

    Nothing that is shipped changes: packages, services and containers take their settings from a rule on the device class,
    which is shown beside the figures.
    """
    from pumpdeck_console.operations.profiling import profile_version  # deferred: help needs none of it

    with ProgressLine() as progress:
        report = profile_version(session.workspace(), model=model, which=_which(version), on_progress=progress)
    kinds: dict[str, tuple[Any, ...]] = {"setting": report.figures, "class": report.classes}
    rows = [dataclasses.asdict(row) for row in kinds[by]]
    write_rows(rows, _PROFILE_COLUMNS[by], as_json=as_json, empty="No device has a pump of this type.")
    fastest = f"{report.fastest_threads} threads, {'' if report.fastest_spinning else 'not '}spinning"
    says = "agrees with" if report.agrees else "is slower than"
    say(f"{model} v{report.version} on {report.machine}: fastest row with {fastest}; the rule {says} what was measured")


@models.command("compare")
@click.argument("model")
@click.argument("before")
@click.argument("after", default="")
@click.option(
    "--by",
    type=click.Choice(["figure", "slice", "pump", "alarm"]),
    default="figure",
    show_default=True,
    help="A row each.",
)
@json_option
@click.pass_obj
def compare(session: Session, model: str, before: str, after: str, by: str, as_json: bool) -> None:
    """Compare two versions of MODEL: figures, alarm rates of slices, each pump's limit and alarms, or the alarms that differ.

    BEFORE and AFTER are numbers or aliases; without AFTER the candidate, else the champion.
    """
    from pumpdeck_console.operations.comparing import compare_versions  # deferred: help needs none of it

    found = compare_versions(session.workspace(), model=model, before=_which(before), after=_which(after))
    kinds: dict[str, tuple[Any, ...]] = {"figure": found.figures, "slice": found.slices, "pump": found.pumps}
    rows = [dataclasses.asdict(row) for row in kinds.get(by, ())]
    if by == "alarm":
        rows = [
            {"pump": one.pump, "change": one.change, "raised": time_text(one.raised_ms), "cleared": time_text(one.cleared_ms)}
            for one in found.alarms
        ]
    empty = "Both raise the same alarms." if by == "alarm" else "They have no pump in common."
    write_rows(rows, _COMPARE_COLUMNS[by], as_json=as_json, empty=empty)
    snapshot = "the same snapshot" if found.same_snapshot else "different snapshots"
    appear, vanish = sum(one.appear for one in found.pumps), sum(one.vanish for one in found.pumps)
    say(
        f"{model} {found.before} against {found.after}: {snapshot}, common time {time_text(found.start_ms)} to "
        f"{time_text(found.end_ms)}, {len(found.pumps)} common pumps; {appear} alarms appear, {vanish} vanish; "
        f"only before {len(found.only_before)}, only after {len(found.only_after)}"
    )


def _origin(origin: Origin | None) -> dict[str, Any]:
    """Of an imported version; nothing for our own."""
    if origin is None:
        return {}
    return {
        "foreign": True,
        "file": origin.file,
        "source_digest": origin.source_digest,
        "reference_digest": origin.reference or None,
        "made_by": origin.made_by,
        "licence": origin.licence,
        "origin": origin.says,
        "score_meaning": origin.meaning,
        "score_zero": origin.zero,
        "score_unit": origin.unit,
        "worse": "lower" if origin.is_lower_worse else "higher",
    }


def _which(version: str) -> str:
    """A number with or without its `v`, or an alias."""
    bare = version.removeprefix("v")
    return bare if bare.isdecimal() else version


def _write_aliases(report: PromoteReport, as_json: bool) -> None:
    write_object(
        {
            "model": report.model,
            "champion": report.champion,
            "previous": report.previous or None,
            "changed": report.changed,
            **({"missing_people": report.missing_people} if report.missing_people else {}),
        },
        as_json=as_json,
    )


_LOGS = "pumpdeck_console.cli.run_logs"
_LAZY = {
    "live": (f"{_LOGS}:live", "List trainings that are running, and how the newest ones before them ended."),
    "log": (f"{_LOGS}:log", "Show the log of RUN: steps, durations, warnings, pumps with trouble, verdicts."),
}


@click.group(cls=LazyGroup, default="list", lazy=_LAZY)
def runs() -> None:
    """List training runs, show, compare or replay one, or follow the one that is running."""


@runs.command("list")
@query_argument
@click.option("--limit", default=200, show_default=True, help="At most so many, the newest.")
@json_option
@click.pass_obj
def list_runs(session: Session, query: str, limit: int, as_json: bool) -> None:
    """List training runs that QUERY selects, such as state:refused at<7d; newest first."""
    from pumpdeck_console.operations.runs import list_runs as listed  # deferred: help needs none of it

    rows = [
        {
            "run": row.run,
            "model": row.model,
            "version": version_word(row.version) if row.version else None,
            "at": time_text(row.at_ms),
            "actor": row.actor,
            "snapshot_digest": row.snapshot_digest,
            "content_digest": row.content_digest,
            "reason": row.reason,
            "kind": row.kind,
            "state": row.state,
        }
        for row in listed(session.workspace(), query=query, limit=limit)
    ]
    empty = f"No training run matches: {query}" if query else "No training run yet. Start one with: pumpdeck train"
    write_rows(rows, _RUN_COLUMNS, as_json=as_json, empty=empty)


@runs.command("show")
@click.argument("run")
@click.pass_obj
def show_run(session: Session, run: str) -> None:
    """Write the whole record of RUN and its log as JSON; RUN is its digest or the first characters of it."""
    from pumpdeck_console.operations.run_logs import show_run as shown  # deferred: help needs none of it

    sys.stdout.write(json.dumps(shown(session.workspace(), run=run), indent=2, sort_keys=True) + "\n")


@runs.command("diff")
@click.argument("before")
@click.argument("after")
@click.option("--by", type=click.Choice(["part", "step"]), default="part", show_default=True, help="A row each.")
@json_option
@click.pass_obj
def diff(session: Session, before: str, after: str, by: str, as_json: bool) -> None:
    """Tell what differs between two runs: spec, data, code, packages, seed, figures and gates, or steps and why they ran anew.

    BEFORE and AFTER are digests of runs or the first characters of them.
    """
    from pumpdeck_console.operations.run_diff import diff_runs  # deferred: help needs none of it

    found = diff_runs(session.workspace(), before=before, after=after)
    kinds: dict[str, tuple[Any, ...]] = {"part": found.parts, "step": found.steps}
    rows = [dataclasses.asdict(row) for row in kinds[by]]
    write_rows(rows, _DIFF_COLUMNS[by], as_json=as_json, empty="The two runs are the same in every part.")
    content = "the same bytes reach devices" if found.same_content else "other bytes reach devices"
    say(f"{found.before[:12]} against {found.after[:12]}: {content}; {len(found.parts)} parts differ")


@runs.command("export")
@click.argument("run")
@click.option("--to", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The file to write.")
@json_option
@click.pass_obj
def export(session: Session, run: str, to: Path, as_json: bool) -> None:
    """Write RUN with its snapshot, spec and list of installed packages into one file, to be replayed anywhere."""
    from pumpdeck_console.operations.run_export import export_run  # deferred: help needs none of it

    write_object(dataclasses.asdict(export_run(session.workspace(), run=run, to=str(to))), as_json=as_json)


@runs.command("replay")
@click.argument("run", default="")
@click.option("--from", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A file of runs export.")
@json_option
@click.pass_obj
def replay(session: Session, run: str, file: Path | None, as_json: bool) -> None:
    """Train RUN again from its record, without the cache, and tell whether the same bytes come out.

    RUN is its digest or the first characters of it; with --from the run is taken whole from a file. Nothing is registered.
    Other answers end with exit code 5. Model types that depend on the linear-algebra kernel may give other bytes on another
    processor; then alarm flags and scores are compared, with the tolerance of the parity gate.
    """
    from pumpdeck_console.operations.replaying import replay_run  # deferred: help needs none of it

    if bool(run) is (file is not None):
        raise click.UsageError("give either RUN or --from FILE")
    with ProgressLine() as progress:
        if file is not None:
            from pumpdeck_console.operations.run_export import replay_file  # deferred: as above

            report = replay_file(session.workspace(), path=str(file), on_progress=progress)
        else:
            report = replay_run(session.workspace(), run=run, on_progress=progress)
    write_object(dataclasses.asdict(report), as_json=as_json)
    if report.same_answers and not report.same:
        say(
            f"Other bytes, the same answers: {100 * (report.flags_equal or 0):.4f} % equal alarm flags on "
            f"{report.rows_compared} rows, scores differ by {report.largest_difference:.2g}"
        )
    if not report.same_answers:
        changed = [name for name, same in (("code", report.same_code), ("packages", report.same_lock)) if not same]
        raise DamagedError(
            "answers otherwise than it did" if report.rows_compared else "gives other bytes than it did",
            f"run {report.run[:12]}",
            expected=report.content_digest[:12],
            found=report.replayed_digest[:12],
            hint=f"other since then: {', '.join(changed)}" if changed else "the same code and packages were used",
        )


def _model(row: ModelRow) -> dict[str, Any]:
    version = row.version
    return {
        "model": version.model,
        "version": version_word(version.number),
        "pump_type": version.pump_type,
        "model_type": version.model_type,
        "aliases": ",".join(alias.value for alias in row.aliases),
        "gates": row.verdict.value,
        "pumps": len(version.pumps),
        "pumps_running": row.pumps_running,
        "content_digest": version.content_digest,
        "created": time_text(version.created_ms),
        "note": version.note,
    }
