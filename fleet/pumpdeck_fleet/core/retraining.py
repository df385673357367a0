"""A device's request for a new model, as the console keeps it: asked once, then answered by a training run or dismissed."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from pumpdeck_fleet.core.errors import IllegalMoveError


class RequestState(enum.StrEnum):
    """Where a request stands."""

    OPEN = "open"
    ANSWERED = "answered"
    DISMISSED = "dismissed"


@dataclass(frozen=True, slots=True)
class RetrainEntry:
    """One request. `digest`: of the item the device signed for, so one that comes again is the same; `pump`: its identity.

    at_ms: by the device's clock. trigger, reason, package_sha256: as in `RetrainRequest`. closed_ms: when it was answered or
    dismissed, 0 while it is open. run, model, content_digest: the training run that answered it and what that gave. by, note: who
    dismissed it and why.
    """

    digest: str
    pump: str
    device: str
    at_ms: int
    trigger: str
    reason: str
    package_sha256: str
    state: RequestState = RequestState.OPEN
    closed_ms: int = 0
    run: str = ""
    model: str = ""
    content_digest: str = ""
    by: str = ""
    note: str = ""

    def answer(self, run: str, model: str, content_digest: str, now_ms: int) -> RetrainEntry:
        """The request, answered by a training run. Raises: IllegalMoveError: it is not open."""
        self._check_open()
        answered = RequestState.ANSWERED
        return replace(self, state=answered, closed_ms=now_ms, run=run, model=model, content_digest=content_digest)

    def dismiss(self, by: str, note: str, now_ms: int) -> RetrainEntry:
        """The request, dismissed by a person. Raises: IllegalMoveError: it is not open."""
        self._check_open()
        return replace(self, state=RequestState.DISMISSED, closed_ms=now_ms, by=by, note=note)

    def _check_open(self) -> None:
        if self.state is not RequestState.OPEN:
            raise IllegalMoveError(self.state.value, "a second end", f"request for {self.pump}")
