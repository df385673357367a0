"""Files as loggers write them come in whole, once, with the right numbers at the right times."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pumpdeck_fleet.core.clock import HOUR_MS, MINUTE_MS, format_ms
from pumpdeck_fleet.core.errors import InputError, NotFoundError
from pumpdeck_fleet.core.telemetry import IngestReport, QualityFlag
from pumpdeck_fleet.services.ingest import IngestOptions, ingest_file
from pumpdeck_fleet.store import Store
from support.ingest_files import CHANNELS, T0, content, csv_text, make_fleet, make_store, values_at, write_text

PUMP = "gannet/P-101A"
END = 2**45


def ingest(tmp_path: Path, store: Store, path: Path, **options: object) -> IngestReport:
    return ingest_file(store, make_fleet(tmp_path), path, IngestOptions(**options))  # type: ignore[arg-type]


def check_rows(store: Store, rows: int, pump: str = PUMP, start_ms: int = T0) -> None:
    """The store holds exactly the rows of `csv_text`."""
    frame = store.telemetry.frame(pump, 0, END, CHANNELS)
    assert frame.at_ms.tolist() == [start_ms + row * MINUTE_MS for row in range(rows)]
    expected = np.array([[round(value, 1) for value in values_at(row)] for row in range(rows)], np.float32)
    np.testing.assert_array_equal(frame.values, expected)


@pytest.mark.parametrize(("separator", "decimal"), [*((sign, ".") for sign in ",;\t|"), *((sign, ",") for sign in ";\t|")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_separator_decimal_sign_and_encoding_are_found(tmp_path: Path, separator: str, decimal: str, encoding: str) -> None:
    with make_store(tmp_path) as store:
        path = write_text(tmp_path, csv_text(20, separator=separator, decimal=decimal), encoding=encoding)
        report = ingest(tmp_path, store, path)
        assert (report.accepted, report.flagged, report.refused, report.already) == (20, 0, 0, 0)
        assert (report.pumps, report.start_ms, report.end_ms) == ((PUMP,), T0, T0 + 19 * MINUTE_MS)
        check_rows(store, 20)


def test_quoted_decimal_commas_between_commas(tmp_path: Path) -> None:
    lines = [line.split(",") for line in csv_text(4).splitlines()]
    rows = [[*row[:2], *(f'"{number.replace(".", ",")}"' for number in row[2:])] for row in lines[1:]]
    text = "\n".join(",".join(row) for row in [lines[0], *rows])
    with make_store(tmp_path) as store:
        ingest(tmp_path, store, write_text(tmp_path, text))
        check_rows(store, 4)


def test_names_of_a_maker_become_channels_in_our_units(tmp_path: Path) -> None:
    text = csv_text(3, header=("Time", "Tag", "FLOW", "Suct.Press ", "Speed"), pump="P-101A")
    with make_store(tmp_path) as store:
        ingest(tmp_path, store, write_text(tmp_path, text), site="gannet")
        pressure = store.telemetry.frame(PUMP, 0, END, ("suction_pressure_bar",)).values[:, 0]
        # Kept to two decimals more than the sensor resolves.
        expected = [round(round(values_at(row)[1], 1) * 0.0689476, 3) for row in range(3)]
        np.testing.assert_array_equal(pressure, np.array(expected, np.float32))


def test_names_outside_ascii_survive_cp1252(tmp_path: Path) -> None:
    text = csv_text(3, header=("time", "pump", "Flow", "Druck Saugseite °", "Speed"))
    with make_store(tmp_path) as store:
        ingest(tmp_path, store, write_text(tmp_path, text, encoding="cp1252"))
        check_rows(store, 3)


def test_columns_can_be_named_by_hand(tmp_path: Path) -> None:
    text = csv_text(3, header=("t", "who", "a", "b", "c"))
    columns = {"t": "time", "who": "pump", "a": "flow_m3_h", "B": "suction_pressure_bar", "c": "speed_rpm"}
    with make_store(tmp_path) as store:
        ingest(tmp_path, store, write_text(tmp_path, text), columns=columns)
        check_rows(store, 3)


def test_a_column_that_is_no_channel_is_left_out_and_told(tmp_path: Path) -> None:
    lines = csv_text(3).splitlines()
    text = "\n".join([lines[0] + ",operator", *(f"{line},Ann" for line in lines[1:])])
    with make_store(tmp_path) as store:
        report = ingest(tmp_path, store, write_text(tmp_path, text))
        assert any("operator" in problem.what for problem in report.problems)
        check_rows(store, 3)


def test_a_file_of_one_pump_needs_no_pump_column(tmp_path: Path) -> None:
    lines = [line.split(",") for line in csv_text(4).splitlines()]
    text = "\n".join(",".join([row[0], *row[2:]]) for row in lines)
    with make_store(tmp_path) as store:
        ingest(tmp_path, store, write_text(tmp_path, text), pump="P-101A")
        check_rows(store, 4)


def test_rows_of_many_pumps_may_stand_in_any_order(tmp_path: Path) -> None:
    pumps = ("gannet/P-101A", "gannet/p-101b", "desert/W-1")
    lines = [csv_text(200, pump=pump).splitlines()[1:] for pump in pumps[:1]]
    lines += [csv_text(200, pump=pump).splitlines()[1:] for pump in ("gannet/P-101B", "desert/W-1")]
    mixed = [line for rows in zip(*lines, strict=True) for line in rows]
    with make_store(tmp_path) as store:
        report = ingest(tmp_path, store, write_text(tmp_path, "\n".join([csv_text(0).strip(), *mixed])))
        assert report.accepted == 600
        for pump in ("gannet/P-101A", "gannet/P-101B", "desert/W-1"):
            check_rows(store, 200, pump)


def test_a_file_that_falls_in_time_is_fine(tmp_path: Path) -> None:
    lines = csv_text(30).splitlines()
    with make_store(tmp_path) as store:
        report = ingest(tmp_path, store, write_text(tmp_path, "\n".join([lines[0], *reversed(lines[1:])])))
        assert (report.accepted, report.flagged) == (30, 0)
        check_rows(store, 30)


@pytest.mark.parametrize(
    "spelling",
    [
        "2026-01-01T00:0{0}:00Z",
        "2026-01-01 00:0{0}:00+00:00",
        "2026-01-01T02:0{0}:00+02:00",
        "2026-01-01 00:0{0}",
        "2026-01-01 00:0{0}:00.000",
        "01.01.2026 00:0{0}:00",
        "01.01.2026 00:0{0}",
        "2026/01/01 00:0{0}:00",
        "1767225{1}",
        "1767225{1}000",
    ],
)
def test_times_are_read_as_loggers_spell_them(tmp_path: Path, spelling: str) -> None:
    with make_store(tmp_path) as store:
        # London in winter is UTC, so times without a zone mean the same.
        text = csv_text(5, time=lambda row: spelling.format(row, 600 + row * 60))
        ingest(tmp_path, store, write_text(tmp_path, text))
        check_rows(store, 5)


def test_days_before_months_are_told_by_a_day_over_twelve(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        text = csv_text(2, time=lambda row: f"{12 + row:02}/01/2026 00:00:00")
        ingest(tmp_path, store, write_text(tmp_path, text))
        assert [format_ms(at)[:10] for at in store.telemetry.frame(PUMP, 0, END).at_ms.tolist()] == ["2026-01-12", "2026-01-13"]


def test_a_time_format_can_be_given(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        text = csv_text(2, time=lambda row: f"Jan 01 2026 00h0{row}")
        ingest(tmp_path, store, write_text(tmp_path, text), time_format="%b %d %Y %Hh%M")
        check_rows(store, 2)


def test_times_without_a_zone_are_those_of_the_site(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        text = csv_text(3, pump="desert/W-1", time=lambda row: f"2026-01-01 04:0{row}:00")
        ingest(tmp_path, store, write_text(tmp_path, text))
        check_rows(store, 3, "desert/W-1")


def test_pumps_of_two_zones_in_one_file(tmp_path: Path) -> None:
    gannet = csv_text(3, time=lambda row: f"2026-01-01 00:0{row}:00")
    desert = csv_text(3, pump="desert/W-1", time=lambda row: f"2026-01-01 04:0{row}:00")
    with make_store(tmp_path) as store:
        ingest(tmp_path, store, write_text(tmp_path, gannet + "\n".join(desert.splitlines()[1:])))
        check_rows(store, 3)
        check_rows(store, 3, "desert/W-1")


def test_the_zone_can_be_given(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        text = csv_text(3, time=lambda row: f"2025-12-31 19:0{row}:00")
        ingest(tmp_path, store, write_text(tmp_path, text), time_zone="America/New_York")
        check_rows(store, 3)


def test_local_times_that_happen_twice_or_never_are_left_out_and_told(tmp_path: Path) -> None:
    def autumn(row: int) -> str:
        return f"2025-10-26 {row // 2:02}:{row % 2 * 30:02}:00"

    with make_store(tmp_path) as store:
        report = ingest(tmp_path, store, write_text(tmp_path, csv_text(8, time=autumn)))
        assert (report.accepted, report.refused) == (6, 2)
        assert any("happens twice" in problem.what and problem.rows == 2 for problem in report.problems)
        # 00:30 summer time is 23:30 UTC, 02:00 winter time is 02:00 UTC.
        hours = [format_ms(at)[11:16] for at in store.telemetry.frame(PUMP, 0, END).at_ms.tolist()]
        assert hours == ["23:00", "23:30", "02:00", "02:30", "03:00", "03:30"]
        spring = csv_text(8, time=lambda row: f"2025-03-30 {row // 2:02}:{row % 2 * 30:02}:00")
        report = ingest(tmp_path, store, write_text(tmp_path, spring, name="spring.csv"))
        assert (report.accepted, report.refused) == (6, 2)
        assert any("does not happen" in problem.what for problem in report.problems)


def test_the_same_file_twice_changes_nothing_and_says_so(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        path = write_text(tmp_path, csv_text(50))
        ingest(tmp_path, store, path)
        before, token = content(store), store.change_token()
        report = ingest(tmp_path, store, path)
        assert (report.accepted, report.already) == (0, 50)
        assert "ingested before" in report.problems[0].what
        assert (content(store), store.change_token()) == (before, token)


def test_the_same_rows_in_another_file_change_nothing(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        ingest(tmp_path, store, write_text(tmp_path, csv_text(50)))
        before = content(store)
        report = ingest(tmp_path, store, write_text(tmp_path, csv_text(40, separator=";"), name="other.csv"))
        assert (report.accepted, report.already) == (0, 40)
        assert content(store) == before


@pytest.mark.parametrize("seed", range(3))
def test_overlapping_files_in_any_order_give_the_same_rows(tmp_path: Path, seed: int) -> None:
    lines = csv_text(3000).splitlines()
    parts = [lines[1 + first : 1 + first + 700] for first in range(0, 3000, 500)]
    random.Random(seed).shuffle(parts)
    with make_store(tmp_path) as store:
        for number, part in enumerate(parts):
            ingest(tmp_path, store, write_text(tmp_path, "\n".join([lines[0], *part]), name=f"{number}.csv"))
        check_rows(store, 3000)
        assert store.telemetry.span(PUMP) == (T0, T0 + 2999 * MINUTE_MS, 3000)


def test_values_that_are_not_there_are_missing_and_flagged(tmp_path: Path) -> None:
    lines = csv_text(4).splitlines()
    fields = lines[2].split(",")
    lines[2] = ",".join([*fields[:2], "", "NaN", fields[4]])
    with make_store(tmp_path) as store:
        report = ingest(tmp_path, store, write_text(tmp_path, "\n".join(lines)))
        frame = store.telemetry.frame(PUMP, 0, END, CHANNELS)
        assert report.flagged == 1
        assert np.isnan(frame.values[1, :2]).all()
        assert frame.flags.tolist() == [0, QualityFlag.MISSING, 0, 0]


def test_channels_may_be_absent_when_that_is_allowed(tmp_path: Path) -> None:
    lines = [line.split(",")[:4] for line in csv_text(3).splitlines()]
    path = write_text(tmp_path, "\n".join(",".join(row) for row in lines))
    with make_store(tmp_path) as store:
        report = ingest(tmp_path, store, path, allow_missing=True)
        assert (report.accepted, report.flagged) == (3, 0)
        assert store.telemetry.frame(PUMP, 0, END).channels == ("flow_m3_h", "suction_pressure_bar")


def test_bad_rows_can_be_skipped_and_are_counted(tmp_path: Path) -> None:
    lines = csv_text(20).splitlines()
    lines[3] = lines[3].replace("A,", "A,x")
    lines[5] = "nonsense" + lines[5][lines[5].index(",") :]
    lines[7] = lines[7] + ",1,2"
    lines[9] = lines[9].replace("P-101A", "P-77")
    lines[12], lines[13] = lines[13], lines[12]
    with make_store(tmp_path) as store:
        report = ingest(tmp_path, store, write_text(tmp_path, "\n".join(lines)), skip_bad=True)
        assert (report.accepted, report.refused) == (16, 4)
        told = {problem.what: problem for problem in report.problems}
        assert told["holds a text where a number should be"].where == "line 4"
        assert told["is not a time"].where == "line 6"
        assert told["names a pump this fleet does not have"].where == "line 10"
        assert told["has the wrong number of columns"].rows == 1
        assert told["time goes backwards"].where == f"{PUMP}, line 14"
        frame = store.telemetry.frame(PUMP, 0, END)
        assert (frame.flags & QualityFlag.CLOCK_JUMP).astype(bool).sum() == 1


def test_one_time_twice_keeps_the_last_row_and_flags_it(tmp_path: Path) -> None:
    lines = csv_text(5).splitlines()
    same, other = lines[2], lines[3].replace("102.0", "177.0")
    lines[3:4] = [same, lines[3], other]
    with make_store(tmp_path) as store:
        report = ingest(tmp_path, store, write_text(tmp_path, "\n".join(lines)))
        assert (report.accepted, report.already, report.refused) == (5, 1, 1)
        frame = store.telemetry.frame(PUMP, 0, END, CHANNELS)
        assert frame.values[2, 0] == 177.0
        assert frame.flags.tolist() == [0, 0, QualityFlag.DUPLICATE, 0, 0]


def test_parquet_with_times_of_every_kind(tmp_path: Path) -> None:
    millis = [T0 + row * MINUTE_MS for row in range(10)]
    kinds = {
        "utc": pa.array(millis, pa.timestamp("ms", "UTC")),
        "zone": pa.array([at * 1000 for at in millis], pa.timestamp("us", "America/New_York")),
        "naive": pa.array([at * 1_000_000 for at in millis], pa.timestamp("ns")),
        "number": pa.array(millis, pa.int64()),
        "text": pa.array([format_ms(at) for at in millis]),
    }
    for name, times in kinds.items():
        folder = tmp_path / name
        folder.mkdir()
        numbers = [pa.array([round(values_at(row)[index], 1) for row in range(10)]) for index in range(3)]
        table = pa.table([times, pa.array([PUMP] * 10).dictionary_encode(), *numbers], names=["time", "pump", *CHANNELS])
        pq.write_table(table, folder / "rows.parquet")
        with make_store(folder) as store:
            ingest(folder, store, folder / "rows.parquet")
            check_rows(store, 10)


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with make_store(tmp_path) as store:
        path = write_text(tmp_path, csv_text(100))
        ingest_file(store, make_fleet(tmp_path), path, None, lambda *step: told.append(step))
    assert {step for step, _, _ in told} == {"check", "rows"}
    assert all(done <= total for _, done, total in told)
    assert told[-1][1] == told[-1][2]


def test_a_cancelled_ingest_leaves_nothing(tmp_path: Path) -> None:
    def cancel(step: str, _done: int, _total: int) -> None:
        if step == "rows":
            raise KeyboardInterrupt

    with make_store(tmp_path) as store:
        with pytest.raises(KeyboardInterrupt):
            ingest_file(store, make_fleet(tmp_path), write_text(tmp_path, csv_text(100)), None, cancel)
        assert (content(store), store.sources.all()) == ([], [])


def test_an_unknown_site_or_maker_is_not_found(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        path = write_text(tmp_path, csv_text(3))
        for options in ({"site": "nowhere"}, {"maker": "nobody"}):
            with pytest.raises(NotFoundError):
                ingest(tmp_path, store, path, **options)
        assert content(store) == []


def test_a_tag_of_another_site_is_refused_when_the_site_is_named(tmp_path: Path) -> None:
    with make_store(tmp_path) as store, pytest.raises(InputError):
        ingest(tmp_path, store, write_text(tmp_path, csv_text(3, pump="W-1")), site="gannet")


CHILD = """
import sys
from pathlib import Path
from support.ingest_files import make_fleet, make_store
from pumpdeck_fleet.services.ingest import ingest_file

folder = Path(sys.argv[1])
def tell(step, done, total):
    print(step, done, total, flush=True)
    if step == "rows" and done < total:
        sys.stdin.read()
ingest_file(make_store(folder), make_fleet(folder), folder / "rows.csv", None, tell)
"""


def test_a_killed_ingest_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    write_text(tmp_path, csv_text(450_000))
    make_store(tmp_path).close()
    tests = str(Path(__file__).parents[2])
    code = f"import sys; sys.path.insert(0, {tests!r})\n{CHILD}"
    command = [sys.executable, "-c", code, str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("rows"):
            break
    time.sleep(0.05)
    child.kill()
    child.communicate()
    with make_store(tmp_path) as store:
        assert (content(store), store.sources.all()) == ([], [])
        report = ingest(tmp_path, store, tmp_path / "rows.csv")
        assert report.accepted == 450_000
        assert store.telemetry.span(PUMP) == (T0, T0 + 449_999 * MINUTE_MS, 450_000)
        assert T0 % HOUR_MS == 0
