"""Another store's history into this one, in one transaction: rows by the rules of `core/merging.py`, then what follows from them.

The other store is only read. What either side knew stays known; what belongs to one workspace alone (outbox, own id) stays there.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ConflictError
from pumpdeck_fleet.core.merging import (
    Key,
    MergeConflict,
    Row,
    TaskClaim,
    alias_conflict,
    conflict_of,
    join_rows,
    last_move,
    standing_claims,
)
from pumpdeck_fleet.core.rollout_states import LIVE, TaskState
from pumpdeck_fleet.core.statements import Kind
from pumpdeck_fleet.store.json_rows import from_text
from pumpdeck_fleet.store.merge_signed import Beliefs, Gate, SettledHosts, settled_row, take_chains
from pumpdeck_fleet.store.merge_tables import ALL, TABLES, Scope, Side, Table

if TYPE_CHECKING:
    from pumpdeck_fleet.core.rollout import Rollout
    from pumpdeck_fleet.store.store import Store

_ENDED_UNSEEN = frozenset({TaskState.CANCELLED, TaskState.SUPERSEDED, TaskState.REFUSED, TaskState.UNKNOWN})


@dataclass(slots=True)
class StoreMerge:
    """What one merge brought. `taken` counts rows that are new or changed here, by table; `receipts` are (device, key, counter).

    `approvals` are those that another workspace gave to rollouts driven here: rollout -> canonical JSON of each. `refused` is
    (which, why) of what is not believed, `unsealed` (chain, entries) of audit chains that no signed head covers yet.
    """

    taken: Counter[str] = field(default_factory=Counter)
    conflicts: list[MergeConflict] = field(default_factory=list)
    receipts: list[tuple[str, str, int]] = field(default_factory=list)
    approvals: dict[str, list[str]] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    unsealed: list[tuple[str, int]] = field(default_factory=list)

    @property
    def is_news(self) -> bool:
        """True when something is here that was not before."""
        return any(self.taken.values())


def merge_store(mine: Store, theirs: Store, scope: Scope = ALL, beliefs: Beliefs | None = None) -> StoreMerge:
    """Take in the part `scope` of another store. Call inside `mine.atomic()`; raising undoes everything.

    `beliefs` says what of a store from outside is believed; what is not stays out and is named. None: it is our own store.
    Audit chains and names of persons come along only when everything does: a part of a chain proves nothing.

    Raises:
        ForkedError: both stores wrote on under one identity; one folder is a copy of the other.
        AuditBrokenError: a chain of the other store does not hold.
        ConflictError: both are the same workspace.
    """
    if theirs.workspace == mine.workspace:
        raise ConflictError("is this very workspace", theirs.workspace, hint="name the folder of another one")
    done = StoreMerge()
    here, there = mine.side(), theirs.side()
    there.know_versions()
    if scope == ALL:
        _take_audit(done, mine, theirs, beliefs)
    gate = Gate(mine, beliefs, done.refused) if beliefs is not None else None
    moves_before = _moves(here)
    for table in TABLES:
        if table.name == "person" and scope != ALL:
            continue
        here.know_versions()
        for key, row in table.rows(there, scope):
            believed = row if gate is None else gate.believed(table.name, key, row, table.get(here, key))
            if believed is not None:
                _take(done, table, here, (key, believed))
        if table.name == "device_key":
            if gate is not None:
                _take_keys(done, gate, table, mine)
            _end_older_keys(done, here)
    _point_aliases(done, here, moves_before, _moves(there))
    for kind in ("telemetry", "scores"):
        _take_rows(done, mine, theirs, scope, kind)
    derive(mine)
    return done


def _take_audit(done: StoreMerge, mine: Store, theirs: Store, beliefs: Beliefs | None) -> None:
    if beliefs is None:
        done.taken["audit"] = mine.audit.take(theirs.audit)
        return
    done.taken["audit"], done.unsealed = take_chains(mine, theirs, beliefs, done.refused)


def _take_keys(done: StoreMerge, gate: Gate, table: Table, mine: Store) -> None:
    """Device keys are what their statements add up to, not what a row says."""
    here = mine.side()
    for key, row in gate.device_rows(lambda key: table.get(here, key)):
        _take(done, table, here, (key, row))
    settle_hosts(mine, gate.chosen)
    _end_older_keys(done, here)
    gate.judge_keys(lambda key: table.get(here, key))


def settle_hosts(store: Store, devices: Iterable[str]) -> None:
    """Give the keys of these devices the host key that people chose for them."""
    settled, table = SettledHosts(store), next(one for one in TABLES if one.name == "device_key")
    here, wanted = store.side(), set(devices)
    for key, row in list(table.rows(here)) if wanted else ():
        if key[0] in wanted and (chosen := settled_row(key[0], row, settled)) != row:
            table.write(here, key, chosen)


def derive(store: Store) -> None:
    """Make anew what follows from the joined rows: what devices run, the newest figures of pumps, live tasks."""
    sql = store.side().sql
    for statement in _DERIVED:
        sql.write(statement)
    standing = standing_claims(claims_of(store.rollouts.all()))
    sql.write("DELETE FROM live_task")
    sql.write_many(
        "INSERT INTO live_task (device, task, rollout) VALUES (?, ?, ?)",
        [(claim.device, claim.task, claim.rollout) for claim in standing.values() if claim.is_live],
    )


def renumber(store: Store) -> None:
    """Give every model version the number that its names say now; packages and aliases follow."""
    side = store.side()
    (table,) = (one for one in TABLES if one.name == "version")
    for key, row in list(table.rows(side)):
        table.write(side, key, row)


def claims_of(rollouts: Iterable[Rollout]) -> Iterator[TaskClaim]:
    """Every started task, as far as two may compete for one device."""
    for rollout in rollouts:
        for device, task in rollout.tasks.items():
            if task.seq > 0:
                is_void = task.state in _ENDED_UNSEEN and not task.assign_ms and not task.receipt_digest
                is_live = task.state in LIVE
                yield TaskClaim(device, task.id, rollout.id, task.seq, task.assign_ms > 0, is_live, is_void)


def dump(store: Store, *, with_audit: bool = True) -> dict[str, list[list[Any]]]:
    """Everything that merging joins, in one order and under identities that are the same everywhere: to compare two stores.

    What a sync itself writes down is left out: it says in which order things came.
    """
    side = store.side()
    side.know_versions()
    found = {table.name: [[list(key), _plain(row)] for key, row in table.rows(side)] for table in TABLES}
    for kind in ("telemetry", "scores"):
        chunks = store.telemetry if kind == "telemetry" else store.scores
        found[kind] = [[pump, chunks.chunk_digests(pump, 0, _FOREVER_MS)] for pump in chunks.pumps()]
    found["live_task"] = [list(row) for row in side.sql.rows("SELECT device, task, rollout FROM live_task ORDER BY device")]
    found["pump_now"] = [list(row) for row in side.sql.rows("SELECT * FROM pump_now ORDER BY pump")]
    found["active"] = [list(row) for row in side.sql.rows("SELECT device, active, counter FROM device ORDER BY device")]
    found["alias"] = [
        [model, alias, side.content_of(model, number)]
        for model, alias, number in side.sql.rows("SELECT model, alias, number FROM alias ORDER BY model, alias")
    ]
    if with_audit:
        sql = "SELECT chain, position, digest FROM audit WHERE action NOT LIKE 'sync.%' ORDER BY chain, position"
        found["audit"] = [list(row) for row in side.sql.rows(sql)]
    return found


def dump_digest(store: Store, *, with_audit: bool = True) -> str:
    """One digest over `dump`."""
    return canonical.digest(canonical.encode(dump(store, with_audit=with_audit)))


_FOREVER_MS = 1 << 45


def _plain(row: Row) -> dict[str, Any]:
    return {name: hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value for name, value in row.items()}


def _take(done: StoreMerge, table: Table, here: Side, found: tuple[Key, Row]) -> None:
    key, theirs = found
    mine = table.get(here, key)
    if mine == theirs:
        return
    if mine is not None and (conflict := conflict_of(table.name, key, mine, theirs)):
        done.conflicts.append(conflict)
    joined = theirs if mine is None else join_rows(table.name, mine, theirs)
    if table.name == "rollout" and mine is not None and mine["home"] == here.workspace == joined["home"]:
        joined = _own_rollout(done, str(key[0]), mine, joined)
    if joined == mine:
        return
    table.write(here, key, joined)
    done.taken[table.name] += 1
    if table.name == "receipt" and mine is None:
        done.receipts.append((key[0], key[1], key[2]))


def _own_rollout(done: StoreMerge, rollout: str, mine: Row, joined: Row) -> Row:
    """What others approved goes through the rollout's own rules, as if the person sat here; nobody else drives it."""
    given = [text for actor, text in joined["approvals"].items() if actor not in mine["approvals"]]
    if given:
        done.approvals[rollout] = sorted(given)
    return mine


def _end_older_keys(done: StoreMerge, here: Side) -> None:
    """A device has one key: where two count, the one that was enrolled later does, and people should look."""
    for device, key_id, later, later_ms in here.sql.rows(_OLDER_KEYS):
        words = (later_ms, "replaced", device, key_id)
        was_open = here.sql.row("SELECT ended_ms FROM device_key WHERE device = ? AND key_id = ?", (device, key_id)) == (None,)
        changed = here.sql.write(
            "UPDATE device_key SET ended_ms = ?1, ended = ?2 WHERE device = ?3 AND key_id = ?4"
            " AND (ended_ms IS NULL OR (ended_ms, ended) > (?1, ?2))",
            words,
        )
        done.taken["device_key"] += changed
        if was_open:
            kept, other = f"key {later[:12]}, enrolled later", f"key {key_id[:12]}"
            advice = "was the device replaced? If not, enrol it again beside it"
            done.conflicts.append(MergeConflict("device key", device, kept, other, advice))


_OLDER_KEYS = """
SELECT older.device, older.key_id, later.key_id, min(later.enrolled_ms) FROM device_key AS older JOIN device_key AS later
    ON later.device = older.device AND (later.enrolled_ms, later.key_id) > (older.enrolled_ms, older.key_id)
GROUP BY older.device, older.key_id
"""


def _moves(side: Side) -> dict[tuple[str, str], list[Key]]:
    found: dict[tuple[str, str], list[Key]] = {}
    for key in side.sql.rows("SELECT model, alias, at_ms, workspace, content_digest FROM alias_move"):
        found.setdefault((key[0], key[1]), []).append(key)
    return found


def _point_aliases(
    done: StoreMerge, here: Side, before: Mapping[tuple[str, str], list[Key]], theirs: Mapping[tuple[str, str], list[Key]]
) -> None:
    for (model, alias), moves in _moves(here).items():
        conflict = alias_conflict(model, alias, before.get((model, alias), ()), theirs.get((model, alias), ()))
        if conflict:
            done.conflicts.append(conflict)
        number = here.number_of(last_move(moves)[4])
        old = here.sql.row("SELECT number FROM alias WHERE model = ? AND alias = ?", (model, alias))
        if old is None or old[0] != number:
            sql = "INSERT OR REPLACE INTO alias (model, alias, number) VALUES (?, ?, ?)"
            here.sql.write(sql, (model, alias, number))
            done.taken["alias"] += 1


def _take_rows(done: StoreMerge, mine: Store, theirs: Store, scope: Scope, kind: str) -> None:
    from pumpdeck_fleet.store.chunk_merge import contradictions  # deferred: numpy, as the tables themselves

    here, there = (mine.telemetry, theirs.telemetry) if kind == "telemetry" else (mine.scores, theirs.scores)
    for pump in there.pumps():
        if scope.pumps is not None and pump not in scope.pumps:
            continue
        held = dict(here.chunk_digests(pump, scope.since_ms, _FOREVER_MS))
        lacking = [start for start, digest in there.chunk_digests(pump, scope.since_ms, _FOREVER_MS) if held.get(start) != digest]
        against = 0
        for frame in there.frames_at(pump, lacking):
            old = here.frame(pump, int(frame.at_ms[0]), int(frame.at_ms[-1]) + 1)
            against += contradictions(old, frame)
            counts = here.join(pump, frame)
            done.taken[kind] += counts.new + counts.changed
        if against:
            advice = "the greater values were kept; ingest the right file again to set them"
            done.conflicts.append(MergeConflict(kind, pump, f"{against} rows", "other values at the same times", advice))


def note_conflicts(store: Store, source: str, conflicts: Iterable[MergeConflict]) -> list[MergeConflict]:
    """Keep conflicts for people to look at; those that are new. The same one again is no news."""
    sql = store.side().sql
    fresh = []
    for conflict in conflicts:
        # Which side was ours is no part of it: the same conflict has the same digest on both sides.
        body = canonical.encode({name: value for name, value in asdict(conflict).items() if name != "ours"}).decode("utf-8")
        values = (canonical.digest(body.encode("utf-8")), store.clock.now_ms(), source, body, conflict.ours)
        columns = "digest, found_ms, source, body, ours"
        statement = f"INSERT INTO merge_conflict ({columns}) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        if sql.write(statement, values):
            fresh.append(conflict)
    return fresh


@dataclass(frozen=True, slots=True)
class KnownConflict:
    """A conflict as it was listed: when, and on meeting which workspace. `number` counts from the oldest, `digest` is its name.

    `settled` says what a person decided, and why; empty while nobody has.
    """

    found_ms: int
    workspace: str
    conflict: MergeConflict
    number: int = 0
    digest: str = ""
    settled: str = ""


def known_conflicts(store: Store) -> tuple[KnownConflict, ...]:
    """All that were listed, the newest first."""
    settled: dict[str, tuple[int, str]] = {}
    for row in store.statements.of(Kind.SETTLEMENT):
        said = (row.statement.at_ms, f"{row.statement.about['take']}: {row.statement.about['because']}")
        settled[row.statement.subject] = max(said, settled.get(row.statement.subject, said))
    rows = store.side().sql.rows("SELECT found_ms, source, body, ours, digest FROM merge_conflict ORDER BY found_ms, digest")
    found = []
    for number, (at_ms, source, body, ours, digest) in enumerate(rows, 1):
        conflict = replace(from_text(MergeConflict, body, "conflict"), ours=ours)
        found.append(KnownConflict(at_ms, source, conflict, number, digest, settled.get(digest, (0, ""))[1]))
    return tuple(reversed(found))


_DERIVED = (
    # The newest key of a device is its identity; when it has ended, the device is retired. It runs what that key said last.
    """INSERT INTO device (device, key_id, public_pem, host_key, enrolled_ms)
        SELECT device, key_id, CASE WHEN ended_ms IS NULL THEN public_pem END, host_key, enrolled_ms FROM device_key
        WHERE (enrolled_ms, key_id) = (SELECT enrolled_ms, key_id FROM device_key AS other WHERE other.device = device_key.device
            ORDER BY enrolled_ms DESC, key_id DESC LIMIT 1)
        ON CONFLICT (device) DO UPDATE SET key_id = excluded.key_id, public_pem = excluded.public_pem,
            host_key = excluded.host_key, enrolled_ms = excluded.enrolled_ms""",
    """UPDATE device SET active = NULL, counter = 0 WHERE device IN (SELECT device FROM device_key)""",
    """INSERT INTO device (device, active, counter)
        SELECT receipt.device, json_extract(body, '$.active_sha256'), max(receipt.counter) FROM receipt
        LEFT JOIN device ON device.device = receipt.device WHERE coalesce(device.key_id, receipt.key_id) = receipt.key_id
        GROUP BY receipt.device
        ON CONFLICT (device) DO UPDATE SET active = excluded.active, counter = excluded.counter""",
    """INSERT INTO pump_now (pump, alarm_ms, alarmed)
        SELECT pump, at_ms, max(raised) FROM alarm WHERE at_ms = (SELECT max(at_ms) FROM alarm AS other
            WHERE other.pump = alarm.pump) GROUP BY pump
        ON CONFLICT (pump) DO UPDATE SET alarm_ms = excluded.alarm_ms, alarmed = excluded.alarmed""",
    """INSERT INTO pump_now (pump, drift_ms, drift_worst, drift_channel)
        SELECT drift.pump, at_ms, worst,
            coalesce((SELECT key FROM json_each(drift.body) ORDER BY value DESC, key DESC LIMIT 1), '')
        FROM drift JOIN (SELECT pump, max(at_ms) AS last_ms FROM drift GROUP BY pump) AS newest
            ON newest.pump = drift.pump AND newest.last_ms = drift.at_ms WHERE 1
        ON CONFLICT (pump) DO UPDATE SET drift_ms = excluded.drift_ms, drift_worst = excluded.drift_worst,
            drift_channel = excluded.drift_channel""",
)
