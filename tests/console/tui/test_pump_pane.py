from __future__ import annotations

from dataclasses import replace

import pytest
from rich.cells import cell_len

from pumpdeck_console.operations.views import ChannelLine
from pumpdeck_console.tui.pump_pane import channel_title, fact_lines, plots_of
from support.fleet_views import fleet_view, pump_detail


@pytest.mark.parametrize(
    ("name", "unit", "title"),
    [
        ("flow_m3_h", "m3/h", "flow"),
        ("flow_m3_h", "m³/h", "flow"),
        ("leakage_current_ma", "mA", "leakage current"),
        ("bearing_temperature_c", "°C", "bearing temperature"),
        ("vibration", "mm/s", "vibration"),
        ("starts", "", "starts"),
    ],
)
def test_the_unit_is_not_said_twice(name: str, unit: str, title: str) -> None:
    assert channel_title(ChannelLine(name, unit)) == title


def test_the_channel_that_the_reason_names_comes_first() -> None:
    view = fleet_view(40)
    detail = replace(pump_detail(view, view.pump_ids[0]), reason="flow, 2.1 x limit")
    titles = [plot.title for plot in plots_of(detail)]
    assert titles[0] == "score"
    assert titles[1].startswith("flow")
    assert titles[2].startswith("vibration")


def test_a_pump_without_rows_has_no_plot() -> None:
    view = fleet_view(40)
    detail = pump_detail(view, view.pump_ids[0])
    none = detail.at_ms[:0]
    empty = replace(detail, at_ms=none, values=detail.values[:0], score_at_ms=none, scores=detail.scores[:0])
    assert plots_of(empty) == []


@pytest.mark.parametrize(("width", "lines"), [(60, 2), (30, 4)])
def test_facts_stand_in_two_columns_only_where_they_fit_whole(width: int, lines: int) -> None:
    facts = (("maker", "Sulzer"), ("type", "esp"), ("device", "dev-0010"), ("model version", "esp-health v11"))
    shown = fact_lines(facts, width)
    assert len(shown) == lines
    assert all(sum(cell_len(text) for text, _ in line) <= width for line in shown)
    assert "esp-health v11" in "".join(text for line in shown for text, _ in line)
