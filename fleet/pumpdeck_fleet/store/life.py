"""The life of a workspace: made, restored, cut out for a trip. What follows from it stands as facts in its store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pumpdeck_fleet.store.connection import Connection
from pumpdeck_fleet.store.json_rows import from_text, to_text

_KEYS_OF, _RESTORED, _WORKSPACE = "keys_of", "restored", "workspace"


@dataclass(frozen=True, slots=True)
class Restored:
    """This workspace was made from a backup of `workspace` taken at `backup_ms`.

    `least_versions` is, by site, the version that the next metadata must be above: well over everything that workspace can have
    signed after the backup.
    """

    workspace: str
    backup_ms: int
    at_ms: int
    least_versions: Mapping[str, int] = field(default_factory=dict)


class LifeTable:
    """Facts about the workspace itself; none of them is merged."""

    def __init__(self, sql: Connection, workspace: str) -> None:
        self._sql = sql
        self._workspace = workspace

    @property
    def key_owner(self) -> str:
        """The workspace under whose name this person's private keys are kept."""
        return self._fact(_KEYS_OF) or self._workspace

    @property
    def restored(self) -> Restored | None:
        """Where this workspace comes from, when it comes from a backup."""
        text = self._fact(_RESTORED)
        return from_text(Restored, text, "restore") if text else None

    def use_keys_of(self, workspace: str) -> None:
        """Keep using the private keys of the workspace that this one was made from."""
        self._put(_KEYS_OF, workspace)

    def begin_again(self, restored: Restored, name: str) -> None:
        """Become the workspace `name`, restored from what this store was: its rollouts and version numbers go on here.

        What was one workspace may live on elsewhere; under another name nothing that either does can be taken for the other's.
        The store must be opened again after this.
        """
        self.use_keys_of(self.key_owner)
        self._put(_RESTORED, to_text(restored))
        self._sql.write(
            "INSERT INTO version_name (content_digest, workspace, number) SELECT content_digest, ?, number FROM version_name"
            " WHERE workspace = ? ON CONFLICT DO NOTHING",
            (name, restored.workspace),
        )
        self._sql.write(
            "INSERT INTO rollout_home (rollout, workspace, epoch)"
            " SELECT rollout.id, ?, coalesce(epoch, 0) + 1 FROM rollout LEFT JOIN rollout_home ON rollout = rollout.id"
            " WHERE coalesce(rollout_home.workspace, ?) = ? ON CONFLICT (rollout) DO UPDATE"
            " SET workspace = excluded.workspace, epoch = excluded.epoch",
            (name, restored.workspace, restored.workspace),
        )
        self._put(_WORKSPACE, name)

    def set_restored(self, restored: Restored) -> None:
        """Replace what is known of the restore."""
        self._put(_RESTORED, to_text(restored))

    def share_numbers(self, workspace: str) -> None:
        """Call every model version what that workspace calls it: for a part that was cut out of it."""
        self._sql.write(
            "INSERT INTO version_name (content_digest, workspace, number) SELECT content_digest, ?, number FROM version_name"
            " WHERE workspace = ? ON CONFLICT DO NOTHING",
            (self._workspace, workspace),
        )

    def _fact(self, name: str) -> str:
        row = self._sql.row("SELECT value FROM fact WHERE name = ?", (name,))
        return str(row[0]) if row else ""

    def _put(self, name: str, value: str) -> None:
        sql = "INSERT INTO fact (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        self._sql.write(sql, (name, value))
