"""The detail pane: one pump with its facts, its score against the limit, and its channels as charts."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from rich.cells import cell_len
from textual.binding import Binding

from pumpdeck_console.operations.views import ChannelLine, PumpDetail, health_word

from .cells import Parts, fit, number, quantity, sides
from .chart import Series, draw_chart, time_axis
from .lines import LinePane
from .palette import HEALTH_SIGNS, HEALTH_SIGNS_ASCII, HEALTH_STYLES

MIN_PLOT = 3
MAX_PLOT = 8


@dataclass(frozen=True, slots=True)
class Plot:
    """One chart of the pane: its title line and series."""

    title: str
    value: str
    is_over: bool
    series: Series


def plots_of(detail: PumpDetail) -> list[Plot]:
    """The score first, then the channel that the reason names, then those that say most about the score."""
    if not len(detail.at_ms) and not len(detail.score_at_ms):
        return []
    end_ms = detail.as_of_ms
    starts = [int(times[0]) for times in (detail.at_ms, detail.score_at_ms) if len(times)]
    start_ms = min(starts) if min(starts) < end_ms else end_ms - 1
    plots = []
    if len(detail.score_at_ms):
        series = Series(detail.score_at_ms, detail.scores, start_ms, end_ms, (detail.limit,), detail.limit, "line2",
                        (0.0, detail.limit))  # fmt: skip
        last = _last(detail.scores)
        limit = "" if math.isnan(detail.limit) else f" of {number(detail.limit)}"
        plots.append(Plot("score", number(last) + limit, last >= detail.limit, series))
    named = {i for i, line in enumerate(detail.channels) if line.name in detail.reason}
    order = sorted(range(len(detail.channels)), key=lambda i: (i not in named, -_known(detail.channels[i].contribution)))
    for i in order:
        plots.append(_channel_plot(detail, i, start_ms, end_ms))
    return plots


def _channel_plot(detail: PumpDetail, i: int, start_ms: int, end_ms: int) -> Plot:
    line: ChannelLine = detail.channels[i]
    values = np.ascontiguousarray(detail.values[:, i])
    series = Series(detail.at_ms, values, start_ms, end_ms, (line.low, line.high), line.high)
    last = _last(values)
    share = f"  {line.contribution * 100:.0f} % of score" if line.contribution > 0.005 else ""
    is_over = last >= line.high or last <= line.low
    return Plot(channel_title(line) + share, quantity(last, line.unit), is_over, series)


def channel_title(line: ChannelLine) -> str:
    """The channel's name for people, without the unit that ends it: ``flow_m3_h`` in m3/h is ``flow``."""
    unit = re.sub("[^a-z0-9]+", "_", line.unit.lower().replace("°", "").replace("³", "3").replace("²", "2")).strip("_")
    name = line.name.removesuffix(f"_{unit}") if unit else line.name
    return name.replace("_", " ")


def _known(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _last(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> float:
    known = np.flatnonzero(np.isfinite(values))
    return float(values[known[-1]]) if len(known) else float("nan")


class PumpPane(LinePane, can_focus=True):
    """Draws a ``PumpDetail``; ``[`` and ``]`` page through channels that do not fit."""

    BINDINGS = [
        Binding("down,j,right_square_bracket", "roll(1)", "next channels", show=False),
        Binding("up,k,left_square_bracket", "roll(-1)", "previous channels", show=False),
    ]
    DEFAULT_CSS = "PumpPane { width: 46; height: 1fr; }"

    def __init__(self) -> None:
        super().__init__(id="pump")
        self.detail: PumpDetail | None = None
        self.waiting_for = ""
        self.first = 0
        self._plots: list[Plot] = []
        self._drawn: list[Parts] = []
        self._drawn_for: tuple[object, ...] = ()

    def show(self, detail: PumpDetail | None) -> None:
        """Show another pump, or newer rows of the same one."""
        if detail is None or self.detail is None or detail.pump_id != self.detail.pump_id:
            self.first = 0
        self.detail, self.waiting_for = detail, ""
        self._plots = plots_of(detail) if detail is not None else []
        self._drawn_for = ()
        self.redraw()

    def forget(self) -> None:
        self._drawn_for = ()
        super().forget()

    def draw_line(self, y: int, width: int) -> Parts:
        shape = (self.size, self.glyphs, self.palette.name, self.first, id(self.detail))
        if shape != self._drawn_for:
            self._drawn, self._drawn_for = self._draw_all(max(1, width - 2), self.size.height), shape
        return [(" ", "text"), *self._drawn[y]] if y < len(self._drawn) else []

    def action_roll(self, step: int) -> None:
        self.first = max(0, min(self.first + step, len(self._plots) - 1))
        self.redraw()

    def _draw_all(self, width: int, height: int) -> list[Parts]:
        detail = self.detail
        if detail is None:
            return [[], [("No pump chosen.", "dim")], [("Move the cursor in the table.", "dim")]]
        lines = self._head(detail, width)
        if height - len(lines) >= 12:
            lines += fact_lines(detail.facts, width)[: height // 5]
        if not self._plots:
            return [*lines, [], [("No rows yet from this pump.", "dim")], [("pumpdeck ingest --help", "text")]]
        self._add_plots(lines, detail, width, height)
        return lines

    def _head(self, detail: PumpDetail, width: int) -> list[Parts]:
        signs = HEALTH_SIGNS_ASCII if self.glyphs == "ascii" else HEALTH_SIGNS
        style = HEALTH_STYLES[detail.health]
        word = f"{signs[detail.health]} {health_word(detail.health)}"
        name = [(detail.tag, "title"), (f"  {detail.site}", "text")]
        lines: list[Parts] = [sides(name, [(word, style)], width, "text")]
        if cell_len(detail.tag) + cell_len(detail.site) + cell_len(word) + 3 > width:
            lines.append([(word, style)])
        if detail.reason:
            lines.append([(fit(detail.reason, width), "text")])
        return lines

    def _add_plots(self, lines: list[Parts], detail: PumpDetail, width: int, height: int) -> None:
        """Share the room that is left among as many charts as fit, each at least ``MIN_PLOT`` lines high."""
        room = height - len(lines) - 1
        shown = self._plots[self.first : self.first + max(1, room // (MIN_PLOT + 2))]
        plot_height = min(MAX_PLOT, max(1, room // len(shown) - 2))
        gap = room >= len(shown) * (plot_height + 2)
        for plot in shown:
            if gap:
                lines.append([])
            style = "alarm" if plot.is_over else "text"
            sign = "! " if plot.is_over else ""
            lines.append(sides([(plot.title, "title")], [(sign + plot.value, style)], width, "text"))
            lines += draw_chart(plot.series, width, plot_height, self.glyphs)
        series = shown[0].series
        lines.append(time_axis(series.start_ms, series.end_ms, detail.alarms, width, self.glyphs))
        hidden = len(self._plots) - self.first - len(shown)
        if hidden and len(lines) < height:
            lines.append([(f"] {hidden} more", "dim")])


def fact_lines(facts: tuple[tuple[str, str], ...], width: int) -> list[Parts]:
    """Facts in two columns where all of them fit whole, else in one."""
    for columns in (2, 1):
        cell = width // columns
        labels = [max((cell_len(word) for word, _ in facts[i::columns]), default=0) for i in range(columns)]
        values = [max((cell_len(value) for _, value in facts[i::columns]), default=0) for i in range(columns)]
        if columns == 1 or all(label + value + 3 <= cell for label, value in zip(labels, values, strict=True)):
            break
    lines: list[Parts] = []
    for start in range(0, len(facts), columns):
        line: list[tuple[str, str]] = []
        for label, (word, value) in zip(labels, facts[start : start + columns], strict=False):
            label = min(label, cell // 2)
            line += [(fit(word, label) + "  ", "dim"), (fit(value, cell - label - 3) + " ", "text")]
        lines.append(line)
    return lines
