-- Sagabus on PostgreSQL, version 1. Times are the database's. What is looked up by is compared as bytes (COLLATE "C"): faster, and an
-- upgrade of the operating system's collations cannot break these indexes.
CREATE SCHEMA IF NOT EXISTS sagabus;

CREATE TABLE sagabus.schema_version (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp());

-- A key to look up: says that comparing is dear, so that no plan compares it with every row. For lookups outside a transaction, where
-- nothing can be set for a statement.
CREATE FUNCTION sagabus.key(text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 1000000 AS 'BEGIN RETURN $1; END';

-- A saga instance. The id comes first in the key: with the saga first, a plan that was prepared while the table was
-- small reads all rows of the saga for ever.
CREATE TABLE sagabus.saga (
    saga         text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    state        text NOT NULL,
    data         json NOT NULL,               -- as it was written; cast to jsonb to search in it
    seq          bigint NOT NULL,             -- transitions so far: the optimistic lock
    entered      bigint NOT NULL,             -- state entries so far; `Keep` does not count
    version      integer NOT NULL,            -- of the definition that wrote the state
    originator   json,                        -- who started it: where replies go
    paused_by    text,                        -- the failed message that later ones wait behind
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    completed_at timestamptz,
    PRIMARY KEY (id, saga)
) WITH (fillfactor = 50); -- room for the next version beside the last: an update then need not touch the key's index
CREATE INDEX saga_completed ON sagabus.saga (completed_at) WHERE completed_at IS NOT NULL;

-- A message handled by one receiver: the mark against duplicates, and the journal.
CREATE TABLE sagabus.inbox (
    endpoint        text COLLATE "C" NOT NULL,
    receiver        text COLLATE "C" NOT NULL, -- a saga or a handler
    message_id      text COLLATE "C" NOT NULL, -- text, not uuid: strangers choose their own
    body_hash       bigint NOT NULL,
    type            text NOT NULL,
    result          text NOT NULL,            -- handled, ignored, stale, discarded; held, retrying, suspect until settled
    conversation_id text NOT NULL,
    causation_id    text,
    saga            text COLLATE "C",
    saga_id         text COLLATE "C",
    seq             bigint,
    from_state      text,
    to_state        text,
    effects         json,                     -- [{"id","type","to"}]
    sent_at         timestamptz,
    handled_at      timestamptz NOT NULL,
    handled_by      text NOT NULL,            -- the process
    attempts        bigint NOT NULL,
    crashes         integer NOT NULL DEFAULT 0,
    note            text,
    PRIMARY KEY (message_id, receiver, endpoint)
);
CREATE INDEX inbox_journal ON sagabus.inbox (saga_id, saga) WHERE saga_id IS NOT NULL;
CREATE INDEX inbox_handled ON sagabus.inbox USING brin (handled_at);

-- A message that the broker has not confirmed, or that is not due.
CREATE TABLE sagabus.outbox (
    id               uuid PRIMARY KEY,
    endpoint         text COLLATE "C" NOT NULL,
    message_id       text NOT NULL,
    kind             text NOT NULL,           -- command, event, reply, timer, retry
    type             text NOT NULL,
    destination      text NOT NULL,
    receiver         text,
    saga             text COLLATE "C",
    saga_id          text COLLATE "C",
    entered          bigint,
    conversation_id  text NOT NULL,
    causation_id     text,
    headers          jsonb NOT NULL,
    body             bytea NOT NULL,
    sent_at          timestamptz,
    created_at       timestamptz NOT NULL,
    due_at           timestamptz NOT NULL,
    lease_until      timestamptz,
    lease_owner      text,
    first_attempt_at timestamptz,             -- too long ago: receivers may have forgotten it, so a person decides
    attempts         integer NOT NULL DEFAULT 0,
    last_error       text
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
CREATE INDEX outbox_due ON sagabus.outbox (endpoint, due_at);
CREATE INDEX outbox_timers ON sagabus.outbox (saga_id, saga) WHERE kind = 'timer';

-- A message that waits: for a state, an instance, a newer binary, or a person.
CREATE TABLE sagabus.held (
    endpoint        text COLLATE "C" NOT NULL,
    receiver        text COLLATE "C" NOT NULL,
    message_id      text COLLATE "C" NOT NULL,
    arrival         bigint GENERATED ALWAYS AS IDENTITY,
    reason          text NOT NULL,            -- early, deferred, paused, version, failed, rejected, crashes, undecodable, stranded
    saga            text COLLATE "C",
    saga_id         text COLLATE "C",         -- the instance that it waits for
    error           text,
    attempts        bigint NOT NULL,
    held_at         timestamptz NOT NULL,
    expires_at      timestamptz,
    type            text NOT NULL,
    conversation_id text NOT NULL,
    causation_id    text,
    from_saga       text,                     -- the instance that it comes from
    from_saga_id    text,
    from_entered    bigint,
    headers         jsonb NOT NULL,
    body            bytea NOT NULL,
    sent_at         timestamptz,
    kind            text,                     -- of a stranded message, as it was in the outbox
    destination     text,
    only_for        text,
    PRIMARY KEY (message_id, receiver, endpoint)
);
CREATE INDEX held_instance ON sagabus.held (saga_id, saga, arrival) WHERE saga_id IS NOT NULL;

-- A saga's chart as registered by a running endpoint.
CREATE TABLE sagabus.definition (
    saga          text COLLATE "C" NOT NULL,
    version       integer NOT NULL,
    chart         jsonb NOT NULL,
    endpoint      text COLLATE "C" NOT NULL,
    registered_at timestamptz NOT NULL,
    PRIMARY KEY (saga, version, endpoint)
);

INSERT INTO sagabus.schema_version (version) VALUES (1);
