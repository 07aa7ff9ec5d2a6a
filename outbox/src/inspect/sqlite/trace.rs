//! Statements that follow messages, on SQLite.

/// [`Listing::Traces`](saga_core::Listing::Traces): the ids are a JSON array (1).
pub(super) const TRACES: &str = "
    SELECT json_object('place', 'inbox', 'endpoint', i.endpoint, 'message_id', i.message_id, 'type', i.type,
        'receiver', i.receiver, 'what', i.result, 'saga_id', i.saga_id, 'seq', i.seq, 'from_state', i.from_state,
        'to_state', i.to_state, 'effects', json(i.effects), 'conversation_id', i.conversation_id,
        'causation_id', i.causation_id, 'sent_at_us', i.sent_at, 'at_us', i.handled_at, 'attempts', i.attempts,
        'note', i.note)
    FROM json_each(?1) wanted CROSS JOIN sagabus_inbox i ON i.message_id = wanted.value
    UNION ALL
    SELECT json_object('place', 'held', 'endpoint', h.endpoint, 'message_id', h.message_id, 'type', h.type,
        'receiver', h.receiver, 'what', h.reason, 'saga_id', h.saga_id, 'to', h.destination,
        'conversation_id', h.envelope ->> 'conversation_id', 'causation_id', h.envelope ->> 'causation_id',
        'sender', h.envelope ->> 'sender', 'sent_at_us', h.envelope ->> 'sent_at_us', 'at_us', h.held_at,
        'attempts', h.attempts, 'note', h.error)
    FROM json_each(?1) wanted CROSS JOIN sagabus_held h ON h.message_id = wanted.value
    UNION ALL
    SELECT json_object('place', 'outbox', 'endpoint', o.endpoint, 'message_id', o.message_id, 'type', o.type,
        'what', o.kind, 'to', o.destination, 'conversation_id', o.envelope ->> 'conversation_id',
        'causation_id', o.envelope ->> 'causation_id', 'sender', o.envelope ->> 'sender',
        'sent_at_us', o.envelope ->> 'sent_at_us', 'at_us', o.due_at, 'attempts', o.attempts, 'note', o.last_error)
    FROM sagabus_outbox o WHERE o.id IN (
        SELECT id FROM sagabus_outbox
        WHERE id IN (SELECT value FROM json_each(?1)) AND message_id = CAST(id AS text)
        UNION ALL
        SELECT id FROM sagabus_outbox
        WHERE message_id <> CAST(id AS text) AND message_id IN (SELECT value FROM json_each(?1)))";

/// [`Listing::Beginning`](saga_core::Listing::Beginning): the text (1).
pub(super) const BEGINNING: &str = "
    SELECT json_object('id', message_id) FROM (
        SELECT * FROM (SELECT message_id FROM sagabus_inbox
            WHERE message_id >= ?1 AND message_id < ?1 || char(1114111) LIMIT 100)
        UNION
        SELECT * FROM (SELECT message_id FROM sagabus_held
            WHERE message_id >= ?1 AND message_id < ?1 || char(1114111) LIMIT 100)
        UNION
        SELECT * FROM (SELECT message_id FROM sagabus_outbox WHERE message_id <> CAST(id AS text)
            AND message_id >= ?1 AND message_id < ?1 || char(1114111) LIMIT 100)
        UNION
        SELECT * FROM (SELECT message_id FROM sagabus_outbox
            WHERE id >= nullif(?2, '') AND id <= nullif(?3, '') LIMIT 100))
    UNION ALL
    SELECT json_object('id', id, 'saga', saga) FROM (
        SELECT * FROM (SELECT saga, id FROM sagabus_saga WHERE id >= ?1 AND id < ?1 || char(1114111) LIMIT 100)
        UNION
        SELECT * FROM (SELECT saga, saga_id FROM sagabus_inbox WHERE saga_id = ?1 AND saga IS NOT NULL LIMIT 1000))";

/// The rows of an order, by a JSON array of their ids (1).
pub(super) const OUTBOX_BY_ID: &str = "
    SELECT json_object('id', o.id, 'endpoint', o.endpoint, 'message_id', o.message_id, 'kind', o.kind,
        'type', o.type, 'destination', o.destination, 'saga', o.saga, 'saga_id', o.saga_id,
        'receiver', coalesce(o.envelope ->> 'receiver', ''), 'error', o.last_error, 'due_at_us', o.due_at,
        'awaits', CASE WHEN o.kind = 'retry' THEN (SELECT i.saga_id FROM sagabus_inbox i
            WHERE i.message_id = o.message_id
                AND i.receiver = o.envelope ->> 'receiver' AND i.endpoint = o.endpoint AND i.saga = i.receiver) END,
        'leased', json(CASE WHEN o.lease_until > CAST(unixepoch('subsec') * 1000000 AS INTEGER)
            THEN 'true' ELSE 'false' END))
    FROM json_each(?1) wanted CROSS JOIN sagabus_outbox o ON o.id = wanted.value ORDER BY o.id";
