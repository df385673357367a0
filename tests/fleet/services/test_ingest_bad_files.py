"""Files that cannot be used are refused whole: the error names file, line and column, and the store is as it was."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import EXIT_NOT_FOUND, EXIT_USAGE, InputError, NotFoundError, PumpdeckError
from pumpdeck_fleet.services.ingest import IngestOptions, ingest_file
from support.ingest_files import CHANNELS, T0, content, csv_text, make_fleet, make_store, write_text


def refuse(tmp_path: Path, path: Path, options: IngestOptions | None = None, kind: type[PumpdeckError] = InputError) -> str:
    """The message with which the file is refused; nothing of it is in the store."""
    fleet = make_fleet(tmp_path)
    with make_store(tmp_path) as store:
        good = write_text(tmp_path, csv_text(3, pump="desert/W-1"), name="good.csv")
        ingest_file(store, fleet, good)
        before = content(store)
        with pytest.raises(kind) as caught:
            ingest_file(store, fleet, path, options)
        assert content(store) == before
        assert len(store.sources.all()) == 1
    message = caught.value.sentence()
    assert str(path) in message
    return message


def lines_of(text: str) -> list[str]:
    return text.splitlines()


def test_a_wrong_separator_is_named_with_the_one_it_looks_like(tmp_path: Path) -> None:
    path = write_text(tmp_path, csv_text(separator=";"))
    message = refuse(tmp_path, path, IngestOptions(separator=","))
    assert "line 1" in message
    assert "looks like ';'" in message


def test_a_missing_channel_is_named_with_the_columns_there_are(tmp_path: Path) -> None:
    path = write_text(tmp_path, csv_text(header=("time", "pump", "flow_m3_h", "suction_pressure_bar", "rpm")))
    message = refuse(tmp_path, path)
    assert "line 1" in message
    assert "speed_rpm" in message
    assert "rpm" in message
    assert "--column" in message


@pytest.mark.parametrize("text", ["abc", "12..5", "1e", "0x10", "--5", "12,5,"])
def test_text_in_numbers_is_named_with_line_and_column(tmp_path: Path, text: str) -> None:
    lines = lines_of(csv_text(6))
    fields = lines[4].split(",")
    fields[3] = f'"{text}"'
    lines[4] = ",".join(fields)
    message = refuse(tmp_path, write_text(tmp_path, "\n".join(lines)))
    assert "line 5, column 4 (suction_pressure_bar)" in message
    assert "is not a number" in message


def test_text_in_numbers_far_down_is_named_with_its_line(tmp_path: Path) -> None:
    lines = lines_of(csv_text(400_000))
    lines[399_990] = lines[399_990].replace(",", ",x", 4)
    path = write_text(tmp_path, "\n".join(lines))
    assert path.stat().st_size > 16 * 1024 * 1024
    assert "line 399991, column 3 (flow_m3_h)" in refuse(tmp_path, path)


def test_lines_are_counted_with_the_empty_ones(tmp_path: Path) -> None:
    lines = lines_of(csv_text(6))
    lines[5] = lines[5].replace(",", ",x", 4)
    lines[2:2] = ["", ""]
    assert "line 8, column 3" in refuse(tmp_path, write_text(tmp_path, "\n".join(lines)))


def test_time_going_backwards_is_named_with_both_times(tmp_path: Path) -> None:
    lines = lines_of(csv_text(6))
    lines[3], lines[4] = lines[4], lines[3]
    message = refuse(tmp_path, write_text(tmp_path, "\n".join(lines)))
    assert "line 5, column 1 (time)" in message
    assert "time goes backwards for gannet/P-101A" in message
    assert "2026-01-01 00:03:00 UTC" in message


def test_time_going_backwards_between_blocks_is_seen(tmp_path: Path) -> None:
    lines = lines_of(csv_text(400_000))
    lines[-1] = lines[-1].replace(lines[-1].split(",")[0], format_ms(T0 + 30_000))
    message = refuse(tmp_path, write_text(tmp_path, "\n".join(lines)))
    assert "line 400001, column 1 (time)" in message


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    assert "is empty" in refuse(tmp_path, write_text(tmp_path, ""))


def test_a_file_of_blanks_is_called_empty(tmp_path: Path) -> None:
    assert "is empty" in refuse(tmp_path, write_text(tmp_path, "\n\n  \n"))


def test_a_header_without_rows_is_refused(tmp_path: Path) -> None:
    assert "holds no rows" in refuse(tmp_path, write_text(tmp_path, csv_text(0)))


def test_a_file_cut_in_a_line_is_named_with_the_line(tmp_path: Path) -> None:
    text = csv_text(50)
    cut = text[: text.rindex(",", 0, len(text) - 20)]
    message = refuse(tmp_path, write_text(tmp_path, cut))
    assert "line 51" in message
    assert "cut" in message


def test_a_cut_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(_table(1000), path)
    path.write_bytes(path.read_bytes()[:-200])
    assert "cannot be read as Parquet" in refuse(tmp_path, path)


def test_a_parquet_file_damaged_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(_table(50_000), path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[2000:2600] = bytes(600)
    path.write_bytes(data)
    refuse(tmp_path, path)


def test_a_parquet_file_with_text_for_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = _table(5)
    pq.write_table(table.set_column(2, "flow_m3_h", pa.array(["a"] * 5)), path)
    assert "column 3 (flow_m3_h)" in refuse(tmp_path, path)


def _table(rows: int) -> pa.Table:
    times = pa.array([T0 + row * 60_000 for row in range(rows)], pa.timestamp("ms", "UTC"))
    numbers = pa.array([float(row % 50) for row in range(rows)])
    return pa.table([times, pa.array(["gannet/P-101A"] * rows), *[numbers] * 3], names=["time", "pump", *CHANNELS])


def test_a_name_that_says_parquet_but_is_not_is_refused(tmp_path: Path) -> None:
    assert "is not a Parquet file" in refuse(tmp_path, write_text(tmp_path, csv_text(), name="rows.parquet"))


def test_a_compressed_file_is_named_for_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\x1f\x8b\x08\x00" + bytes(100))
    assert "gzip" in refuse(tmp_path, path)


def test_bytes_of_another_encoding_are_named_with_their_line(tmp_path: Path) -> None:
    text = csv_text(3, header=("time", "pump", "Flow", "Druck Saugseite °", "Speed"))
    message = refuse(tmp_path, write_text(tmp_path, text, encoding="cp1252"), IngestOptions(encoding="utf-8"))
    assert "line 1" in message
    assert "--encoding" in message


def test_a_binary_file_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"time,pump\n" + bytes([0, 3, 7, 200]) * 5)
    refuse(tmp_path, path)


def test_an_unknown_pump_is_named_with_its_line(tmp_path: Path) -> None:
    text = csv_text(3) + csv_text(1, pump="gannet/P-999").splitlines()[1]
    message = refuse(tmp_path, write_text(tmp_path, text))
    assert "line 5, column 2 (pump)" in message
    assert "P-999" in message


def test_a_file_without_pump_needs_one_named(tmp_path: Path) -> None:
    path = write_text(tmp_path, csv_text(header=("time", "who", *CHANNELS)))
    assert "--pump" in refuse(tmp_path, path)


def test_a_file_without_times_is_refused(tmp_path: Path) -> None:
    path = write_text(tmp_path, csv_text(header=("when", "pump", *CHANNELS)))
    assert "has no column of times" in refuse(tmp_path, path)


def test_an_unreadable_time_is_named_with_its_line(tmp_path: Path) -> None:
    lines = lines_of(csv_text(5))
    lines[3] = "yesterday" + lines[3][lines[3].index(",") :]
    message = refuse(tmp_path, write_text(tmp_path, "\n".join(lines)))
    assert "line 4, column 1 (time)" in message
    assert "yesterday" in message


def test_a_time_in_the_future_is_refused(tmp_path: Path) -> None:
    path = write_text(tmp_path, csv_text(2, time=lambda row: f"2031-01-01T00:0{row}:00Z"))
    assert "in the future" in refuse(tmp_path, path)


def test_days_and_months_that_cannot_be_told_apart_are_asked_for(tmp_path: Path) -> None:
    path = write_text(tmp_path, csv_text(2, time=lambda row: f"01/02/2026 00:0{row}"))
    assert "--time-format" in refuse(tmp_path, path)


def test_two_columns_for_one_channel_are_refused(tmp_path: Path) -> None:
    path = write_text(tmp_path, csv_text(header=("time", "pump", "Suct.Press", "Druck Saugseite °", "Speed")))
    assert "two columns for one channel" in refuse(tmp_path, path)


def test_an_option_for_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write_text(tmp_path, csv_text())
    assert "has no such column" in refuse(tmp_path, path, IngestOptions(columns={"Foo": "flow_m3_h"}))


def test_a_file_that_is_not_there_and_a_folder_have_their_own_errors(tmp_path: Path) -> None:
    refuse(tmp_path, tmp_path / "missing.csv", kind=NotFoundError)
    (tmp_path / "folder").mkdir()
    refuse(tmp_path, tmp_path / "folder")
    assert (NotFoundError.exit_code, InputError.exit_code) == (EXIT_NOT_FOUND, EXIT_USAGE)
