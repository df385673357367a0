"""One plain value a topic: the last of each channel at even times, what is silent is missing. No broker in here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pumpdeck_agent.mqtt_rows import BadMessageError, Message, Row
from pumpdeck_agent.mqtt_settings import MqttSettings
from pumpdeck_agent.mqtt_values import VALUE_MAX_BYTES, ValueRows
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError

T0 = 1_770_000_000_000
PUMPS = {"p-101a": "P-101A", "p-101b": "P-101B"}
VALUES = [
    {"topic": "plc/{pump}/{channel}", "channels": {"VIB": "vibration_mm_s", "PS": "suction_bar"}},
    {"topic": "dcs/4711", "pump": "P-101B", "channel": "speed_rpm"},
    {"topic": "gw/+/{channel}", "pump": "P-101B", "value": "v"},
]


def settings(**changes: Any) -> MqttSettings:
    plain = {"values": VALUES, "row_every_s": 60.0} | changes
    return canonical.decode(MqttSettings, json.dumps(plain).encode(), "serve.json", max_bytes=4096)


@pytest.fixture
def rows() -> ValueRows:
    made = ValueRows(settings(), lambda tag: PUMPS.get(tag.lower()))
    assert made.due(T0) == []
    return made


def send(rows: ValueRows, topic: str, payload: bytes, at_ms: int = T0, *, is_retained: bool = False) -> bool:
    return rows.take(Message(topic, payload, at_ms, is_retained))


def test_a_row_is_what_stood_at_a_whole_minute(rows: ValueRows) -> None:
    assert send(rows, "plc/P-101A/VIB", b"2.5", T0 + 1000)
    assert send(rows, "plc/p-101a/PS", b" 7 ", T0 + 2000)
    assert send(rows, "plc/P-101A/VIB", b"2.75", T0 + 50_000)
    assert rows.due(T0 + 19_999) == [], "the minute is not over"
    minute = T0 // 60_000 * 60_000 + 60_000
    assert rows.due(minute + 3) == [Row("P-101A", minute, (("suction_bar", 7.0), ("vibration_mm_s", 2.75)))]
    assert rows.due(minute + 200) == [], "once"


def test_a_channel_that_went_silent_is_missing_and_then_there_is_no_row(rows: ValueRows) -> None:
    send(rows, "plc/P-101A/VIB", b"1")
    send(rows, "plc/P-101A/PS", b"2")
    minute = T0 // 60_000 * 60_000
    assert rows.due(minute + 60_000)[0].values == (("suction_bar", 2.0), ("vibration_mm_s", 1.0))
    send(rows, "plc/P-101A/PS", b"3", minute + 70_000)
    assert rows.due(minute + 240_000)[0].values == (("suction_bar", 3.0), ("vibration_mm_s", None))
    assert rows.due(minute + 600_000) == []


def test_topics_of_a_pump_and_channel_of_their_own_and_a_field_of_an_object(rows: ValueRows) -> None:
    send(rows, "dcs/4711", b"2900")
    send(rows, "gw/7/motor_temperature_c", b'{"v": 61.5, "q": "good"}')
    send(rows, "gw/7/flow_m3_h", b'{"v": null}')
    (row,) = rows.due(T0 + 60_000)
    assert (row.pump, dict(row.values)) == ("P-101B", {"speed_rpm": 2900.0, "motor_temperature_c": 61.5, "flow_m3_h": None})


def test_what_the_broker_had_kept_is_passed_over_and_other_topics_are_not_ours(rows: ValueRows) -> None:
    assert send(rows, "plc/P-101A/VIB", b"9", is_retained=True)
    assert rows.due(T0 + 60_000) == []
    assert not send(rows, "elsewhere/x", b"9")


@pytest.mark.parametrize("payload", [b"", b"null", b" NaN ", b"None"])
def test_a_value_that_is_none_is_missing(rows: ValueRows, payload: bytes) -> None:
    send(rows, "plc/P-101A/PS", b"1")
    send(rows, "plc/P-101A/VIB", payload)
    assert rows.due(T0 + 60_000)[0].values == (("suction_bar", 1.0), ("vibration_mm_s", None))


def test_a_clock_that_is_set_back_loses_nothing_but_the_time_it_went_back(rows: ValueRows) -> None:
    send(rows, "dcs/4711", b"1")
    assert rows.due(T0 - 3_600_000) == []
    assert rows.due(T0 - 3_540_000) != []


@pytest.mark.parametrize(
    ("topic", "payload", "words"),
    [
        ("plc/P-9/VIB", b"1", "no pump of this device"),
        ("plc/P-101A/OTHER", b"1", "not set up"),
        ("plc/P-101A/VIB", b"high", "no number"),
        ("plc/P-101A/VIB", b"inf", "no number"),
        ("plc/P-101A/VIB", b"1e300", "no number"),
        ("plc/P-101A/VIB", b"\xff\xfe", "no text"),
        ("plc/P-101A/VIB", b"1" * (VALUE_MAX_BYTES + 1), "too large"),
        ("gw/7/x", b"1", "lacks a field"),
        ("gw/7/x", b"{", "not JSON"),
        ("gw/7/x", b"[" * 4000, "not JSON"),
        ("gw/7/x", b'{"v": true}', "no number"),
        ("gw/7/x", b'{"v": [1]}', "no number"),
    ],
)
def test_what_is_no_value_is_refused_with_a_sentence(rows: ValueRows, topic: str, payload: bytes, words: str) -> None:
    with pytest.raises(BadMessageError, match=words) as caught:
        send(rows, topic, payload)
    assert topic in str(caught.value)
    assert rows.due(T0 + 60_000) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"values": [{"topic": "plc/{channel}"}]},
        {"values": [{"topic": "plc/{pump}"}]},
        {"values": [{"topic": "plc/{pump}/{channel}", "pump": "P-101A"}]},
        {"values": [{"topic": "plc/{pump}/{pump}/{channel}"}]},
        {"values": [{"topic": "plc/{pump}/{channel}", "channels": {"a": "x", "b": "x"}}]},
        {"values": VALUES, "rows": [{"topic": "plc/+/+"}]},
        {"row_every_s": 0.01},
        {"hold_s": -1.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        settings(**changes)
