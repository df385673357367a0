"""Trips as the console asks its worker for them: with plain arguments, to a folder, for a query."""

from __future__ import annotations

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.trips import TripReport, TripWish, plan_trip, prepare_trip
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.ports import Progress


@operation("trip.plan_to", runs_in="worker")
def plan_trip_to(workspace: Workspace, *, to: str, query: str = "") -> TripReport:
    """What the trip would be. Raises: as `plan_trip`."""
    return plan_trip(workspace, TripWish(to=to, query=query))


@operation("trip.prepare_to", runs_in="worker")
def prepare_trip_to(
    workspace: Workspace, *, to: str, query: str = "", on_progress: Progress = no_progress
) -> TripReport:
    """Prepare the trip. Raises: as `prepare_trip`."""
    return prepare_trip(workspace, TripWish(to=to, query=query), on_progress=on_progress)
