from __future__ import annotations

import queue
import threading

from pumpdeck_console.tui.reading import ChangeSeen, Outcome, ReaderThread, ReadFailed, ViewRead
from support.fleet_views import FakeReaders, unreachable

WAIT_S = 10.0


def start(readers: FakeReaders, polls: bool = False) -> tuple[ReaderThread, queue.Queue[Outcome]]:
    outcomes: queue.Queue[Outcome] = queue.Queue()
    reading = ReaderThread("test", lambda: readers, polls, poll_s=0.01)
    reading.deliver_to(outcomes.put)
    reading.start()
    return reading, outcomes


def test_outcomes_that_came_early_are_delivered_later() -> None:
    reading = ReaderThread("test", lambda: FakeReaders(8), False)
    reading.ask("link", lambda readers: readers.link())
    reading.start()
    while not reading._early:
        threading.Event().wait(0.001)
    outcomes: queue.Queue[Outcome] = queue.Queue()
    reading.deliver_to(outcomes.put)
    assert isinstance(outcomes.get(timeout=WAIT_S), ViewRead)
    reading.stop()


def test_only_the_newest_question_of_a_name_is_answered() -> None:
    """A held arrow key asks for many pumps while the first is still being read."""
    gate, entered = threading.Event(), threading.Event()

    def block(name: str) -> None:
        if name == "link":
            entered.set()
            assert gate.wait(WAIT_S)

    readers = FakeReaders(8, before=block)
    pumps = readers.fleet().pump_ids
    reading, outcomes = start(readers)
    reading.ask("link", lambda source: source.link())
    assert entered.wait(WAIT_S)
    for pump_id in pumps:
        reading.ask("pump", lambda source, pump_id=pump_id: source.pump(pump_id), pump_id)
    gate.set()
    first, second = outcomes.get(timeout=WAIT_S), outcomes.get(timeout=WAIT_S)
    assert isinstance(first, ViewRead)
    assert isinstance(second, ViewRead)
    assert (first.name, second.name, second.argument) == ("link", "pump", pumps[-1])
    assert readers.calls.count("pump") == 1
    reading.stop()


def test_a_failed_read_is_an_outcome_and_the_next_read_works() -> None:
    readers = FakeReaders(8)
    reading, outcomes = start(readers)
    readers.failure = unreachable()
    reading.ask("fleet", lambda source: source.fleet())
    failed = outcomes.get(timeout=WAIT_S)
    assert isinstance(failed, ReadFailed)
    assert failed.error is readers.failure
    readers.failure = None
    reading.ask("fleet", lambda source: source.fleet())
    assert isinstance(outcomes.get(timeout=WAIT_S), ViewRead)
    reading.stop()


def test_a_defect_in_a_read_does_not_end_the_reader() -> None:
    reading, outcomes = start(FakeReaders(8))
    reading.ask("fleet", lambda source: 1 / 0)
    failed = outcomes.get(timeout=WAIT_S)
    assert isinstance(failed, ReadFailed)
    assert "ZeroDivisionError" in failed.error.sentence()
    reading.ask("link", lambda source: source.link())
    assert isinstance(outcomes.get(timeout=WAIT_S), ViewRead)
    reading.stop()


def test_a_changed_token_is_told_once_and_an_unchanged_one_never() -> None:
    readers = FakeReaders(8)
    reading, outcomes = start(readers, polls=True)
    reading.ask("link", lambda source: source.link())
    assert isinstance(outcomes.get(timeout=WAIT_S), ViewRead)
    readers.token = 2
    assert outcomes.get(timeout=WAIT_S) == ChangeSeen(2)
    seen = readers.calls.count("change_token")
    while readers.calls.count("change_token") < seen + 5:
        threading.Event().wait(0.001)
    assert outcomes.empty()
    reading.stop()


def test_after_a_failure_everything_counts_as_changed() -> None:
    readers = FakeReaders(8)
    reading, outcomes = start(readers, polls=True)
    reading.ask("link", lambda source: source.link())
    outcomes.get(timeout=WAIT_S)
    readers.failure = unreachable()
    assert isinstance(outcomes.get(timeout=WAIT_S), ReadFailed)
    readers.failure = None
    while isinstance(outcome := outcomes.get(timeout=WAIT_S), ReadFailed):
        pass
    assert outcome == ChangeSeen(1)
    reading.stop()
