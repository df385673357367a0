"""The device state: moves, receipts, and the bytes of a copy."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_agent import state as moves
from pumpdeck_agent.state import Candidate, DeviceState, Installed, Phase
from pumpdeck_fleet.core.errors import DamagedError, IllegalMoveError
from pumpdeck_fleet.core.receipts import Outcome, Receipt

A, B = Installed("a" * 64, "1" * 64), Installed("b" * 64, "2" * 64)


def receipt(state: DeviceState, outcome: Outcome = Outcome.COMMITTED) -> Receipt:
    return Receipt(1, "d", "t", "b" * 64, 1, outcome, "", "", "", state.counter + 1, 0, False, "0", "0")


def running(package: Installed | None = A) -> DeviceState:
    phase = Phase.ACTIVE if package else Phase.NO_MODEL
    return replace(moves.fresh_state(0), phase=phase, active=package)


def staged(package: Installed | None = A) -> DeviceState:
    return moves.stage(running(package), Candidate(B, "t", 1))


def test_a_commit_moves_active_previous_and_counter_in_one_record() -> None:
    trial = moves.begin_trial(staged())
    after = moves.commit(trial, receipt(trial))
    assert (after.phase, after.active, after.previous, after.counter) == (Phase.ACTIVE, B, A, 1)
    assert after.candidate is None
    assert after.record == trial.record + 1


def test_a_roll_back_keeps_what_runs_and_remembers_what_failed() -> None:
    trial = moves.begin_trial(staged())
    after = moves.roll_back(trial, receipt(trial, Outcome.ROLLED_BACK))
    assert (after.phase, after.active, after.failed) == (Phase.ACTIVE, A, (B.sha256,))


def test_a_roll_back_without_a_model_returns_to_no_model() -> None:
    trial = moves.begin_trial(staged(None))
    assert moves.roll_back(trial, receipt(trial, Outcome.ROLLED_BACK)).phase is Phase.NO_MODEL


def test_each_begun_trial_is_counted() -> None:
    trial = moves.begin_trial(staged())
    again = moves.begin_trial(moves.wait(trial, "restarted"))
    assert again.candidate is not None
    assert again.candidate.tries == 2


@pytest.mark.parametrize(
    "move",
    [
        lambda state: moves.commit(state, receipt(state)),
        lambda state: moves.roll_back(state, receipt(state)),
        moves.begin_trial,
        lambda state: moves.wait(state, "x"),
    ],
)
def test_nothing_staged_means_no_trial_and_no_end_of_one(move: object) -> None:
    with pytest.raises(IllegalMoveError):
        move(running())  # type: ignore[operator]


def test_a_staged_package_is_not_committed_without_a_trial() -> None:
    state = staged()
    with pytest.raises(IllegalMoveError):
        moves.commit(state, receipt(state))


def test_a_receipt_out_of_turn_is_refused() -> None:
    trial = moves.begin_trial(staged())
    with pytest.raises(IllegalMoveError):
        moves.commit(trial, replace(receipt(trial), counter=trial.counter + 2))


def test_a_receipt_that_is_due_is_never_pushed_out() -> None:
    state = running()
    for _ in range(moves.KEPT_RECEIPTS + 3):
        state = moves.answer(state, receipt(state, Outcome.REFUSED))
    assert [r.counter for r in state.receipts_due] == list(range(1, moves.KEPT_RECEIPTS + 4))
    settled = moves.receipted(state, state.counter)
    later = moves.answer(settled, receipt(settled, Outcome.REFUSED))
    assert len(later.receipts) == moves.KEPT_RECEIPTS


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**40), st.sampled_from([None, A, B]), st.booleans(), st.text(max_size=40))
def test_a_copy_reads_back_as_written(record: int, active: Installed | None, is_staged: bool, reason: str) -> None:
    state = replace(staged(active) if is_staged else running(active), record=record)
    state = moves.answer(state, replace(receipt(state, Outcome.REFUSED), reason=reason))
    assert moves.decode_state(moves.encode_state(state), "state.0") == state


def test_any_altered_byte_of_a_copy_is_found() -> None:
    data = moves.encode_state(staged())
    for place in range(len(data)):
        spoilt = bytearray(data)
        spoilt[place] ^= 1
        with pytest.raises(DamagedError):
            moves.decode_state(bytes(spoilt), "state.0")


def test_a_cut_copy_is_refused_at_every_length() -> None:
    data = moves.encode_state(staged())
    for length in range(len(data)):
        with pytest.raises(DamagedError):
            moves.decode_state(data[:length], "state.0")
