"""Two versions of a model beside each other, as lines of a page."""

from __future__ import annotations

import math

from pumpdeck_console.operations.comparing import Comparison
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.merging import version_name

from .cells import Parts, fit, number
from .texts import heading, pairs

_MOST = 200


def compare_lines(found: Comparison, width: int) -> list[Parts]:
    """Figures, slices, and the pumps whose alarms differ, most of all first."""
    old, new = f"v{version_name(found.before)}", f"v{version_name(found.after)}"
    appear, vanish = sum(one.appear for one in found.pumps), sum(one.vanish for one in found.pumps)
    facts = [
        ("learned from", "the same snapshot" if found.same_snapshot else "different snapshots"),
        ("common time", f"{_day(found.start_ms)} to {_day(found.end_ms)}"),
        ("common pumps", f"{len(found.pumps):,}; only {old} {len(found.only_before):,}, only {new} {len(found.only_after):,}"),
        ("alarms", f"{appear:,} appear, {vanish:,} vanish with {new}"),
    ]
    lines: list[Parts] = [[(f"  {found.model}: {old} against {new}", "panel_title")], [], *pairs(facts, width)]
    lines += _figures(found, old, new, width)
    lines += _slices(found, old, new, width)
    return lines + _pumps(found, old, new, width)


def _head(label: str, names: tuple[str, ...], width: int) -> Parts:
    return _row(label, tuple((name, "panel_dim") for name in names), width)


def _row(label: str, cells: tuple[tuple[str, str], ...], width: int) -> Parts:
    return [(fit(f" {label}", width - 12 * len(cells) - 2), "panel"), *((fit(text, 12, "right"), style) for text, style in cells)]


def _figures(found: Comparison, old: str, new: str, width: int) -> list[Parts]:
    lines = [*heading("figures"), _head("", (old, new, "change"), width)]
    for one in found.figures:
        change = _change(one.before, one.after)
        style = "panel_dim" if change == "=" else "panel_key"
        cells = ((_figure(one.before), "panel"), (_figure(one.after), "panel"), (change, style))
        lines.append(_row(one.name.replace("_", " "), cells, width))
    return lines


def _slices(found: Comparison, old: str, new: str, width: int) -> list[Parts]:
    if not found.slices:
        return []
    lines = [*heading("false alarms a pump and 30 days, by slice"), _head("", ("pumps", old, new, "change"), width)]
    for one in sorted(found.slices, key=lambda row: row.before - row.after)[:_MOST]:
        worse = one.after > one.before
        style = "panel_alarm" if worse else "panel_ok" if one.after < one.before else "panel_dim"
        sign = "worse" if worse else "better" if one.after < one.before else "="
        cells = ((f"{one.pumps:,}", "panel"), (number(one.before), "panel"), (number(one.after), "panel"), (sign, style))
        lines.append(_row(one.slice, cells, width))
    return lines


def _pumps(found: Comparison, old: str, new: str, width: int) -> list[Parts]:
    moved = sorted((one for one in found.pumps if one.appear or one.vanish), key=lambda one: -(one.appear + one.vanish))
    lines = [*heading("pumps whose alarms differ"), _head("", (f"limit {old}", f"limit {new}", "appear", "vanish"), width)]
    if not moved:
        return [*lines, [(" none: both raise the same alarms", "panel")]]
    for one in moved[:_MOST]:
        cells = (
            (number(one.limit_before), "panel"),
            (number(one.limit_after), "panel"),
            (str(one.appear), "panel_drift" if one.appear else "panel_dim"),
            (str(one.vanish), "panel_ok" if one.vanish else "panel_dim"),
        )
        lines.append(_row(one.pump, cells, width))
    if len(moved) > _MOST:
        lines.append([(f" and {len(moved) - _MOST:,} more; --by pump lists them", "panel_dim")])
    return lines


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    whole = math.isfinite(value) and value == round(value)
    return f"{int(value):,}" if whole else number(value, 3)


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "-"
    if before == after:
        return "="
    return f"{after - before:+,.3g}"


def _day(at_ms: int) -> str:
    return format_ms(at_ms // 1000 * 1000)[:10]
