"""Two frames of one pump become one: the rule for late, repeated and partial rows. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pumpdeck_fleet.numeric.frame import TelemetryFrame, concatenate


class AppendCounts(NamedTuple):
    """What became of the rows of one append."""

    new: int
    changed: int
    same: int


def add_counts(one: AppendCounts, other: AppendCounts) -> AppendCounts:
    """Both together."""
    return AppendCounts(one.new + other.new, one.changed + other.changed, one.same + other.same)


def canonical_frame(frame: TelemetryFrame, channels: tuple[str, ...]) -> TelemetryFrame:
    """The frame with these channels in this order, one bit pattern for zero and one for missing."""
    values = frame.select(channels).values + np.float32(0)
    values[np.isnan(values)] = np.nan
    return TelemetryFrame(channels, frame.at_ms, values, frame.flags)


def merge_frames(old: TelemetryFrame, new: TelemetryFrame) -> tuple[TelemetryFrame, AppendCounts]:
    """`new` laid over `old`, and what that did to the rows of `new`.

    Rows at one time are merged channel by channel: missing stays what the other says; where both speak and differ, `new` counts
    and so do its flags; otherwise flags add up.
    """
    if old.channels != new.channels:
        channels = tuple(sorted({*old.channels, *new.channels}))
        old, new = old.select(channels), new.select(channels)
    if not len(old) or (len(new) and new.at_ms[0] > old.at_ms[-1]):
        return concatenate([old, new]), AppendCounts(len(new), 0, 0)
    at_ms = np.union1d(old.at_ms, new.at_ms)
    values = np.full((len(at_ms), len(old.channels)), np.nan, np.float32)
    flags = np.zeros(len(at_ms), np.uint16)
    old_places, places = np.searchsorted(at_ms, old.at_ms), np.searchsorted(at_ms, new.at_ms)
    values[old_places] = old.values
    flags[old_places] = old.flags
    held = np.zeros(len(at_ms), np.bool_)
    held[old_places] = True

    before, flags_before = values[places], flags[places]
    says = ~np.isnan(new.values)
    differs = says & (before != new.values)
    contradicts = (differs & ~np.isnan(before)).any(axis=1)
    values[places] = np.where(says, new.values, before)
    flags[places] = np.where(contradicts, new.flags, flags_before | new.flags)

    was_held = held[places]
    altered = was_held & (differs.any(axis=1) | (flags[places] != flags_before))
    added, changed = int((~was_held).sum()), int(altered.sum())
    counts = AppendCounts(added, changed, len(new) - added - changed)
    return TelemetryFrame(old.channels, at_ms, values, flags), counts


Merge = Callable[[TelemetryFrame, TelemetryFrame], tuple[TelemetryFrame, AppendCounts]]


def join_frames(one: TelemetryFrame, other: TelemetryFrame) -> tuple[TelemetryFrame, AppendCounts]:
    """Two histories of one pump together; which comes first makes no difference.

    Rows at one time are joined channel by channel: missing stays what the other says; where both speak and differ, the greater
    value counts. Flags add up. `changed` counts rows of `other` that said something new about a time `one` has.
    """
    if one.channels != other.channels:
        channels = tuple(sorted({*one.channels, *other.channels}))
        one, other = one.select(channels), other.select(channels)
    at_ms = np.union1d(one.at_ms, other.at_ms)
    values = np.full((len(at_ms), len(one.channels)), np.nan, np.float32)
    flags = np.zeros(len(at_ms), np.uint16)
    first, second = np.searchsorted(at_ms, one.at_ms), np.searchsorted(at_ms, other.at_ms)
    values[first], flags[first] = one.values, one.flags
    held = np.zeros(len(at_ms), np.bool_)
    held[first] = True
    before, flags_before, was_held = values[second], flags[second], held[second]
    values[second] = np.fmax(before, other.values)
    flags[second] = flags_before | other.flags
    after = values[second]
    differs = ~((before == after) | (np.isnan(before) & np.isnan(after))).all(axis=1)
    changed = int((was_held & (differs | (flags[second] != flags_before))).sum())
    added = int((~was_held).sum())
    return TelemetryFrame(one.channels, at_ms, values, flags), AppendCounts(added, changed, len(other) - added - changed)


def contradictions(one: TelemetryFrame, other: TelemetryFrame) -> int:
    """At how many times both say something of a channel, and not the same."""
    channels = tuple(name for name in one.channels if name in other.channels)
    _, first, second = np.intersect1d(one.at_ms, other.at_ms, assume_unique=True, return_indices=True)
    left, right = one.select(channels).values[first], other.select(channels).values[second]
    return int((~np.isnan(left) & ~np.isnan(right) & (left != right)).any(axis=1).sum())
