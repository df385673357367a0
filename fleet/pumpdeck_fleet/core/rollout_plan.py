"""What a rollout will do, frozen before anybody approves it: packages by device, waves, policy, exclusions, one hash over all."""

from __future__ import annotations

import enum
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.receipts import Terms

_WAVE_SIZE = re.compile(r"(?P<count>[1-9][0-9]{0,5})|(?P<share>[1-9][0-9]?|100)%|rest")


class RolloutKind(enum.StrEnum):
    """Whether a rollout brings a new version or takes an earlier rollout back."""

    INSTALL = "install"
    REVERT = "revert"


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """The rules of one rollout, frozen with its plan. Shares are per cent of a wave's planned devices.

    `waves`: `"3"` is a wave of three devices, `"25%"` goes on until a quarter of the rollout's devices is reached, `"rest"` takes
    all that are left. `alarmed_pct` and `drifting_pct` bound the pumps of a wave that alarm or drift during its soak; 100 never
    halts (a day against a month of reference drifts often, and until that is told from a season it must not stop a rollout).
    `keep_windows` false sends outside the sites' maintenance windows too.
    """

    waves: tuple[str, ...] = ("1", "5%", "25%", "rest")
    committed_pct: float = 95.0
    bad_pct: float = 2.0
    unknown_pct: float = 5.0
    soak_s: float = 86_400.0
    deadline_s: float = 2 * 86_400.0
    courier_deadline_s: float = 30 * 86_400.0
    approvals: int = 1
    retry_after_s: float = 30.0
    retry_ceiling_s: float = 3_600.0
    latency_p99_us: float = 50_000.0
    largest_difference: float = 1e-3
    alarmed_pct: float = 50.0
    drifting_pct: float = 100.0
    keep_windows: bool = True

    def __post_init__(self) -> None:
        for size in self.waves:
            if _WAVE_SIZE.fullmatch(size) is None:
                raise ValueError(f"wave {size!r} is neither a number, a share such as 25%, nor rest")
        if not self.waves or "rest" in self.waves[:-1]:
            raise ValueError("waves need at least one size, and rest only at the end")
        shares = (self.committed_pct, self.bad_pct, self.unknown_pct, self.alarmed_pct, self.drifting_pct)
        if not all(0 <= share <= 100 for share in shares) or self.committed_pct == 0:
            raise ValueError("shares are per cent from 0 to 100, and committed_pct is more than 0")
        spans = (self.soak_s, self.retry_after_s)
        if min(spans) < 0 or min(self.deadline_s, self.courier_deadline_s) <= 0 or self.approvals < 1:
            raise ValueError("spans are not negative, deadlines are positive and approvals at least 1")

    def deadline_ms(self, link: Link) -> int:
        """How long a device of that link may stay silent once its wave is open."""
        return round(1000 * (self.courier_deadline_s if link is Link.COURIER else self.deadline_s))

    def retry_ms(self, attempts: int) -> int:
        """How long to wait after that many failed attempts: doubles from `retry_after_s` up to `retry_ceiling_s`."""
        doubled = self.retry_after_s * 2.0 ** min(max(attempts, 1) - 1, 32)
        return round(1000 * min(doubled, max(self.retry_ceiling_s, self.retry_after_s)))


@dataclass(frozen=True, slots=True)
class VersionRef:
    """One model version that the rollout brings. `number` is how this workspace calls it."""

    model: str
    number: int
    content_digest: str


@dataclass(frozen=True, slots=True)
class PlanDevice:
    """What planning must know of one device. `groups` are its pumps' redundancy groups as `<site>/<group>`.

    `criticality` is that of its most critical pump (1 is the highest). `exclusion` is why it cannot take part, or empty.
    """

    device: str
    site: str
    link: Link
    package_sha256: str
    package_bytes: int
    pumps: int
    criticality: int = 3
    groups: tuple[str, ...] = ()
    active_sha256: str = ""
    exclusion: str = ""


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One line of the map from device to package. `wave` counts from 0."""

    device: str
    site: str
    link: Link
    wave: int
    package_sha256: str
    package_bytes: int
    pumps: int
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A device that was asked for and is left out, with the reason."""

    device: str
    reason: str


@dataclass(frozen=True)
class RolloutPlan:
    """All that an approval covers. `wave_sizes` are the frozen N of each wave's gate, `terms` stand in each assignment."""

    id: str
    kind: RolloutKind
    versions: tuple[VersionRef, ...]
    tasks: tuple[PlannedTask, ...]
    wave_sizes: tuple[int, ...]
    excluded: tuple[Exclusion, ...]
    policy: RolloutPolicy
    created_ms: int
    reverts: str = ""
    terms: Terms | None = None

    def __post_init__(self) -> None:
        if sum(self.wave_sizes) != len(self.tasks) or len(self.by_device) != len(self.tasks):
            raise ValueError("every device stands once, in one wave")
        if any(len(self.waves[wave]) != size for wave, size in enumerate(self.wave_sizes)):
            raise ValueError("a wave's size is the number of its devices")

    @cached_property
    def digest(self) -> str:
        """The plan hash: SHA-256 of the whole plan's canonical JSON."""
        return canonical.digest(canonical.encode(self))

    @cached_property
    def sites(self) -> frozenset[str]:
        """The sites whose people it concerns."""
        return frozenset(task.site for task in self.tasks)

    @cached_property
    def by_device(self) -> Mapping[str, PlannedTask]:
        return {task.device: task for task in self.tasks}

    @cached_property
    def waves(self) -> tuple[tuple[str, ...], ...]:
        """The devices of each wave, in the order of the plan."""
        found: list[list[str]] = [[] for _ in self.wave_sizes]
        for task in self.tasks:
            found[task.wave].append(task.device)
        return tuple(tuple(devices) for devices in found)

    @cached_property
    def bytes_total(self) -> int:
        return sum(task.package_bytes for task in self.tasks)

    def task_id(self, device: str) -> str:
        return task_id(self.id, device)


def task_id(rollout_id: str, device: str) -> str:
    """The name of a device's task: the same for the same rollout and device, safe as a file name."""
    return "t-" + canonical.digest(f"{rollout_id}/{device}".encode())[:24]


def plan_rollout(
    rollout_id: str,
    versions: Sequence[VersionRef],
    devices: Sequence[PlanDevice],
    policy: RolloutPolicy,
    *,
    created_ms: int,
    reverts: str = "",
) -> RolloutPlan:
    """The plan for these devices: the least critical first, sites taken in turn, couriers last.

    Raises:
        RefusedError: no device is left, or a device stands twice.
    """
    if len({entry.device for entry in devices}) != len(devices):
        raise RefusedError("a device stands twice in the plan", rollout_id)
    excluded = [Exclusion(entry.device, reason) for entry in devices if (reason := _why_excluded(entry))]
    left_out = {entry.device for entry in excluded}
    chosen = _in_order([entry for entry in devices if entry.device not in left_out])
    if not chosen:
        why = "; ".join(sorted({entry.reason for entry in excluded})[:3]) or "the query selects none"
        raise RefusedError("no device can take part", rollout_id, found=why)
    sizes = wave_sizes(len(chosen), policy.waves)
    tasks = []
    for wave, size in enumerate(sizes):
        begin = sum(sizes[:wave])
        tasks += [_planned(entry, wave) for entry in chosen[begin : begin + size]]
    return RolloutPlan(
        id=rollout_id,
        kind=RolloutKind.REVERT if reverts else RolloutKind.INSTALL,
        versions=tuple(sorted(versions, key=lambda version: version.model)),
        tasks=tuple(tasks),
        wave_sizes=sizes,
        excluded=tuple(sorted(excluded, key=lambda entry: entry.device)),
        policy=policy,
        created_ms=created_ms,
        reverts=reverts,
    )


def wave_sizes(devices: int, waves: Sequence[str]) -> tuple[int, ...]:
    """How many devices each wave holds; empty waves fall away, what is left over joins a last wave."""
    sizes: list[int] = []
    done = 0
    for text in waves:
        if text == "rest":
            size = devices - done
        elif text.endswith("%"):
            size = math.ceil(devices * int(text[:-1]) / 100) - done
        else:
            size = int(text)
        size = min(max(size, 0), devices - done)
        if size:
            sizes.append(size)
            done += size
    if done < devices:
        sizes.append(devices - done)
    return tuple(sizes)


def _why_excluded(entry: PlanDevice) -> str:
    if entry.exclusion:
        return entry.exclusion
    if not entry.package_sha256:
        return "there is no package for it"
    if entry.active_sha256 == entry.package_sha256:
        return "it runs this package already"
    return ""


def _in_order(devices: Sequence[PlanDevice]) -> list[PlanDevice]:
    # A bad model should meet the pumps that matter least, and not one site's pumps only.
    turns: Counter[tuple[bool, int, str]] = Counter()
    ranked = []
    for entry in sorted(devices, key=lambda entry: entry.device):
        is_courier = entry.link is Link.COURIER
        turns[is_courier, entry.criticality, entry.site] += 1
        turn = turns[is_courier, entry.criticality, entry.site]
        ranked.append((is_courier, -entry.criticality, turn, entry.site, entry))
    return [item[-1] for item in sorted(ranked, key=lambda item: item[:-1])]


def _planned(entry: PlanDevice, wave: int) -> PlannedTask:
    return PlannedTask(
        entry.device,
        entry.site,
        entry.link,
        wave,
        entry.package_sha256,
        entry.package_bytes,
        entry.pumps,
        tuple(sorted(set(entry.groups))),
    )
