"""The tables. Bodies are canonical JSON of the core's types; columns beside them are only what queries select or order by.

Digests are lower-case hex, times epoch milliseconds UTC, telemetry numbers little-endian.
Plain SQL, so that a second engine can follow.
"""

FIRST: tuple[str, ...] = (
    "CREATE TABLE migration (number INTEGER PRIMARY KEY, name TEXT NOT NULL, at_ms INTEGER NOT NULL)",
    "CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    # Telemetry and scores. `kind` is 'telemetry' or 'scores'; the last row stands here so that a fleet list reads no chunk.
    """CREATE TABLE series (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, pump TEXT NOT NULL,
        rows INTEGER NOT NULL DEFAULT 0, first_ms INTEGER, last_ms INTEGER,
        last_channels INTEGER, last_flags INTEGER, last_values BLOB,
        UNIQUE (kind, pump))""",
    "CREATE TABLE channel_set (id INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE)",
    # place = series * 2**24 + hours since 1970: one tree, chunks of a pump side by side in time.
    """CREATE TABLE chunk (
        place INTEGER PRIMARY KEY, hours INTEGER NOT NULL, rows INTEGER NOT NULL, channels INTEGER NOT NULL,
        flagged INTEGER NOT NULL, digest BLOB NOT NULL, data BLOB NOT NULL)""",
    # place = series * 2**24 + hours since 1970 of the day's start; data: float32 [4, 24, channels] min, mean, max, count.
    "CREATE TABLE rollup_hour (place INTEGER PRIMARY KEY, channels INTEGER NOT NULL, data BLOB NOT NULL)",
    """CREATE TABLE label (
        id INTEGER PRIMARY KEY, pump TEXT NOT NULL, start_ms INTEGER NOT NULL, end_ms INTEGER NOT NULL,
        body TEXT NOT NULL UNIQUE)""",
    "CREATE INDEX label_pump ON label (pump, start_ms)",
    "CREATE TABLE source (digest TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, body TEXT NOT NULL)",
    # Registry.
    """CREATE TABLE model_version (
        model TEXT NOT NULL, number INTEGER NOT NULL, content_digest TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (model, number), UNIQUE (content_digest))""",
    "CREATE TABLE alias (model TEXT NOT NULL, alias TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (model, alias))",
    "CREATE TABLE package (sha256 TEXT PRIMARY KEY, device TEXT NOT NULL, created_ms INTEGER NOT NULL, body TEXT NOT NULL)",
    "CREATE INDEX package_device ON package (device, created_ms)",
    """CREATE TABLE package_pump (
        sha256 TEXT NOT NULL, pump TEXT NOT NULL, model TEXT NOT NULL, number INTEGER NOT NULL, score_limit REAL NOT NULL,
        PRIMARY KEY (sha256, pump)) WITHOUT ROWID""",
    # Rollouts and what is still to be done.
    "CREATE TABLE rollout (id TEXT PRIMARY KEY, state TEXT NOT NULL, changed_ms INTEGER NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE live_task (device TEXT PRIMARY KEY, task TEXT NOT NULL, rollout TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE outbox (
        id TEXT PRIMARY KEY, position INTEGER NOT NULL, kind TEXT NOT NULL, device TEXT NOT NULL, due_ms INTEGER NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0, why TEXT NOT NULL DEFAULT '', body TEXT NOT NULL, done_ms INTEGER)""",
    "CREATE INDEX outbox_due ON outbox (due_ms, position) WHERE done_ms IS NULL",
    # Who did what. The head stands beside the chain, so that a cut tail is seen.
    """CREATE TABLE audit (
        chain TEXT NOT NULL, position INTEGER NOT NULL, previous TEXT NOT NULL, at_ms INTEGER NOT NULL, actor TEXT NOT NULL,
        action TEXT NOT NULL, subject TEXT NOT NULL, reason TEXT NOT NULL, digests TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (chain, position))""",
    "CREATE TABLE audit_head (chain TEXT PRIMARY KEY, position INTEGER NOT NULL, digest TEXT NOT NULL)",
    "CREATE TRIGGER audit_is_final BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'an audit entry is final'); END",
    "CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'an audit entry is kept'); END",
    "CREATE TABLE person (actor TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    # Devices and what they return.
    """CREATE TABLE device (
        device TEXT PRIMARY KEY, public_pem TEXT, key_id TEXT, host_key TEXT, enrolled_ms INTEGER,
        status TEXT, status_ms INTEGER, active TEXT, counter INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE receipt (
        device TEXT NOT NULL, counter INTEGER NOT NULL, received_ms INTEGER NOT NULL, key_id TEXT NOT NULL,
        body TEXT NOT NULL, envelope BLOB NOT NULL, PRIMARY KEY (device, counter))""",
    "CREATE INDEX receipt_received ON receipt (received_ms)",
    """CREATE TABLE alarm (
        pump TEXT NOT NULL, at_ms INTEGER NOT NULL, raised INTEGER NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (pump, at_ms, raised)) WITHOUT ROWID""",
    """CREATE TABLE sketch_day (
        pump TEXT NOT NULL, day_ms INTEGER NOT NULL, edges_digest TEXT NOT NULL, put_ms INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (pump, day_ms, edges_digest))""",
    """CREATE TABLE drift (
        pump TEXT NOT NULL, at_ms INTEGER NOT NULL, worst REAL NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (pump, at_ms)) WITHOUT ROWID""",
    # The newest alarm notice and drift figure of each pump, for lists over the whole fleet.
    """CREATE TABLE pump_now (
        pump TEXT PRIMARY KEY, alarm_ms INTEGER, alarmed INTEGER, drift_ms INTEGER, drift_worst REAL,
        drift_channel TEXT) WITHOUT ROWID""",
)

# The highest counter of a signed return index by device key: an older return played again is known by it.
RETURN_COUNTERS: tuple[str, ...] = (
    """CREATE TABLE return_counter (
        device TEXT NOT NULL, key_id TEXT NOT NULL, counter INTEGER NOT NULL, PRIMARY KEY (device, key_id)) WITHOUT ROWID""",
)

# Which stick went out with what, and how its story went on.
STICKS: tuple[str, ...] = (
    "CREATE TABLE stick (id TEXT PRIMARY KEY, state TEXT NOT NULL, changed_ms INTEGER NOT NULL, body TEXT NOT NULL)",
)

# What devices ask for. `closed_ms` is 0 while a request is open.
RETRAINING: tuple[str, ...] = (
    """CREATE TABLE retrain_request (
        digest TEXT PRIMARY KEY, pump TEXT NOT NULL, device TEXT NOT NULL, at_ms INTEGER NOT NULL, state TEXT NOT NULL,
        closed_ms INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX retrain_request_pump ON retrain_request (pump, at_ms)",
)

# What merging needs: who calls a version what, every move of an alias, who drives a rollout, names that were erased, and what
# people still have to look at. An alias moved before this step is as old as can be.
MERGING: tuple[str, ...] = (
    """CREATE TABLE version_name (
        content_digest TEXT NOT NULL, workspace TEXT NOT NULL, number INTEGER NOT NULL,
        PRIMARY KEY (content_digest, workspace)) WITHOUT ROWID""",
    """INSERT INTO version_name SELECT content_digest, (SELECT value FROM fact WHERE name = 'workspace'), number
        FROM model_version""",
    """CREATE TABLE alias_move (
        model TEXT NOT NULL, alias TEXT NOT NULL, at_ms INTEGER NOT NULL, workspace TEXT NOT NULL, content_digest TEXT NOT NULL,
        PRIMARY KEY (model, alias, at_ms, workspace, content_digest)) WITHOUT ROWID""",
    """INSERT INTO alias_move
        SELECT alias.model, alias.alias, 0, (SELECT value FROM fact WHERE name = 'workspace'), model_version.content_digest
        FROM alias JOIN model_version ON model_version.model = alias.model AND model_version.number = alias.number""",
    "CREATE TABLE rollout_home (rollout TEXT PRIMARY KEY, workspace TEXT NOT NULL, epoch INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE person_known (actor TEXT PRIMARY KEY, name TEXT NOT NULL, workspace TEXT NOT NULL)",
    "INSERT INTO person_known SELECT actor, name, (SELECT value FROM fact WHERE name = 'workspace') FROM person",
    "DROP TABLE person",
    "ALTER TABLE person_known RENAME TO person",
    "CREATE INDEX person_name ON person (name)",
    "CREATE TABLE person_erased (actor TEXT PRIMARY KEY) WITHOUT ROWID",
    """CREATE TABLE merge_conflict (
        digest TEXT PRIMARY KEY, found_ms INTEGER NOT NULL, source TEXT NOT NULL, body TEXT NOT NULL) WITHOUT ROWID""",
)

# To whom confidential packages are encrypted.
DEVICE_AGE_KEYS: tuple[str, ...] = (
    "CREATE TABLE device_age_key (device TEXT PRIMARY KEY, age_key TEXT NOT NULL, at_ms INTEGER NOT NULL)",
)

# A device's keys one after the other, so that a replaced device begins its counters anew and old receipts stay provable.
DEVICE_KEYS: tuple[str, ...] = (
    """CREATE TABLE device_key (
        device TEXT NOT NULL, key_id TEXT NOT NULL, public_pem TEXT NOT NULL, host_key TEXT NOT NULL,
        enrolled_ms INTEGER NOT NULL, ended_ms INTEGER, ended TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (device, key_id)) WITHOUT ROWID""",
    """INSERT INTO device_key (device, key_id, public_pem, host_key, enrolled_ms)
        SELECT device, key_id, public_pem, coalesce(host_key, ''), coalesce(enrolled_ms, 0) FROM device
        WHERE public_pem IS NOT NULL AND key_id IS NOT NULL""",
    "ALTER TABLE receipt RENAME TO receipt_by_counter",
    """CREATE TABLE receipt (
        device TEXT NOT NULL, key_id TEXT NOT NULL, counter INTEGER NOT NULL, received_ms INTEGER NOT NULL,
        body TEXT NOT NULL, envelope BLOB NOT NULL, PRIMARY KEY (device, key_id, counter))""",
    """INSERT INTO receipt (device, key_id, counter, received_ms, body, envelope)
        SELECT device, key_id, counter, received_ms, body, envelope FROM receipt_by_counter""",
    "DROP TABLE receipt_by_counter",
    "CREATE INDEX receipt_received ON receipt (received_ms)",
    # Receipts of keys that had ended when they came in: kept as evidence, believed by nothing.
    """CREATE TABLE receipt_apart (
        digest TEXT PRIMARY KEY, device TEXT NOT NULL, key_id TEXT NOT NULL, counter INTEGER NOT NULL,
        received_ms INTEGER NOT NULL, reason TEXT NOT NULL, body TEXT NOT NULL, envelope BLOB NOT NULL)""",
    # The newest metadata that a device is known to have taken: who is still exposed to a key that was revoked.
    """CREATE TABLE device_trust (
        device TEXT PRIMARY KEY, site TEXT NOT NULL, version INTEGER NOT NULL, root INTEGER NOT NULL, at_ms INTEGER NOT NULL,
        how TEXT NOT NULL) WITHOUT ROWID""",
)

# Snapshots as manifests over chunks. A pin names a version of a chunk that a snapshot needs; `chunk_kept` holds such versions
# after late rows changed the chunk.
SNAPSHOTS: tuple[str, ...] = (
    "CREATE TABLE snapshot (digest TEXT PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE snapshot_part (digest TEXT PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE chunk_pin (place INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (place, digest)) WITHOUT ROWID",
    """CREATE TABLE chunk_kept (
        place INTEGER NOT NULL, digest BLOB NOT NULL, hours INTEGER NOT NULL, rows INTEGER NOT NULL, channels INTEGER NOT NULL,
        flagged INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (place, digest))""",
)

# What people signed so that it counts elsewhere, signed heads of audit chains, and how a conflict that was found stands here.
STATEMENTS: tuple[str, ...] = (
    """CREATE TABLE statement (
        digest TEXT PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, workspace TEXT NOT NULL, seq INTEGER NOT NULL,
        body TEXT NOT NULL, envelope BLOB NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX statement_subject ON statement (kind, subject)",
    """CREATE TABLE audit_seal (
        chain TEXT NOT NULL, position INTEGER NOT NULL, digest TEXT NOT NULL, envelope BLOB NOT NULL,
        PRIMARY KEY (chain, position, digest)) WITHOUT ROWID""",
    "ALTER TABLE merge_conflict ADD COLUMN ours TEXT NOT NULL DEFAULT ''",
)

# Asked once for every signed row: whose key is this, and which number comes next.
STATEMENT_LOOKUPS: tuple[str, ...] = (
    "CREATE INDEX statement_seq ON statement (workspace, seq)",
    "CREATE INDEX device_key_id ON device_key (key_id)",
)
