from __future__ import annotations

import numpy as np
import pytest
from rich.cells import cell_len

from pumpdeck_console.tui.chart import Series, draw_chart, envelope, time_axis

MINUTE_MS = 60_000


def series(values: list[float] | np.ndarray, **more: object) -> Series:
    values = np.asarray(values, dtype=np.float32)
    at = np.arange(len(values), dtype=np.int64) * MINUTE_MS
    return Series(at, values, 0, max(1, len(values) - 1) * MINUTE_MS, **more)  # type: ignore[arg-type]


def text(lines: list) -> list[str]:
    return ["".join(part for part, _ in line) for line in lines]


@pytest.mark.parametrize("glyphs", ["braille", "block", "ascii"])
@pytest.mark.parametrize("kind", ["empty", "one", "nan", "flat", "noise", "huge", "limit_only"])
def test_every_size_is_drawn_exactly(glyphs: str, kind: str) -> None:
    values = {
        "empty": [],
        "one": [4.0],
        "nan": [np.nan] * 30,
        "flat": [5.0] * 100,
        "noise": np.random.default_rng(1).normal(0, 1, 1_440),
        "huge": [1e30, -1e30] * 20,
        "limit_only": [np.nan],
    }[kind]
    shown = series(values, limits=(7.0, float("nan")), over=7.0, always=(0.0,))
    for width in (1, 2, 5, 27, 28, 60, 200):
        for height in (1, 2, 3, 7, 60):
            lines = draw_chart(shown, width, height, glyphs)
            assert len(lines) == height
            assert {cell_len(line) for line in text(lines)} == {width}
        assert cell_len("".join(part for part, _ in time_axis(0, 86_400_000, [(5, 10)], width, glyphs))) == width


def test_no_room_draws_nothing() -> None:
    assert draw_chart(series([1.0]), 0, 5, "braille") == []
    assert draw_chart(series([1.0]), 5, 0, "braille") == []


def test_a_spike_of_one_row_in_a_day_is_seen() -> None:
    values = np.full(1_440, 2.0)
    values[700] = 9.0
    low, high = envelope(series(values), 40)
    assert np.nanmax(high) == 9.0
    assert np.nanmin(low) == 2.0
    top = text(draw_chart(series(values), 40, 6, "braille"))[0]
    assert any(char not in " │┤.0123456789" for char in top[8:])


def test_a_gap_stays_a_gap() -> None:
    values = np.ones(100)
    values[40:60] = np.nan
    _, high = envelope(series(values), 10)
    assert np.isnan(high[4:6]).all()
    assert np.isfinite(high[:4]).all()


def test_a_limit_near_the_data_is_drawn_and_a_far_one_is_not() -> None:
    values = np.linspace(4, 6, 100)
    near = text(draw_chart(series(values, limits=(6.5,)), 40, 8, "braille"))
    far = text(draw_chart(series(values, limits=(600.0,)), 40, 8, "braille"))
    assert any("╌" in line for line in near)
    assert not any("╌" in line for line in far)


def test_what_is_over_the_limit_has_its_own_style() -> None:
    values = np.concatenate([np.full(50, 2.0), np.linspace(2, 20, 50)])
    lines = draw_chart(series(values, limits=(7.0,), over=7.0), 40, 10, "braille")
    styles = [[style for part, style in line if part.strip()] for line in lines]
    assert "alarm" in styles[0]
    assert "alarm" not in styles[-1]


def test_alarms_are_marked_where_they_were() -> None:
    axis = "".join(part for part, _ in time_axis(0, 100, [(50, 60)], 20, "ascii"))
    assert axis.index("!") == 10
    assert axis.count("!") == 3
