"""The one tree of errors. Each says what, which one, expected, found and what to do now; each has an exit code.

Exit codes: 0 done, 1 defect, 2 usage, 3 refused, 4 unreachable, 5 damaged, 6 not found, 7 busy or conflict, 130 interrupted.
"""

from __future__ import annotations

from typing import Any

from pumpdeck_fleet.core.plain_text import plain

EXIT_DEFECT = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_UNREACHABLE = 4
EXIT_DAMAGED = 5
EXIT_NOT_FOUND = 6
EXIT_BUSY = 7
EXIT_INTERRUPTED = 130


class PumpdeckError(Exception):
    """A failure a person can act on.

    `what` is one clause, `which` names the thing. `expected` and `found` are shown when given, `hint` says what to do now.
    """

    exit_code = EXIT_DEFECT
    retryable = False

    def __init__(
        self, what: str, which: str = "", *, expected: object = None, found: object = None, hint: str = ""
    ) -> None:
        self.what = what
        self.which = which
        self.expected = expected
        self.found = found
        self.hint = hint
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """The whole message on one line. What it quotes from outside cannot speak to a terminal."""
        text = f"{self.which}: {self.what}" if self.which else self.what
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.found is not None:
            text += f"; found {self.found}"
        if self.hint:
            text += f". {self.hint[0].upper()}{self.hint[1:]}"
        return plain(" ".join(text.split()))

    def as_dict(self) -> dict[str, Any]:
        """The error for `--json` and for the wire: flat, strings only, plus the exit code."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "which": self.which,
            "expected": "" if self.expected is None else str(self.expected),
            "found": "" if self.found is None else str(self.found),
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class UsageError(PumpdeckError):
    """The call itself is wrong: an option, an argument, a query."""

    exit_code = EXIT_USAGE


class InputError(UsageError):
    """A file handed in cannot be used as it is; the place (file, line, column) stands in `which`."""


class QueryError(UsageError):
    """A query does not follow docs/query.md."""


class RefusedError(PumpdeckError):
    """Turned down with nothing active changed: a gate, a policy, a veto."""

    exit_code = EXIT_REFUSED


class GateRefusedError(RefusedError):
    """A quality gate or a wave gate said no."""


class IllegalMoveError(RefusedError):
    """A state machine was asked for a move that its table does not hold."""

    def __init__(self, state: object, target: object, which: str = "") -> None:
        super().__init__("this move is not allowed", which, expected=f"a move that leads out of {state}", found=target)


class TrustError(RefusedError):
    """A signature, a key, a version or an assignment is not to be believed."""


class ReplayError(TrustError):
    """Something older than, or the same as, what was already accepted."""


class UnreachableError(PumpdeckError):
    """The other side did not answer; `retryable` says whether trying again can help."""

    exit_code = EXIT_UNREACHABLE

    def __init__(self, what: str, which: str = "", *, retryable: bool = True, **more: Any) -> None:
        super().__init__(what, which, **more)
        self.retryable = retryable


class DamagedError(PumpdeckError):
    """Bytes that we hold or were given are not what they should be."""

    exit_code = EXIT_DAMAGED


class FormatError(DamagedError):
    """Bytes do not follow their format (docs/formats.md)."""


class TooLargeError(DamagedError):
    """Something from outside is larger than its named limit."""


class DigestMismatchError(DamagedError):
    """The SHA-256 of the bytes is not the one that was promised."""


class NotFoundError(PumpdeckError):
    """The named thing is not there."""

    exit_code = EXIT_NOT_FOUND


class ConflictError(PumpdeckError):
    """Somebody else holds it, or it changed meanwhile."""

    exit_code = EXIT_BUSY


class BusyError(ConflictError):
    """Try again later: the store, the device or the worker is at work."""

    retryable = True
