"""One row at a time through a bound call: the same numbers as the ordinary one, for every model type that devices get."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent.runtime import Model, ModelCache
from pumpdeck_agent.scorer import _SAVE_ROWS, LiveRow, Scorer
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_trainer.export import maxz_onnx
from support.devices import NOW_MS, Bench, block, package, quiet_rows


def test_a_bound_call_gives_what_the_ordinary_call_gives() -> None:
    model = Model(maxz_onnx(4), "graph")
    parameters = model.parameters(block())
    call = model.row_call(parameters)
    rows = quiet_rows(200, 3) * np.float32(1.5)
    rows[50:60, 1] = np.nan
    rows[60:70] = np.nan
    expected = model.score(rows, parameters)
    assert [call(row) for row in rows] == expected.tolist()
    assert type(call).__name__ == "_BoundCall"


def test_two_pumps_on_one_graph_do_not_see_each_others_rows() -> None:
    model = Model(maxz_onnx(4), "graph")
    one, other = (model.parameters(block(shift)) for shift in (0.0, 5.0))
    first, second = model.row_call(one), model.row_call(other)
    rows = quiet_rows(20, 4)
    for row in rows:
        assert (first(row), second(row)) == (model.score(row[None], one)[0], model.score(row[None], other)[0])


def test_where_binding_proves_nothing_the_ordinary_call_serves() -> None:
    """Votes for no channel: the score is 0 whatever the row, so nothing shows that the input is read."""
    model = Model(maxz_onnx(4), "graph")
    parameters = {**model.parameters(block()), "votes": np.zeros(4, np.float32)}
    call = model.row_call(parameters)
    assert type(call).__name__ != "_BoundCall"
    assert call(quiet_rows(1, 1)[0]) == 0.0


def test_a_row_of_another_width_is_refused_by_the_ordinary_call() -> None:
    model = Model(maxz_onnx(4), "graph")
    with pytest.raises(RefusedError):
        model.score(np.zeros((1, 3), np.float32), model.parameters(block()))


def test_many_unsaved_rows_are_a_reason_to_save(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.install(package())
    agent = bench.agent()
    scorer = Scorer(bench.platform, agent.layout, agent.config, bench.limits, ModelCache())
    scorer.package()
    rows = [LiveRow("p-101a", NOW_MS + 1000 * place, row) for place, row in enumerate(quiet_rows(_SAVE_ROWS, 1))]
    scorer.push(rows[:-1])
    assert not scorer.is_save_due
    scorer.push(rows[-1:])
    assert scorer.is_save_due
    scorer.flush()
    assert not scorer.is_save_due
    assert not scorer.has_unsaved()

