"""The query language over a fleet view, for the filter of the console. Runs on the console's own thread: it reads no file."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pumpdeck_console.operations.views import HEALTH_WORDS, NEVER, NO_HEALTH, FleetView
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_fleet.core.query import parse_query


class QuerySelector:
    """`tui.selecting.Selector`. `know` hands it the inventory that a reader thread has loaded: what views do not show."""

    def __init__(self) -> None:
        self._fleet: Fleet | None = None
        self._view: FleetView | None = None
        self._rows: list[dict[str, Any]] = []

    def know(self, fleet: Fleet) -> None:
        """Take the inventory for the fields that are not columns. One assignment, so any thread may call it."""
        self._fleet = fleet

    def __call__(self, view: FleetView, text: str) -> npt.NDArray[np.bool_]:
        """bool[n]: the pumps that the query selects.

        Raises:
            QuerySyntaxError: the text is no query.
        """
        query = parse_query(text)
        if self._view is not view:
            self._view, self._rows = view, list(_rows(view, self._fleet))
        matches, now_ms = query.matches, view.as_of_ms
        return np.fromiter((matches(row, now_ms) for row in self._rows), dtype=bool, count=len(view))


def _rows(view: FleetView, fleet: Fleet | None) -> list[dict[str, Any]]:
    kinds = dict(zip(view.sites.words, view.site_kinds, strict=False))
    score, limit, drift = (_numbers(column) for column in (view.score, view.limit, view.drift_psi))
    found = []
    for i, (pump, tag) in enumerate(zip(view.pump_ids, view.tags, strict=True)):
        site, health, seen, version = (
            view.sites[i],
            int(view.health[i]),
            int(view.last_seen_ms[i]),
            int(view.model_version[i]),
        )
        row: dict[str, Any] = {
            "pump": pump,
            "tag": tag,
            "site": site,
            "kind": kinds.get(site),
            "device": view.devices[i],
            "type": view.types[i],
            "maker": view.makers[i],
            "health": HEALTH_WORDS[health] if health != NO_HEALTH else None,
            "score": score[i],
            "limit": limit[i],
            "drift": drift[i],
            "model": view.models[i] or None,
            "version": version or None,
            "seen": seen if seen != NEVER else None,
        }
        if fleet is not None and pump in fleet.pump_by_id:
            known = fleet.pump_by_id[pump]
            row |= {
                "link": fleet.site(site).link.value,
                "maker_model": known.model,
                "criticality": known.criticality,
                "group": known.redundancy_group,
                "label": known.labels,
            }
        found.append(row)
    return found


def _numbers(column: npt.NDArray[np.float32]) -> list[float | None]:
    return [None if value != value else value for value in column.tolist()]
