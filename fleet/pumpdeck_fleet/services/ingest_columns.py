"""Which column of a file is what: by option, by our own name of a channel, or by the alias of the pump's maker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.core.errors import InputError, NotFoundError
from pumpdeck_fleet.core.inventory import Channel, Fleet, MakerProfile, Pump, PumpType
from pumpdeck_fleet.services.ingest_options import IngestOptions

TIME_NAMES = ("time", "timestamp", "datetime", "date_time", "date time", "date/time", "ts", "at", "at_ms", "time_ms")
PUMP_NAMES = ("pump", "tag", "pump_id", "pump id", "pumpid")
LEAVE_OUT = "-"
_SCALED_DIGITS = 2


@dataclass(frozen=True, eq=False)
class PumpColumns:
    """How rows of one pump type and maker become values: `values[:, place] * factor + offset`, rounded where `digits` says so.

    places: columns of the value matrix. digits: decimals kept after a conversion of units, -1 to keep everything.
    """

    channels: tuple[Channel, ...]
    places: tuple[int, ...]
    factors: NDArray[np.float64]
    offsets: NDArray[np.float64]
    digits: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        return tuple(channel.name for channel in self.channels)

    def values_of(self, matrix: NDArray[np.float64]) -> NDArray[np.float32]:
        """float32 [n, channels] from the value matrix of a block; infinity counts as missing."""
        values = matrix[:, self.places]
        for index, digits in enumerate(self.digits):
            if digits >= 0:
                column = values[:, index] * self.factors[index] + self.offsets[index]
                values[:, index] = np.round(column, digits)
        values[np.isinf(values)] = np.nan
        return values.astype(np.float32)


class ColumnPlan:
    """The columns of one file: its time, its pump, and for each pump its channels."""

    def __init__(self, where: str, columns: Sequence[str], fleet: Fleet, options: IngestOptions) -> None:
        """Find time and pump, and every column that could be a channel.

        Raises:
            InputError: no column of times, no column of pumps and no pump named, or an option names a column that is not there.
        """
        self._where = where
        self._columns = tuple(columns)
        self._names = [column.strip().casefold() for column in columns]
        self._fleet = fleet
        self._options = options
        self._roles = self._given_roles()
        self.time = self._find_time()
        self.pump = self._find_pump()
        self.values, self.left_out = self._find_values()
        self._plans: dict[tuple[str, str], PumpColumns] = {}

    def _given_roles(self) -> dict[int, str]:
        """Column number -> what an option says it is."""
        roles: dict[int, str] = {}
        for name, role in self._options.columns.items():
            key = name.strip().casefold()
            if key not in self._names:
                raise InputError("has no such column", self._where, expected=self._listed(), found=repr(name))
            roles[self._names.index(key)] = role
        return roles

    def _find(self, role: str, usual: Sequence[str]) -> int | None:
        for column, given in self._roles.items():
            if given == role:
                return column
        free = (name for name in usual if name in self._names and self._names.index(name) not in self._roles)
        return next((self._names.index(name) for name in free), None)

    def _find_time(self) -> int:
        found = self._find("time", TIME_NAMES)
        if found is None:
            expected = f"a column named {', '.join(TIME_NAMES[:3])} or the like"
            hint = "say which it is with --column NAME=time"
            raise InputError("has no column of times", self._where, expected=expected, found=self._listed(), hint=hint)
        return found

    def _find_pump(self) -> int | None:
        found = self._find("pump", PUMP_NAMES)
        if self._options.pump:
            return None
        if found is None:
            hint = "name the pump with --pump, or say which column it is with --column NAME=pump"
            raise InputError("says of no pump whose rows these are", self._where, expected="a column pump or tag", hint=hint)
        return found

    def _find_values(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Columns that may be a channel of some pump, and the names of those that can be nothing."""
        known = {channel.name for kind in self._fleet.pump_types.values() for channel in kind.channels}
        known |= {alias.strip().casefold() for maker in self._makers() for alias in maker.aliases}
        taken = {self.time, self._find("pump", PUMP_NAMES)}
        values: list[int] = []
        left_out: list[int] = []
        for column, name in enumerate(self._names):
            role = self._roles.get(column)
            if column in taken or role == LEAVE_OUT:
                continue
            (values if role is not None or name in known else left_out).append(column)
        return tuple(values), tuple(self._columns[column] for column in left_out)

    def _makers(self) -> Sequence[MakerProfile]:
        if not self._options.maker:
            return tuple(self._fleet.makers.values())
        if self._options.maker not in self._fleet.makers:
            known = ", ".join(self._fleet.makers)
            raise NotFoundError("no such maker", self._options.maker, expected=known)
        return (self._fleet.makers[self._options.maker],)

    def of(self, pump: Pump) -> PumpColumns:
        """The columns that hold the channels of this pump.

        Raises:
            InputError: a channel is missing, or two columns claim to be one.
        """
        maker = self._options.maker or pump.maker
        key = (pump.type, maker)
        if key not in self._plans:
            self._plans[key] = self._plan(self._fleet.pump_types[pump.type], self._fleet.makers.get(maker))
        return self._plans[key]

    def _plan(self, kind: PumpType, maker: MakerProfile | None) -> PumpColumns:
        found = self._claims(kind, maker)
        missing = [channel.name for channel in kind.channels if channel.name not in found]
        if missing and (not found or not self._options.allow_missing):
            hint = "say which column it is with --column NAME=channel"
            if found:
                hint += ", or go without it with --allow-missing"
            what = f"lacks {'a channel' if len(missing) == 1 else 'channels'} of pump type {kind.id}"
            raise InputError(what, self._where, expected=", ".join(missing), found=self._listed(), hint=hint)
        channels = tuple(channel for channel in kind.channels if channel.name in found)
        columns = [found[channel.name] for channel in channels]
        scales = [self._scale(column, maker) for column in columns]
        return PumpColumns(
            channels=channels,
            places=tuple(self.values.index(column) for column in columns),
            factors=np.array([factor for factor, _ in scales]),
            offsets=np.array([offset for _, offset in scales]),
            digits=tuple(_digits(channel, scale) for channel, scale in zip(channels, scales, strict=True)),
        )

    def _claims(self, kind: PumpType, maker: MakerProfile | None) -> dict[str, int]:
        """Channel -> column; an option counts more than our own name, and that more than an alias."""
        names = {channel.name for channel in kind.channels}
        aliases = {alias.strip().casefold(): channel for alias, channel in maker.aliases.items()} if maker else {}
        found: dict[str, int] = {}
        for rank in (self._roles.get, self._own, lambda c: self._alias(c, aliases)):
            claimed: dict[str, int] = {}
            for column in self.values:
                channel = rank(column)
                if channel in names and channel not in found:
                    if channel in claimed:
                        both = f"{self._columns[claimed[channel]]!r} and {self._columns[column]!r}"
                        raise InputError("has two columns for one channel", self._where, expected=f"one {channel}", found=both)
                    claimed[channel] = column
            found |= claimed
        return found

    def _own(self, column: int) -> str | None:
        return None if column in self._roles else self._names[column]

    def _alias(self, column: int, aliases: Mapping[str, str]) -> str | None:
        return None if column in self._roles else aliases.get(self._names[column])

    def _scale(self, column: int, maker: MakerProfile | None) -> tuple[float, float]:
        scales = maker.scales if maker else {}
        return next((scale for name, scale in scales.items() if name.strip().casefold() == self._names[column]), (1.0, 0.0))

    def _listed(self) -> str:
        shown = ", ".join(column.strip() for column in self._columns[:20])
        return shown + (f" and {len(self._columns) - 20} more" if len(self._columns) > 20 else "")


def _digits(channel: Channel, scale: tuple[float, float]) -> int:
    """Decimals worth keeping after a conversion: two more than the sensor's resolution has. The rest is noise of arithmetic."""
    if scale == (1.0, 0.0):
        return -1
    if channel.resolution <= 0:
        return 6
    return max(0, math.ceil(-math.log10(channel.resolution)) + _SCALED_DIGITS)
