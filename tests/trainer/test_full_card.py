"""The full model card: figures from a real run, and honest about what it does not know."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pumpdeck_fleet.core.errors import InputError
from pumpdeck_trainer.card import write_card
from pumpdeck_trainer.fleet_gates import PumpPlace, coverage_of, slice_rates
from pumpdeck_trainer.full_card import CardFacts, intervals_of, write_full_card
from pumpdeck_trainer.limits import AlarmBudget
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import Exclusion, TrainingRequest
from pumpdeck_trainer.spec import default_pipeline, parse_pipeline
from pumpdeck_trainer.trained import TrainedModel
from support.labelled_pumps import labelled_source
from support.pump_rows import PUMP_TYPE, START_MS, MemorySource, pump_frame, with_values

DAY_MS = 86_400_000
SPEC = replace(default_pipeline(PUMP_TYPE), budget=AlarmBudget(alarms=30))


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    """Six pumps with a loud budget; on the first a fault that is seen and one that no channel shows."""
    frames = {f"north/P-{n}" if n < 3 else f"south/P-{n}": pump_frame(n) for n in range(6)}
    first = next(iter(frames))
    values = frames[first].values.copy()
    values[1000:1200, 2] += 3
    at_ms = frames[first].at_ms
    frames[first] = with_values(frames[first], values)
    faults = [
        Exclusion(int(at_ms[1000]), int(at_ms[1200]), "fault:bearing"),
        Exclusion(int(at_ms[4000]), int(at_ms[4003]), "fault:seal"),
    ]
    source = MemorySource(frames, {first: faults})
    request = TrainingRequest(tuple(frames), START_MS, START_MS + 30 * DAY_MS)
    return train(SPEC, request, source, RunContext("c" * 64, "l" * 64))


def card_of(trained: TrainedModel) -> str:
    places = {one.pump: PumpPlace(one.pump.split("/")[0], "acme", "X", 3, 57.0) for one in trained.pumps}
    coverage = coverage_of(trained.pumps, places, (trained.data_start_ms, trained.data_end_ms), (trained.regimes, 0.01))
    return write_full_card(
        CardFacts(trained, trained.gates, slice_rates(trained.pumps, places), coverage, 0)
    ).decode()


def test_every_section_is_there_and_the_same_run_gives_the_same_bytes(trained: TrainedModel) -> None:
    card = card_of(trained)
    heads = [line for line in card.splitlines() if line.startswith("## ")]
    assert [head[3:].split(" (")[0] for head in heads] == [
        "Intended use", "Data and exclusions", "Figures with 95 % intervals", "Slices", "Limits and alarms",
        "Known failure cases", "Quality gates at registration", "Lineage", "Technical documentation",
    ]  # fmt: skip
    assert card == card_of(trained)


def test_the_card_of_a_supervised_type_says_what_it_learned_from_and_how_it_does_on_pumps_never_seen() -> None:
    frames = tuple(f"site/P-{number}" for number in range(1, 7))
    request = TrainingRequest(frames, START_MS, START_MS + 30 * DAY_MS)
    spec = replace(default_pipeline(PUMP_TYPE), model_type="logistic")
    taught = train(spec, request, labelled_source(6), RunContext("c" * 64, "l" * 64))
    held, card, short = taught.held_out, card_of(taught), taught.card.decode()
    assert held is not None
    assert f"{held.faults} labelled faults of {held.fault_pumps} pumps are learned from as faults" in card
    assert "labelled faults are learned from as faults" in short and "no ground for health" in short
    assert "rows it learned from" not in card and "its pump left out of learning" in card
    assert f"| faults told on pumps never seen | {held.found / held.faults:.3g} |" in card
    assert all(f"| {name} | {one.faults} | {one.found} |" in card for name, one in held.kinds.items())
    assert f"AUC {held.auc:.3f}" in card and "fitted without it" in card.split("2(g)")[1].split("\n")[0]
    assert "none stands below 10, a probability of one half" in card and "none stands below 10" in short


def test_a_missed_kind_of_fault_is_a_known_failure_case_and_a_found_one_is_not(trained: TrainedModel) -> None:
    card = card_of(trained)
    assert "missed 1 of 1 faults of kind `seal`" in card
    assert "kind `bearing`" not in card


def test_intervals_hold_their_figure_and_say_how_they_were_found(trained: TrainedModel) -> None:
    found = {one.how.split(" over")[0] + str(place): one for place, one in enumerate(intervals_of(trained))}
    assert [name.rstrip("0123456789") for name in found] == ["exact Poisson", "exact Poisson", "bootstrap", "exact binomial"]
    for one in found.values():
        assert one.low <= one.value <= one.high and one.high > one.low
    alarms = sum(len(one.judged.alarms) for one in trained.pumps)
    assert next(iter(found.values())).value == pytest.approx(alarms * 30 / sum(p.judged.days for p in trained.pumps))


def test_what_only_the_provider_knows_is_said_to_be_missing_with_its_place(trained: TrainedModel) -> None:
    card = card_of(trained)
    assert "*to be stated by the provider: `human_oversight` under `[card]` in `pipelines/test-pump.toml`*" in card
    items = [line.split("|")[1].split()[0] for line in card.splitlines() if line.startswith("| ") and "(" in line[:8]]
    assert [item for item in items if item[0] in "12"] == [f"1({c})" for c in "abcdefgh"] + [f"2({c})" for c in "abcdefgh"]
    said = replace(trained, spec=replace(SPEC, card=replace(SPEC.card, human_oversight="The shift lead decides.")))
    assert "The shift lead decides." in card_of(said)


def test_statements_change_the_pipeline_and_nothing_that_is_learned() -> None:
    said = replace(SPEC, card=replace(SPEC.card, provider="ACME"))
    assert said.digest != SPEC.digest and said.learning_digest == SPEC.learning_digest


def test_a_statement_that_would_break_the_card_is_refused() -> None:
    text = 'format = 1\npump_type = "test-pump"\n[card]\nprovider = "a | b"\n'
    with pytest.raises(InputError, match=r"card\.provider"):
        parse_pipeline(text, PUMP_TYPE, "test.toml")


def test_the_short_card_stays_short(trained: TrainedModel) -> None:
    assert len(trained.card) < 3500 < len(card_of(trained).encode())
    longest = max(len(line) for line in trained.card.decode().splitlines() if line.startswith("- training_data"))
    gates = (*trained.gates[:-1], replace(trained.gates[-1], reason="x" * 400))
    span = (trained.data_start_ms, trained.data_end_ms)
    limits = [one.limit for one in trained.pumps]
    card = write_card(SPEC, span, limits, trained.metrics, (gates, trained.lineage)).decode()
    assert max(len(line) for line in card.splitlines() if line.startswith("- training_data")) <= 140
    assert longest <= 140
