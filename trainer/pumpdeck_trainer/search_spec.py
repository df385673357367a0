"""`[search]` of a pipeline spec: a small grid, written out whole when it is read, so that a run record shows every point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pumpdeck_fleet.core.errors import InputError

MOST_POINTS = 32
MOST_FOLDS = 6
MOST_PUMPS = 64
DAY_S = 86_400.0
AXES = ("model_type", "window_s", "persistence_s", "tau_s", "deadband")


@dataclass(frozen=True, slots=True)
class SearchPoint:
    """One choice of everything that a grid may vary."""

    model_type: str
    window_s: float
    persistence_s: float
    tau_s: float
    deadband: float


@dataclass(frozen=True, slots=True)
class SearchSpec:
    """The grid and how its points are judged; no points: no search.

    folds: parts of the later half of the reference window, each judged by what lies before it. pumps: at most so many, spread
    over the type. label_horizon_s: how long before and after a label its fault may already, or still, show.
    """

    points: tuple[SearchPoint, ...] = ()
    folds: int = 2
    pumps: int = 24
    label_horizon_s: float = 6 * 3600.0


def grid_points(axes: Mapping[str, Sequence[Any]], base: Mapping[str, Any], what: str) -> tuple[SearchPoint, ...]:
    """Every combination in the order of the axes; an axis that is empty takes the spec's own value.

    A persistence that the spec does not state is half the window, in every point.

    Raises:
        InputError: too many points, or one twice.
    """
    held = {name: list(axes[name]) or [base[name]] for name in AXES}
    chosen = [dict(zip(AXES, values, strict=True)) for values in product(*held.values())]
    if len(chosen) > MOST_POINTS:
        hint = "search in steps: the best of few values, then around it"
        raise InputError(
            "has too many points", f"{what}: search", expected=f"at most {MOST_POINTS}", found=len(chosen), hint=hint
        )
    for one in chosen:
        if one["persistence_s"] is None:
            one["persistence_s"] = one["window_s"] / 2
    points = tuple(SearchPoint(**one) for one in chosen)
    if len(set(points)) != len(points):
        raise InputError("holds a point twice", f"{what}: search")
    return points


def check_search(found: SearchSpec, split: str, what: str) -> SearchSpec:
    """The same, when its figures make sense.

    Raises:
        InputError: names the key; a shuffled split is refused with the reason.
    """
    check_split(split, f"{what}: search.split")
    for name, value, most in (("folds", found.folds, MOST_FOLDS), ("pumps", found.pumps, MOST_PUMPS)):
        if not 1 <= value <= most:
            raise InputError("is out of range", f"{what}: search.{name}", expected=f"1 to {most}", found=value)
    if not 0 <= found.label_horizon_s <= 30 * DAY_S:
        expected = "0 to 30 days in seconds"
        raise InputError(
            "is out of range", f"{what}: search.label_horizon_s", expected=expected, found=found.label_horizon_s
        )
    return found


def check_split(split: str, which: str) -> None:
    """Raises: InputError - the split is not by time."""
    if split == "time":
        return
    raise InputError(
        "is refused: neighbouring rows are nearly copies, so a shuffled split judges a model by what it has seen",
        which,
        expected='"time"',
        found=repr(split),
        hint="split by pump and time, as the default does",
    )
