//! Everything a batch writes, in one statement out of parts: a common table expression for each kind of row.
//!
//! In a part, `{}` is a parameter, and `{rows(name type, ..)}` a table `r` whose columns are parameters too: arrays.

use crate::rows::{clean, effects, in_order, sender, to_json, us};
use saga_core::{FieldRow, HeldIn, HeldKey, InstanceWrite, StoreError, Write};
use sqlx::{Arguments, Encode, PgConnection, Row, Type, error::BoxDynError, postgres::PgArguments};
use std::sync::OnceLock;

const CLAIM: &str = "
INSERT INTO sagabus.inbox (endpoint, handled_by, receiver, message_id, body_hash, type, result, conversation_id,
    causation_id, saga, saga_id, seq, from_state, to_state, effects, sent_at, attempts, round, note,
    message, claimed_at, handled_at)
SELECT {}, {}, r.receiver, r.message_id, r.body_hash, r.type, r.result, r.conversation_id,
    r.causation_id, CASE WHEN r.saga_id IS NOT NULL THEN r.receiver END, r.saga_id, r.seq, r.from_state, r.to_state,
    r.effects::json, 'epoch'::timestamptz + r.sent_at * interval '1 microsecond', r.attempts, r.round, r.note,
    r.message::json, clock_timestamp(), clock_timestamp()
FROM {rows(receiver text, message_id text, body_hash bigint, type text, result text, conversation_id text,
    causation_id text, saga_id text, seq bigint, from_state text, to_state text, effects text, sent_at bigint,
    attempts bigint, round integer, note text, message text)}";

/// The rows are found one by one by their keys (the fence), and then by `ctid`: with scans forbidden, no plan can read
/// the whole table. A row that changed meanwhile is not found by its `ctid`, which shows in the count. What is tried is
/// tried since its first run that counts: time in the line of a limit is not.
const COMPLETE: &str = "
UPDATE sagabus.inbox i SET handled_by = {}, result = r.result, seq = r.seq, from_state = r.from_state,
    to_state = r.to_state, effects = r.effects::json, attempts = r.attempts, round = r.round, note = r.note,
    message = r.message::json, body_hash = r.body_hash, saga_id = coalesce(r.saga_id, i.saga_id),
    saga = CASE WHEN r.saga_id IS NOT NULL THEN r.receiver ELSE i.saga END, handled_at = clock_timestamp(),
    claimed_at = CASE WHEN r.known = 0 AND r.attempts > 0 THEN clock_timestamp() ELSE i.claimed_at END
FROM {rows(receiver text, message_id text, body_hash bigint, result text, saga_id text, seq bigint, from_state text,
    to_state text, effects text, attempts bigint, round integer, note text, message text, known bigint)},
    LATERAL (SELECT ctid AS place FROM sagabus.inbox
        WHERE message_id = r.message_id AND receiver = r.receiver AND endpoint = {} OFFSET 0) p
WHERE i.ctid = p.place AND i.result IN ('held', 'retrying', 'suspect') AND i.attempts = r.known RETURNING 1";

const STARTED: &str = "
INSERT INTO sagabus.saga (saga, id, state, data, seq, entered, version, progress, originator, paused_by,
    created_at, updated_at, completed_at)
SELECT r.saga, r.id, r.state, r.data::json, r.seq, r.entered, r.version, r.progress::json, r.originator::json,
    r.paused_by, clock_timestamp(), clock_timestamp(), CASE WHEN r.done THEN clock_timestamp() END
FROM {rows(saga text, id text, state text, data text, seq bigint, entered bigint, version int, progress text,
    paused_by text, done bool, originator text)}";

/// Found as in [`COMPLETE`]. Who started an instance never changes.
const MOVED: &str = "
UPDATE sagabus.saga s SET state = r.state, data = r.data::json, seq = r.seq, entered = r.entered, version = r.version,
    progress = r.progress::json, paused_by = r.paused_by, updated_at = clock_timestamp(),
    completed_at = CASE WHEN r.done THEN coalesce(s.completed_at, clock_timestamp()) END
FROM {rows(saga text, id text, state text, data text, seq bigint, entered bigint, version int, progress text,
    paused_by text, done bool, base_seq bigint)},
    LATERAL (SELECT ctid AS place FROM sagabus.saga WHERE id = r.id AND saga = r.saga OFFSET 0) p
WHERE s.ctid = p.place AND s.seq = r.base_seq RETURNING 1";

const OUTBOX: &str = "
INSERT INTO sagabus.outbox (endpoint, lease_owner, lease_until, first_attempt_at, id, message_id, kind, type,
    destination, saga, saga_id, timer, envelope, body, created_at, due_at, last_error)
SELECT {}, CASE WHEN r.leased THEN {} END,
    CASE WHEN r.leased THEN clock_timestamp() + {}::bigint * interval '1 microsecond' END,
    CASE WHEN r.leased THEN clock_timestamp() END, r.id, r.message_id, r.kind, r.type,
    r.destination, r.saga, r.saga_id, r.timer, r.envelope::json, r.body, clock_timestamp(),
    clock_timestamp() + r.delay * interval '1 microsecond', r.last_error
FROM {rows(leased bool, id uuid, message_id text, kind text, type text, destination text, saga text,
    saga_id text, timer bigint, envelope text, body bytea, delay bigint, last_error text)}";

const HELD_IN: &str = "
INSERT INTO sagabus.held AS h (endpoint, receiver, message_id, reason, saga, saga_id, error, attempts, held_at,
    expires_at, type, envelope, body)
SELECT {}, r.receiver, r.message_id, r.reason, r.saga, r.saga_id, r.error,
    r.attempts, clock_timestamp(), clock_timestamp() + r.expires * interval '1 microsecond', r.type, r.envelope::json,
    r.body
FROM {rows(receiver text, message_id text, reason text, saga text, saga_id text, error text, attempts bigint,
    expires bigint, type text, envelope text, body bytea)}
ON CONFLICT (message_id, receiver, endpoint) DO UPDATE SET reason = excluded.reason, error = excluded.error,
    attempts = excluded.attempts, expires_at = excluded.expires_at, saga = coalesce(excluded.saga, h.saga),
    saga_id = coalesce(excluded.saga_id, h.saga_id)";

/// The rows to delete, found as in [`COMPLETE`]; some may be gone.
const HELD_FOUND: &str = "
SELECT p.place FROM {rows(receiver text, message_id text)},
    LATERAL (SELECT ctid AS place FROM sagabus.held
        WHERE message_id = r.message_id AND receiver = r.receiver AND endpoint = {} OFFSET 0) p";

/// A row that was found and then changed by another transaction would stay: a conflict.
const HELD_OUT: &str = "DELETE FROM sagabus.held h USING p6 p WHERE h.ctid = p.place RETURNING 1";

const TIMERS_OUT: &str = "
DELETE FROM sagabus.outbox o USING {rows(saga text, id text, timer bigint)}
WHERE o.kind = 'timer' AND o.saga_id = r.id AND o.saga = r.saga AND o.saga_id = ANY({}::text[]) AND o.timer = r.timer";

/// Found as in [`COMPLETE`], by the instance: a value may have very many.
const FIELDS_OUT: &str = "
DELETE FROM sagabus.field f USING {rows(name text, value text, saga text, id text, is_alias bool)},
    LATERAL (SELECT ctid AS place FROM sagabus.field WHERE id = r.id AND saga = r.saga OFFSET 0) p
WHERE f.ctid = p.place AND f.name = r.name AND (r.is_alias IS NULL OR f.value = r.value)";

const FIELDS_IN: &str = "
INSERT INTO sagabus.field (name, value, saga, id, is_alias)
SELECT r.name, r.value, r.saga, r.id, r.is_alias
FROM {rows(name text, value text, saga text, id text, is_alias bool)}";

/// Found as in [`COMPLETE`]; one that expires at this moment is not found again, and stays as it is then.
const ALIASES_MET: &str = "
UPDATE sagabus.held h SET saga = r.saga, saga_id = r.id
FROM {rows(alias text, value text, saga text, id text)},
    LATERAL (SELECT ctid AS place FROM sagabus.held
        WHERE saga_id = r.value AND saga = r.alias AND endpoint = {} AND reason = 'early' OFFSET 0) p
WHERE h.ctid = p.place";

/// A part, by its place among the parts.
struct Part {
    sql: &'static str,
    /// The check of a part: SQL for a number that must equal the one given to [`Statement::part`].
    count: Option<&'static str>,
}

const PARTS: [Part; 12] = [
    Part { sql: CLAIM, count: None },
    Part { sql: COMPLETE, count: Some("(SELECT count(*) FROM p1)") },
    Part { sql: STARTED, count: None },
    Part { sql: MOVED, count: Some("(SELECT count(*) FROM p3)") },
    Part { sql: OUTBOX, count: None },
    Part { sql: HELD_IN, count: None },
    Part { sql: HELD_FOUND, count: None },
    Part { sql: HELD_OUT, count: Some("(SELECT count(*) FROM p6) - (SELECT count(*) FROM p7)") },
    Part { sql: TIMERS_OUT, count: None },
    Part { sql: FIELDS_OUT, count: None },
    Part { sql: FIELDS_IN, count: None },
    Part { sql: ALIASES_MET, count: None },
];

/// Why nothing was written.
pub(super) enum Failed {
    /// Another process was faster; the database may have said so.
    Conflict(Option<sqlx::Error>),
    /// What was to be written cannot be.
    Store(StoreError),
    /// The database says why.
    Sqlx(sqlx::Error),
}

impl From<BoxDynError> for Failed {
    fn from(error: BoxDynError) -> Self {
        match error.downcast::<StoreError>() {
            Ok(error) => Self::Store(*error),
            Err(error) => Self::Sqlx(sqlx::Error::Encode(error)),
        }
    }
}

pub(super) async fn write(connection: &mut PgConnection, persistent: bool, write: &Write) -> Result<(), Failed> {
    /// The approximate size of a row, body included.
    const ROW_BYTES: usize = 1024;
    if write.is_empty() {
        // only the handler's own writes are to be committed: is the transaction still the unit's, and not aborted?
        let open = sqlx::query("SELECT sagabus.in_unit()").persistent(persistent).execute(connection).await;
        return open.map(drop).map_err(failed);
    }
    let mut statement = Statement::default();
    let rows = write.claims.len() + write.instances.len() + write.outbox.len();
    statement.arguments.reserve(64, ROW_BYTES * rows);
    claims(&mut statement, write)?;
    completes(&mut statement, write)?;
    instances(&mut statement, write)?;
    outbox(&mut statement, write)?;
    held(&mut statement, write)?;
    deletes(&mut statement, write)?;
    fields(&mut statement, write)?;
    let Statement { parts, expected, arguments } = statement;
    let query = sqlx::query_with(text_of(parts), arguments).persistent(persistent);
    let row = query.fetch_one(connection).await.map_err(failed)?;
    let conflict = expected.iter().enumerate().any(|(n, expected)| row.get::<i64, _>(n) != *expected);
    if conflict { Err(Failed::Conflict(None)) } else { Ok(()) }
}

/// A message, an instance or an alias that is there already, or a field whose instance is gone: another process was
/// faster.
fn failed(error: sqlx::Error) -> Failed {
    match error.as_database_error().and_then(|error| error.constraint()) {
        Some("inbox_pkey" | "saga_pkey" | "field_value" | "field_instance_fkey") => Failed::Conflict(Some(error)),
        _ => Failed::Sqlx(error),
    }
}

fn column<'a, T, U>(rows: &[&'a T], get: impl Fn(&'a T) -> U) -> Vec<U> {
    rows.iter().map(|row| get(row)).collect()
}

fn round(round: u32) -> i32 {
    i32::try_from(round).unwrap_or(i32::MAX)
}

fn claims(statement: &mut Statement, write: &Write) -> Result<(), BoxDynError> {
    if write.claims.is_empty() {
        return Ok(());
    }
    let rows = &in_order(&write.claims, |row| row);
    statement.part(0, None, |s| {
        s.add(write.endpoint.as_str())?;
        s.add(write.owner.as_str())?;
        s.add(column(rows, |row| row.receiver.as_str()))?;
        s.add(column(rows, |row| row.envelope.message_id.as_str()))?;
        s.add(column(rows, |row| row.body_hash))?;
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
        s.add(column(rows, |row| round(row.round)))?;
        s.add(column(rows, |row| row.note.as_deref().map(clean)))?;
        s.add(column(rows, |row| row.message.as_deref()))
    })
}

fn completes(statement: &mut Statement, write: &Write) -> Result<(), BoxDynError> {
    if write.completes.is_empty() {
        return Ok(());
    }
    let rows = &in_order(&write.completes, |(row, _)| row);
    statement.part(1, Some(rows.len()), |s| {
        s.add(write.owner.as_str())?;
        s.add(column(rows, |(row, _)| row.receiver.as_str()))?;
        s.add(column(rows, |(row, _)| row.envelope.message_id.as_str()))?;
        s.add(column(rows, |(row, _)| row.body_hash))?;
        s.add(column(rows, |(row, _)| row.result.as_str()))?;
        s.add(column(rows, |(row, _)| row.saga_id.as_deref()))?;
        s.add(column(rows, |(row, _)| row.seq))?;
        s.add(column(rows, |(row, _)| row.from_state.as_deref()))?;
        s.add(column(rows, |(row, _)| row.to_state.as_deref()))?;
        s.add(column(rows, |(row, _)| effects(row)))?;
        s.add(column(rows, |(row, _)| row.attempts))?;
        s.add(column(rows, |(row, _)| round(row.round)))?;
        s.add(column(rows, |(row, _)| row.note.as_deref().map(clean)))?;
        s.add(column(rows, |(row, _)| row.message.as_deref()))?;
        s.add(column(rows, |(_, known)| *known))?;
        s.add(write.endpoint.as_str())
    })
}

fn instances(statement: &mut Statement, write: &Write) -> Result<(), BoxDynError> {
    let (started, moved): (Vec<_>, Vec<_>) = write.instances.iter().partition(|write| write.base_seq == 0);
    let columns = |s: &mut Statement, rows: &[&InstanceWrite]| {
        s.add(column(rows, |write| write.row.key.saga.as_str()))?;
        s.add(column(rows, |write| write.row.key.id.as_str()))?;
        s.add(column(rows, |write| write.row.state.as_str()))?;
        s.add(column(rows, |write| write.row.data.as_str()))?;
        s.add(column(rows, |write| write.row.seq))?;
        s.add(column(rows, |write| write.row.entered))?;
        s.add(column(rows, |write| write.row.version))?;
        s.add(column(rows, |write| write.row.progress.as_deref()))?;
        s.add(column(rows, |write| write.row.paused_by.as_deref()))?;
        s.add(column(rows, |write| write.row.done))
    };
    if !started.is_empty() {
        statement.part(2, None, |s| {
            columns(s, &started)?;
            s.add(column(&started, |write| write.row.originator.as_deref()))
        })?;
    }
    if moved.is_empty() {
        return Ok(());
    }
    statement.part(3, Some(moved.len()), |s| {
        columns(s, &moved)?;
        s.add(column(&moved, |write| write.base_seq))
    })
}

fn outbox(statement: &mut Statement, write: &Write) -> Result<(), BoxDynError> {
    if write.outbox.is_empty() {
        return Ok(());
    }
    let rows = &write.outbox.iter().collect::<Vec<_>>();
    let envelopes: Vec<String> = rows.iter().map(|row| to_json(&row.envelope)).collect::<Result<_, _>>()?;
    statement.part(4, None, |s| {
        s.add(write.endpoint.as_str())?;
        s.add(write.owner.as_str())?;
        s.add(us(write.lease))?;
        s.add(column(rows, |row| row.leased))?;
        s.add(column(rows, |row| row.id))?;
        s.add(column(rows, |row| row.envelope.message_id.as_str()))?;
        s.add(column(rows, |row| row.kind.as_str()))?;
        s.add(column(rows, |row| row.envelope.type_name.as_str()))?;
        s.add(column(rows, |row| row.destination.name()))?;
        s.add(column(rows, |row| sender(&row.envelope).map(|saga| saga.saga.as_str())))?;
        s.add(column(rows, |row| sender(&row.envelope).map(|saga| saga.id.as_str())))?;
        s.add(column(rows, |row| sender(&row.envelope).and_then(|saga| saga.timer)))?;
        s.add(envelopes)?;
        s.add(column(rows, |row| &row.envelope.body[..]))?;
        s.add(column(rows, |row| us(row.delay.unwrap_or_default())))?;
        s.add(column(rows, |row| row.last_error.as_deref().map(clean)))
    })
}

fn held(statement: &mut Statement, write: &Write) -> Result<(), BoxDynError> {
    if write.held_in.is_empty() {
        return Ok(());
    }
    let rows = &write.held_in.iter().collect::<Vec<_>>();
    let envelopes: Vec<String> = rows.iter().map(|row| to_json(&row.envelope)).collect::<Result<_, _>>()?;
    statement.part(5, None, |s| {
        s.add(write.endpoint.as_str())?;
        s.add(column(rows, |row| row.receiver.as_str()))?;
        s.add(column(rows, |row| row.envelope.message_id.as_str()))?;
        s.add(column(rows, |row| row.reason.as_str()))?;
        let waits_for =
            |row: &'_ HeldIn| row.saga_id.as_ref().map(|_| row.alias.clone().unwrap_or(row.receiver.clone()));
        s.add(column(rows, waits_for))?;
        s.add(column(rows, |row| row.saga_id.as_deref()))?;
        s.add(column(rows, |row| row.error.as_deref().map(clean)))?;
        s.add(column(rows, |row| row.attempts))?;
        s.add(column(rows, |row| row.expires.map(us)))?;
        s.add(column(rows, |row| row.envelope.type_name.as_str()))?;
        s.add(envelopes)?;
        s.add(column(rows, |row| &row.envelope.body[..]))
    })
}

fn deletes(statement: &mut Statement, write: &Write) -> Result<(), BoxDynError> {
    if !write.held_out.is_empty() {
        let mut rows: Vec<&HeldKey> = write.held_out.iter().collect();
        rows.sort_unstable_by_key(|key| (&key.message_id, &key.receiver));
        statement.part(6, None, |s| {
            s.add(column(&rows, |key| key.receiver.as_str()))?;
            s.add(column(&rows, |key| key.message_id.as_str()))?;
            s.add(write.endpoint.as_str())
        })?;
        statement.part(7, Some(0), |_| Ok(()))?;
    }
    if write.timers_out.is_empty() {
        return Ok(());
    }
    let rows = &write.timers_out.iter().collect::<Vec<_>>();
    statement.part(8, None, |s| {
        s.add(column(rows, |timer| timer.key.saga.as_str()))?;
        s.add(column(rows, |timer| timer.key.id.as_str()))?;
        s.add(column(rows, |timer| timer.number))?;
        s.add(column(rows, |timer| timer.key.id.as_str()))
    })
}

fn fields(statement: &mut Statement, write: &Write) -> Result<(), BoxDynError> {
    let all = [(9, &write.fields_out), (10, &write.fields_in), (11, &write.aliases_met)];
    for (part, rows) in all.into_iter().filter(|(_, rows)| !rows.is_empty()) {
        let mut rows: Vec<&FieldRow> = rows.iter().collect();
        rows.sort_unstable(); // two processes take them in the same order
        statement.part(part, None, |s| {
            s.add(column(&rows, |row| row.field.saga.as_str()))?;
            s.add(column(&rows, |row| row.field.id.as_str()))?;
            s.add(column(&rows, |row| row.instance.saga.as_str()))?;
            s.add(column(&rows, |row| row.instance.id.as_str()))?;
            match part {
                11 => s.add(write.endpoint.as_str()),
                _ => s.add(column(&rows, |row| row.is_alias.then_some(true))),
            }
        })?;
    }
    Ok(())
}

/// What goes into a statement: each part takes its arguments in the order of its `{}`.
#[derive(Default)]
struct Statement {
    /// The parts of the statement, as bits.
    parts: usize,
    /// The numbers that its checks must return.
    expected: Vec<i64>,
    /// Its arguments.
    arguments: PgArguments,
}

impl Statement {
    /// Adds part `n`. Its check, if it has one, must return `expected`.
    fn part(
        &mut self,
        n: usize,
        expected: Option<usize>,
        arguments: impl FnOnce(&mut Self) -> Result<(), BoxDynError>,
    ) -> Result<(), BoxDynError> {
        self.parts |= 1 << n;
        self.expected.extend(expected.map(|rows| rows as i64));
        arguments(self)
    }

    /// Adds a parameter.
    fn add<'q, T: Encode<'q, sqlx::Postgres> + Type<sqlx::Postgres> + 'q>(
        &mut self,
        value: T,
    ) -> Result<(), BoxDynError> {
        self.arguments.add(value)
    }
}

/// Each text is built once.
fn text_of(parts: usize) -> &'static str {
    static TEXTS: [OnceLock<String>; 1 << PARTS.len()] = [const { OnceLock::new() }; 1 << PARTS.len()];
    TEXTS[parts].get_or_init(|| text(&PARTS, parts))
}

/// The statement with those parts whose bits are set. Its last column is the check that a unit is open.
fn text(parts: &[Part], chosen: usize) -> String {
    let (mut with, mut columns, mut placeholders) = (Vec::new(), Vec::new(), 0);
    for (n, part) in parts.iter().enumerate().filter(|(n, _)| chosen & (1 << n) != 0) {
        with.push(format!("p{n} AS MATERIALIZED ({})", filled(part.sql, &mut placeholders)));
        columns.extend(part.count.map(String::from));
    }
    columns.push("sagabus.in_unit()".into());
    format!("WITH {} SELECT {}", with.join(", "), columns.join(", "))
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
            None => filled.push_str(&next()),
        }
        rest = after;
    }
    filled + rest
}

/// Arrays as a table. They come through `OFFSET 0`, which hides their length from the planner. Otherwise it would plan
/// each batch that is shorter than its guess anew, and planning costs several times as much as execution. The arrays
/// are unnested side by side in the `SELECT`: as `unnest(a, b, ..)` in `FROM`, each would first fill a table of its
/// own.
fn rows(columns: &str, next: &mut impl FnMut() -> String) -> String {
    let (mut arrays, mut unnested) = (Vec::new(), Vec::new());
    for (n, column) in columns.split(',').enumerate() {
        let (name, kind) = column.trim().split_once(' ').expect("a column has a name and a type");
        arrays.push(format!("{}::{kind}[] AS a{n}", next()));
        unnested.push(format!("unnest(a{n}) AS {name}"));
    }
    format!("(SELECT {} FROM (SELECT {} OFFSET 0) a) r", unnested.join(", "), arrays.join(", "))
}
