"""Quality gates that need more than the run: the champion, the inventory, and the device classes it is meant for.

They are judged when a version is registered and stored with it. They stand in no package, because the same rows must give the
same package whatever else the workspace holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.registry import GateVerdict, QualityGate
from pumpdeck_trainer.chance import binomial_tail, fewest_to_tell, rate_above
from pumpdeck_trainer.coverage import Regime
from pumpdeck_trainer.gates import MONTH_DAYS, NAMED
from pumpdeck_trainer.judging import Contest, Judged
from pumpdeck_trainer.spec import GateThresholds
from pumpdeck_trainer.trained import TrainedPump

PASS, WARN, REFUSE = GateVerdict.PASS, GateVerdict.WARN, GateVerdict.REFUSE
SEASONS = ("winter", "spring", "summer", "autumn")
SLICES = ("site", "maker", "pump model", "criticality")


@dataclass(frozen=True, slots=True)
class PumpPlace:
    """What the inventory says of a pump, as far as slices and coverage ask. latitude: of its site; None: not known."""

    site: str
    maker: str
    model: str
    criticality: int
    latitude: float | None

    def slices(self) -> tuple[str, ...]:
        """The slices this pump belongs to, `<what> <which>`."""
        values = (self.site, self.maker, self.model, str(self.criticality))
        return tuple(f"{what} {value}" for what, value in zip(SLICES, values, strict=True) if value)


@dataclass(frozen=True, slots=True)
class SliceRate:
    """One slice: pumps, pump days, false alarms of both models in them; `other` is the champion or, without one, the rest."""

    name: str
    pumps: int
    days: float
    alarms: int
    other: int
    other_days: float


def champion_gate(pumps: Sequence[TrainedPump], number: int, thresholds: GateThresholds) -> QualityGate:
    """Candidate against champion `number` on the same rows: false alarms by their margin, labelled faults one by one.

    Refuses when chance alone would show so much less often than `chance`; so few alarms that nothing could speak
    against the candidate are said and pass.
    """
    held = [(one.judged, one.judged.contest) for one in pumps if one.judged.contest is not None]
    if not held:
        return QualityGate("champion", WARN, f"no pump could be compared with the champion v{number}")
    mine, theirs, days, seen = _sums(contest for _, contest in held)
    ratio = 1 + thresholds.champion_margin
    lost, won = _faults_apart(held)
    chance = rate_above(mine, theirs, ratio)
    enough = fewest_to_tell(ratio, thresholds.chance)
    too_few = mine + theirs < enough
    verdict = PASS
    if lost > won or (mine > ratio * theirs and not too_few):
        verdict = WARN
    if min(binomial_tail(lost, lost + won, 0.5), chance) < thresholds.chance:
        verdict = REFUSE
    months = max(days / MONTH_DAYS, 1e-9)
    words = [
        f"against v{number} on {len(held)} of {len(pumps)} pumps and {days:.0f} pump days: {mine} false alarms against {theirs}",
        f"labelled faults met by one alone: {won} by this, {lost} by the champion",
    ]
    if too_few:
        words.append(f"too few alarms to tell, {enough} are needed")
    if seen > 0:
        words.append(f"the champion has learned from {100 * seen / max(days, 1e-9):.0f} % of these days")
    if any(judged.holdout_days == 0 for judged, _ in held):
        words.append("nothing was held out: this model has learned from all of them")
    figure = (mine - theirs) / months
    by = thresholds.of("chance", "champion_")
    return QualityGate("champion", verdict, "; ".join(words), round(figure, 6), thresholds.champion_margin, by)


def _sums(contests: Iterable[Contest]) -> tuple[int, int, float, float]:
    rows = [(one.candidate_alarms, one.champion_alarms, one.days, one.seen_days) for one in contests]
    mine, theirs, days, seen = np.array(rows, np.float64).reshape(-1, 4).sum(axis=0).tolist()
    return int(mine), int(theirs), days, seen


def _faults_apart(held: Iterable[tuple[Judged, Contest]]) -> tuple[int, int]:
    """Labelled faults that the champion alone met, and that the candidate alone met."""
    lost = won = 0
    for judged, contest in held:
        for mine, theirs in zip(judged.hits, contest.hits, strict=True):
            lost += theirs and not mine
            won += mine and not theirs
    return lost, won


def slice_rates(pumps: Sequence[TrainedPump], places: Mapping[str, PumpPlace]) -> tuple[SliceRate, ...]:
    """Every slice of two pumps or more but not all: against the champion on the same rows, without one against the rest."""
    has_champion = any(one.judged.contest is not None for one in pumps)
    known = [one for one in pumps if one.pump in places and (one.judged.contest is not None or not has_champion)]
    figures = np.array([_figures(one) for one in known], np.float64).reshape(-1, 3)
    groups: dict[str, list[int]] = {}
    for place, one in enumerate(known):
        for name in places[one.pump].slices():
            groups.setdefault(name, []).append(place)
    whole = figures.sum(axis=0)
    found = []
    for name, members in sorted(groups.items()):
        if not 2 <= len(members) < len(known):
            continue
        days, mine, theirs = figures[members].sum(axis=0).tolist()
        rest = (theirs, days) if has_champion else ((whole[1] - mine), float(whole[0] - days))
        found.append(SliceRate(name, len(members), days, int(mine), int(rest[0]), rest[1]))
    return tuple(found)


def _figures(pump: TrainedPump) -> tuple[float, int, int]:
    contest = pump.judged.contest
    if contest is None:
        return pump.judged.days, len(pump.judged.alarms), 0
    return contest.days, contest.candidate_alarms, contest.champion_alarms


def slice_gate(rates: Sequence[SliceRate], *, has_champion: bool, thresholds: GateThresholds) -> QualityGate:
    """No slice worse than the champion by more than the margin; without a champion, than the rest of the pumps (warns only).

    The limit of chance is divided by the number of slices, so that many slices do not find something among them by chance
    alone; slices too small to show anything are counted.
    """
    ratio = 1 + thresholds.slice_margin
    tested = [one for one in rates if one.other_days > 0]
    if not tested:
        return QualityGate("slices", PASS, "no slice holds two pumps or more and not all of them")
    too_small = [one for one in tested if not _can_tell(one, ratio, thresholds.chance)]
    chance = {one.name: _above(one, ratio) for one in tested}
    limit = thresholds.chance / max(len(tested) - len(too_small), 1)
    worse = sorted((one for one in tested if chance[one.name] < limit), key=lambda one: chance[one.name])
    verdict = PASS if not worse else REFUSE if has_champion else WARN
    against = "the champion" if has_champion else "the other pumps"
    named = "; ".join(
        f"{one.name}: {_rate(one.alarms, one.days)} against {_rate(one.other, one.other_days)} a pump and month"
        for one in worse[:NAMED]
    )
    words = f"{len(worse)} of {len(tested)} slices worse than {against} by more than {thresholds.slice_margin:.0%}"
    reason = f"{words}{f' ({named})' if named else ''}; {len(too_small)} too small to tell"
    figure = max((_excess(one) for one in tested if one not in too_small), default=0.0)
    return QualityGate("slices", verdict, reason, round(figure, 6), thresholds.slice_margin, thresholds.of("chance", "slice_"))


def _above(one: SliceRate, ratio: float) -> float:
    weight = ratio * one.days / one.other_days
    return binomial_tail(one.alarms, one.alarms + one.other, weight / (1 + weight))


def _can_tell(one: SliceRate, ratio: float, chance: float) -> bool:
    weight = ratio * one.days / one.other_days
    together = one.alarms + one.other
    return together > 0 and (weight / (1 + weight)) ** together < chance


def _excess(one: SliceRate) -> float:
    """By what part the slice's rate passes the other one; the other one counts at least one alarm."""
    return (one.alarms / one.days) / (max(one.other, 1) / one.other_days) - 1 if one.days else 0.0


def _rate(alarms: int, days: float) -> str:
    return f"{alarms * MONTH_DAYS / days:.2g}" if days else "-"


@dataclass(frozen=True, slots=True)
class History:
    """Of `pumps` with rows older than the data, those that then ran, in one hour of twenty or more, outside what it holds."""

    pumps: int = 0
    beyond: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the data holds against the pumps it is meant for. Lists of names; seasons by the site's hemisphere.

    sites, makers: how many the pumps it is meant for have.
    """

    pumps: int
    meant_for: int
    lacking_sites: tuple[str, ...]
    lacking_makers: tuple[str, ...]
    seasons: tuple[str, ...]
    thin_regimes: tuple[Regime, ...]
    regimes: int
    history: History
    sites: int = 0
    makers: int = 0


NO_HISTORY = History()


def coverage_of(
    pumps: Sequence[TrainedPump],
    meant_for: Mapping[str, PumpPlace],
    span_ms: tuple[int, int],
    regimes: tuple[Sequence[Regime], float],
    history: History = NO_HISTORY,
) -> Coverage:
    """`regimes`: those found, and the least share of rows that one must hold."""
    held = [meant_for[one.pump] for one in pumps if one.pump in meant_for]
    found, least = regimes
    return Coverage(
        pumps=len(held),
        meant_for=len(meant_for),
        lacking_sites=_lacking((one.site for one in meant_for.values()), (one.site for one in held)),
        lacking_makers=_lacking((one.maker for one in meant_for.values()), (one.maker for one in held)),
        seasons=tuple(
            sorted({name for one in held for name in seasons_of(span_ms, one.latitude)}, key=SEASONS.index)
        ),
        thin_regimes=tuple(one for one in found if one.share < least),
        regimes=len(found),
        history=history,
        sites=len({one.site for one in meant_for.values() if one.site}),
        makers=len({one.maker for one in meant_for.values() if one.maker}),
    )


def _lacking(wanted: Iterable[str], held: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({one for one in wanted if one} - set(held)))


def seasons_of(span_ms: tuple[int, int], latitude: float | None) -> set[str]:
    """Seasons of which the span holds at least a week; an unknown latitude counts as northern."""
    month_of = np.arange(span_ms[0] // DAY_MS, span_ms[1] // DAY_MS + 1).astype("datetime64[D]").astype("datetime64[M]")
    season = (month_of.astype(np.int64) % 12 + 1) % 12 // 3
    if latitude is not None and latitude < 0:
        season = (season + 2) % 4
    names, days = np.unique(season, return_counts=True)
    least = min(7, int(days.max(initial=0)))
    return {SEASONS[name] for name, count in zip(names.tolist(), days.tolist(), strict=True) if count >= least}


def coverage_gate(found: Coverage, thresholds: GateThresholds) -> QualityGate:
    """Sites, makers, seasons and regimes that the data holds and lacks."""
    share = found.pumps / found.meant_for if found.meant_for else 0.0
    few_seasons = len(found.seasons) < thresholds.coverage_seasons_warn
    past = found.history
    many_beyond = bool(past.pumps) and len(past.beyond) / past.pumps > thresholds.coverage_history_warn
    few_sites = _held(found.lacking_sites, found.sites) < thresholds.coverage_sites_warn
    few_makers = _held(found.lacking_makers, found.makers) < thresholds.coverage_makers_warn
    lacks = few_sites or few_makers or found.thin_regimes or few_seasons or many_beyond
    verdict = WARN if lacks or share < thresholds.coverage_pumps_warn else PASS
    if share < thresholds.coverage_pumps_refuse:
        verdict = REFUSE
    missing = [name for name in SEASONS if name not in found.seasons]
    words = [
        f"{found.pumps} of {found.meant_for} pumps of the type, {found.sites - len(found.lacking_sites)} of {found.sites} sites, "
        f"{found.makers - len(found.lacking_makers)} of {found.makers} makers",
        f"seasons held: {', '.join(found.seasons) or 'none'}, lacking: {', '.join(missing) or 'none'}",
    ]
    for what, names in (("sites", found.lacking_sites), ("makers", found.lacking_makers)):
        if names:
            words.append(f"{what} without any data: {_some(names)}")
    thin = [f"{one.channel} {one.low:g}-{one.high:g} {one.unit} ({one.share:.1%})" for one in found.thin_regimes]
    if thin:
        words.append(f"hardly any rows at {_some(thin)}")
    if past.beyond:
        words.append(f"{len(past.beyond)} of {past.pumps} pumps used to run outside of it: {_some(past.beyond)}")
    if not found.regimes:
        words.append("no operating channel that varies, so regimes are not judged")
    by = thresholds.of("coverage_")
    return QualityGate("coverage", verdict, "; ".join(words), round(share, 6), thresholds.coverage_pumps_warn, by)


def _held(lacking: Sequence[str], count: int) -> float:
    return 1 - len(lacking) / count if count else 1.0


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
