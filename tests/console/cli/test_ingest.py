"""`pumpdeck ingest`: the report, the repetition, and a refusal that names the place and imports nothing."""

from __future__ import annotations

import json

import pytest

CHANNELS = (
    "suction_pressure_bar,discharge_pressure_bar,flow_m3_h,speed_rpm,"
    "motor_current_a,vibration_mm_s,bearing_temperature_c,seal_leak_l_h"
)
HEADER = f"time,pump,{CHANNELS}"
ROW = "{time},P-101,5,60,400,2900,120,2.5,60,1.5"


def csv_of(*times: str) -> str:
    return "\n".join([HEADER, *(ROW.format(time=time) for time in times)]) + "\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(csv_of("2026-02-01T00:00:00Z", "2026-02-01T00:01:00Z"), encoding="utf-8")
    return path


def test_rows_come_in_once_and_the_second_time_nothing_changes(own, file, run):
    code, out, err = run("ingest", str(file), "--site", "gannet", "--json", at=own)
    assert code == 0, err
    (report,) = json.loads(out)
    assert (report["accepted"], report["already"], report["refused"], report["pumps"]) == (2, 0, 0, 1)
    (again,) = json.loads(run("ingest", str(file), "--site", "gannet", "--json", at=own)[1])
    assert (again["accepted"], again["already"]) == (0, 2)
    code, _, err = run("ingest", str(file), "--site", "gannet", at=own)
    assert (code, "nothing changed" in err) == (0, True)
    actions = [row["action"] for row in json.loads(run("audit", "--json", at=own)[1])]
    assert actions.count("ingest") == 1
    shown = json.loads(run("telemetry", "P-101", "--from", "2026-02-01", "--to", "2026-02-02", "--json", at=own)[1])
    assert [row["time"] for row in shown] == ["2026-02-01T00:00:00Z", "2026-02-01T00:01:00Z"]


def test_a_file_with_text_in_numbers_is_refused_whole_with_line_and_column(own, tmp_path, run):
    path = tmp_path / "bad.csv"
    text = csv_of("2026-02-01T00:00:00Z", "2026-02-01T00:01:00Z").replace(
        "2900,120,2.5,60,1.5\n", "2900,lots,2.5,60,1.5\n"
    )
    path.write_text(text, encoding="utf-8")
    code, out, err = run("ingest", str(path), "--site", "gannet", at=own)
    assert (code, out) == (2, "")
    assert "bad.csv" in err
    assert "motor_current_a" in err
    assert run("telemetry", "P-101", "--from", "2026-02-01", "--to", "2026-02-02", "--json", at=own)[1] == "[]\n"


def test_names_with_a_star_stand_for_files_whatever_the_shell_does(own, file, tmp_path, run):
    code, out, _ = run("ingest", str(tmp_path / "*.csv"), "--site", "gannet", "--json", at=own)
    assert code == 0
    assert [row["file"] for row in json.loads(out)] == [str(file)]
    assert run("ingest", str(tmp_path / "*.nothing"), at=own)[0] == 6


def test_a_wrong_mapping_or_option_ends_with_2(own, file, run):
    assert run("ingest", str(file), "--map", "x", at=own)[0] == 2
    assert run("ingest", str(file), "--site", "gannet", "--map", "nothing=flow_m3_h", at=own)[0] == 2
    assert run("ingest", at=own)[0] == 2
