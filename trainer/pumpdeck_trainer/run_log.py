"""The log of a training run: what it is doing, how long its steps took, and which pumps gave it trouble.

Lines go to whoever listens while the run works. What is kept afterwards leaves out progress and is bounded whatever the size
of the fleet: of each kind of trouble the first pumps are named, the rest are counted.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from pumpdeck_fleet.core.canonical import encode
from pumpdeck_fleet.core.registry import QualityGate
from pumpdeck_trainer.cache import RunCache

FORMAT = 1
NAMED_PUMPS = 50
MOST_WARNINGS = 50
MOST_TEXT = 400
PROGRESS_EVERY_S = 1.0
PROGRESS_SLOWEST_S = 10.0
SETTLED_S = 0.2

LEFT_OUT = "left out"
EXCLUDED = "many rows left out"
PROVISIONAL = "limit of its type"
OVER_BUDGET = "beyond its budget"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. event: begin, step (one begins), progress, done (one ended), pump, warning, note, gate or end.

    done, total, rate_per_s, left_s: items of this step, how many a second, seconds that the rest of it will take at that rate.
    cached: of these, results that came from the run cache. seconds: how long the step took; at the end the whole run.
    """

    at_ms: int
    event: str
    text: str = ""
    step: str | None = None
    pump: str | None = None
    done: int | None = None
    total: int | None = None
    rate_per_s: float | None = None
    left_s: float | None = None
    cached: int | None = None
    seconds: float | None = None

    def plain(self) -> dict[str, Any]:
        """For JSON: fields that say nothing are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None and value != ""}


Listener = Callable[[LogLine], None]


def no_listener(_line: LogLine) -> None:
    """Nobody listens."""


class RunObserver(Protocol):
    """What a pipeline tells beside its progress."""

    def trouble(self, step: str, pump: str, kind: str, text: str = "") -> None:
        """A pump that is not learned from, or judged, as the others are. kind: one of a few, by which pumps are counted."""
        ...

    def note(self, text: str) -> None:
        """Something a person would want to know afterwards."""
        ...

    def gate(self, found: QualityGate) -> None:
        """A verdict."""
        ...


class Unobserved:
    """Says nothing to nobody."""

    def trouble(self, step: str, pump: str, kind: str, text: str = "") -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def gate(self, found: QualityGate) -> None:
        pass


class RunLog:
    """Makes lines of what a run reports, and keeps those that are worth it. Used by one thread.

    now_ms: time of day. tick_s: seconds that never go back, for durations and rates.
    """

    def __init__(self, now_ms: Callable[[], int], tick_s: Callable[[], float], listeners: Iterable[Listener]) -> None:
        self._now_ms, self._tick_s = now_ms, tick_s
        self._listeners = tuple(listeners)
        self._kept: list[LogLine] = []
        self._began_s = tick_s()
        self._step: _Step | None = None
        self._counts: Counter[tuple[str, str]] = Counter()
        self._warned = 0

    def begin(self, text: str) -> None:
        """The first line."""
        self._say("begin", text)

    def progress(self, step: str, done: int, total: int) -> None:
        """How far a step is (`core.ports.Progress`); a new name ends the step before it."""
        now_s = self._tick_s()
        if self._step is None or self._step.name != step:
            self._end_step()
            self._step = _Step(step, now_s)
            self._say("step", step=step, total=total)
        rate, left_s = self._step.moved(done, total, now_s)
        if self._step.is_due(now_s, now_s - self._began_s):
            self._say("progress", step=step, done=done, total=total, rate_per_s=rate, left_s=left_s)

    def found_cached(self, keys: int) -> None:
        """So many results of this step came from the cache."""
        if self._step is not None:
            self._step.cached += keys

    def trouble(self, step: str, pump: str, kind: str, text: str = "") -> None:
        self._counts[step, kind] += 1
        if self._counts[step, kind] <= NAMED_PUMPS:
            self._say("pump", f"{kind}: {text}" if text else kind, step=step, pump=pump)

    def note(self, text: str) -> None:
        self._say("note", text)

    def warn(self, text: str) -> None:
        """What a library warned of; the same words once, and at most 50 of them."""
        self._warned += 1
        known = any(one.event == "warning" and one.text == text[:MOST_TEXT] for one in self._kept)
        if not known and self._warned <= MOST_WARNINGS:
            self._say("warning", text)

    def gate(self, found: QualityGate) -> None:
        self._say("gate", f"{found.name} {found.verdict.value}: {found.reason}")

    def end(self, outcome: str, text: str) -> None:
        """The last line; outcome: registered, known, refused, cancelled, failed or done."""
        self._end_step()
        self._say("end", f"{outcome}: {text}" if text else outcome, seconds=round(self._tick_s() - self._began_s, 3))

    def encode(self) -> bytes:
        """What is kept, canonical JSON `{format, lines}`. Call `end_step` first."""
        return encode({"format": FORMAT, "lines": [one.plain() for one in self._kept]})

    def end_step(self) -> None:
        """The last step of the pipeline is over."""
        self._end_step()

    def _end_step(self) -> None:
        step, self._step = self._step, None
        if step is None:
            return
        for (name, kind), count in self._counts.items():
            if count > NAMED_PUMPS:
                self._say("pump", f"{kind}: {count - NAMED_PUMPS} more pumps", step=name)
        self._counts.clear()
        seconds = round(self._tick_s() - step.began_s, 3)
        self._say("done", step=step.name, done=step.done, total=step.total, cached=step.cached, seconds=seconds)

    def _say(self, event: str, text: str = "", **more: Any) -> None:
        line = LogLine(self._now_ms(), event, " ".join(text.split())[:MOST_TEXT], **more)
        if event != "progress":
            self._kept.append(line)
        for listen in self._listeners:
            listen(line)


class _Step:
    """How far one step is. Counts may begin anew in it, as when other processes did a part first."""

    def __init__(self, name: str, now_s: float) -> None:
        self.name, self.began_s = name, now_s
        self.done = self.total = self.cached = 0
        self._since = (0, now_s)
        self._said_s = now_s - PROGRESS_EVERY_S

    def moved(self, done: int, total: int, now_s: float) -> tuple[float | None, float | None]:
        """Rate and seconds left; None as long as there is nothing to tell them by."""
        if total != self.total or done < self.done:
            self._since = (done, now_s)
        self.done, self.total = done, total
        first, since_s = self._since
        if done <= first or now_s - since_s < SETTLED_S:
            return None, None
        rate = (done - first) / (now_s - since_s)
        return round(rate, 3), round(max(total - done, 0) / rate, 1)

    def is_due(self, now_s: float, elapsed_s: float) -> bool:
        """At most once a second, less often in a long run, so that what is written stays small; and when all is done."""
        if now_s - self._said_s < min(max(PROGRESS_EVERY_S, elapsed_s / 200), PROGRESS_SLOWEST_S):
            return False
        self._said_s = now_s
        return True


class WatchedCache:
    """A run cache that tells how many results were found in it, each once, and not those of this very run."""

    def __init__(self, cache: RunCache, found: Callable[[int], None]) -> None:
        self._cache, self._found = cache, found
        self._known: set[str] = set()

    def get(self, key: str) -> bytes | None:
        data = self._cache.get(key)
        if data is not None and key not in self._known:
            self._known.add(key)
            self._found(1)
        return data

    def put(self, key: str, data: bytes) -> None:
        self._known.add(key)
        self._cache.put(key, data)

    def checkpoint(self) -> None:
        self._cache.checkpoint()

    def flush(self) -> None:
        self._cache.flush()


@contextmanager
def hearing_warnings(log: RunLog) -> Iterator[None]:
    """What libraries warn of in this process goes into the log, and to nobody else."""

    def show(message: Warning | str, category: type[Warning], *_where: Any, **_more: Any) -> None:
        log.warn(f"{category.__name__}: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
