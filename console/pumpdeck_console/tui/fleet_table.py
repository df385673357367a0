"""A ``FleetView`` as a table: which columns there are, how a cell is drawn, by what it sorts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pumpdeck_console.operations.views import SPARK_AT_LIMIT, SPARK_HOURS, FleetView, Words
from pumpdeck_fleet.core.merging import version_name

from .cells import SPARK_ASCII, SPARK_BLOCKS, Parts, age, fit, number
from .palette import HEALTH_LABELS, HEALTH_SIGNS, HEALTH_SIGNS_ASCII, HEALTH_STYLES
from .virtual_table import Column, Draw, TableView

HIGH_PSI = 0.25
"""PSI from which the figure is shown in the drift style; the health itself is decided in core."""


def fleet_table(view: FleetView, glyphs: str, now_ms: Callable[[], int]) -> TableView:
    """The columns of the fleet screen over ``view``, worst pumps first by default."""
    part = view.score / view.limit
    worst_first = (-view.health.astype(np.int16), -np.nan_to_num(part, nan=-1.0))
    psi_order = np.where(np.isfinite(view.drift_psi), view.drift_psi, np.nan)
    seen = np.where(view.last_seen_ms >= 0, view.last_seen_ms, np.nan)
    columns = (
        Column("health", "HEALTH", 10, health_cell(view.health, glyphs), worst_first, 0),
        Column("pump", "PUMP", 9, text_cell(view.tags), (_rank(view.tags),), 0),
        Column("site", "SITE", 13, words_cell(view.sites), (view.sites.codes,), 1, min_width=10),
        Column("type", "TYPE", 19, words_cell(view.types, "dim"), (view.types.codes,), 6, min_width=9),
        Column("maker", "MAKER", 9, words_cell(view.makers, "dim"), (view.makers.codes,), 8),
        Column("score", "SCORE", 6, number_cell(view.score, _over(view.score, view.limit, "alarm")), (view.score,), 1,
               "right", True),
        Column("limit", "LIMIT", 6, number_cell(view.limit, lambda _row: "dim"), (view.limit,), 9, "right", True),
        Column("spark", "TREND", SPARK_HOURS, spark_cell(view.spark, glyphs), (_rising(view.spark),), 3, "left", True,
               min_width=8),
        Column("version", "MODEL", 5, version_cell(view.model_version), (view.model_version,), 2, "right", True),
        Column("drift", "PSI", 5, number_cell(view.drift_psi, _high(view.drift_psi)), (psi_order,), 2, "right", True),
        Column("seen", "SEEN", 5, age_cell(view.last_seen_ms, now_ms), (seen,), 1, "right", True),
        Column("reason", "REASON", 24, text_cell(view.reasons, "dim"), (_rank(view.reasons),), 4, grows=True, min_width=10),
    )  # fmt: skip
    return TableView(columns, view.pump_ids)


def text_cell(texts: tuple[str, ...], style: str = "text") -> Draw:
    """Left-aligned text."""
    return lambda row, width: [(fit(texts[row], width), style)]


def words_cell(words: Words, style: str = "text") -> Draw:
    """A repeating word; ``-`` where there is none."""
    return lambda row, width: [(fit(words[row] or "-", width), style)]


def number_cell(values: npt.NDArray[np.float32], style: Callable[[int], str]) -> Draw:
    """A number with two digits, right-aligned."""
    return lambda row, width: [(fit(number(float(values[row])), width, "right"), style(row))]


def version_cell(versions: npt.NDArray[np.int64]) -> Draw:
    """``v12``, ``v12@..`` for one that another workspace numbered, ``-`` for none."""

    def draw(row: int, width: int) -> list[tuple[str, str]]:
        text = f"v{version_name(int(versions[row]))}" if versions[row] > 0 else "-"
        return [(fit(text, width, "right"), "text")]

    return draw


def age_cell(times: npt.NDArray[np.int64], now_ms: Callable[[], int]) -> Draw:
    """How long ago, right-aligned."""
    return lambda row, width: [(fit(age(int(times[row]), now_ms()), width, "right"), "dim")]


def health_cell(health: npt.NDArray[np.int8], glyphs: str) -> Draw:
    """Sign and word of a health, never colour alone."""
    signs = HEALTH_SIGNS_ASCII if glyphs == "ascii" else HEALTH_SIGNS

    def draw(row: int, width: int) -> Parts:
        code = int(health[row])
        return [(fit(f"{signs[code]} {HEALTH_LABELS[code]}", width), HEALTH_STYLES[code])]

    return draw


def spark_cell(spark: npt.NDArray[np.uint8], glyphs: str) -> Draw:
    """Hours as bars against the limit; hours at or over it stand out. Narrow cells show the newest hours."""
    table = str.maketrans({chr(i): char for i, char in enumerate(SPARK_ASCII if glyphs == "ascii" else SPARK_BLOCKS)})

    def draw(row: int, width: int) -> Parts:
        levels = spark[row, -width:] if width < SPARK_HOURS else spark[row]
        text = levels.tobytes().decode("latin-1").translate(table)
        over = levels >= SPARK_AT_LIMIT
        if not over.any():
            return [(fit(text, width), "spark")]
        cuts = [0, *(np.flatnonzero(np.diff(over)) + 1).tolist(), len(levels)]
        parts = [(text[a:b], "spark_over" if over[a] else "spark") for a, b in pairwise(cuts)]
        return [*parts, (" " * (width - len(text)), "text")]

    return draw


def _rank(texts: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Position of each text in alphabetical order; empty texts last."""
    places = sorted(range(len(texts)), key=lambda row: (not texts[row], texts[row]))
    ranks = np.empty(len(texts), dtype=np.int64)
    ranks[places] = np.arange(len(texts))
    return ranks


def _rising(spark: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    levels = spark.astype(np.int64)
    return np.asarray(levels[:, -6:].sum(axis=1) * 100 + levels.max(axis=1, initial=0))


def _over(values: npt.NDArray[np.float32], limit: npt.NDArray[np.float32], style: str) -> Callable[[int], str]:
    over = values >= limit
    return lambda row: style if over[row] else "text"


def _high(psi: npt.NDArray[np.float32]) -> Callable[[int], str]:
    high = psi > HIGH_PSI
    return lambda row: "drift" if high[row] else "text"
