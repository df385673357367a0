"""Versions and specs that an older program wrote are still read."""

from __future__ import annotations

import json

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.registry import GateVerdict, Lineage, ModelVersion, QualityGate
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, PipelineSpec, default_pipeline
from support.pump_rows import PUMP_TYPE

NEW_GATES = (
    "excluded_share_refuse", "champion_margin", "slice_margin", "backtest_over_warn", "backtest_over_refuse",
    "coverage_pumps_warn", "coverage_pumps_refuse", "coverage_seasons_warn", "coverage_regime_warn",
)  # fmt: skip


def test_a_version_without_the_newer_fields_is_read_with_their_defaults() -> None:
    gates = (QualityGate("parity", GateVerdict.PASS, "equal"),)
    lineage = Lineage("a" * 64, "b" * 64, "c" * 64, "d" * 64, 1)
    version = ModelVersion(
        "esp-health", 1, "e" * 64, "esp", "maxz", "f" * 64, "0" * 64, "1" * 64, "2" * 64, 5, 4, {}, gates, lineage, ()
    )
    told = canonical.to_plain(version)
    for name in ("judged_against", "full_card_digest"):
        told.pop(name)
    assert canonical.from_plain(ModelVersion, told, "old version") == version


def test_a_spec_without_the_newer_fields_is_read_with_their_defaults() -> None:
    told = json.loads(canonical.encode(default_pipeline(PUMP_TYPE)))
    told.pop("card")
    told.pop("search")
    for name in NEW_GATES:
        told["gates"].pop(name)
    data = json.dumps(told).encode()
    read = canonical.decode(PipelineSpec, data, "old pipeline", max_bytes=SPEC_MAX_BYTES)
    assert read == default_pipeline(PUMP_TYPE)
