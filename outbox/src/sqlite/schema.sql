-- Sagabus on SQLite, version 1. Times are microseconds since 1970. The columns mean what they mean on PostgreSQL.
CREATE TABLE sagabus_schema_version (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL);

CREATE TABLE sagabus_saga (
    saga TEXT NOT NULL, id TEXT NOT NULL, state TEXT NOT NULL, data TEXT NOT NULL, seq INTEGER NOT NULL,
    entered INTEGER NOT NULL, version INTEGER NOT NULL, progress TEXT, originator TEXT, paused_by TEXT,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, completed_at INTEGER,
    PRIMARY KEY (id, saga)
) WITHOUT ROWID;
CREATE INDEX sagabus_saga_completed ON sagabus_saga (saga, completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX sagabus_saga_open ON sagabus_saga (saga, version, state, updated_at) WHERE completed_at IS NULL;
CREATE INDEX sagabus_saga_done ON sagabus_saga (saga, version, state, updated_at) WHERE completed_at IS NOT NULL;
CREATE INDEX sagabus_saga_paused ON sagabus_saga (saga, id) WHERE paused_by IS NOT NULL;

CREATE TABLE sagabus_inbox (
    endpoint TEXT NOT NULL, receiver TEXT NOT NULL, message_id TEXT NOT NULL, body_hash INTEGER NOT NULL,
    type TEXT NOT NULL,
    result TEXT NOT NULL CHECK (result IN ('handled', 'ignored', 'stale', 'discarded', 'held', 'retrying', 'suspect')),
    conversation_id TEXT NOT NULL, causation_id TEXT, saga TEXT, saga_id TEXT, seq INTEGER, from_state TEXT,
    to_state TEXT, effects TEXT, sent_at INTEGER, claimed_at INTEGER NOT NULL, handled_at INTEGER NOT NULL,
    handled_by TEXT NOT NULL, attempts INTEGER NOT NULL, round INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0, note TEXT, message TEXT,
    PRIMARY KEY (message_id, receiver, endpoint)
) WITHOUT ROWID;
CREATE INDEX sagabus_inbox_journal ON sagabus_inbox (saga_id, saga) WHERE saga_id IS NOT NULL;
CREATE INDEX sagabus_inbox_handled ON sagabus_inbox (endpoint, handled_at)
    WHERE result IN ('handled', 'ignored', 'stale', 'discarded');

-- The id is a uuid as text, in lower case and with hyphens. With rowids: without, a row beyond 1,002 bytes, which is
-- most of them, has a page of its own beside the tree's. Envelope and body are last: what stands behind a long value is
-- read through all pages of that value.
CREATE TABLE sagabus_outbox (
    id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, message_id TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('command', 'event', 'reply', 'timer', 'retry')),
    type TEXT NOT NULL, destination TEXT NOT NULL, saga TEXT, saga_id TEXT, timer INTEGER,
    created_at INTEGER NOT NULL, due_at INTEGER NOT NULL, lease_until INTEGER, lease_owner TEXT,
    first_attempt_at INTEGER, attempts INTEGER NOT NULL DEFAULT 0, expired INTEGER NOT NULL DEFAULT 0, waits_for TEXT,
    last_error TEXT, envelope TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX sagabus_outbox_due ON sagabus_outbox (endpoint, due_at);
CREATE INDEX sagabus_outbox_timers ON sagabus_outbox (saga_id, saga) WHERE kind = 'timer';
CREATE INDEX sagabus_outbox_waits ON sagabus_outbox (endpoint, waits_for, id) WHERE waits_for IS NOT NULL;
CREATE INDEX sagabus_outbox_failing ON sagabus_outbox (endpoint, due_at)
    WHERE waits_for IS NOT NULL OR attempts > 0 OR last_error IS NOT NULL;
CREATE INDEX sagabus_outbox_renamed ON sagabus_outbox (message_id) WHERE message_id <> CAST(id AS text);

CREATE TABLE sagabus_held (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, receiver TEXT NOT NULL,
    message_id TEXT NOT NULL,
    reason TEXT NOT NULL CHECK (reason IN ('early', 'deferred', 'paused', 'version', 'failed', 'rejected', 'crashes',
        'undecodable', 'stranded')),
    saga TEXT, saga_id TEXT, error TEXT, attempts INTEGER NOT NULL, held_at INTEGER NOT NULL, expires_at INTEGER,
    type TEXT NOT NULL, kind TEXT, destination TEXT, envelope TEXT NOT NULL, body BLOB NOT NULL,
    UNIQUE (message_id, receiver, endpoint)
);
CREATE INDEX sagabus_held_instance ON sagabus_held (saga_id, saga, endpoint, reason, type, arrival)
    WHERE saga_id IS NOT NULL;
CREATE INDEX sagabus_held_reason ON sagabus_held (endpoint, reason, expires_at);
CREATE INDEX sagabus_held_group ON sagabus_held (endpoint, reason, type, arrival);
CREATE INDEX sagabus_held_receiver ON sagabus_held (receiver, arrival);

CREATE TABLE sagabus_field (
    name TEXT NOT NULL, value TEXT NOT NULL, saga TEXT NOT NULL, id TEXT NOT NULL,
    is_alias INTEGER CHECK (is_alias),
    PRIMARY KEY (id, saga, name, value)
) WITHOUT ROWID;
CREATE UNIQUE INDEX sagabus_field_value ON sagabus_field (name, value, is_alias);
CREATE TRIGGER sagabus_field_gone AFTER DELETE ON sagabus_saga BEGIN
    DELETE FROM sagabus_field WHERE id = old.id AND saga = old.saga;
END;

CREATE TABLE sagabus_definition (
    saga TEXT NOT NULL, version INTEGER NOT NULL, chart TEXT NOT NULL, endpoint TEXT NOT NULL,
    registered_at INTEGER NOT NULL,
    PRIMARY KEY (saga, version, endpoint)
) WITHOUT ROWID;

CREATE TABLE sagabus_subscription (
    endpoint TEXT NOT NULL, event TEXT NOT NULL, PRIMARY KEY (endpoint, event)
) WITHOUT ROWID;

CREATE TABLE sagabus_process (
    owner TEXT PRIMARY KEY, endpoint TEXT NOT NULL, started_at INTEGER NOT NULL, seen_at INTEGER NOT NULL,
    subscribes TEXT NOT NULL, types TEXT NOT NULL, report TEXT NOT NULL, asked TEXT
) WITHOUT ROWID;

CREATE TABLE sagabus_rate_limit (
    endpoint TEXT NOT NULL, name TEXT NOT NULL, next_at INTEGER NOT NULL, PRIMARY KEY (endpoint, name)
) WITHOUT ROWID;
CREATE INDEX sagabus_rate_limit_next ON sagabus_rate_limit (endpoint, next_at);

CREATE TABLE sagabus_operation (
    id TEXT PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL, reason TEXT NOT NULL,
    items TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX sagabus_operation_at ON sagabus_operation (at, id);
CREATE INDEX sagabus_operation_action ON sagabus_operation (action, at, id);

-- For people and reports, with times in text. When the tables change, these keep their names, and their columns theirs.
CREATE VIEW sagabus_v_instances AS
    SELECT saga, id, state, version, completed_at IS NOT NULL AS is_done, paused_by IS NOT NULL AS is_paused, data,
        strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1e6, 'unixepoch') AS created_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', updated_at / 1e6, 'unixepoch') AS updated_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', completed_at / 1e6, 'unixepoch') AS completed_at
    FROM sagabus_saga;
CREATE VIEW sagabus_v_fields AS
    SELECT saga, id, substr(name, length(saga || ' by ') + 1) AS name, value, is_alias IS NOT NULL AS is_alias
    FROM sagabus_field;
CREATE VIEW sagabus_v_journal AS
    SELECT endpoint, receiver, saga, saga_id AS id, seq, message_id, type, result, from_state, to_state, note,
        conversation_id, causation_id, attempts,
        strftime('%Y-%m-%dT%H:%M:%fZ', sent_at / 1e6, 'unixepoch') AS sent_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', handled_at / 1e6, 'unixepoch') AS handled_at,
        handled_by
    FROM sagabus_inbox;
CREATE VIEW sagabus_v_outbox AS
    SELECT endpoint, message_id, kind, type, destination, saga, saga_id AS id,
        CASE WHEN waits_for IS NOT NULL THEN 'unroutable' WHEN lease_until >= unixepoch('subsec') * 1000000 THEN 'sending'
            WHEN due_at > unixepoch('subsec') * 1000000 THEN 'scheduled' ELSE 'due' END AS status,
        attempts, last_error,
        strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1e6, 'unixepoch') AS created_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', due_at / 1e6, 'unixepoch') AS due_at,
        envelope ->> 'receiver' AS receiver
    FROM sagabus_outbox WHERE kind <> 'timer';
CREATE VIEW sagabus_v_timers AS
    SELECT endpoint, saga, saga_id AS id, type, due_at <= unixepoch('subsec') * 1000000 AS is_due,
        strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1e6, 'unixepoch') AS created_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', due_at / 1e6, 'unixepoch') AS due_at
    FROM sagabus_outbox WHERE kind = 'timer';
CREATE VIEW sagabus_v_held AS
    SELECT endpoint, receiver, message_id, type, reason,
        reason NOT IN ('early', 'deferred', 'paused', 'version') AS needs_person, saga, saga_id AS id, error, attempts,
        strftime('%Y-%m-%dT%H:%M:%fZ', held_at / 1e6, 'unixepoch') AS held_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', expires_at / 1e6, 'unixepoch') AS expires_at
    FROM sagabus_held;
CREATE VIEW sagabus_v_processes AS
    SELECT endpoint, owner,
        strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1e6, 'unixepoch') AS started_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', seen_at / 1e6, 'unixepoch') AS seen_at,
        asked
    FROM sagabus_process;
CREATE VIEW sagabus_v_operations AS
    SELECT id, strftime('%Y-%m-%dT%H:%M:%fZ', at / 1e6, 'unixepoch') AS at, who, action, reason, items
    FROM sagabus_operation;
