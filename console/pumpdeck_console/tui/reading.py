"""Reads views off the event loop: one thread that owns one ``Readers``, asked by name, newest question wins.

No Textual here. Outcomes are handed to ``deliver`` on the reader thread; the app posts them to itself as messages.
The thread also asks for the change token once a second, so an idle console costs one cheap read and no bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from pumpdeck_fleet.core.errors import PumpdeckError

from .readers import Readers, ReadersFactory

POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class ViewRead:
    """A question was answered: ``name`` and ``argument`` as asked, and the view."""

    name: str
    argument: str
    view: object


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """A question could not be answered; the last view stays."""

    name: str
    argument: str
    error: PumpdeckError


@dataclass(frozen=True, slots=True)
class ChangeSeen:
    """The change token moved: views on screen may be out of date."""

    token: str | int


Outcome = ViewRead | ReadFailed | ChangeSeen
Deliver = Callable[[Outcome], None]
Question = Callable[[Readers], object]


class ReaderThread:
    """One daemon thread over one ``Readers``. ``ask`` replaces an unanswered question of the same name."""

    def __init__(self, name: str, factory: ReadersFactory, polls: bool, poll_s: float = POLL_S) -> None:
        self._factory, self._polls, self._poll_s = factory, polls, poll_s
        self._deliver: Deliver | None = None
        self._early: list[Outcome] = []
        self._wake = threading.Condition()
        self._questions: dict[str, tuple[str, Question]] = {}
        self._busy_with = ""
        self._stopped = False
        self._token: str | int | None = None
        self._thread = threading.Thread(target=self._run, name=f"pumpdeck-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def deliver_to(self, deliver: Deliver) -> None:
        """Hand outcomes to ``deliver`` from now on, those that came before the app stood included."""
        with self._wake:
            self._deliver, early = deliver, self._early
            self._early = []
        for outcome in early:
            deliver(outcome)

    def ask(self, name: str, question: Question, argument: str = "") -> None:
        """Ask for a view; an older unanswered question of this name is dropped."""
        with self._wake:
            self._questions[name] = (argument, question)
            self._wake.notify()

    @property
    def busy_with(self) -> str:
        """Name of the question under way, empty when idle."""
        return self._busy_with

    def stop(self) -> None:
        """End after the question under way; does not wait for it."""
        with self._wake:
            self._stopped = True
            self._wake.notify()

    def _run(self) -> None:
        readers: Readers | None = None
        while True:
            with self._wake:
                if not self._questions and not self._stopped:
                    self._wake.wait(self._poll_s if self._polls else None)
                if self._stopped:
                    return
                name = next(iter(self._questions), "")
                argument, question = self._questions.pop(name, ("", _change_token))
                if not name and not self._polls:
                    continue
            self._busy_with = name
            try:
                if readers is None:
                    readers = self._factory()
                    # The token is older than every view read after it, so no change is missed and none is read twice.
                    self._token = readers.change_token() if self._polls else None
                view = question(readers)
            except PumpdeckError as error:
                self._send(ReadFailed(name or "change_token", argument, error))
            except Exception as error:  # noqa: BLE001 - a defect in one read must not end the reader
                what = f"defect while reading: {type(error).__name__}: {error}"
                self._send(ReadFailed(name or "change_token", argument, PumpdeckError(what, name)))
            else:
                self._answer(name, argument, view)
            self._busy_with = ""

    def _answer(self, name: str, argument: str, view: object) -> None:
        if name:
            self._send(ViewRead(name, argument, view))
        elif isinstance(view, (str, int)) and view != self._token:
            self._token = view
            self._send(ChangeSeen(view))

    def _send(self, outcome: Outcome) -> None:
        if isinstance(outcome, ReadFailed):
            # When reading works again, everything counts as changed.
            self._token = None
        with self._wake:
            deliver = self._deliver
            if deliver is None:
                self._early.append(outcome)
                return
        deliver(outcome)


def _change_token(readers: Readers) -> object:
    return readers.change_token()
