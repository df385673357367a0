"""What the console's reader threads ask: every view of one workspace, over a read-only store of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pumpdeck_console.operations import bundle_view, fleet_view, plans, rollout_view
from pumpdeck_console.operations.bundle_view import BundlesView
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
from pumpdeck_console.wiring import FLEET_FILE, Workspace
from pumpdeck_fleet.core.inventory import Fleet

if TYPE_CHECKING:
    from pumpdeck_console.operations.comparing import Comparison
    from pumpdeck_console.operations.run_diff import RunDiff
    from pumpdeck_console.operations.run_views import LiveView, RunDetail, RunsView
    from pumpdeck_console.operations.trust_rows import KeysView
    from pumpdeck_console.operations.upkeep_view import UpkeepView

_WATCHED = (FLEET_FILE, "policies.toml")


class StoreReaders:
    """`tui.readers.Readers` over the store. Made in the thread that uses it; the store is opened by the first call."""

    def __init__(self, workspace: Workspace, on_fleet: Callable[[Fleet], None] = lambda _fleet: None) -> None:
        """`on_fleet` is handed the inventory whenever a fleet view was made from it."""
        self._origin = workspace
        self._on_fleet = on_fleet
        self._workspace = workspace.reader()
        self._stamp = self._files_stamp()

    def change_token(self) -> str:
        """Differs after any commit of any program and after a change of the files people edit."""
        stamp = self._files_stamp()
        if stamp != self._stamp:
            # People edited the inventory or the policies: read them again.
            self._workspace.close()
            self._workspace, self._stamp = self._origin.reader(), stamp
        return f"{stamp}:{self._workspace.store.change_token()}"

    def _files_stamp(self) -> str:
        found = []
        for name in _WATCHED:
            try:
                status = (self._origin.root / name).stat()
            except OSError:
                found.append("-")
            else:
                found.append(f"{status.st_mtime_ns}.{status.st_size}")
        return ":".join(found)

    def fleet(self, query: str = "") -> FleetView:
        view = fleet_view.fleet_view(self._workspace, query=query)
        self._on_fleet(self._workspace.fleet)
        return view

    def pump(self, pump_id: str) -> PumpDetail:
        return fleet_view.pump_detail(self._workspace, pump=pump_id)

    def models(self) -> ModelsView:
        return rollout_view.models_view(self._workspace)

    def card(self, model: str, version: int) -> ModelCardView:
        from pumpdeck_console.operations.models import read_card  # deferred: few open one

        return ModelCardView(model, version, read_card(self._workspace, model=model, which=str(version)))

    def rollouts(self) -> RolloutsView:
        return rollout_view.rollouts_view(self._workspace)

    def rollout(self, rollout_id: str) -> RolloutDetail:
        return rollout_view.rollout_detail(self._workspace, rollout_id=rollout_id)

    def audit(self, query: str = "", limit: int = 2_000) -> AuditView:
        return rollout_view.audit_view(self._workspace, query=query, limit=limit)

    def bundles(self) -> BundlesView:
        return bundle_view.bundles_view(self._workspace)

    def audit_check(self) -> AuditCheck:
        return rollout_view.audit_check(self._workspace)

    def comparison(self, model: str, before: str, after: str) -> Comparison:
        from pumpdeck_console.operations.comparing import compare_versions  # deferred: few compare

        return compare_versions(self._workspace, model=model, before=before, after=after)

    def runs(self) -> RunsView:
        from pumpdeck_console.operations.run_views import runs_view  # deferred: its screen is seldom the first

        return runs_view(self._workspace)

    def live(self) -> LiveView:
        from pumpdeck_console.operations.run_views import live_view  # deferred: as above

        return live_view(self._workspace)

    def run(self, run: str) -> RunDetail:
        from pumpdeck_console.operations.run_views import run_detail  # deferred: as above

        return run_detail(self._workspace, run=run)

    def run_diff(self, before: str, after: str) -> RunDiff:
        from pumpdeck_console.operations.run_diff import diff_runs  # deferred: as above

        return diff_runs(self._workspace, before=before, after=after)

    def keys(self) -> KeysView:
        from pumpdeck_console.operations.keys_view import keys_view  # deferred: TUF

        return keys_view(self._workspace)

    def upkeep(self) -> UpkeepView:
        from pumpdeck_console.operations.upkeep_view import upkeep_view  # deferred: TUF

        return upkeep_view(self._workspace)

    def link(self) -> LinkView:
        return rollout_view.link_view(self._workspace)

    def plan(self, operation: str, arguments: Mapping[str, str]) -> PlanView:
        return plans.plan(self._workspace, operation, arguments)
