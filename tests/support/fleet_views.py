"""Seeded synthetic views for console tests and benchmarks, and ``Readers`` and ``Actions`` that serve them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pumpdeck_console.operations.bundle_view import AwaitedLine, BundlesView, DriveLine, StickLine
from pumpdeck_console.operations.comparing import Comparison
from pumpdeck_console.operations.run_diff import RunDiff
from pumpdeck_console.operations.run_views import LiveView, RunDetail, RunsView
from pumpdeck_console.operations.trust_rows import KeysView
from pumpdeck_console.operations.upkeep_view import UpkeepView
from pumpdeck_console.operations.views import (
    HEALTH_WORDS,
    AuditCheck,
    AuditView,
    ChannelLine,
    FleetView,
    LinkView,
    ModelCardView,
    ModelsView,
    ModelVersionRow,
    PlanView,
    PumpDetail,
    RolloutDetail,
    RolloutRow,
    RolloutsView,
    TrainingRunRow,
    WaveRow,
    Words,
    spark_levels,
)
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError, UnreachableError
from support import desk_views

NOW_MS = 1_767_276_131_000  # 2026-01-01T14:02:11Z
MINUTE_MS = 60_000
SITES = ("albatross", "auk", "brent", "cormorant", "dunlin", "fulmar", "gannet", "heron", "kittiwake", "merganser",
         "osprey", "tern")  # fmt: skip
TYPES = ("centrifugal_export", "esp", "progressive_cavity", "water_injection")
MAKERS = ("Baker", "Flowserve", "KSB", "Ruhrpumpen", "Sulzer")
CHANNELS = (
    ChannelLine("vibration", "mm/s", float("nan"), 7.1, 0.61),
    ChannelLine("motor_temperature", "°C", float("nan"), 95.0, 0.22),
    ChannelLine("discharge_pressure", "bar", 60.0, 165.0, 0.12),
    ChannelLine("flow", "m³/h", 20.0, float("nan"), 0.05),
)
OK, DRIFT, NO_MODEL, STALE, SENSOR_FAULT, ALARM = range(len(HEALTH_WORDS))


def fleet_view(pumps: int, seed: int = 7, now_ms: int = NOW_MS) -> FleetView:
    """A fleet of ``pumps`` pumps, four to a device, spread over twelve sites (more for large fleets)."""
    rng = np.random.default_rng(seed)
    site_words = SITES if pumps <= 1_000 else tuple(f"{site}-{i:02d}" for site in SITES for i in range(10))
    draw = rng.random(pumps)
    health = np.select(
        [draw < 0.02, draw < 0.03, draw < 0.06, draw < 0.07, draw < 0.13],
        [ALARM, SENSOR_FAULT, STALE, NO_MODEL, DRIFT],
        OK,
    ).astype(np.int8)
    limit = rng.uniform(3.5, 6.0, pumps).astype(np.float32)
    score = (limit * rng.uniform(0.15, 0.8, pumps)).astype(np.float32)
    score[health == ALARM] = limit[health == ALARM] * rng.uniform(1.05, 2.4, int((health == ALARM).sum()))
    psi = np.where(health == DRIFT, rng.uniform(0.26, 0.6, pumps), rng.uniform(0.01, 0.2, pumps)).astype(np.float32)
    last = now_ms - rng.integers(2_000, 55_000, pumps)
    last = np.where(health == STALE, now_ms - rng.integers(7, 60, pumps) * 3_600_000, last).astype(np.int64)
    version = rng.integers(11, 14, pumps).astype(np.int32)
    for column, none in ((score, np.nan), (limit, np.nan), (psi, np.nan), (version, 0)):
        column[health == NO_MODEL] = none
    reasons = [_reason(int(code), float(score[i]), float(limit[i]), float(psi[i])) for i, code in enumerate(health)]
    sites = [site_words[i * len(site_words) // pumps] for i in range(pumps)] if pumps else []
    types = [TYPES[int(code)] for code in rng.integers(0, 4, pumps)]
    return FleetView(
        as_of_ms=now_ms,
        query="",
        fleet_size=pumps,
        pump_ids=tuple(f"{sites[i]}/P-{101 + i // 2}{'AB'[i % 2]}" for i in range(pumps)),
        tags=tuple(f"P-{101 + i // 2}{'AB'[i % 2]}" for i in range(pumps)),
        sites=Words.of(sites),
        types=Words.of(types),
        makers=Words.of(MAKERS[int(code)] for code in rng.integers(0, 5, pumps)),
        devices=Words.of(f"dev-{i // 4 + 1:04d}" for i in range(pumps)),
        models=Words.of(f"{kind}-health" if health[i] != NO_MODEL else None for i, kind in enumerate(types)),
        health=health,
        reasons=tuple(reasons),
        score=score,
        limit=limit,
        model_version=version,
        drift_psi=psi,
        last_seen_ms=last,
        spark=_spark(rng, score, limit),
        site_kinds=tuple(("platform", "pad", "station")[i % 3] for i in range(len(set(sites)))),
    )


def _reason(code: int, score: float, limit: float, psi: float) -> str:
    if code == ALARM:
        return f"vibration, {score / limit:.1f} x limit"
    if code == DRIFT:
        return f"flow PSI {psi:.2f}"
    return {SENSOR_FAULT: "motor_temperature flat", STALE: "no rows", NO_MODEL: "never installed"}.get(code, "")


def _spark(rng: np.random.Generator, score: np.ndarray, limit: np.ndarray) -> np.ndarray:
    walk = np.cumsum(rng.normal(0, 0.06, (len(score), 24)), axis=1)
    walk -= walk[:, -1:]
    hours = np.clip(np.nan_to_num(score)[:, None] * (1 + walk), 0.05, None)
    return spark_levels(hours, limit)


def pump_detail(view: FleetView, pump_id: str, rows: int = 1_440, seed: int = 7) -> PumpDetail:
    """One pump of ``view`` with a day of rows, one a minute."""
    try:
        i = view.pump_ids.index(pump_id)
    except ValueError:
        raise NotFoundError("there is no such pump", pump_id) from None
    rng = np.random.default_rng([seed, i])
    at = view.as_of_ms - np.arange(rows - 1, -1, -1, dtype=np.int64) * MINUTE_MS
    part = np.linspace(0, 1, rows)
    rise = np.clip(part - 0.75, 0, None) * (18 if view.health[i] == ALARM else 0)
    day = np.sin(part * 2 * np.pi)
    values = np.stack(
        [
            2.4 + 0.2 * day + rise + rng.normal(0, 0.15, rows),
            71 + 6 * day + 2 * rise + rng.normal(0, 0.4, rows),
            138 - 9 * day - rise + rng.normal(0, 0.9, rows),
            61 + 4 * day + rng.normal(0, 0.7, rows),
        ],
        axis=1,
    ).astype(np.float32)
    values[rows // 3 : rows // 3 + 40] = np.nan
    limit = float(view.limit[i])
    scores = (np.nan_to_num(limit, nan=4.0) * (0.4 + 0.05 * day + rise / 5) + rng.normal(0, 0.1, rows)).astype(
        np.float32
    )
    start_ms = int(at[int(rows * 0.86)])
    facts = (("maker", view.makers[i]), ("type", view.types[i]), ("device", view.devices[i]),
             ("model", f"{view.models[i]} v{view.model_version[i]}"), ("criticality", "high"),
             ("duty", "duty of 2"))  # fmt: skip
    return PumpDetail(
        as_of_ms=view.as_of_ms,
        pump_id=pump_id,
        tag=view.tags[i],
        site=view.sites[i],
        health=int(view.health[i]),
        reason=view.reasons[i],
        channels=CHANNELS,
        at_ms=at,
        values=values,
        score_at_ms=at,
        scores=scores,
        limit=limit,
        facts=facts,
        alarms=((start_ms, view.as_of_ms),) if view.health[i] == ALARM else (),
    )


def models_view(now_ms: int = NOW_MS) -> ModelsView:
    """Four models with three versions each and two training runs."""
    gates = (("parity", "pass", "flags equal 100.00 %"), ("backtest", "pass", "0.9 alarms a pump and month"),
             ("slices", "warn", "KSB 4 % worse than the champion"))  # fmt: skip
    versions = []
    for number, aliases in ((13, ("candidate",)), (12, ("champion",)), (11, ("previous",))):
        for i, kind in enumerate(TYPES):
            versions.append(
                ModelVersionRow(
                    model=f"{kind}-health",
                    pump_type=kind,
                    version=number,
                    aliases=aliases,
                    digest=f"{number * 7919 + i:064x}",
                    created_ms=now_ms - (14 - number) * 86_400_000 - i * 600_000,
                    gates=gates if number == 13 else gates[:2],
                    metrics=(("pumps", 60.0), ("rows", 336_960.0), ("false_alarms_month", 0.9)),
                    pumps={13: 0, 12: 48, 11: 12}[number],
                    facts={"name": f"{kind}-health v{number}", "model": f"{kind}-health", "version": number, "type": kind,
                           "model_type": "maxz", "alias": aliases, "gates": "warn" if number == 13 else "pass", "pumps": 60,
                           "running": {13: 0, 12: 48, 11: 12}[number], "made": now_ms - (14 - number) * 86_400_000,
                           "digest": f"{number * 7919 + i:064x}", "note": ""},
                )
            )
    runs = (
        TrainingRunRow("run-0042", "esp-health", "RUNNING", "user request", now_ms - 40_000, progress=0.4),
        TrainingRunRow("run-0041", "esp-health", "DONE", "sustained drift", now_ms - 86_400_000, now_ms - 86_395_000,
                       result="esp-health v13"),
    )  # fmt: skip
    return ModelsView(now_ms, tuple(versions), runs, TYPES)


def rollouts_view(now_ms: int = NOW_MS) -> RolloutsView:
    """One running, one halted, one completed rollout."""
    rows = (
        RolloutRow("r-0007", "esp-health", 13, "RUNNING", "", 3, 1, 60, 31, 0, 0, now_ms - 3_600_000, now_ms - 4_000, "ada"),
        RolloutRow("r-0006", "water_injection-health", 13, "HALTED", "wave 1: 1 of 1 rolled back", 3, 0, 60, 0, 1, 0,
                   now_ms - 90_000_000, now_ms - 86_400_000, "ada"),
        RolloutRow("r-0005", "esp-health", 12, "COMPLETED", "", 3, 3, 60, 60, 0, 0, now_ms - 900_000_000,
                   now_ms - 800_000_000, "ben"),
    )  # fmt: skip
    return RolloutsView(now_ms, rows)


def rollout_detail(rollout: RolloutRow, now_ms: int = NOW_MS) -> RolloutDetail:
    """A rollout with one task a device: wave 1 has one device, wave 2 three, wave 3 the rest."""
    n = rollout.devices
    wave = np.array([1 if i == 0 else 2 if i < 4 else 3 for i in range(n)], dtype=np.int32)
    states, reasons = [], []
    for i in range(n):
        if i < rollout.committed:
            state, reason = "COMMITTED", ""
        elif i < rollout.committed + rollout.bad:
            state, reason = "ROLLED_BACK", "golden inputs differ by 0.2"
        elif rollout.state == "HALTED":
            state, reason = "QUEUED", "rollout halted"
        else:
            state = ("SENDING", "STAGED", "TRIAL", "QUEUED", "WAIT_WINDOW")[min(4, i - rollout.committed)]
            reason = "opens 02:00 UTC" if state == "WAIT_WINDOW" else ""
        states.append(state)
        reasons.append(reason)
    total = np.full(n, 7_412, dtype=np.int64)
    sent = np.where(np.array([state == "QUEUED" or state == "WAIT_WINDOW" for state in states]), 0, total)
    sent[np.array([state == "SENDING" for state in states], dtype=bool)] = 3_072
    counts = [int((wave == number).sum()) for number in (1, 2, 3)]
    waves = tuple(
        WaveRow(number, "PASSED" if number <= rollout.waves_passed else "OPEN" if rollout.state == "RUNNING" and
                number == rollout.waves_passed + 1 else "FAILED" if rollout.state == "HALTED" and number == 1 else "PENDING",
                counts[number - 1], min(counts[number - 1], max(0, rollout.committed - sum(counts[: number - 1]))),
                rollout.bad if number == 1 else 0, 0, counts[number - 1])
        for number in (1, 2, 3)
    )  # fmt: skip
    return RolloutDetail(
        as_of_ms=now_ms,
        rollout=rollout,
        plan_hash=f"{90210:064x}",
        waves=waves,
        devices=tuple(f"dev-{i + 1:04d}" for i in range(n)),
        sites=Words.of(SITES[i * len(SITES) // n] for i in range(n)),
        wave=wave,
        states=Words.of(states),
        reasons=tuple(reasons),
        sent_bytes=sent,
        total_bytes=total,
        changed_ms=now_ms - np.arange(n, dtype=np.int64) * 1_000,
    )


def audit_view(entries: int = 300, now_ms: int = NOW_MS) -> AuditView:
    """An audit chain."""
    actions = ("rollout.approve", "rollout.receipt", "train.register", "package.sign", "inventory.load")
    n = np.arange(entries)
    return AuditView(
        as_of_ms=now_ms,
        total=entries,
        head=f"{4_242_424_242:064x}" if entries else "",
        positions=(entries - n).astype(np.int64),
        at_ms=(now_ms - n * 47_000).astype(np.int64),
        actors=Words.of(("actor-7f3a", "actor-19c2", "dev-0007")[i % 3] for i in range(entries)),
        actions=Words.of(actions[i % 5] for i in range(entries)),
        subjects=tuple(f"r-{7 - i // 60:04d}" if i % 5 < 2 else f"esp-health v{13 - i // 200}" for i in range(entries)),
        reasons=tuple("wave 1 passed, soak over" if i % 5 == 0 else "" for i in range(entries)),
        digests=tuple(f"{i * 104_729 + 11:064x}" for i in range(entries)),
    )


def bundles_view(now_ms: int = NOW_MS) -> BundlesView:
    """Six sticks in every state, and who is awaited through them."""
    day = 86_400_000
    rows = [
        ("b-1f0c22aa9e01", "folder", "CARRIED", ("gannet",), 5, 5, 3 * day, "Ada Field", 1, ""),
        ("b-77c09d1f3b52", "letter", "EXPORTED", ("brent", "cormorant"), 8, 8, 12 * day, "", 2, ""),
        ("b-52aa0be41c7d", "folder", "LOST", ("dunlin",), 4, 4, -2 * day, "Bo Hansen", 5, "fell overboard"),
        ("b-9e3371c0d844", "folder", "RETURNED", ("eider",), 6, 2, 9 * day, "Cai Moe", 7, "2 of 6 receipts are still awaited"),
        ("b-0d12ef87a6b3", "folder", "TAKEN_IN", ("fulmar",), 5, 0, 0, "Ada Field", 20, ""),
        ("b-c41d90aa2e6f", "folder", "REISSUED", ("gannet",), 5, 0, 0, "", 31, "replaced by b-1f0c22aa9e01"),
    ]
    sticks = tuple(
        StickLine(
            name, kind, state, sites, devices, awaited, now_ms + left if left else 0, carrier, now_ms - ago * day,
            now_ms - ago * day, 2_400_000 * devices, f"/media/ada/{name[2:6].upper()}/pumpdeck", note,
        )
        for name, kind, state, sites, devices, awaited, left, carrier, ago, note in rows
    )  # fmt: skip
    awaited = tuple(
        AwaitedLine(
            f"{stick.sites[0]}-d{number + 1}", stick.sites[0], "SENDING", stick.stick, stick.state, stick.carrier, stick.left_ms,
            stick.deadline_ms, "r0007-1a2b3c",
        )
        for stick in sorted(sticks, key=lambda one: one.deadline_ms)
        for number in range(stick.awaited)
    )  # fmt: skip
    waiting = AwaitedLine("heron-d1", "heron", "WAIT_COURIER", "", "", "", 0, now_ms + 28 * day, "r0007-1a2b3c")
    return BundlesView(now_ms, sticks, (*awaited, waiting), 1, (DriveLine("STICK", "/media/ada/STICK/pumpdeck", 14_000_000_000),))


@dataclass
class FakeReaders:
    """Serves synthetic views. ``failure`` makes every call raise, ``before`` runs before each call (to block it)."""

    pumps: int = 240
    now_ms: int = NOW_MS
    token: int = 1
    failure: PumpdeckError | None = None
    before: Callable[[str], None] = lambda name: None
    calls: list[str] = field(default_factory=list)
    rollouts_now: RolloutsView | None = None
    live_now: LiveView | None = None
    _fleet: FleetView | None = None

    def _enter(self, name: str) -> None:
        self.calls.append(name)
        self.before(name)
        if self.failure is not None:
            raise self.failure

    def change_token(self) -> int:
        self._enter("change_token")
        return self.token

    def fleet(self, query: str = "") -> FleetView:
        self._enter("fleet")
        if self._fleet is None:
            self._fleet = fleet_view(self.pumps, now_ms=self.now_ms)
        return replace(self._fleet, query=query)

    def pump(self, pump_id: str) -> PumpDetail:
        self._enter("pump")
        return pump_detail(self._fleet or self.fleet(), pump_id)

    def models(self) -> ModelsView:
        self._enter("models")
        return models_view(self.now_ms) if self.pumps else ModelsView(self.now_ms, ())

    def card(self, model: str, version: int) -> ModelCardView:
        return ModelCardView(model, version, f"# {model}: model card\n\nversion {version}\n" + "- a line\n" * 80)

    def rollouts(self) -> RolloutsView:
        self._enter("rollouts")
        if self.rollouts_now is not None:
            return self.rollouts_now
        return rollouts_view(self.now_ms) if self.pumps else RolloutsView(self.now_ms, ())

    def rollout(self, rollout_id: str) -> RolloutDetail:
        self._enter("rollout")
        row = next(
            row for row in (self.rollouts_now or rollouts_view(self.now_ms)).rollouts if row.rollout_id == rollout_id
        )
        return rollout_detail(row, self.now_ms)

    def audit(self, query: str = "", limit: int = 2_000) -> AuditView:
        self._enter("audit")
        return audit_view(300 if self.pumps else 0, self.now_ms)

    def audit_check(self) -> AuditCheck:
        self._enter("audit_check")
        shown = audit_view(300 if self.pumps else 0, self.now_ms)
        return AuditCheck(self.now_ms, True, shown.total, shown.head)

    def comparison(self, model: str, before: str, after: str) -> Comparison:
        self._enter("comparison")
        if before == "99":
            raise NotFoundError("no such version", f"{model} 99")
        return desk_views.comparison(model, before, after)

    def runs(self) -> RunsView:
        self._enter("runs")
        return desk_views.runs_view(self.now_ms) if self.pumps else RunsView(self.now_ms)

    def live(self) -> LiveView:
        self._enter("live")
        return self.live_now or LiveView(self.now_ms)

    def run(self, run: str) -> RunDetail:
        self._enter("run")
        return desk_views.run_detail(desk_views.runs_view(self.now_ms), run)

    def run_diff(self, before: str, after: str) -> RunDiff:
        self._enter("run_diff")
        return desk_views.run_diff(before, after)

    def keys(self) -> KeysView:
        self._enter("keys")
        return desk_views.keys_view(self.now_ms, SITES[:6]) if self.pumps else KeysView(self.now_ms)

    def upkeep(self) -> UpkeepView:
        self._enter("upkeep")
        return desk_views.upkeep_view(self.now_ms) if self.pumps else UpkeepView(self.now_ms)

    def bundles(self) -> BundlesView:
        self._enter("bundles")
        return bundles_view(self.now_ms) if self.pumps else BundlesView(self.now_ms, (), (), 0)

    def link(self) -> LinkView:
        self._enter("link")
        return LinkView(self.now_ms, self.pumps // 4, max(0, self.pumps // 4 - 3), 5 if self.pumps else 0)

    def plan(self, operation: str, arguments: Mapping[str, str]) -> PlanView:
        self._enter("plan")
        words = " ".join(arguments.values())
        return PlanView(
            operation=operation,
            title=f"{operation} {words}",
            lines=(("devices", "60 on 12 sites"), ("bytes", "442 kB"), ("waves", "1, 3, rest; soak 24 h")),
            command=f"pumpdeck {operation.replace('.', ' ')} {words}",
            warnings=("2 pumps are in alarm and stay on their version",),
            refusal="the plan is already approved" if words == "r-0005" else "",
        )


def unreachable() -> UnreachableError:
    return UnreachableError("the store did not answer", "fleet.example:5432", hint="check the link to the office")


class FakeSubmission:
    """A submission that the test ends by ``finish`` or ``fail``."""

    def __init__(self, operation: str, arguments: Mapping[str, Any], on_progress: Callable[[str, int, int], None]) -> None:
        self.operation, self.arguments, self.on_progress = operation, dict(arguments), on_progress
        self.cancelled = False
        self._outcome: object = None
        self._error: PumpdeckError | None = None
        self._callbacks: list[Callable[[], None]] = []

    def result(self, timeout_s: float | None = None) -> object:
        if self._error is not None:
            raise self._error
        return self._outcome

    def cancel(self) -> None:
        self.cancelled = True

    def on_done(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def finish(self, outcome: object, error: PumpdeckError | None = None) -> None:
        self._outcome, self._error = outcome, error
        for callback in self._callbacks:
            callback()


@dataclass
class FakeActions:
    """Remembers what was submitted."""

    submissions: list[FakeSubmission] = field(default_factory=list)
    warmed: bool = False
    closed: bool = False

    def submit(self, operation: str, arguments: Mapping[str, object], on_progress: Any) -> FakeSubmission:
        self.submissions.append(FakeSubmission(operation, arguments, on_progress))
        return self.submissions[-1]

    def warm(self) -> None:
        self.warmed = True

    def close(self) -> None:
        self.closed = True
