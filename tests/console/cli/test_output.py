"""How commands speak."""

from __future__ import annotations

import json

from pumpdeck_console.cli import output
from pumpdeck_console.cli.output import Column


def test_a_list_as_json_is_one_array_with_nothing_that_json_cannot_hold(capsys):
    output.write_rows([{"pump": "a/P-1", "score": float("nan"), "name": "Åse"}], (), as_json=True, empty="none")
    out, err = capsys.readouterr()
    assert json.loads(out) == [{"pump": "a/P-1", "score": None, "name": "Åse"}]
    assert out.isascii()
    assert err == ""


def test_an_empty_list_as_json_is_an_empty_array(capsys):
    output.write_rows([], (), as_json=True, empty="none")
    assert capsys.readouterr().out == "[]\n"


def test_an_empty_list_for_people_teaches_on_stderr(capsys):
    output.write_rows([], (Column("pump"),), as_json=False, empty="no pumps yet")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "no pumps yet\n")


def test_a_table_is_aligned_and_the_widest_column_gives_way():
    rows = [{"pump": "a/P-1", "why": "x" * 60, "score": 1.25}, {"pump": "gannet/P-101A", "why": "short", "score": None}]
    columns = (Column("pump"), Column("why"), Column("score", right=True))
    text = output.table(rows, columns, width=40)
    lines = text.splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert lines[0].split() == ["pump", "why", "score"]
    assert "~" in lines[1]
    assert lines[2].endswith("    -")


def test_values_for_people_have_one_way_to_be_written():
    shown = [output.show(value) for value in (None, "", float("nan"), True, 0.123456, [], ("a", 2), {"x": 1.0})]
    assert shown == ["-", "-", "-", "yes", "0.1235", "-", "a, 2", "x 1"]
    assert [output.show_bytes(n) for n in (12, 12_300, 80_983_800_000, None)] == ["12 B", "12.3 kB", "81.0 GB", "-"]
