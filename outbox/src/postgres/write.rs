//! Everything a batch came to, in one statement: a common table expression for each kind of row that there is.

use crate::{error::store_error, rows::us};
use saga_core::{Envelope, InboxRow, InstanceWrite, SagaRef, StoreError, Write};
use sqlx::{Arguments, Encode, PgConnection, Row, Type, postgres::PgArguments};
use std::sync::OnceLock;

// In the parts, `{}` is a parameter, and `{rows(name type, ..)}` a table `r` whose columns are parameters too: arrays.

/// Microseconds since 1970 as a timestamp.
const FROM_US: &str = "'epoch'::timestamptz + r.sent_at * interval '1 microsecond'";

const CLAIM: &str = "
INSERT INTO sagabus.inbox (endpoint, handled_by, receiver, message_id, body_hash, type, result, conversation_id, causation_id,
    saga, saga_id, seq, from_state, to_state, effects, sent_at, attempts, note, handled_at)
SELECT {}, {}, r.receiver, r.message_id, r.body_hash, r.type, r.result, r.conversation_id, r.causation_id,
    CASE WHEN r.saga_id IS NOT NULL THEN r.receiver END, r.saga_id, r.seq, r.from_state, r.to_state, r.effects::json, {from_us}, r.attempts, r.note, clock_timestamp()
FROM {rows(receiver text, message_id text, body_hash bigint, type text, result text, conversation_id text,
    causation_id text, saga_id text, seq bigint, from_state text, to_state text, effects text, sent_at bigint,
    attempts bigint, note text)}";

const SETTLE: &str = "
UPDATE sagabus.inbox i SET handled_by = {}, result = r.result, seq = r.seq, from_state = r.from_state, to_state = r.to_state,
    effects = r.effects::json, attempts = r.attempts, note = r.note, body_hash = r.body_hash, handled_at = clock_timestamp()
FROM {rows(receiver text, message_id text, body_hash bigint, result text, seq bigint, from_state text, to_state text,
    effects text, attempts bigint, note text, known bigint)}
WHERE i.message_id = r.message_id AND i.receiver = r.receiver AND i.endpoint = {} AND i.message_id = ANY({}::text[])
    AND i.result IN ('held', 'retrying', 'suspect') AND i.attempts = r.known RETURNING 1";

const STARTED: &str = "
INSERT INTO sagabus.saga (saga, id, state, data, seq, entered, version, originator, paused_by, created_at, updated_at, completed_at)
SELECT r.saga, r.id, r.state, r.data::json, r.seq, r.entered, r.version, r.originator::json, r.paused_by, clock_timestamp(), clock_timestamp(),
    CASE WHEN r.done THEN clock_timestamp() END
FROM {rows(saga text, id text, state text, data text, seq bigint, entered bigint, version int, paused_by text,
    done bool, originator text)}";

/// The rows are found by their keys one by one (the fence), and then by their places: no plan can read the whole table. Who started an
/// instance never changes.
const MOVED: &str = "
UPDATE sagabus.saga s SET state = r.state, data = r.data::json, seq = r.seq, entered = r.entered, version = r.version, paused_by = r.paused_by,
    updated_at = clock_timestamp(), completed_at = CASE WHEN r.done THEN coalesce(s.completed_at, clock_timestamp()) END
FROM {rows(saga text, id text, state text, data text, seq bigint, entered bigint, version int, paused_by text,
    done bool, base_seq bigint)},
    LATERAL (SELECT ctid AS place FROM sagabus.saga WHERE id = r.id AND saga = r.saga OFFSET 0) p
WHERE s.ctid = p.place AND s.seq = r.base_seq RETURNING 1";

const OUTBOX: &str = "
INSERT INTO sagabus.outbox (endpoint, lease_owner, lease_until, first_attempt_at, id, message_id, kind, type, destination, receiver, saga, saga_id, entered,
    conversation_id, causation_id, headers, body, sent_at, created_at, due_at)
SELECT {}, CASE WHEN r.leased THEN {} END, CASE WHEN r.leased THEN clock_timestamp() + {}::bigint * interval '1 microsecond' END,
    CASE WHEN r.leased THEN clock_timestamp() END, r.id, r.message_id, r.kind, r.type, r.destination, r.receiver, r.saga, r.saga_id, r.entered,
    r.conversation_id, r.causation_id, r.headers::jsonb, r.body, {from_us}, clock_timestamp(), clock_timestamp() + r.delay * interval '1 microsecond'
FROM {rows(leased bool, id uuid, message_id text, kind text, type text, destination text, receiver text, saga text,
    saga_id text, entered bigint, conversation_id text, causation_id text, headers text, body bytea,
    sent_at bigint, delay bigint)}";

const HELD_IN: &str = "
INSERT INTO sagabus.held (endpoint, receiver, message_id, reason, saga, saga_id, error, attempts, held_at, expires_at, type, conversation_id, causation_id,
    from_saga, from_saga_id, from_entered, headers, body, sent_at)
SELECT {}, r.receiver, r.message_id, r.reason, CASE WHEN r.saga_id IS NOT NULL THEN r.receiver END, r.saga_id, r.error, r.attempts, clock_timestamp(),
    clock_timestamp() + r.expires * interval '1 microsecond', r.type, r.conversation_id, r.causation_id, r.from_saga, r.from_saga_id, r.from_entered,
    r.headers::jsonb, r.body, {from_us}
FROM {rows(receiver text, message_id text, reason text, saga_id text, error text, attempts bigint, expires bigint,
    type text, conversation_id text, causation_id text, from_saga text, from_saga_id text,
    from_entered bigint, headers text, body bytea, sent_at bigint)}
ON CONFLICT (message_id, receiver, endpoint) DO UPDATE SET reason = excluded.reason, error = excluded.error, attempts = excluded.attempts, expires_at = excluded.expires_at";

const HELD_OUT: &str = "
DELETE FROM sagabus.held h USING {rows(receiver text, message_id text)}
WHERE h.message_id = r.message_id AND h.receiver = r.receiver AND h.endpoint = {} AND h.message_id = ANY({}::text[])";

const TIMERS_OUT: &str = "
DELETE FROM sagabus.outbox o USING {rows(saga text, id text, keep bigint)}
WHERE o.kind = 'timer' AND o.saga_id = r.id AND o.saga = r.saga AND o.saga_id = ANY({}::text[])
    AND (r.keep IS NULL OR (o.entered IS NOT NULL AND o.entered <> r.keep))";

/// The parts of the statement in their order; of each, whether as many rows as were given must come out of it.
const PARTS: [(&str, bool); 8] = [
    (CLAIM, false),
    (SETTLE, true),
    (STARTED, false),
    (MOVED, true),
    (OUTBOX, false),
    (HELD_IN, false),
    (HELD_OUT, false),
    (TIMERS_OUT, false),
];

/// The statement with those parts whose bits are set. Each is put together once.
fn text(parts: usize) -> &'static str {
    static TEXTS: [OnceLock<String>; 1 << PARTS.len()] = [const { OnceLock::new() }; 1 << PARTS.len()];
    TEXTS[parts].get_or_init(|| {
        let (mut with, mut counts, mut placeholders) = (Vec::new(), Vec::new(), 0);
        for (n, (template, counted)) in PARTS.into_iter().enumerate().filter(|(n, _)| parts & (1 << n) != 0) {
            with.push(format!("p{n} AS MATERIALIZED ({})", filled(template, &mut placeholders)));
            if counted {
                counts.push(format!("(SELECT count(*) FROM p{n})"));
            }
        }
        let counts = if counts.is_empty() { "0".into() } else { counts.join(", ") };
        format!("WITH {} SELECT {counts}", with.join(", "))
    })
}

/// A part with its parameters numbered.
fn filled(template: &str, placeholders: &mut usize) -> String {
    let mut next = || {
        *placeholders += 1;
        format!("${placeholders}")
    };
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let (what, after) = after.split_once('}').expect("every brace is closed");
        match what.strip_prefix("rows(").and_then(|columns| columns.strip_suffix(')')) {
            Some(columns) => filled.push_str(&rows(columns, &mut next)),
            None if what == "from_us" => filled.push_str(FROM_US),
            None => filled.push_str(&next()),
        }
        rest = after;
    }
    filled + rest
}

/// Arrays as a table. They come through `OFFSET 0`, which hides their length from the planner: it would take each batch that is shorter
/// than its guess for worth a plan of its own, and planning costs several times what the execution does. And they are unnested side by
/// side in the `SELECT`: as `unnest(a, b, ..)` in `FROM`, each would fill a table of its own first.
fn rows(columns: &str, next: &mut impl FnMut() -> String) -> String {
    let (mut arrays, mut unnested) = (Vec::new(), Vec::new());
    for (n, column) in columns.split(',').enumerate() {
        let (name, kind) = column.trim().split_once(' ').expect("a column has a name and a type");
        arrays.push(format!("{}::{kind}[] AS a{n}", next()));
        unnested.push(format!("unnest(a{n}) AS {name}"));
    }
    format!("(SELECT {} FROM (SELECT {} OFFSET 0) a) r", unnested.join(", "), arrays.join(", "))
}

/// What goes into a statement: each part takes its arguments in the order of its `{}`.
#[derive(Default)]
struct Statement {
    parts: usize,
    expected: Vec<i64>,
    arguments: PgArguments,
}

impl Statement {
    fn part(
        &mut self,
        template: &str,
        rows: usize,
        arguments: impl FnOnce(&mut Self) -> Result<(), sqlx::error::BoxDynError>,
    ) -> Result<(), StoreError> {
        if rows == 0 {
            return Ok(());
        }
        let known = PARTS.iter().enumerate().find(|(_, (known, _))| *known == template);
        let (n, (_, counted)) = known.expect("every template is among the parts");
        self.parts |= 1 << n;
        self.expected.extend(counted.then_some(rows as i64));
        arguments(self).map_err(|error| StoreError::Rejected(error.to_string()))
    }

    fn add<'q, T: Encode<'q, sqlx::Postgres> + Type<sqlx::Postgres> + 'q>(
        &mut self,
        value: T,
    ) -> Result<(), sqlx::error::BoxDynError> {
        self.arguments.add(value)
    }
}

pub(super) async fn write(connection: &mut PgConnection, persistent: bool, write: &Write) -> Result<(), StoreError> {
    /// What a row comes to, more or less, its body included.
    const ROW_BYTES: usize = 1024;
    let mut statement = Statement::default();
    let rows = write.claims.len() + write.instances.len() + write.outbox.len();
    statement.arguments.reserve(64, ROW_BYTES * rows);
    claims(&mut statement, write)?;
    settles(&mut statement, write)?;
    instances(&mut statement, write)?;
    outbox(&mut statement, write)?;
    held(&mut statement, write)?;
    deletes(&mut statement, write)?;
    let Statement { parts, expected, arguments } = statement;
    let query = sqlx::query_with(text(parts), arguments).persistent(persistent);
    let row = query.fetch_one(connection).await.map_err(meaning)?;
    let conflict = expected.iter().enumerate().any(|(n, expected)| row.get::<i64, _>(n) != *expected);
    if conflict { Err(StoreError::Conflict) } else { Ok(()) }
}

/// A message or an instance that is there already: another process was faster.
fn meaning(error: sqlx::Error) -> StoreError {
    let constraint = error.as_database_error().and_then(|error| error.constraint());
    match constraint {
        Some("inbox_pkey" | "saga_pkey") => StoreError::Conflict,
        _ => store_error(error),
    }
}

fn column<'a, T, U>(rows: &'a [T], get: impl Fn(&'a T) -> U) -> Vec<U> {
    rows.iter().map(get).collect()
}

fn claims(statement: &mut Statement, write: &Write) -> Result<(), StoreError> {
    let rows = &write.claims;
    let Some(first) = rows.first() else { return Ok(()) };
    statement.part(CLAIM, rows.len(), |s| {
        s.add(write.endpoint.as_str())?;
        s.add(first.handled_by.as_str())?;
        s.add(column(rows, |row| row.receiver.as_str()))?;
        s.add(column(rows, |row| row.envelope.message_id.as_str()))?;
        s.add(column(rows, |row| row.envelope.body_hash()))?;
        s.add(column(rows, |row| row.envelope.type_name.as_str()))?;
        s.add(column(rows, |row| row.result.as_str()))?;
        s.add(column(rows, |row| row.envelope.conversation_id.as_str()))?;
        s.add(column(rows, |row| row.envelope.causation_id.as_deref()))?;
        s.add(column(rows, |row| row.saga_id.as_deref()))?;
        s.add(column(rows, |row| row.seq))?;
        s.add(column(rows, |row| row.from_state.as_deref()))?;
        s.add(column(rows, |row| row.to_state.as_deref()))?;
        s.add(column(rows, effects))?;
        s.add(column(rows, |row| row.envelope.sent_at_us))?;
        s.add(column(rows, |row| row.attempts))?;
        s.add(column(rows, |row| row.note.as_deref()))
    })
}

fn effects(row: &InboxRow) -> Option<String> {
    row.effects.as_ref().and_then(|effects| serde_json::to_string(effects).ok())
}

fn saga(envelope: &Envelope) -> Option<&SagaRef> {
    envelope.saga.as_ref()
}

fn settles(statement: &mut Statement, write: &Write) -> Result<(), StoreError> {
    let rows = &write.settles;
    let Some((first, _)) = rows.first() else { return Ok(()) };
    statement.part(SETTLE, rows.len(), |s| {
        s.add(first.handled_by.as_str())?;
        s.add(column(rows, |(row, _)| row.receiver.as_str()))?;
        s.add(column(rows, |(row, _)| row.envelope.message_id.as_str()))?;
        s.add(column(rows, |(row, _)| row.envelope.body_hash()))?;
        s.add(column(rows, |(row, _)| row.result.as_str()))?;
        s.add(column(rows, |(row, _)| row.seq))?;
        s.add(column(rows, |(row, _)| row.from_state.as_deref()))?;
        s.add(column(rows, |(row, _)| row.to_state.as_deref()))?;
        s.add(column(rows, |(row, _)| effects(row)))?;
        s.add(column(rows, |(row, _)| row.attempts))?;
        s.add(column(rows, |(row, _)| row.note.as_deref()))?;
        s.add(column(rows, |(_, known)| *known))?;
        s.add(write.endpoint.as_str())?;
        s.add(column(rows, |(row, _)| row.envelope.message_id.as_str()))
    })
}

fn instances(statement: &mut Statement, write: &Write) -> Result<(), StoreError> {
    let (started, moved): (Vec<_>, Vec<_>) = write.instances.iter().partition(|write| write.base_seq == 0);
    let columns = |s: &mut Statement, rows: &[&InstanceWrite]| {
        s.add(column(rows, |write| write.row.key.saga.as_str()))?;
        s.add(column(rows, |write| write.row.key.id.as_str()))?;
        s.add(column(rows, |write| write.row.state.as_str()))?;
        s.add(column(rows, |write| write.row.data.as_str()))?;
        s.add(column(rows, |write| write.row.seq))?;
        s.add(column(rows, |write| write.row.entered))?;
        s.add(column(rows, |write| write.row.version))?;
        s.add(column(rows, |write| write.row.paused_by.as_deref()))?;
        s.add(column(rows, |write| write.row.done))
    };
    statement.part(STARTED, started.len(), |s| {
        columns(s, &started)?;
        s.add(column(&started, |write| write.row.originator.as_deref()))
    })?;
    statement.part(MOVED, moved.len(), |s| {
        columns(s, &moved)?;
        s.add(column(&moved, |write| write.base_seq))
    })
}

fn outbox(statement: &mut Statement, write: &Write) -> Result<(), StoreError> {
    let rows = &write.outbox;
    statement.part(OUTBOX, rows.len(), |s| {
        s.add(write.endpoint.as_str())?;
        s.add(write.owner.as_str())?;
        s.add(us(write.lease))?;
        s.add(column(rows, |row| row.leased))?;
        s.add(column(rows, |row| row.id))?;
        s.add(column(rows, |row| row.envelope.message_id.as_str()))?;
        s.add(column(rows, |row| row.kind.as_str()))?;
        s.add(column(rows, |row| row.envelope.type_name.as_str()))?;
        s.add(column(rows, |row| row.destination.name()))?;
        s.add(column(rows, |row| row.envelope.receiver.clone()))?;
        s.add(column(rows, |row| saga(&row.envelope).map(|saga| saga.saga.as_str())))?;
        s.add(column(rows, |row| saga(&row.envelope).map(|saga| saga.id.as_str())))?;
        s.add(column(rows, |row| saga(&row.envelope).and_then(|saga| saga.entered)))?;
        s.add(column(rows, |row| row.envelope.conversation_id.as_str()))?;
        s.add(column(rows, |row| row.envelope.causation_id.as_deref()))?;
        s.add(column(rows, |row| row.envelope.stored_headers(&write.endpoint).to_string()))?;
        s.add(column(rows, |row| &row.envelope.body[..]))?;
        s.add(column(rows, |row| row.envelope.sent_at_us))?;
        s.add(column(rows, |row| us(row.delay.unwrap_or_default())))
    })
}

fn held(statement: &mut Statement, write: &Write) -> Result<(), StoreError> {
    let rows = &write.held_in;
    statement.part(HELD_IN, rows.len(), |s| {
        s.add(write.endpoint.as_str())?;
        s.add(column(rows, |row| row.receiver.as_str()))?;
        s.add(column(rows, |row| row.envelope.message_id.as_str()))?;
        s.add(column(rows, |row| row.reason.as_str()))?;
        s.add(column(rows, |row| row.saga_id.as_deref()))?;
        s.add(column(rows, |row| row.error.as_deref()))?;
        s.add(column(rows, |row| row.attempts))?;
        s.add(column(rows, |row| row.expires.map(us)))?;
        s.add(column(rows, |row| row.envelope.type_name.as_str()))?;
        s.add(column(rows, |row| row.envelope.conversation_id.as_str()))?;
        s.add(column(rows, |row| row.envelope.causation_id.as_deref()))?;
        s.add(column(rows, |row| saga(&row.envelope).map(|saga| saga.saga.as_str())))?;
        s.add(column(rows, |row| saga(&row.envelope).map(|saga| saga.id.as_str())))?;
        s.add(column(rows, |row| saga(&row.envelope).and_then(|saga| saga.entered)))?;
        s.add(column(rows, |row| row.envelope.stored_headers(&write.endpoint).to_string()))?;
        s.add(column(rows, |row| &row.envelope.body[..]))?;
        s.add(column(rows, |row| row.envelope.sent_at_us))
    })
}

fn deletes(statement: &mut Statement, write: &Write) -> Result<(), StoreError> {
    let rows = &write.held_out;
    statement.part(HELD_OUT, rows.len(), |s| {
        s.add(column(rows, |key| key.receiver.as_str()))?;
        s.add(column(rows, |key| key.message_id.as_str()))?;
        s.add(write.endpoint.as_str())?;
        s.add(column(rows, |key| key.message_id.as_str()))
    })?;
    let rows = &write.timers_out;
    statement.part(TIMERS_OUT, rows.len(), |s| {
        s.add(column(rows, |timers| timers.key.saga.as_str()))?;
        s.add(column(rows, |timers| timers.key.id.as_str()))?;
        s.add(column(rows, |timers| timers.keep_entered))?;
        s.add(column(rows, |timers| timers.key.id.as_str()))
    })
}
