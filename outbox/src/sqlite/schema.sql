-- Sagabus on SQLite, version 1. Times are microseconds since 1970. The columns mean what they mean on PostgreSQL.
CREATE TABLE schema_version (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL);

CREATE TABLE saga (
    saga TEXT NOT NULL, id TEXT NOT NULL, state TEXT NOT NULL, data TEXT NOT NULL, seq INTEGER NOT NULL,
    entered INTEGER NOT NULL, version INTEGER NOT NULL, originator TEXT, paused_by TEXT,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, completed_at INTEGER,
    PRIMARY KEY (id, saga)
) WITHOUT ROWID;
CREATE INDEX saga_completed ON saga (completed_at) WHERE completed_at IS NOT NULL;

CREATE TABLE inbox (
    endpoint TEXT NOT NULL, receiver TEXT NOT NULL, message_id TEXT NOT NULL, body_hash INTEGER NOT NULL, type TEXT NOT NULL,
    result TEXT NOT NULL, conversation_id TEXT NOT NULL, causation_id TEXT, saga TEXT, saga_id TEXT, seq INTEGER,
    from_state TEXT, to_state TEXT, effects TEXT, sent_at INTEGER, handled_at INTEGER NOT NULL, handled_by TEXT NOT NULL,
    attempts INTEGER NOT NULL, crashes INTEGER NOT NULL DEFAULT 0, note TEXT,
    PRIMARY KEY (message_id, receiver, endpoint)
) WITHOUT ROWID;
CREATE INDEX inbox_journal ON inbox (saga_id, saga) WHERE saga_id IS NOT NULL;
CREATE INDEX inbox_handled ON inbox (handled_at);

CREATE TABLE outbox (
    id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, message_id TEXT NOT NULL, kind TEXT NOT NULL, type TEXT NOT NULL,
    destination TEXT NOT NULL, receiver TEXT, saga TEXT, saga_id TEXT, entered INTEGER, conversation_id TEXT NOT NULL, causation_id TEXT,
    headers TEXT NOT NULL, body BLOB NOT NULL, sent_at INTEGER, created_at INTEGER NOT NULL, due_at INTEGER NOT NULL,
    lease_until INTEGER, lease_owner TEXT, first_attempt_at INTEGER, attempts INTEGER NOT NULL DEFAULT 0, last_error TEXT
) WITHOUT ROWID;
CREATE INDEX outbox_due ON outbox (endpoint, due_at);
CREATE INDEX outbox_timers ON outbox (saga_id, saga) WHERE kind = 'timer';

CREATE TABLE held (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, receiver TEXT NOT NULL, message_id TEXT NOT NULL,
    reason TEXT NOT NULL, saga TEXT, saga_id TEXT, error TEXT, attempts INTEGER NOT NULL, held_at INTEGER NOT NULL, expires_at INTEGER,
    type TEXT NOT NULL, conversation_id TEXT NOT NULL, causation_id TEXT, from_saga TEXT, from_saga_id TEXT, from_entered INTEGER,
    headers TEXT NOT NULL, body BLOB NOT NULL, sent_at INTEGER, kind TEXT, destination TEXT, only_for TEXT,
    UNIQUE (message_id, receiver, endpoint)
);
CREATE INDEX held_instance ON held (saga_id, saga, arrival) WHERE saga_id IS NOT NULL;

CREATE TABLE definition (
    saga TEXT NOT NULL, version INTEGER NOT NULL, chart TEXT NOT NULL, endpoint TEXT NOT NULL, registered_at INTEGER NOT NULL,
    PRIMARY KEY (saga, version, endpoint)
) WITHOUT ROWID;
