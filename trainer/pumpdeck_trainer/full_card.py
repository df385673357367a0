"""The full model card: what the run found, with intervals, slices and failure cases, and the items of Annex IV.

It stays in the registry; the package carries the short one (card.py). Filled from the run, never by hand: what a run cannot
know is said to be missing, with the place where the provider writes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS, format_ms
from pumpdeck_fleet.core.registry import QualityGate
from pumpdeck_trainer.annex import annex_lines, stated
from pumpdeck_trainer.card import BLIND_SPOTS, limits_text, origin_text, purpose_text, slow_faults
from pumpdeck_trainer.chance import binomial_interval, poisson_interval
from pumpdeck_trainer.fleet_gates import Coverage, SliceRate
from pumpdeck_trainer.gates import MONTH_DAYS, NAMED
from pumpdeck_trainer.search import search_text
from pumpdeck_trainer.source import MAINTENANCE
from pumpdeck_trainer.supervised import HeldOut
from pumpdeck_trainer.trained import TrainedModel, TrainedPump

DRAWS = 2000
FEWEST_DAYS = 7


@dataclass(frozen=True, eq=False)
class CardFacts:
    """The run and what was judged at registration. champion: number of the champion then, 0 for none."""

    trained: TrainedModel
    gates: Sequence[QualityGate]
    slices: Sequence[SliceRate]
    coverage: Coverage
    champion: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval and how that was found."""

    name: str
    value: float
    low: float
    high: float
    how: str


def write_full_card(facts: CardFacts) -> bytes:
    """The card as Markdown, UTF-8; the same run, gates and inventory give the same bytes."""
    trained = facts.trained
    spec = trained.spec
    span = f"{format_ms(trained.data_start_ms)} to {format_ms(trained.data_end_ms)}"
    parts = [
        f"# {trained.model}: model card\n\nContent {trained.content_digest}, "
        f"{'imported, limits set' if spec.foreign else 'learned'} from rows of {span}.\n",
        origin_text(spec.foreign, trained.metrics) if spec.foreign else "",
        f"## Intended use\n\n{stated(spec, 'intended_use')}\n\nNot for: {stated(spec, 'not_for')}\n\n{purpose_text(spec)}",
        _data(facts, span),
        _figures(trained),
        _slices(facts),
        limits_text([one.limit for one in trained.pumps], spec),
        _failures(facts),
        _search(trained),
        _gates(facts.gates),
        _lineage(trained, facts.champion),
        "## Technical documentation (Regulation (EU) 2024/1689, Annex IV)\n\n" + "\n".join(annex_lines(trained, span)) + "\n",
    ]
    return "\n".join(part for part in parts if part).encode("utf-8")


def intervals_of(trained: TrainedModel) -> tuple[Interval, ...]:
    """False-alarm rates and the share of labelled faults found, with exact intervals; rates also by a bootstrap over days."""
    judged = [one.judged for one in trained.pumps]
    found = []
    seen = "its pump left out of learning" if trained.held_out else "rows it learned from"
    for name, alarms, days in (
        (
            f"false alarms a pump and month, {seen}",
            sum(len(one.alarms) for one in judged),
            sum(one.days for one in judged),
        ),
        (
            "false alarms a pump and month, held-out rows",
            sum(one.holdout_alarms for one in judged),
            sum(one.holdout_days for one in judged),
        ),
    ):
        if days:
            low, high = (mean * MONTH_DAYS / days for mean in poisson_interval(alarms))
            found.append(Interval(name, alarms * MONTH_DAYS / days, low, high, "exact Poisson"))
    daily = _by_day(trained)
    if daily.sum() and len(daily) >= FEWEST_DAYS:
        rng = np.random.default_rng(trained.spec.seed)
        drawn = daily[rng.integers(0, len(daily), (DRAWS, len(daily)))].mean(axis=1) * MONTH_DAYS / len(judged)
        low, high = (float(edge) for edge in np.quantile(drawn, (0.025, 0.975)))
        value = float(daily.mean()) * MONTH_DAYS / len(judged)
        found.append(Interval("the same, drawn by days", value, low, high, f"bootstrap over {len(daily)} days"))
    faults, met = sum(one.faults for one in judged), sum(one.faults_found for one in judged)
    if faults:
        found.append(
            Interval("labelled faults met by an alarm", met / faults, *binomial_interval(met, faults), "exact binomial")
        )
    if held := trained.held_out:
        told = binomial_interval(held.found, held.faults)
        found.append(Interval("faults told on pumps never seen", held.found / held.faults, *told, "exact binomial"))
    return tuple(found)


def _by_day(trained: TrainedModel) -> np.ndarray:
    """False alarms raised on each UTC day, all pumps together: alarms of one day may have one cause."""
    first, last = trained.data_start_ms // DAY_MS, trained.data_end_ms // DAY_MS
    raised = [raised // DAY_MS - first for one in trained.pumps for raised, _ in one.judged.alarms]
    inside = [day for day in raised if 0 <= day <= last - first]
    return np.bincount(np.array(inside, np.int64), minlength=int(last - first) + 1)


def _data(facts: CardFacts, span: str) -> str:
    trained, coverage = facts.trained, facts.coverage
    rows, used = sum(one.rows for one in trained.pumps), sum(one.used for one in trained.pumps)
    excluded, flags = Counter[str](), Counter[str]()
    for one in trained.pumps:
        excluded.update(one.excluded)
        flags.update(one.flags)
    left_out = _list(f"{name}: {why}" for name, why in sorted(trained.left_out.items())) or "none"
    lines = [
        f"- window: {span}; {len(trained.pumps)} pumps of {coverage.meant_for} that the model is meant for",
        f"- rows: {used} of {rows} used as healthy; not: {_counts(excluded)}{_taught(trained)}",
        f"- maintenance: {_maintenance(trained.pumps)}",
        f"- sensor checks on all rows: {_counts(flags)}",
        f"- pumps left out: {left_out}",
        f"- seasons: {', '.join(coverage.seasons) or 'none'}",
        f"- sites without data: {_list(coverage.lacking_sites) or 'none'}; makers: {_list(coverage.lacking_makers) or 'none'}",
    ]
    table = ""
    if trained.regimes:
        table = "\n| channel | range | share of rows | pumps |\n|---|---|---|---|\n" + "".join(
            f"| {one.channel} | {one.low:g} to {one.high:g} {one.unit} | {one.share:.1%} | {one.pumps} |\n"
            for one in trained.regimes
        )
    return "## Data and exclusions\n\n" + "\n".join(lines) + "\n" + table


def _maintenance(pumps: Sequence[TrainedPump]) -> str:
    """What the inventory calls maintenance is learned from and judged by no one."""
    held = {one.pump: one.excluded[MAINTENANCE] for one in pumps if one.excluded.get(MAINTENANCE)}
    if not held:
        return "no row lies in maintenance, as far as the inventory says"
    return f"{sum(held.values())} rows of {_list(sorted(held))} lie in maintenance and were neither learned from nor judged"


def _figures(trained: TrainedModel) -> str:
    rows = "".join(
        f"| {one.name} | {one.value:.3g} | {one.low:.3g} to {one.high:.3g} | {one.how} |\n" for one in intervals_of(trained)
    )
    return (
        "## Figures with 95 % intervals\n\n| figure | value | interval | how |\n|---|---|---|---|\n" + rows +
        "\nExact intervals take alarms as independent. Where one cause raises alarms on several pumps of a day they are not, and "
        "the bootstrap over days is wider: trust the wider one.\n" + _unseen(trained.held_out)
    )  # fmt: skip


def _taught(trained: TrainedModel) -> str:
    held = trained.held_out
    return f"; {held.faults} labelled faults of {held.fault_pumps} pumps are learned from as faults" if held else ""


def _unseen(held: HeldOut | None) -> str:
    """How a supervised type does on pumps left out of learning in turn, by kind of fault."""
    if held is None:
        return ""
    kinds = "".join(f"| {name} | {one.faults} | {one.found} |\n" for name, one in sorted(held.kinds.items()))
    bins = "".join(f"| {one.told:.3f} | {one.found:.3f} | {one.share:.2%} |\n" for one in held.bins)
    return (
        f"\n### On pumps never seen\n\nEach pump judged by a classifier that was fitted without it ({held.folds} fits, each from "
        f"at most {held.healthy_rows_a_fit} of {held.healthy_rows} healthy rows in the sample). AUC "
        f"{held.auc:.3f}; Brier score {held.brier:.3g}, where always telling {held.prevalence:.3g} gives "
        f"{held.brier_constant:.3g}; {held.false_share:.2%} of healthy rows told as faulty.\n\n"
        f"| kind of fault | labelled | told |\n|---|---|---|\n{kinds}\n"
        f"| probability told | share found faulty | share of rows |\n|---|---|---|\n{bins}"
    )


def _slices(facts: CardFacts) -> str:
    other = f"champion v{facts.champion}" if any(p.judged.contest for p in facts.trained.pumps) else "other pumps"
    if not facts.slices:
        return "## Slices\n\nNo slice holds two pumps or more and not all of them.\n"
    rows = []
    for one in facts.slices:
        low, high = (mean * MONTH_DAYS / one.days if one.days else 0.0 for mean in poisson_interval(one.alarms))
        mine = one.alarms * MONTH_DAYS / one.days if one.days else 0.0
        theirs = one.other * MONTH_DAYS / one.other_days if one.other_days else 0.0
        rows.append(f"| {one.name} | {one.pumps} | {mine:.2g} | {low:.2g} to {high:.2g} | {theirs:.2g} |")
    head = f"| slice | pumps | false alarms a pump and month | 95 % interval | {other} |\n|---|---|---|---|---|\n"
    held = "rows by which both are judged, held-out ones where there are any" if facts.champion else "the whole window"
    said = f"False alarms on {held}. Labelled faults are too few to be told by slice; kinds and misses stand below.\n\n"
    return "## Slices\n\n" + said + head + "\n".join(rows) + "\n"


def _failures(facts: CardFacts) -> str:
    trained = facts.trained
    sought, met = Counter[str](), Counter[str]()
    for one in trained.pumps:
        for kind, hit in zip(one.judged.kinds, one.judged.hits, strict=True):
            sought[kind or "unnamed"] += 1
            met[kind or "unnamed"] += hit
    missed = [f"- missed {sought[kind] - met[kind]} of {sought[kind]} faults of kind `{kind}`" for kind in sorted(sought)]
    lines = [line for line, kind in zip(missed, sorted(sought), strict=True) if met[kind] < sought[kind]]
    if not sought:
        lines.append("- no labelled fault in the data: how many faults it finds is not known")
    noisy = _worst(trained.pumps)
    if noisy:
        lines.append(f"- most false alarms: {_list(f'{one.pump} ({len(one.judged.alarms)})' for one in noisy)}")
    provisional = [one.pump for one in trained.pumps if one.limit.provisional]
    if provisional:
        lines.append(f"- the pump type's limit instead of their own: {_list(provisional)}")
    thin = [f"{one.channel} {one.low:g} to {one.high:g} {one.unit}" for one in facts.coverage.thin_regimes]
    if thin:
        lines.append(f"- hardly any rows to learn from at {_list(thin)}")
    past = facts.coverage.history
    if past.beyond:
        lines.append(f"- {len(past.beyond)} of {past.pumps} pumps used to run outside of the data: {_list(past.beyond)}")
    lines.append("- a fault that moves no voting channel, or moves it by less than the limit, is not seen")
    if trained.spec.foreign is None:
        lines.append("- a fault slower than the adaptive baseline is first seen as drift")
        slow = ""
    else:
        slow = slow_faults(trained.spec)
    return "## Known failure cases\n\n" + "\n".join(lines) + "\n" + slow + BLIND_SPOTS.get(trained.spec.model_type, "")


def _worst(pumps: Sequence[TrainedPump]) -> list[TrainedPump]:
    return sorted((one for one in pumps if len(one.judged.alarms) > 1), key=lambda one: (-len(one.judged.alarms), one.pump))


def _gates(gates: Sequence[QualityGate]) -> str:
    rows = "".join(f"| {one.name} | {one.verdict.value} | {one.reason.replace('|', '/')} |\n" for one in gates)
    return "## Quality gates at registration\n\n| gate | verdict | why |\n|---|---|---|\n" + rows


def _search(trained: TrainedModel) -> str:
    if trained.search is None:
        return ""
    held = trained.search
    rows = "".join(
        f"| {one.point.model_type} | {one.point.window_s:g} | {one.point.persistence_s:g} | {one.point.tau_s:g} | "
        f"{one.point.deadband:g} | {one.false_alarms} | {one.faults_met} of {one.faults} | {one.steps_met} of {one.steps} | "
        f"{'chosen' if place == held.chosen else 'runner-up' if place == held.runner_up else ''} |\n"
        for place, one in enumerate(held.results)
    )
    head = "| type | window s | persistence s | tau s | deadband | false alarms | faults met | steps met | |\n"
    return f"## Search\n\n{search_text(held)}.\n\n{head}|---|---|---|---|---|---|---|---|---|\n{rows}"


def _lineage(trained: TrainedModel, champion: int) -> str:
    lineage = trained.lineage
    commit = f"{lineage.git_commit}{' with changes' if lineage.git_dirty else ''}" if lineage.git_commit else "not in git"
    rows = {
        "snapshot": lineage.snapshot_digest,
        "pipeline": lineage.pipeline_digest,
        "code": lineage.code_digest,
        "packages": lineage.lock_digest,
        "seed": str(lineage.seed),
        "workspace": commit,
        "champion then": f"v{champion}" if champion else "none",
    }
    return "## Lineage\n\n" + "".join(f"- {name}: {value}\n" for name, value in rows.items())


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items())) or "nothing"


def _list(names: Iterable[str]) -> str:
    held = list(names)
    return ", ".join(held[:NAMED]) + (f" and {len(held) - NAMED} more" if len(held) > NAMED else "")
