from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pumpdeck_fleet.core.errors import InputError, NotFoundError
from pumpdeck_fleet.core.inventory import Channel, PumpType
from pumpdeck_trainer.spec import default_pipeline, parse_pipeline
from support.pump_rows import PUMP_TYPE

EXAMPLE = Path(__file__).parents[2] / "docs" / "pipeline.example.toml"
HEAD = 'format = 1\npump_type = "test-pump"\n'


def test_a_file_of_two_lines_is_the_default_pipeline() -> None:
    assert parse_pipeline(HEAD, PUMP_TYPE, "p.toml") == default_pipeline(PUMP_TYPE)


def test_the_example_in_the_documentation_is_the_default_of_an_esp() -> None:
    esp = PumpType("esp", "ESP", (Channel("p", "bar", 0, 1),), cadence_s=60)
    assert parse_pipeline(EXAMPLE.read_text(encoding="utf-8"), esp, "p.toml") == default_pipeline(esp)


def test_window_and_persistence_follow_the_cadence_unless_they_are_said() -> None:
    slow = default_pipeline(replace(PUMP_TYPE, cadence_s=1800.0))
    assert (slow.window_s, slow.alarm.persistence_s) == (18_000.0, 9_000.0)
    said = parse_pipeline(HEAD + "[features]\nwindow_s = 60\n[alarm]\npersistence_s = 0\n", PUMP_TYPE, "p.toml")
    assert (said.window_s, said.alarm.persistence_s) == (60.0, 0.0)


def test_chosen_channels_keep_their_order_and_their_votes() -> None:
    spec = parse_pipeline(HEAD + '[features]\nchannels = ["speed_rpm", "pressure_bar"]\n', PUMP_TYPE, "p.toml")
    assert [(channel.name, channel.votes) for channel in spec.channels] == [
        ("speed_rpm", False),
        ("pressure_bar", True),
    ]


def test_any_change_of_a_spec_changes_its_digest() -> None:
    base = default_pipeline(PUMP_TYPE)
    changed = parse_pipeline(HEAD + "seed = 2\n", PUMP_TYPE, "p.toml")
    assert (
        len({base.digest, changed.digest, replace(base, window_s=1.0).digest, replace(base, holdout=0.1).digest}) == 4
    )
    assert base.digest == default_pipeline(PUMP_TYPE).digest


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (HEAD + "sed = 1\n", "sed"),
        (HEAD + "[alarm]\ndeadband = 2\n", "deadband"),
        (HEAD + '[alarm]\ndeadband = "x"\n', "alarm.deadband"),
        (HEAD + "[alarm]\nbudget_alarms = 0\n", "budget"),
        (HEAD + "[features]\nwindow_s = -1\n", "window_s"),
        (HEAD + "[reference]\ndays = 0\n", "reference.days"),
        (HEAD + "[validation]\nholdout = 0.9\n", "holdout"),
        (HEAD + '[validation]\nsplit = "shuffled"\n', "validation.split"),
        (HEAD + 'model_type = "deep"\n', "model_type"),
        ('format = 2\npump_type = "test-pump"\n', "format"),
        ('format = 1\npump_type = "esp"\n', "pump_type"),
        ("format = 1\n", "pump_type"),
        ("format = \n", "TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(text: str, place: str) -> None:
    with pytest.raises(InputError, match=place) as caught:
        parse_pipeline(text, PUMP_TYPE, "p.toml")
    assert "p.toml" in str(caught.value)


def test_a_channel_that_the_pump_type_lacks_is_named() -> None:
    with pytest.raises(NotFoundError, match="gear_noise"):
        parse_pipeline(HEAD + '[features]\nchannels = ["gear_noise"]\n', PUMP_TYPE, "p.toml")
