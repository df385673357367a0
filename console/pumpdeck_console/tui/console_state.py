"""What the app holds and is told: the newest views, its settings, and the messages that come from other threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from textual.message import Message

from pumpdeck_console.operations.views import (
    AuditCheck,
    AuditView,
    FleetView,
    LinkView,
    ModelsView,
    PumpDetail,
    RolloutDetail,
    RolloutRow,
    RolloutsView,
)
from pumpdeck_fleet.core.clock import Clock

from .exporting import Exports
from .palette import Palette
from .reading import Outcome
from .selecting import Selector, select_words

if TYPE_CHECKING:
    from pumpdeck_console.operations.bundle_view import BundlesView
    from pumpdeck_console.operations.run_views import LiveView, RunDetail, RunsView
    from pumpdeck_console.operations.trust_rows import KeysView
    from pumpdeck_console.operations.upkeep_view import UpkeepView


@dataclass
class Views:
    """The newest view of each kind; ``None`` until the first arrived."""

    fleet: FleetView | None = None
    pump: PumpDetail | None = None
    models: ModelsView | None = None
    rollouts: RolloutsView | None = None
    rollout: RolloutDetail | None = None
    audit: AuditView | None = None
    audit_check: AuditCheck | None = None
    link: LinkView | None = None
    bundles: BundlesView | None = None
    runs: RunsView | None = None
    run: RunDetail | None = None
    live: LiveView | None = None
    keys: KeysView | None = None
    upkeep: UpkeepView | None = None

    def take(self, name: str, view: object) -> None:
        """Keep ``view`` as the newest of its kind; other names are of no interest."""
        if name in VIEW_NAMES:
            setattr(self, name, view)

    @property
    def running_rollout(self) -> RolloutRow | None:
        """The newest rollout under way."""
        rollouts = self.rollouts.rollouts if self.rollouts is not None else ()
        return next((row for row in rollouts if row.state in ("RUNNING", "REVERTING")), None)


VIEW_NAMES = frozenset(field.name for field in fields(Views))


@dataclass(frozen=True)
class ConsoleSettings:
    """What the console is started with besides readers and actions."""

    title: str
    clock: Clock
    palette: Palette
    glyphs: str = "braille"
    selector: Selector = select_words
    exports: Exports | None = None
    on_fleet: Callable[[FleetView], None] | None = None
    """Called with the newest fleet view on the way out, to cache the first frame of the next start."""
    is_paced: bool = False
    """Whether frames wait for the terminal's answer to the one before."""


class Arrived(Message):
    """A reader thread has an outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class ActionMoved(Message):
    """The worker reports progress of the action ``number``, or that it ended."""

    def __init__(self, number: int, step: str = "", done: int = 0, total: int = 0, *, has_ended: bool = False) -> None:
        super().__init__()
        self.number, self.step, self.done, self.total, self.has_ended = number, step, done, total, has_ended


@dataclass(frozen=True, slots=True)
class Asked:
    """The action whose plan was asked for last; with ``reason_hint`` the person is asked for a reason."""

    operation: str
    arguments: Mapping[str, str]
    reason_hint: str
