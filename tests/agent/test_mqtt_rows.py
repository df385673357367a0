"""From MQTT messages to rows: mapping, times, repeats, and a sentence for everything that is none. No broker in here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pumpdeck_agent.mqtt_rows import PAYLOAD_MAX_BYTES, BadMessageError, Message, Repeats, Row, RowReader
from pumpdeck_agent.mqtt_settings import MqttSettings, RowTopic, matches
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, PumpdeckError

NOW_MS = 1_770_000_000_000
PUMPS = {"p-101a": "P-101A", "p-101b": "P-101B"}
TOPICS = (
    RowTopic("gannet/p101a", "P-101A", time="ts", time_unit="s", channels={"vib": "vibration_mm_s", "ps": "suction_bar"}),
    RowTopic("gannet/+/rows"),
    RowTopic("plc/#", "P-101B", time=""),
)


def read(topic: str, payload: Any, *, is_retained: bool = False) -> list[Row]:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return RowReader(TOPICS, lambda tag: PUMPS.get(tag.lower())).read(Message(topic, data, NOW_MS, is_retained))


def test_fields_become_channels_and_others_are_left_alone() -> None:
    (row,) = read("gannet/p101a", {"ts": 1_770_000_000.25, "vib": 2.5, "ps": None, "battery": "low"})
    assert row == Row("P-101A", NOW_MS + 250, (("vibration_mm_s", 2.5), ("suction_bar", None)))
    assert json.loads(row.line()) == {
        "time": NOW_MS + 250,
        "pump": "P-101A",
        "vibration_mm_s": 2.5,
        "suction_bar": None,
    }


def test_a_message_may_hold_many_rows_of_pumps_it_names() -> None:
    sent = [{"time": "2026-02-02T02:40:00Z", "pump": "p-101b", "x": 1}, {"time": NOW_MS, "pump": "P-101A", "x": 2}]
    rows = read("gannet/d1/rows", sent)
    assert rows == [Row("P-101B", NOW_MS, (("x", 1.0),)), Row("P-101A", NOW_MS, (("x", 2.0),))]


def test_without_a_time_of_its_own_a_row_has_that_of_its_arrival_unless_it_was_kept_by_the_broker() -> None:
    assert read("plc/a/b", {"x": 1})[0].at_ms == NOW_MS
    assert read("plc/a/b", {"x": 1}, is_retained=True) == []
    assert read("gannet/d1/rows", {"time": NOW_MS, "pump": "P-101A", "x": 1}, is_retained=True) != []


@pytest.mark.parametrize(
    ("topic", "payload", "words"),
    [
        ("elsewhere", {"x": 1}, "nobody set up"),
        ("gannet/p101a", b"", "not JSON"),
        ("gannet/p101a", b"\xff\xfe", "not JSON"),
        ("gannet/p101a", b'{"ts": NaN, "vib": 1}', "not JSON"),
        ("gannet/p101a", b"[" * 100_000, "not JSON"),
        ("gannet/p101a", b" " * (PAYLOAD_MAX_BYTES + 1), "too large"),
        ("gannet/p101a", [{"ts": 1, "vib": 1}] * 1001, "too many rows"),
        ("gannet/p101a", 5, "not a JSON object"),
        ("gannet/p101a", [[1]], "not a JSON object"),
        ("gannet/p101a", {"vib": 1}, "no time"),
        ("gannet/p101a", {"ts": True, "vib": 1}, "no time"),
        ("gannet/p101a", {"ts": "yesterday", "vib": 1}, "no time"),
        ("gannet/p101a", {"ts": -5, "vib": 1}, "no time"),
        ("gannet/p101a", {"ts": 10**400, "vib": 1}, "no time"),
        ("gannet/p101a", {"ts": 1e300, "vib": 1}, "no time"),
        ("gannet/p101a", {"ts": 1, "other": 1}, "no channel"),
        ("gannet/p101a", {"ts": 1, "vib": "3"}, "no number"),
        ("gannet/p101a", {"ts": 1, "vib": True}, "no number"),
        ("gannet/p101a", {"ts": 1, "vib": 1e39}, "no number"),
        ("gannet/p101a", {"ts": 1, "vib": [1]}, "no number"),
        ("gannet/d1/rows", {"time": 1, "pump": "P-9", "x": 1}, "no pump of this device"),
        ("gannet/d1/rows", {"time": 1, "pump": 5, "x": 1}, "no pump of this device"),
        ("gannet/d1/rows", {"time": 1, "x": 1}, "no pump of this device"),
        ("gannet/d1/rows", [{"time": 1, "pump": "P-101A", "x": 1}, {"time": 2}], "no pump of this device"),
    ],
)
def test_what_is_no_row_is_refused_with_a_sentence(topic: str, payload: Any, words: str) -> None:
    with pytest.raises(BadMessageError, match=words) as caught:
        read(topic, payload)
    assert topic in str(caught.value)


def test_a_row_that_comes_twice_is_one_and_a_correction_is_another() -> None:
    repeats, row = Repeats(), Row("P-101A", 1, (("x", 1.0),))
    assert [repeats.is_new(row), repeats.is_new(row), repeats.is_new(Row("P-101A", 1, (("x", 2.0),)))] == [True, False, True]
    repeats.forget([row])
    assert repeats.is_new(row)


@pytest.mark.parametrize(
    ("pattern", "topic", "is_match"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("+/b/#", "a/b", True),
        ("#", "x/y", True),
    ],
)
def test_filters(pattern: str, topic: str, is_match: bool) -> None:
    assert matches(pattern, topic) is is_match


@pytest.mark.parametrize(
    "settings",
    [
        {"port": 70000},
        {"cert_file": "c", "key_file": "k"},
        {"ca_file": "a", "cert_file": "c"},
        {"password_file": "p"},
        {"alarms": "a/#"},
        {"acknowledge": "a/+"},
        {"rows": [{"topic": ""}]},
        {"rows": [{"topic": "a+/b"}]},
        {"rows": [{"topic": "a/#/b"}]},
        {"rows": [{"topic": "$SYS/x"}]},
        {"rows": [{"topic": "a"}, {"topic": "a"}]},
        {"rows": [{"topic": "a", "time_unit": "h"}]},
        {"rows": [{"topic": "a", "channels": {"x": "c", "y": "c"}}]},
        {"unknown": 1},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises((FormatError, PumpdeckError)):
        canonical.decode(MqttSettings, json.dumps(settings).encode(), "serve.json", max_bytes=4096)
