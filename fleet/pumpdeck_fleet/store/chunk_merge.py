"""Two frames of one pump become one: the rule for late, repeated and partial rows. Pure."""

from __future__ import annotations

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
