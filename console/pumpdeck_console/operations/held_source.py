"""Training rows out of a snapshot that is held: the same rows whatever came in since."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.snapshots import PumpSnapshot
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.store import Store
from pumpdeck_trainer.source import Exclusion, TrainingRequest, TrainingSource, snapshot_parts


class HeldSource:
    """`trainer.source.TrainingSource` over one snapshot of the store."""

    def __init__(self, store: Store, digest: str) -> None:
        """Raises: NotFoundError - the snapshot is not held here."""
        self.digest = digest
        self._store = store
        self._manifest = store.snapshots.manifest(digest)
        self._parts: dict[str, PumpSnapshot] = {}

    @property
    def pumps(self) -> tuple[str, ...]:
        """The pumps of the snapshot, sorted."""
        return tuple(sorted(self._manifest.pumps))

    def part(self, pump: str) -> PumpSnapshot:
        """What the snapshot holds of a pump."""
        if pump not in self._parts:
            self._parts[pump] = self._store.snapshots.part(self._manifest.pumps[pump])
        return self._parts[pump]

    def frame(self, pump: str, start_ms: int, end_ms: int) -> TelemetryFrame:
        return self._store.telemetry.held_frame(pump, self.part(pump), (start_ms, end_ms))

    def rows(self, pump: str) -> TelemetryFrame:
        """All rows that the snapshot holds of a pump."""
        part = self.part(pump)
        return self.frame(pump, part.start_ms, part.end_ms)

    def chunk_digests(self, pump: str, _start_ms: int, _end_ms: int) -> Sequence[tuple[int, str]]:
        return self.part(pump).chunks

    def exclusions(self, pump: str) -> Sequence[Exclusion]:
        return [Exclusion(*one) for one in self.part(pump).left_out]


def hold_snapshot(store: Store, source: TrainingSource, request: TrainingRequest) -> HeldSource:
    """Freeze what `source` says of the request now, in one moment of the store, and hand out exactly that."""
    with store.atomic() as held:
        manifest = held.snapshots.hold(snapshot_parts(source, request))
    return HeldSource(store, manifest.digest)


@contextmanager
def open_held(root: Path, digest: str) -> Iterator[HeldSource]:
    """A snapshot of a workspace, in a process that knows only its folder."""
    with open_workspace(root) as workspace:
        yield HeldSource(workspace.store, digest)


def held_source(workspace: Workspace, digest: str) -> HeldSource:
    """The snapshot of that digest. Raises: NotFoundError - it is not held here."""
    return HeldSource(workspace.store, digest)
