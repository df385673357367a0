"""What an operation is: one use case, a plain function over a workspace, called by the console and the command line alike.

An operation says where it may run. A `reader` only reads and may run in a thread of the console's own process. A `worker`
changes something or needs heavy libraries; the console runs it in its worker process, by name, with plain JSON arguments.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pumpdeck_fleet.core.errors import NotFoundError

RunsIn = Literal["reader", "worker"]
Function = TypeVar("Function", bound=Callable[..., Any])


def operation(name: str, *, runs_in: RunsIn) -> Callable[[Function], Function]:
    """Mark a function as the operation `name`; the function itself is handed back unchanged."""

    def mark(function: Function) -> Function:
        function.operation_name = name  # type: ignore[attr-defined]
        function.runs_in = runs_in  # type: ignore[attr-defined]
        return function

    return mark


def no_progress(_step: str, _done: int, _total: int) -> None:
    """For callers that show none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an operation stands. The table holds names, so that looking one up imports only that one."""

    target: str
    runs_in: RunsIn

    def load(self) -> Callable[..., Any]:
        """The function itself."""
        module, _, name = self.target.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found


def find(table: Mapping[str, Entry], name: str) -> Entry:
    """The entry of that name.

    Raises:
        NotFoundError: there is no such operation.
    """
    if name not in table:
        raise NotFoundError("no such operation", name, expected=f"one of {', '.join(sorted(table))}")
    return table[name]
