"""Seeded synthetic views of the runs, trust and upkeep screens, and of the pages over them."""

from __future__ import annotations

from pumpdeck_console.operations.comparing import Comparison, FigureChange, PumpChange, SliceChange
from pumpdeck_console.operations.requests import RequestRow
from pumpdeck_console.operations.run_diff import PartChange, RunDiff, StepChange
from pumpdeck_console.operations.run_views import ExperimentLine, PointLine, RunDetail, RunsView
from pumpdeck_console.operations.runs import RunRow
from pumpdeck_console.operations.snapshots import SnapshotRow
from pumpdeck_console.operations.trust_rows import Exposure, KeysView, RecipientRow, RetiredLine, RoleKey
from pumpdeck_console.operations.upkeep_view import BackupLine, ConflictLine, TripLine, UpkeepView
from pumpdeck_console.operations.workspace import Finding
from pumpdeck_fleet.core.retraining import RetrainEntry

DAY_MS = 86_400_000
TYPES = ("centrifugal_export", "esp", "progressive_cavity", "water_injection")
GATES = (
    ("parity", "pass", "25,560 rows: 100.0000 % equal alarm flags, scores differ by 0"),
    ("champion", "pass", "0.62 alarms a pump and month, the champion 0.79"),
    ("slices", "warn", "KSB 4 % worse than the champion"),
)


def digest(number: int) -> str:
    return f"{number * 7_368_787:08x}" * 8


def runs_view(now_ms: int, runs: int = 24) -> RunsView:
    """Runs of four types, one of them refused; a snapshot each; two requests; two experiments."""
    rows = tuple(
        RunRow(
            run=digest(i + 1),
            model=f"{TYPES[i % 4]}-health",
            version=0 if i == 2 else 13 - i // 4,
            at_ms=now_ms - (i * 7 + 1) * 3_600_000,
            actor="actor-7f3a",
            snapshot_digest=digest(100 + i),
            content_digest=digest(200 + i),
            reason="parity: 3 of 25,560 rows differ by more than 0.001" if i == 2 else "",
            state="refused" if i == 2 else "done",
            pump_type="" if i == 2 else TYPES[i % 4],
        )
        for i in range(runs)
    )
    snapshots = tuple(
        SnapshotRow(
            row.snapshot_digest,
            row.pump_type,
            row.model,
            (row.version,) if row.version else (),
            row.at_ms - DAY_MS,
            60 + i,
            i % 3 != 2,
            ("champion",) if i < 4 else (),
        )
        for i, row in enumerate(rows)
    )
    asked = tuple(
        RequestRow(
            RetrainEntry(
                digest(300 + i),
                f"gannet/P-10{i + 1}A",
                f"gannet-d{i + 1}",
                now_ms - (i + 2) * 3_600_000,
                "drift",
                f"motor_temperature PSI 0.{31 + i} for 3 days",
                digest(400 + i),
            ),
            "",
        )
        for i in range(2)
    )
    experiments = (
        ExperimentLine("wider-window", "esp", "features.window_s = 3600", 2, digest(500), "pass"),
        ExperimentLine("forest", "water_injection", "model.type = iforest", 0, "", ""),
    )
    kinds = {row.entry.pump: "esp" for row in asked}
    return RunsView(now_ms, rows, snapshots, asked, experiments, TYPES, kinds)


def run_detail(view: RunsView, run: str) -> RunDetail:
    """One run of ``view`` with its gates and a search of three points."""
    row = next(one for one in view.runs if one.run.startswith(run))
    points = (
        PointLine(
            "model_type maxz, window_s 1800",
            2,
            28.0,
            5,
            5,
            False,
            "chosen",
        ),
        PointLine(
            "model_type maxz, window_s 3600",
            3,
            28.0,
            5,
            5,
            False,
            "second",
        ),
        PointLine(
            "model_type pca, window_s 1800", 19, 28.0, 5, 4, True, ""
        ),
    )
    return RunDetail(
        row=row,
        model_type="maxz",
        start_ms=row.at_ms - 31 * DAY_MS,
        end_ms=row.at_ms - DAY_MS,
        pumps=60,
        provisional=2,
        gates=GATES if row.state == "done" else (("parity", "refuse", row.reason.removeprefix("parity: ")),),
        metrics=(("holdout_alarms_pump_month", 0.623077), ("limit_median", 3.225), ("rows", 250_560.0)),
        left_out=(("gannet/P-109B", "fewer than 2 days of rows"),),
        left_out_count=1,
        points=points,
        lineage=(
            ("run", row.run),
            ("content", row.content_digest),
            ("snapshot", row.snapshot_digest),
            ("seed", "1"),
            ("git", "-"),
        ),
    )


def run_diff(before: str, after: str) -> RunDiff:
    """Two runs that differ in one key and in their data."""
    parts = (
        PartChange("spec", "features.window_s", "1800.0", "3600.0"),
        PartChange("data", "gannet/P-101A", digest(1), digest(2)),
        PartChange("figure", "rows", "250560.0", None),
    )
    steps = (StepChange("snapshot", True, 0, ""), StepChange("features", False, 60, "features.window_s"))
    return RunDiff(before, after, False, parts, steps)


def comparison(model: str, before: str, after: str) -> Comparison:
    """Two versions: one slice worse, one better, two pumps whose alarms differ."""
    return Comparison(
        model=model,
        before=int(before) if before.isdecimal() else 12,
        after=int(after),
        same_snapshot=False,
        start_ms=1_764_000_000_000,
        end_ms=1_766_000_000_000,
        figures=(
            FigureChange("holdout_alarms_pump_month", 0.79, 0.62),
            FigureChange("rows", 250_560.0, 250_560.0),
            FigureChange("faults_found", None, 4.0),
        ),
        slices=(
            SliceChange("maker KSB", 12, 0.5, 0.9),
            SliceChange("site gannet", 20, 0.9, 0.6),
            SliceChange("site auk", 20, 0.1, 0.1),
        ),
        pumps=(
            PumpChange("gannet/P-101A", 3.2, 3.4, 4, 2, 0, 2),
            PumpChange("gannet/P-102A", 3.1, 2.9, 1, 2, 1, 0),
            PumpChange("gannet/P-103A", 3.1, 3.1, 1, 1, 0, 0),
        ),
        alarms=(),
        only_before=(),
        only_after=("gannet/P-109B",),
    )


def keys_view(now_ms: int, sites: tuple[str, ...]) -> KeysView:
    """Six keys a site: the deploy key of the first runs out soon."""
    rows: list[RoleKey] = []
    for number, site in enumerate(sites):
        soon = number == 0
        for role, holder, days, threshold, keys in (
            ("root", "root-1", 1100, 2, 3),
            ("root", "root-2", 1100, 2, 3),
            ("root", "", 1100, 2, 3),
            ("targets", "Ada, targets", 1100, 1, 1),
            ("release", "Ada, release", 730, 1, 1),
            ("deploy", "Ben, deploy", 20 if soon else 180, 1, 1),
        ):
            expires_ms = now_ms + days * DAY_MS
            warning = "runs out on 2026-01-21T14:02:11Z" if days == 20 else ""
            rows.append(
                RoleKey(
                    site,
                    role,
                    digest(600 + len(rows)),
                    holder,
                    now_ms - 90 * DAY_MS,
                    threshold,
                    keys,
                    7,
                    expires_ms,
                    0 if role == "deploy" else None,
                    role != "root",
                    warning,
                )
            )
    rows.sort(key=lambda row: not row.warning)
    readers = tuple(RecipientRow(site, "office", "age1qqqq0office", True, False) for site in sites[1:])
    plain = (RecipientRow(sites[0], "", "", False, True),) if sites else ()
    retired = (
        RetiredLine(
            "gannet-d9", "gannet", digest(700), now_ms - 400 * DAY_MS, now_ms - 9 * DAY_MS, "retired: burnt out", 41
        ),
    )
    behind = (Exposure("heron-d2", "heron", 1, 6, 2, 7, "courier"),)
    return KeysView(now_ms, tuple(rows), (*plain, *readers), retired, behind, ("tern",), ())


def upkeep_view(now_ms: int) -> UpkeepView:
    """One check that is wrong, two backup places, a trip that is out and one conflict."""
    checks = (
        Finding("keys", "bad", "there is no deploy key on this computer", "pumpdeck trust new-key deploy"),
        Finding("restore", "warn", "restored on 2025-12-20; 3 devices were not heard of since", "pumpdeck collect"),
        Finding("store", "ok", "240 pumps, 12.4 MB"),
        Finding("audit chain", "ok", "4,211 entries hold"),
    )
    backups = (
        BackupLine("/media/ada/BACKUP/north-sea", now_ms - 2 * DAY_MS, "Ada", 41, True, now_ms - 3_600_000),
        BackupLine("/mnt/office/north-sea.tar", now_ms - 30 * DAY_MS, "Ben", 3, False, 0),
    )
    trips = (
        TripLine("ws-1f0c22aa9e01", now_ms - 3 * DAY_MS, "Ada", "20 devices; 1 rollouts lent", 0, ("r0007-1a2b3c",)),
        TripLine(
            "ws-77c09d1f3b52", now_ms - 60 * DAY_MS, "Ben", "5 devices; 0 rollouts lent", now_ms - 50 * DAY_MS, ()
        ),
    )
    conflicts = (
        ConflictLine(
            now_ms - 5 * DAY_MS,
            "ws-77c09d1f3b52",
            "file",
            "fleet.toml",
            "digest 1f0c22aa9e01",
            "digest 9e3371c0d844",
            "compare the two files and settle it by hand",
        ),
    )
    return UpkeepView(now_ms, checks, backups, trips, conflicts, now_ms - 5 * DAY_MS, "ws-77c09d1f3b52")
