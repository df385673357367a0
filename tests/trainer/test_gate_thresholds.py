"""`[gates]`: every threshold is a key, what makes no sense is told in one sentence, and verdicts carry what judged them."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import msgspec
import pytest

from pumpdeck_fleet.core.errors import InputError
from pumpdeck_fleet.core.registry import GateVerdict
from pumpdeck_trainer.gate_thresholds import GatesTable, GateThresholds
from pumpdeck_trainer.gates import rate_gate, unseen_gate
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import TrainingRequest
from pumpdeck_trainer.spec import default_pipeline, parse_pipeline
from pumpdeck_trainer.supervised import HeldOut
from support.pump_rows import PUMP_TYPE, START_MS, MemorySource, pump_frame

HEAD = 'format = 1\npump_type = "test-pump"\n[gates]\n'
DAY_MS = 86_400_000


def thresholds(text: str) -> GateThresholds:
    return parse_pipeline(HEAD + text, PUMP_TYPE, "p.toml").gates


def test_the_table_knows_every_threshold_and_has_the_same_defaults() -> None:
    said, held = msgspec.structs.asdict(GatesTable()), dataclasses.asdict(GateThresholds())
    assert list(said) == list(held)
    assert said | {"holdout_alarms_warn": said["replay_alarms_warn"]} == held
    assert thresholds("") == GateThresholds()


OTHER = {
    name: value + 1 if isinstance(value, int) else value * 0.9 for name, value in dataclasses.asdict(GateThresholds()).items()
} | {"parity_flags": 0.99995, "coverage_pumps_refuse": 0.5}


@pytest.mark.parametrize("name", OTHER)
def test_every_threshold_can_be_set(name: str) -> None:
    found = thresholds(f"{name} = {OTHER[name]}\n")
    assert getattr(found, name) == OTHER[name] != getattr(GateThresholds(), name)


def test_the_hold_out_warns_where_the_replay_does_unless_it_is_said() -> None:
    assert thresholds("replay_alarms_warn = 5.0\n").holdout_alarms_warn == 5.0
    assert thresholds("replay_alarms_warn = 5.0\nholdout_alarms_warn = 3.0\n").holdout_alarms_warn == 3.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("replay_alarms_warn = -1\n", "gates.replay_alarms_warn; expected a number from 0; found -1"),
        ("excluded_share_refuse = 1.5\n", "gates.excluded_share_refuse; expected a share from 0 to 1; found 1.5"),
        ("champion_margin = nan\n", "gates.champion_margin"),
        ("chance = 0\n", "gates.chance; expected more than 0"),
        ("replay_alarms_refuse = 1.0\n", "refuses before it warns; expected at least 2, where it warns; found 1"),
        ("coverage_pumps_refuse = 0.9\n", "refuses before it warns; expected at most 0.8, where it warns; found 0.9"),
        ("unseen_auc_refuse = 0.9\n", "gates.unseen_auc_refuse"),
        ("parity_flags = 0.5\n", "the parity gate may be tightened, never loosened"),
        ("parity_relative = 0.1\n", "the parity gate may be tightened, never loosened"),
        ("replay_alarm_warn = 1\n", "replay_alarm_warn"),
        ("backtest_fewest_pumps = 2.5\n", "gates.backtest_fewest_pumps"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        thresholds(text)
    sentence = caught.value.sentence()
    assert "p.toml" in sentence and "\n" not in sentence
    assert all(part in sentence.lower() for part in words.lower().split("; "))


def test_a_verdict_is_stored_with_all_that_it_was_judged_by() -> None:
    spec = replace(default_pipeline(PUMP_TYPE), gates=thresholds("replay_alarms_warn = 3.0\nchance = 0.01\n"))
    frames = {f"s/P-{n}": pump_frame(n, days=8) for n in range(2)}
    request = TrainingRequest(tuple(frames), START_MS, START_MS + 8 * DAY_MS)
    trained = train(spec, request, MemorySource(frames), RunContext("c" * 64, "l" * 64))
    held = {gate.name: gate.thresholds for gate in trained.gates}
    assert held["replay"] == {"chance": 0.01, "replay_alarms_warn": 3.0, "replay_alarms_refuse": 10.0}
    assert set(held) == {"parity", "replay", "holdout", "backtest", "training_data"} and all(held.values())
    assert held["parity"] == {"parity_flags": 0.9999, "parity_relative": 0.001}


def test_hold_out_and_unseen_pumps_refuse_where_the_spec_says_so() -> None:
    strict = thresholds("holdout_alarms_refuse = 10.0\nunseen_auc_refuse = 0.75\n")
    assert rate_gate("holdout", 2000, 3000.0, GateThresholds()).verdict is GateVerdict.WARN
    assert rate_gate("holdout", 2000, 3000.0, strict).verdict is GateVerdict.REFUSE
    found = HeldOut(10, 5, 8, 5, 9, 0.7, 0.1, 0.2, 0.01, 0.0, 0.05, (), {})
    assert unseen_gate(found, GateThresholds()).verdict is GateVerdict.WARN
    assert unseen_gate(found, strict).verdict is GateVerdict.REFUSE
