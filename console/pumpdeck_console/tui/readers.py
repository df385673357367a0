"""What the console asks for: reader operations and actions, as Protocols.

The app knows neither store nor SSH. It is given a factory of ``Readers`` and one ``Actions``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pumpdeck_console.operations.bundle_view import BundlesView
    from pumpdeck_console.operations.comparing import Comparison
    from pumpdeck_console.operations.run_diff import RunDiff
    from pumpdeck_console.operations.run_views import LiveView, RunDetail, RunsView
    from pumpdeck_console.operations.trust_rows import KeysView
    from pumpdeck_console.operations.upkeep_view import UpkeepView
    from pumpdeck_console.operations.views import (
        AuditCheck,
        AuditView,
        FleetView,
        LinkView,
        ModelCardView,
        ModelsView,
        PlanView,
        PumpDetail,
        RolloutDetail,
        RolloutsView,
    )


class Readers(Protocol):
    """The reader operations of one workspace.

    Threads: the factory is called once per reader thread of the console (at most three), and the ``Readers`` it returns
    is used by that thread only, one call at a time. A SQLite connection opened in the factory is therefore safe.
    Errors: every call may raise ``PumpdeckError``; the console then keeps its last view and shows the message in a
    banner. Calls may be slow; the console never waits for one on its event loop.
    """

    def change_token(self) -> str | int:
        """A value that changes when anything a view shows may have changed. Asked every second: must cost < 1 ms."""

    def fleet(self, query: str = "") -> FleetView:
        """Pumps that ``query`` selects (all for the empty query). A bad query raises, saying where."""

    def pump(self, pump_id: str) -> PumpDetail:
        """One pump with about the last 24 h of rows and scores (at most a few thousand rows)."""

    def models(self) -> ModelsView:
        """Model versions and training runs."""

    def card(self, model: str, version: int) -> ModelCardView:
        """The full model card of one version."""

    def rollouts(self) -> RolloutsView:
        """All rollouts, newest first."""

    def rollout(self, rollout_id: str) -> RolloutDetail:
        """One rollout with waves and device tasks."""

    def audit(self, query: str = "", limit: int = 2_000) -> AuditView:
        """The newest ``limit`` audit entries in which ``query`` (plain words) occurs."""

    def bundles(self) -> BundlesView:
        """Sticks, awaited devices, what is ready to leave, drives that are plugged in."""

    def audit_check(self) -> AuditCheck:
        """Whether the audit chain holds, computed anew. May take seconds."""

    def comparison(self, model: str, before: str, after: str) -> Comparison:
        """Two versions of a model, each named by number or alias, beside each other."""

    def runs(self) -> RunsView:
        """Training runs, snapshots, what devices ask for, experiments."""

    def live(self) -> LiveView:
        """Trainings under way in any process. Asked every second while the runs screen is in front."""

    def run(self, run: str) -> RunDetail:
        """One training run in full."""

    def run_diff(self, before: str, after: str) -> RunDiff:
        """What differs between two runs, named by their digests or beginnings of them."""

    def keys(self) -> KeysView:
        """Who may sign and read what, verified anew. May take seconds."""

    def upkeep(self) -> UpkeepView:
        """Checks of the workspace, backups, trips, conflicts. May take seconds."""

    def link(self) -> LinkView:
        """How many devices are reached and how many commands wait."""

    def plan(self, operation: str, arguments: Mapping[str, str]) -> PlanView:
        """What the action ``operation`` would do with ``arguments``; changes nothing.

        Operations the console plans: ``train {pump_type}``, ``models.promote {model, which, reason}``,
        ``models.demote {model, reason}``, ``devices.dismiss {pump, reason}``, ``rollout.start {model, version}``,
        ``rollout.approve {rollout_id}``, ``rollout.halt | resume | abort {rollout_id, reason}``, ``tick``,
        ``backup {to}``, ``bundle.export {to, query}``,
        ``bundle.tar {file, query}``, ``bundle.intake {folder}``, ``bundle.lost {stick, reason}``,
        ``bundle.carry {stick, carrier}``, ``bundle.reissue {stick, to}``.
        """


OnProgress = Callable[[str, int, int], None]
"""``(what is being done, how many are done, of how many: 0 where unknown)``; called from a thread of the worker connection."""


URGENT = frozenset({"rollout.halt", "rollout.abort"})
"""Operations that never wait for one under way: ``Actions`` runs them beside it, and people may start them at any moment."""


class Submission(Protocol):
    """One action under way."""

    def result(self, timeout_s: float | None = None) -> object:
        """The operation's result.

        Raises: PumpdeckError as the operation raised it, or a worker-died error (nothing is known of the outcome;
        unfinished commands are found in the outbox); TimeoutError.
        """

    def cancel(self) -> None:
        """Ask the operation to stop at its next safe point."""

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` from another thread when ``result`` is ready (at once if it is)."""


class Actions(Protocol):
    """Runs operations that change things, outside the console's process."""

    def submit(self, operation: str, arguments: Mapping[str, object], on_progress: OnProgress) -> Submission:
        """Start an operation; returns at once."""

    def warm(self) -> None:
        """Start the worker in the background so that the first action does not pay for it; returns at once."""

    def close(self) -> None:
        """Stop the worker; running operations stop at their next safe point."""


ReadersFactory = Callable[[], Readers]
