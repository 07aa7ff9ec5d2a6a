//! Statements that follow messages, on PostgreSQL. Ids are compared as bytes: a beginning is a range of the keys.

/// [`Listing::Traces`](saga_core::Listing::Traces): the ids are a JSON array (1).
pub(super) const TRACES: &str = "
    WITH wanted AS MATERIALIZED (SELECT e COLLATE \"C\" AS id FROM json_array_elements_text($1::json) e)
    SELECT json_build_object('place', 'inbox', 'endpoint', i.endpoint, 'message_id', i.message_id, 'type', i.type,
        'receiver', i.receiver, 'what', i.result, 'saga_id', i.saga_id, 'seq', i.seq, 'from_state', i.from_state,
        'to_state', i.to_state, 'effects', i.effects, 'conversation_id', i.conversation_id,
        'causation_id', i.causation_id, 'sent_at_us', (extract(epoch FROM i.sent_at) * 1000000)::bigint,
        'at_us', (extract(epoch FROM i.handled_at) * 1000000)::bigint, 'attempts', i.attempts, 'note', i.note)::text
    FROM wanted JOIN sagabus.inbox i ON i.message_id = wanted.id
    UNION ALL
    SELECT json_build_object('place', 'held', 'endpoint', h.endpoint, 'message_id', h.message_id, 'type', h.type,
        'receiver', h.receiver, 'what', h.reason, 'saga_id', h.saga_id, 'to', h.destination,
        'conversation_id', h.envelope -> 'conversation_id', 'causation_id', h.envelope -> 'causation_id',
        'sender', h.envelope -> 'sender', 'sent_at_us', h.envelope -> 'sent_at_us',
        'at_us', (extract(epoch FROM h.held_at) * 1000000)::bigint, 'attempts', h.attempts, 'note', h.error)::text
    FROM wanted JOIN sagabus.held h ON h.message_id = wanted.id
    UNION ALL
    SELECT json_build_object('place', 'outbox', 'endpoint', o.endpoint, 'message_id', o.message_id, 'type', o.type,
        'what', o.kind, 'to', o.destination, 'conversation_id', o.envelope -> 'conversation_id',
        'causation_id', o.envelope -> 'causation_id', 'sender', o.envelope -> 'sender',
        'sent_at_us', o.envelope -> 'sent_at_us', 'at_us', (extract(epoch FROM o.due_at) * 1000000)::bigint,
        'attempts', o.attempts, 'note', o.last_error)::text
    FROM sagabus.outbox o WHERE o.id IN (
        SELECT id FROM sagabus.outbox WHERE id IN (SELECT CAST(id AS uuid) FROM wanted
            WHERE id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$') AND message_id = CAST(id AS text)
        UNION ALL
        SELECT id FROM sagabus.outbox WHERE message_id <> CAST(id AS text) AND message_id IN (SELECT id FROM wanted))";

/// [`Listing::Beginning`](saga_core::Listing::Beginning): the text (1).
pub(super) const BEGINNING: &str = "
    WITH asked AS (SELECT $1::text COLLATE \"C\" AS low, ($1::text || chr(1114111)) COLLATE \"C\" AS high),
    messages AS (
        (SELECT message_id AS id FROM sagabus.inbox, asked WHERE message_id >= low AND message_id < high LIMIT 100)
        UNION
        (SELECT message_id FROM sagabus.held, asked WHERE message_id >= low AND message_id < high LIMIT 100)
        UNION
        (SELECT message_id FROM sagabus.outbox, asked
            WHERE message_id <> CAST(id AS text) AND message_id >= low AND message_id < high LIMIT 100)
        UNION
        (SELECT message_id FROM sagabus.outbox WHERE id >= CAST(nullif($2::text, '') AS uuid)
            AND id <= CAST(nullif($3::text, '') AS uuid) LIMIT 100)),
    instances AS (
        (SELECT saga, id FROM sagabus.saga, asked WHERE id >= low AND id < high LIMIT 100)
        UNION
        (SELECT saga, saga_id FROM sagabus.inbox WHERE saga_id = $1::text AND saga IS NOT NULL LIMIT 1000))
    SELECT json_build_object('id', id)::text FROM messages
    UNION ALL
    SELECT json_build_object('id', id, 'saga', saga)::text FROM instances";

/// The rows of an order, by a JSON array of their ids (1).
pub(super) const OUTBOX_BY_ID: &str = "
    SELECT json_build_object('id', o.id, 'endpoint', o.endpoint, 'message_id', o.message_id, 'kind', o.kind,
        'type', o.type, 'destination', o.destination, 'saga', o.saga, 'saga_id', o.saga_id,
        'receiver', coalesce(o.envelope ->> 'receiver', ''), 'error', o.last_error,
        'awaits', CASE WHEN o.kind = 'retry' THEN (SELECT i.saga_id FROM sagabus.inbox i
            WHERE i.message_id = o.message_id
                AND i.receiver = o.envelope ->> 'receiver' AND i.endpoint = o.endpoint AND i.saga = i.receiver) END,
        'due_at_us', (extract(epoch FROM o.due_at) * 1000000)::bigint,
        'leased', coalesce(o.lease_until > clock_timestamp(), false))::text
    FROM sagabus.outbox o
    WHERE o.id IN (SELECT e::uuid FROM json_array_elements_text($1::json) e WHERE e ~
        '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')
    ORDER BY o.id";
