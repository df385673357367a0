"""Frozen columnar views: what reader operations return and what screens draw.

A view is a picture of the store at one moment. It is never changed after it was made; arrays are handed over, not
shared for writing. Columns of one view have the same length n and the same row order. Nothing here knows a terminal.

Conventions: times are ``int64`` epoch milliseconds UTC, ``NEVER`` where there is none; a missing number is NaN; a
missing word is code -1 or the empty string. All three are drawn as ``-``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pumpdeck_fleet.core.health import Health

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Levels = npt.NDArray[np.uint8]

NEVER = -1
"""The time that stands for 'has never happened'."""

HEALTH_WORDS = tuple(health.name for health in Health)
"""Health by code, as ``core.health.Health`` numbers it: OK is 0, ALARM the highest, so the largest is the worst."""

NO_HEALTH = -1
"""The health code of a pump about which there is no fact at all; drawn as ``-``."""

SPARK_HOURS = 24
SPARK_AT_LIMIT = 7
"""Sparkline levels: 0 no rows in that hour, 1-6 below the limit, 7 and 8 at or over it."""


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """A column of repeating words: ``codes[i]`` points into ``words``; -1 where a row has none.

    ``words`` is sorted and without repeats, so ordering by code is ordering by word.
    """

    codes: Counts
    words: tuple[str, ...]

    @classmethod
    def of(cls, values: Iterable[str | None]) -> Words:
        """Words from one value per row; ``None`` and the empty string count as no word."""
        column = list(values)
        words = tuple(sorted({value for value in column if value}))
        code_of: dict[str | None, int] = {word: code for code, word in enumerate(words)}
        return cls(np.array([code_of.get(value, -1) for value in column], dtype=np.int32), words)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> str:
        code = int(self.codes[row])
        return self.words[code] if code >= 0 else ""


@dataclass(frozen=True, slots=True, eq=False)
class FleetView:
    """All pumps that a query selects, one row each, in the order of ``pump_ids``."""

    as_of_ms: int
    query: str
    fleet_size: int
    """Pumps in the whole fleet, before the query."""
    pump_ids: tuple[str, ...]
    tags: tuple[str, ...]
    sites: Words
    types: Words
    makers: Words
    devices: Words
    models: Words
    """Name of the model that the device runs for this pump."""
    health: npt.NDArray[np.int8]
    """``core.health.Health`` as a number, ``NO_HEALTH`` where nothing is known."""
    reasons: tuple[str, ...]
    """Why the health is not OK, in a few words (for an alarm: the guilty channel); empty where there is none."""
    score: Floats
    limit: Floats
    """Score at which this pump's alarm starts."""
    model_version: Counts
    """Version the device runs; 0 where it runs none."""
    drift_psi: Floats
    """Largest PSI over the channels."""
    last_seen_ms: Times
    spark: Levels
    """uint8[n, 24]: highest score of each of the last 24 hours against the limit, newest last (``spark_levels``)."""
    site_kinds: tuple[str, ...] = ()
    """Kind of each site (platform, pad, station), in the order of ``sites.words``; empty where unknown."""

    def __len__(self) -> int:
        return len(self.pump_ids)


@dataclass(frozen=True, slots=True)
class SiteNode:
    """One site rolled up: worst health and how many pumps have each health."""

    site: str
    kind: str
    worst: int
    """Code into ``HEALTH_WORDS``; ``NO_HEALTH`` for a site without facts."""
    counts: tuple[int, ...]
    """Pumps per health code, ``len(HEALTH_WORDS) + 1`` long; the last counts pumps without a fact, so that
    ``counts[NO_HEALTH]`` is right too."""

    @property
    def pumps(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class ChannelLine:
    """What a chart must know about one channel besides its values; limits are NaN where the maker gives none."""

    name: str
    unit: str
    low: float = float("nan")
    high: float = float("nan")
    contribution: float = float("nan")
    """The channel's part in the newest score."""


@dataclass(frozen=True, slots=True, eq=False)
class PumpDetail:
    """One pump with its recent rows and scores."""

    as_of_ms: int
    pump_id: str
    tag: str
    site: str
    health: int
    reason: str
    channels: tuple[ChannelLine, ...]
    at_ms: Times
    """int64[n], rising: times of the rows."""
    values: Floats
    """float32[n, len(channels)]; NaN where a row lacks a channel."""
    score_at_ms: Times
    scores: Floats
    limit: float
    """Score at which the alarm starts; NaN without a model."""
    facts: tuple[tuple[str, str], ...] = ()
    """Ordered (word, value) pairs for people: maker, model version, device, last overhaul, ..."""
    alarms: tuple[tuple[int, int], ...] = ()
    """Alarm intervals (start_ms, end_ms) inside the shown time; an open alarm ends at ``as_of_ms``."""


@dataclass(frozen=True, slots=True)
class ModelVersionRow:
    """One immutable version of a model."""

    model: str
    pump_type: str
    version: int
    aliases: tuple[str, ...]
    digest: str
    created_ms: int
    gates: tuple[tuple[str, str, str], ...]
    """(quality gate, ``pass`` | ``warn`` | ``refuse``, reason)."""
    metrics: tuple[tuple[str, float], ...]
    pumps: int
    """Pumps whose device runs this version now."""
    notes: str = ""
    origin: tuple[str, ...] = ()
    """Of an imported version, for people: file and maker, licence, where from, what its score means; empty for our own."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What a query sees of it (docs/query.md)."""


@dataclass(frozen=True, slots=True)
class ModelCardView:
    """The full model card of one version, Markdown."""

    model: str
    version: int
    text: str


@dataclass(frozen=True, slots=True)
class TrainingRunRow:
    """One training run, finished or not."""

    run_id: str
    model: str
    state: str
    trigger: str
    started_ms: int
    ended_ms: int = NEVER
    progress: float = float("nan")
    """0 to 1 while it runs."""
    result: str = ""


@dataclass(frozen=True, slots=True)
class ModelsView:
    """Model versions, newest first, the training runs, and the pump types a training can be started for."""

    as_of_ms: int
    versions: tuple[ModelVersionRow, ...]
    runs: tuple[TrainingRunRow, ...] = ()
    pump_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One rollout with its counts over all device tasks."""

    rollout_id: str
    model: str
    version: int
    state: str
    """DRAFT, PLANNED, APPROVED, RUNNING, HALTED, COMPLETED, ABORTED, REVERTING, REVERTED, REVERT_INCOMPLETE."""
    reason: str
    waves: int
    waves_passed: int
    devices: int
    committed: int
    bad: int
    unknown: int
    created_ms: int
    changed_ms: int
    actor: str = ""

    @property
    def progress(self) -> float:
        """Part of the devices whose task has ended well, 0 to 1."""
        return self.committed / self.devices if self.devices else 0.0


@dataclass(frozen=True, slots=True)
class RolloutsView:
    """All rollouts, newest first."""

    as_of_ms: int
    rollouts: tuple[RolloutRow, ...]


@dataclass(frozen=True, slots=True)
class WaveRow:
    """One wave: its state, frozen size and counts."""

    number: int
    state: str
    """PENDING, OPEN, SOAKING, PASSED, FAILED."""
    devices: int
    committed: int
    bad: int
    unknown: int
    needed: int
    """Commits that the wave gate asks for."""
    soak_until_ms: int = NEVER


@dataclass(frozen=True, slots=True, eq=False)
class RolloutDetail:
    """One rollout with its waves and device tasks (columnar, n tasks)."""

    as_of_ms: int
    rollout: RolloutRow
    plan_hash: str
    waves: tuple[WaveRow, ...]
    devices: tuple[str, ...]
    sites: Words
    wave: Counts
    states: Words
    """QUEUED, WAIT_WINDOW, WAIT_COURIER, SENDING, STAGED, TRIAL, COMMITTED, REFUSED, ROLLED_BACK, ..."""
    reasons: tuple[str, ...]
    sent_bytes: npt.NDArray[np.int64]
    total_bytes: npt.NDArray[np.int64]
    changed_ms: Times

    def __len__(self) -> int:
        return len(self.devices)


@dataclass(frozen=True, slots=True, eq=False)
class AuditView:
    """A page of the audit chain, newest first (columnar, n entries)."""

    as_of_ms: int
    total: int
    """Entries in the whole chain."""
    head: str
    """Digest of the newest entry of the chain; empty for an empty chain."""
    positions: npt.NDArray[np.int64]
    at_ms: Times
    actors: Words
    actions: Words
    subjects: tuple[str, ...]
    reasons: tuple[str, ...]
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """The audit chain was computed anew: it ``holds`` up to ``entries`` with digest ``head``, or ``sentence`` says where not."""

    as_of_ms: int
    holds: bool
    entries: int
    head: str
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class LinkView:
    """How the console stands to the devices."""

    as_of_ms: int
    devices: int
    reached: int
    """Devices heard of within their staleness limit."""
    outbox: int
    """Commands decided but not yet carried out."""


@dataclass(frozen=True, slots=True)
class PlanView:
    """What an action would do, shown before anybody says yes."""

    operation: str
    title: str
    lines: tuple[tuple[str, str], ...]
    """Ordered (word, value) pairs: what changes, for whom, how much."""
    command: str
    """The same action as a shell command."""
    warnings: tuple[str, ...] = ()
    refusal: str = ""
    """Why this would be refused; empty where it may go ahead."""
    arguments: tuple[tuple[str, str | bool], ...] = field(default=())
    """Arguments the plan adds to the action, for example the plan hash that an approval covers."""


def spark_levels(hourly_score: npt.ArrayLike, limit: npt.ArrayLike) -> Levels:
    """Sparkline levels from hourly highest scores.

    ``hourly_score`` is float[n, 24] with NaN for hours without rows, ``limit`` float[n]. A level is comparable between
    pumps: 1-6 are sixths of the limit, 7 is at the limit, 8 is a sixth and more over it. Without a limit the row's
    own maximum takes the limit's place and no hour reaches 7.
    """
    scores = np.asarray(hourly_score, dtype=np.float32)
    limits = np.asarray(limit, dtype=np.float32).reshape(-1, 1)
    filled = np.where(np.isfinite(scores), scores, np.float32(0.0))
    own = filled.max(axis=1, keepdims=True, initial=0.0) * np.float32(1.0001)
    known = np.isfinite(limits) & (limits > 0)
    scale = np.where(known, limits, np.where(own > 0, own, np.float32(1.0)))
    levels = np.clip(np.floor(filled / scale * 6.0) + 1.0, 1.0, 8.0)
    return np.where(np.isfinite(scores), levels, 0.0).astype(np.uint8)


def site_nodes(view: FleetView) -> tuple[SiteNode, ...]:
    """Every site of the view rolled up, worst first, then by name."""
    sites, width = len(view.sites.words), len(HEALTH_WORDS) + 1
    placed = view.sites.codes >= 0
    codes = view.health[placed].astype(np.int64) % width
    flat = view.sites.codes[placed].astype(np.int64) * width + codes
    counts = np.bincount(flat, minlength=sites * width).reshape(sites, width)
    kinds: Sequence[str] = view.site_kinds if len(view.site_kinds) == sites else ("",) * sites
    nodes = []
    for i, site in enumerate(view.sites.words):
        per_health = tuple(int(count) for count in counts[i])
        nodes.append(SiteNode(site, kinds[i], worst_of(per_health), per_health))
    return tuple(sorted(nodes, key=lambda node: (-node.worst, node.site)))


def health_counts(view: FleetView) -> tuple[int, ...]:
    """Pumps per health code over the whole view; the last counts pumps without a fact."""
    width = len(HEALTH_WORDS) + 1
    return tuple(int(count) for count in np.bincount(view.health.astype(np.int64) % width, minlength=width))


def worst_of(counts: Sequence[int]) -> int:
    """The worst health that a count of pumps per health code holds."""
    return max((code for code in range(len(HEALTH_WORDS)) if counts[code]), default=NO_HEALTH)


def health_word(code: int) -> str:
    """The word for a health code, ``-`` where nothing is known."""
    return HEALTH_WORDS[code] if 0 <= code < len(HEALTH_WORDS) else "-"
