-- Sagabus on PostgreSQL, version 1. Times are the database's. Keys are compared as bytes (COLLATE "C"):
-- faster, and an upgrade of the operating system's collations cannot break these indexes.
CREATE SCHEMA IF NOT EXISTS sagabus;

CREATE TABLE sagabus.schema_version (
    version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp());

-- A key to look up. Its cost makes a comparison look expensive, so that no plan compares the key with every row. For
-- statements that run outside units, where `enable_seqscan` cannot be set.
CREATE FUNCTION sagabus.key(text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 1000000 AS 'BEGIN RETURN $1; END';

-- Fails unless the transaction is the one that a unit of work began: it has set a mark that ends with it.
CREATE FUNCTION sagabus.in_unit() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF left(current_setting('sagabus.unit', true), 1) = '+' THEN RETURN 0; END IF;
    RAISE EXCEPTION 'no unit of work is open' USING ERRCODE = 'no_active_sql_transaction';
END $$;

-- A saga instance. The id comes first in the key: with the saga first, a plan that was prepared while the table was
-- small would read all rows of the saga for ever.
CREATE TABLE sagabus.saga (
    saga         text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    state        text COLLATE "C" NOT NULL,
    data         json NOT NULL,               -- as it was written; cast to jsonb to search in it
    seq          bigint NOT NULL,             -- transitions so far: the optimistic lock
    entered      bigint NOT NULL,             -- state entries so far
    version      integer NOT NULL,            -- of the definition that wrote the state
    progress     json,                        -- {"timers","visited","aliases","fields","sent"}: living timers, ..
    originator   json,                        -- who started it: where replies go
    paused_by    text,                        -- the failed message that later ones wait behind
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    completed_at timestamptz,
    PRIMARY KEY (id, saga)
) WITH (fillfactor = 50); -- room for the next version beside the last: an update then need not touch the key's index
CREATE INDEX saga_completed ON sagabus.saga (saga, completed_at) WHERE completed_at IS NOT NULL;
-- For operators: every instance is in one of the two.
CREATE INDEX saga_open ON sagabus.saga (saga, version, state, updated_at) WHERE completed_at IS NULL;
CREATE INDEX saga_done ON sagabus.saga (saga, version, state, updated_at) WHERE completed_at IS NOT NULL;
CREATE INDEX saga_paused ON sagabus.saga (saga, id) WHERE paused_by IS NOT NULL;

-- A message handled by one receiver: the mark against duplicates, and the journal.
CREATE TABLE sagabus.inbox (
    endpoint        text COLLATE "C" NOT NULL,
    receiver        text COLLATE "C" NOT NULL, -- a saga or a handler; empty when no receiver knew it
    message_id      text COLLATE "C" NOT NULL, -- text, not uuid: other programs choose their own
    body_hash       bigint NOT NULL,
    type            text NOT NULL,
    result          text NOT NULL CHECK (result IN
        ('handled', 'ignored', 'stale', 'discarded', 'held', 'retrying', 'suspect')), -- the last three: not settled yet
    conversation_id text NOT NULL,
    causation_id    text,
    saga            text COLLATE "C",
    saga_id         text COLLATE "C",
    seq             bigint,
    from_state      text,
    to_state        text,
    effects         json,                     -- [{"id","type","to"}]
    sent_at         timestamptz,
    claimed_at      timestamptz NOT NULL,     -- since when it is tried; a person's retry begins anew
    handled_at      timestamptz NOT NULL,     -- when it was last written
    handled_by      text NOT NULL,            -- the process
    attempts        bigint NOT NULL,          -- runs so far
    round           integer NOT NULL DEFAULT 0, -- delayed retries so far
    crashes         integer NOT NULL DEFAULT 0,
    note            text,
    message         json,                     -- {"envelope","body","after","timers"}, where the endpoint keeps those of
                                              -- sagas: the message, the instance after it, the timers that were set
    PRIMARY KEY (message_id, receiver, endpoint)
);
CREATE INDEX inbox_journal ON sagabus.inbox (saga_id, saga) WHERE saga_id IS NOT NULL;
-- For the sweep. BRIN would be smaller, but where old rows made room for new ones it finds every page for ever.
CREATE INDEX inbox_handled ON sagabus.inbox (endpoint, handled_at)
    WHERE result IN ('handled', 'ignored', 'stale', 'discarded');

-- A message that the broker has not confirmed, or that is not due.
CREATE TABLE sagabus.outbox (
    id               uuid PRIMARY KEY,
    endpoint         text COLLATE "C" NOT NULL,
    message_id       text COLLATE "C" NOT NULL,
    kind             text NOT NULL CHECK (kind IN ('command', 'event', 'reply', 'timer', 'retry')),
    type             text NOT NULL,
    destination      text COLLATE "C" NOT NULL,
    saga             text COLLATE "C",        -- the sender, if it is an instance
    saga_id          text COLLATE "C",
    timer            bigint,                  -- which of the instance's timers
    created_at       timestamptz NOT NULL,
    due_at           timestamptz NOT NULL,
    lease_until      timestamptz,
    lease_owner      text,
    first_attempt_at timestamptz,             -- too long ago: receivers may have forgotten it, so a person decides
    attempts         integer NOT NULL DEFAULT 0, -- tries without success
    expired          integer NOT NULL DEFAULT 0, -- leases that ran out: the process that published it died
    waits_for        text COLLATE "C",        -- the destination, while it has no queue
    last_error       text,
    envelope         json NOT NULL,           -- everything about the message but its body
    body             bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
CREATE INDEX outbox_due ON sagabus.outbox (endpoint, due_at);
CREATE INDEX outbox_timers ON sagabus.outbox (saga_id, saga) WHERE kind = 'timer';
CREATE INDEX outbox_waits ON sagabus.outbox (endpoint, waits_for, id) WHERE waits_for IS NOT NULL;
-- For operators. A message that goes as usual is in neither.
CREATE INDEX outbox_failing ON sagabus.outbox (endpoint, due_at)
    WHERE waits_for IS NOT NULL OR attempts > 0 OR last_error IS NOT NULL;
CREATE INDEX outbox_renamed ON sagabus.outbox (message_id) WHERE message_id <> CAST(id AS text);

-- A message that waits: for a state, an instance, a newer binary, or a person.
CREATE TABLE sagabus.held (
    endpoint        text COLLATE "C" NOT NULL,
    receiver        text COLLATE "C" NOT NULL, -- a saga or a handler; empty: no receiver; 'outbox ID': stranded
    message_id      text COLLATE "C" NOT NULL,
    arrival         bigint GENERATED ALWAYS AS IDENTITY,
    reason          text COLLATE "C" NOT NULL CHECK (reason IN ('early', 'deferred', 'paused', 'version', 'failed',
        'rejected', 'crashes', 'undecodable', 'stranded')), -- the first four go on by themselves
    saga            text COLLATE "C",         -- the instance that it waits for; or an alias,
    saga_id         text COLLATE "C",         -- and the alias's value
    error           text,
    attempts        bigint NOT NULL,
    held_at         timestamptz NOT NULL,
    expires_at      timestamptz,              -- then it stops waiting for its instance, or for a newer binary
    type            text COLLATE "C" NOT NULL,
    kind            text,                     -- of a stranded message, as it was in the outbox
    destination     text,
    envelope        json NOT NULL,            -- everything about the message but its body
    body            bytea NOT NULL,
    PRIMARY KEY (message_id, receiver, endpoint)
);
CREATE INDEX held_instance ON sagabus.held (saga_id, saga, endpoint, reason, type, arrival) WHERE saga_id IS NOT NULL;
CREATE INDEX held_reason ON sagabus.held (endpoint, reason, expires_at);
-- For operators.
CREATE INDEX held_group ON sagabus.held (endpoint, reason, type, arrival);
CREATE INDEX held_receiver ON sagabus.held (receiver, arrival);

-- A field of an instance, by which operators find it. By an alias messages find it too: of an alias a value has one
-- instance, and of another field any number.
CREATE TABLE sagabus.field (
    name     text COLLATE "C" NOT NULL,       -- 'SAGA by FIELD'
    value    text COLLATE "C" NOT NULL,
    saga     text COLLATE "C" NOT NULL,
    id       text COLLATE "C" NOT NULL,
    is_alias boolean CHECK (is_alias),        -- true or null: nulls are no duplicates in `field_value`
    CONSTRAINT field_instance_fkey FOREIGN KEY (id, saga) REFERENCES sagabus.saga ON DELETE CASCADE
);
CREATE UNIQUE INDEX field_value ON sagabus.field (name, value, is_alias);
CREATE INDEX field_instance ON sagabus.field (id, saga);

-- A saga's chart as registered by a running endpoint. A saga's name belongs to one endpoint of a database: delete
-- its rows to free the name.
CREATE TABLE sagabus.definition (
    saga          text COLLATE "C" NOT NULL,
    version       integer NOT NULL,
    chart         jsonb NOT NULL,
    endpoint      text COLLATE "C" NOT NULL,
    registered_at timestamptz NOT NULL,
    PRIMARY KEY (saga, version, endpoint)
);

-- Every event that an endpoint has ever subscribed to and not dropped.
CREATE TABLE sagabus.subscription (
    endpoint text COLLATE "C" NOT NULL,
    event    text COLLATE "C" NOT NULL,
    PRIMARY KEY (endpoint, event)
);

-- A process of an endpoint.
CREATE TABLE sagabus.process (
    owner      text COLLATE "C" PRIMARY KEY,  -- `lease_owner` and `handled_by` of what it does
    endpoint   text COLLATE "C" NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL,          -- the last heartbeat; six a minute are expected
    subscribes json NOT NULL,                 -- events
    types      json NOT NULL,                 -- every message type that it can handle
    report     json NOT NULL,                 -- its own report: host, program, link, breakers, lanes
    asked      text                           -- by an operator: 'drain', to finish and stop
);

-- When the next call may be made of what a limit is set for.
CREATE TABLE sagabus.rate_limit (
    endpoint text COLLATE "C" NOT NULL,
    name     text COLLATE "C" NOT NULL,
    next_at  timestamptz NOT NULL,
    PRIMARY KEY (endpoint, name)
);
CREATE INDEX rate_limit_next ON sagabus.rate_limit (endpoint, next_at);

-- What operators did. Rows stay for 400 days.
CREATE TABLE sagabus.operation (
    id     uuid PRIMARY KEY,
    at     timestamptz NOT NULL,
    who    text NOT NULL,
    action text NOT NULL,
    reason text NOT NULL,
    items  json NOT NULL                      -- each item's result
);
CREATE INDEX operation_at ON sagabus.operation (at, id);
CREATE INDEX operation_action ON sagabus.operation (action, at, id);

-- For people and reports. When the tables change, these keep their names, and their columns theirs.
CREATE VIEW sagabus.v_instances AS
    SELECT saga, id, state, version, completed_at IS NOT NULL AS is_done, paused_by IS NOT NULL AS is_paused, data,
        created_at, updated_at, completed_at
    FROM sagabus.saga;
CREATE VIEW sagabus.v_fields AS
    SELECT saga, id, substr(name, length(saga || ' by ') + 1) AS name, value, is_alias IS NOT NULL AS is_alias
    FROM sagabus.field;
CREATE VIEW sagabus.v_journal AS
    SELECT endpoint, receiver, saga, saga_id AS id, seq, message_id, type, result, from_state, to_state, note,
        conversation_id, causation_id, attempts, sent_at, handled_at, handled_by
    FROM sagabus.inbox;
CREATE VIEW sagabus.v_outbox AS
    SELECT endpoint, message_id, kind, type, destination, saga, saga_id AS id,
        CASE WHEN waits_for IS NOT NULL THEN 'unroutable' WHEN lease_until >= clock_timestamp() THEN 'sending'
            WHEN due_at > clock_timestamp() THEN 'scheduled' ELSE 'due' END AS status,
        attempts, last_error, created_at, due_at,
        envelope ->> 'receiver' AS receiver -- who is to handle it again, if it is a retry
    FROM sagabus.outbox WHERE kind <> 'timer';
CREATE VIEW sagabus.v_timers AS
    SELECT endpoint, saga, saga_id AS id, type, due_at <= clock_timestamp() AS is_due, created_at, due_at
    FROM sagabus.outbox WHERE kind = 'timer';
CREATE VIEW sagabus.v_held AS
    SELECT endpoint, receiver, message_id, type, reason,
        reason NOT IN ('early', 'deferred', 'paused', 'version') AS needs_person, saga, saga_id AS id, error, attempts,
        held_at, expires_at
    FROM sagabus.held;
CREATE VIEW sagabus.v_processes AS
    SELECT endpoint, owner, started_at, seen_at, asked FROM sagabus.process;
CREATE VIEW sagabus.v_operations AS
    SELECT id, at, who, action, reason, items FROM sagabus.operation;

INSERT INTO sagabus.schema_version (version) VALUES (1);
