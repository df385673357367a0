"""The spec beside an imported file: the example is normative, and what it says stands still."""

from __future__ import annotations

import os
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_trainer.foreign_input import NEVER_FOLLOWS_S, ForeignInput
from pumpdeck_trainer.foreign_spec import parse_foreign
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, PipelineSpec, default_pipeline
from support.fuzz_foreign_doors import example_kind
from support.fuzz_samples import DOCS, FORMATS

GOLDEN = FORMATS / "foreign_spec.json"


def example(tmp_path: Path) -> tuple[PipelineSpec, ForeignInput]:
    kind = example_kind(tmp_path)
    found = parse_foreign((DOCS / "foreign.example.toml").read_text(encoding="utf-8"), kind, default_pipeline(kind), "spec")
    return found.pipeline, found.said


def test_the_example_says_every_key(tmp_path: Path) -> None:
    pipeline, said = example(tmp_path)
    assert [one.name for one in pipeline.channels] == ["suction_pressure_bar", "motor_temperature_c"]
    assert (pipeline.window_s, pipeline.alarm.tau_s, pipeline.alarm.persistence_s) == (3600.0, 86_400.0, 1800.0)
    assert (said.zero, said.unit, said.limit, said.sign, said.column) == (-0.45, 0.05, -0.7, -1.0, 0)
    assert (said.tensor, said.output, said.contributions) == ("X", "score_samples", "parts")


def test_what_is_kept_of_a_spec_stands_still(tmp_path: Path) -> None:
    """`foreign` inside the pipeline of an imported version; the rest of that pipeline is what the workspace says."""
    pipeline, said = example(tmp_path)
    written = canonical.encode(said) + b"\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_bytes(written)
    assert written == GOLDEN.read_bytes()
    assert canonical.decode(ForeignInput, GOLDEN.read_bytes(), "spec", max_bytes=SPEC_MAX_BYTES) == said
    whole = canonical.encode(PipelineSpec(pipeline.pump_type, pipeline.channels, pipeline.window_s, foreign=said))
    assert canonical.decode(PipelineSpec, whole, "spec", max_bytes=SPEC_MAX_BYTES).foreign == said


def test_a_spec_from_before_there_were_imports_is_read(tmp_path: Path) -> None:
    """And a spec of our own says nothing of imports: its digest is what it was."""
    own = default_pipeline(example_kind(tmp_path))
    assert b"foreign" not in canonical.encode(own)
    assert canonical.decode(PipelineSpec, canonical.encode(own), "spec", max_bytes=SPEC_MAX_BYTES).foreign is None


def test_a_baseline_that_never_follows_stands_still_to_the_last_bit() -> None:
    import numpy as np

    from pumpdeck_fleet.numeric.alarm import AlarmSettings, AlarmTracker
    from pumpdeck_fleet.numeric.detectors import PumpBlock, score_rows

    ones = np.ones(2, np.float32)
    block = PumpBlock(("a", "b"), ones, ones, ones, np.array([True, True]), 9.0)
    tracker = AlarmTracker(block, AlarmSettings(tau_s=NEVER_FOLLOWS_S))
    at_ms = np.arange(0, 30 * 86_400_000, 600_000, dtype=np.int64)
    rows = np.random.default_rng(1).normal(3.0, 0.5, (len(at_ms), 2)).astype(np.float32)
    tracker.extend(at_ms, rows, lambda seen: score_rows(block, seen))
    assert tracker.offset.tolist() == [0.0, 0.0]
