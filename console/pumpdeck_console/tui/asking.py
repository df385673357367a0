"""The part of the app that asks: which reader operation answers a question, on which thread, and what becomes of the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from .console_state import Views
from .pacing import PacedApp
from .readers import Readers
from .reading import ReaderThread

SLOW_EVERY_MS = 10_000
"""How often at most a slow question is asked again because something changed; a person's question is asked at once."""


@dataclass(frozen=True, slots=True)
class Threads:
    """The reader threads: views of screens, things a person has just asked for, and what takes long."""

    reading: ReaderThread
    asking: ReaderThread
    checking: ReaderThread

    @property
    def all(self) -> tuple[ReaderThread, ...]:
        return self.reading, self.asking, self.checking

    @property
    def busy_with(self) -> str:
        """What a thread works on that people wait for; long checks are not waited for."""
        return self.reading.busy_with or self.asking.busy_with


class AskingApp(PacedApp):
    """Asks on the threads; answers come back as messages."""

    PLAIN: ClassVar[dict[str, Callable[[Readers], object]]] = {
        "fleet": lambda readers: readers.fleet(""),
        "rollouts": lambda readers: readers.rollouts(),
        "link": lambda readers: readers.link(),
        "bundles": lambda readers: readers.bundles(),
        "models": lambda readers: readers.models(),
        "runs": lambda readers: readers.runs(),
        "live": lambda readers: readers.live(),
    }
    """Views without an argument that are read in milliseconds."""
    SLOW: ClassVar[dict[str, Callable[[Readers], object]]] = {
        "keys": lambda readers: readers.keys(),
        "upkeep": lambda readers: readers.upkeep(),
        "audit_check": lambda readers: readers.audit_check(),
    }
    """Views that verify signatures or chains: on a thread of their own, and not on every change."""

    def __init__(self, threads: Threads, *, ansi_color: bool | None) -> None:
        super().__init__(ansi_color=ansi_color)
        self.threads = threads
        self.views = Views()
        self._slow_asked_ms: dict[str, int] = {}
        self._slow_due: set[str] = set()

    def now_ms(self) -> int:
        """The time by the clock that was handed in."""
        raise NotImplementedError

    @property
    def audit_words(self) -> str:
        """The search in force on the audit screen."""
        return ""

    def ask(self, name: str, *, at_once: bool = True) -> None:
        """Ask for a view of the screens by name; a slow one waits its time unless it is wanted ``at_once``."""
        if name in self.PLAIN:
            self.threads.reading.ask(name, self.PLAIN[name])
        elif name in self.SLOW:
            self._ask_slow(name, at_once)
        elif name == "audit":
            self.ask_audit(self.audit_words)
        elif name == "rollout":
            self.ask_rollout(self.views.rollout.rollout.rollout_id if self.views.rollout else "")

    def _ask_slow(self, name: str, at_once: bool) -> None:
        now_ms = self.now_ms()
        if at_once or now_ms - self._slow_asked_ms.get(name, -SLOW_EVERY_MS) >= SLOW_EVERY_MS:
            self._slow_asked_ms[name] = now_ms
            self._slow_due.discard(name)
            self.threads.checking.ask(name, self.SLOW[name])
        else:
            self._slow_due.add(name)

    def ask_what_is_due(self) -> None:
        """Ask the slow questions that waited their time."""
        for name in tuple(self._slow_due):
            self._ask_slow(name, at_once=False)

    def ask_pump(self, pump_id: str) -> None:
        self.threads.asking.ask("pump", lambda readers: readers.pump(pump_id), pump_id)

    def ask_rollout(self, rollout_id: str) -> None:
        if rollout_id:
            self.threads.asking.ask("rollout", lambda readers: readers.rollout(rollout_id), rollout_id)

    def ask_audit(self, query: str) -> None:
        self.threads.reading.ask("audit", lambda readers: readers.audit(query), query)

    def ask_run(self, run: str) -> None:
        self.threads.asking.ask("run", lambda readers: readers.run(run), run)

    # What opens a page over the screen

    def ask_card(self, model: str, version: int) -> None:
        self.threads.asking.ask("card", lambda readers: readers.card(model, version), f"{model} {version}")

    def ask_comparison(self, model: str, before: str, after: str) -> None:
        def question(readers: Readers) -> object:
            return readers.comparison(model, before, after)

        self.threads.asking.ask("comparison", question, f"{model} {before} {after}")

    def ask_run_diff(self, before: str, after: str) -> None:
        self.threads.asking.ask("run_diff", lambda readers: readers.run_diff(before, after), f"{before} {after}")
