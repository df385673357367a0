"""Supervised types on rows of the sample fleet's physics, with faults that were found and repaired."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest

from pumpdeck_fleet.core.inventory import PumpType
from pumpdeck_sample.fleet import FleetSize
from pumpdeck_trainer.labelled import SUPERVISED
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import TrainingRequest
from pumpdeck_trainer.spec import default_pipeline
from support.pump_rows import START_MS, MemorySource
from support.simulated_labels import END_MS, simulated_source


@cache
def rows() -> tuple[PumpType, MemorySource]:
    return simulated_source(0.3, FleetSize(4, 3, 4))


@pytest.mark.parametrize("model_type", SUPERVISED)
def test_faults_of_the_simulator_are_told_on_pumps_never_seen(model_type: str) -> None:
    pump_type, source = rows()
    request = TrainingRequest(tuple(source.frames), START_MS, END_MS)
    spec = replace(default_pipeline(pump_type), model_type=model_type)
    model = train(spec, request, source, RunContext("c" * 64, "l" * 64))
    figures = model.metrics
    assert not model.refusals
    assert figures["unseen_faults"] == 8 and figures["unseen_faults_found"] >= 7 and figures["unseen_auc"] > 0.98
    assert figures["labelled_faults_found"] >= 7 and figures["replay_alarms_pump_month"] < 1
    assert figures["unseen_brier"] < 0.3 * figures["unseen_brier_constant"]
    kinds = json.loads(model.run_record)["held_out"]["kinds"]
    assert set(kinds) == {"bearing_wear", "cavitation", "seal_leak"}
