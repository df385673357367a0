"""One thread that closes what has been silent for too long: a blocked write to a dead link ends in no other way."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

_STEP_S = 0.5


class Watchdog:
    """Guards blocking calls with a deadline. The thread runs only while something is guarded."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._guarded: dict[int, tuple[float, Callable[[], None]]] = {}
        self._next = 0
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def guard(self, close: Callable[[], None], within_s: float) -> Iterator[None]:
        """While the block runs longer than `within_s`, `close` is called once from another thread."""
        with self._lock:
            self._next += 1
            token = self._next
            self._guarded[token] = (self._clock_s() + within_s, close)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ssh-watchdog", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._guarded.pop(token, None)

    def _run(self) -> None:
        idle_until = self._clock_s() + 10 * _STEP_S
        while True:
            time.sleep(_STEP_S)
            now = self._clock_s()
            with self._lock:
                late = [token for token, (deadline, _) in self._guarded.items() if deadline <= now]
                closers = [self._guarded.pop(token)[1] for token in late]
                if self._guarded or late:
                    idle_until = now + 10 * _STEP_S
                elif now > idle_until:
                    self._thread = None
                    return
            for close in closers:
                close()
