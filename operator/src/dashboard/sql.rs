//! The SQL behind a page: one query on the public views, with the page's filter in it, for whoever wants to go on from
//! there in another tool.

use crate::trouble::SILENT_MS;
use maud::{Markup, html};
use saga_core::{AgeFilter, HeldFilter, InstanceFilter, OperationFilter, OutboxFilter, OutboxKind, OutboxView};
use std::{fmt::Write, time::Duration};

/// A query, as each database has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sql {
    postgres: String,
    sqlite: String,
}

impl Sql {
    fn of(text: impl Fn(Dialect) -> String) -> Self {
        Self { postgres: text(Dialect::Postgres), sqlite: text(Dialect::Sqlite) }
    }

    /// As a part of a page that can be opened; on these databases.
    pub(super) fn shown(&self, on_postgres: bool, on_sqlite: bool) -> Markup {
        let (postgres, sqlite) = (on_postgres && !self.postgres.is_empty(), on_sqlite && !self.sqlite.is_empty());
        html! {
            @if postgres || sqlite {
                details.sql id="sql" {
                    summary { "SQL" }
                    @if postgres { @if sqlite { p { "On PostgreSQL" } } pre { (self.postgres) } }
                    @if sqlite { @if postgres { p { "On SQLite" } } pre { (self.sqlite) } }
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    fn view(self, name: &str) -> String {
        match self {
            Self::Postgres => format!("sagabus.v_{name}"),
            Self::Sqlite => format!("sagabus_v_{name}"),
        }
    }

    /// A text as a literal. What a page does not show as it is, such as a control, is written by its number: so a text
    /// that was copied from the page is the whole text.
    fn text(self, text: &str) -> String {
        let chr = if self == Self::Postgres { "chr" } else { "char" };
        let is_plain = |c: &char| crate::text::plain(c.encode_utf8(&mut [0; 4])).chars().eq([*c]);
        let chars: Vec<char> = text.chars().collect();
        let runs = chars.chunk_by(|a, b| is_plain(a) && is_plain(b)).map(|run| match run {
            [c] if !is_plain(c) => format!("{chr}({})", u32::from(*c)),
            run => format!("'{}'", run.iter().collect::<String>().replace('\'', "''")),
        });
        let parts: Vec<String> = runs.collect();
        if parts.is_empty() { "''".into() } else { parts.join(" || ") }
    }

    /// The column is the text.
    fn is(self, column: &str, text: Option<&String>) -> Option<String> {
        text.map(|text| format!("{column} = {}", self.text(text)))
    }

    /// The column is the text, whatever its case: names are ASCII.
    fn is_alike(self, column: &str, text: Option<&String>) -> Option<String> {
        text.map(|text| format!("lower({column}) = {}", self.text(&text.to_ascii_lowercase())))
    }

    fn begins(self, column: &str, text: &str) -> String {
        format!("substr({column}, 1, {}) = {}", text.chars().count(), self.text(text))
    }

    fn contains(self, column: &str, text: &str) -> String {
        let find = if self == Self::Postgres { "strpos" } else { "instr" };
        format!("{find}(lower({column}), lower({})) > 0", self.text(text))
    }

    /// The time so long ago, as the views have times.
    fn ago(self, time: Duration) -> String {
        match self {
            Self::Postgres => format!("now() - interval '{} seconds'", time.as_secs()),
            Self::Sqlite => format!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{} seconds')", time.as_secs()),
        }
    }

    fn now(self) -> &'static str {
        match self {
            Self::Postgres => "now()",
            Self::Sqlite => "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
        }
    }

    fn aged(self, column: &str, age: AgeFilter) -> impl Iterator<Item = String> {
        let older = age.older_than.map(|time| format!("{column} <= {}", self.ago(time)));
        let newer = age.newer_than.map(|time| format!("{column} > {}", self.ago(time)));
        older.into_iter().chain(newer)
    }
}

/// `SELECT columns FROM from WHERE all of them ORDER BY order LIMIT rows;`, a part a line.
fn select(
    columns: &str,
    from: &str,
    of: impl IntoIterator<Item = String>,
    order: &str,
    rows_max: Option<i64>,
) -> String {
    let mut sql = format!("SELECT {columns}\nFROM {from}");
    for (n, condition) in of.into_iter().enumerate() {
        let _ = write!(sql, "\n{} {condition}", if n == 0 { "WHERE" } else { "  AND" });
    }
    let _ = write!(sql, "\nORDER BY {order}");
    if let Some(rows) = rows_max {
        let _ = write!(sql, "\nLIMIT {rows}");
    }
    sql + ";"
}

/// What needs a person, as far as the views tell.
pub(super) fn home() -> Sql {
    Sql::of(|d| {
        let (held, instances, outbox) = (d.view("held"), d.view("instances"), d.view("outbox"));
        let (timers, processes) = (d.view("timers"), d.view("processes"));
        let (silent, stuck) = (d.ago(Duration::from_millis(SILENT_MS as u64)), d.ago(Duration::from_secs(60)));
        let failing = "(attempts > 0 OR kind <> 'retry' AND last_error IS NOT NULL)";
        format!(
            "-- what a process reports of its link and its handlers is in no view
SELECT 'held as ' || reason AS what, endpoint AS place, count(*) AS number, min(held_at) AS since
FROM {held} WHERE needs_person GROUP BY endpoint, reason
UNION ALL
SELECT 'paused in ' || state, saga, count(*), min(updated_at)
FROM {instances} WHERE is_paused GROUP BY saga, state
UNION ALL
SELECT 'no queue takes what goes to ' || destination, endpoint, count(*), min(created_at)
FROM {outbox} WHERE status = 'unroutable' GROUP BY endpoint, destination
UNION ALL
SELECT 'publishing failed', endpoint, count(*), min(due_at)
FROM {outbox} WHERE status <> 'unroutable' AND {failing} GROUP BY endpoint
UNION ALL
SELECT 'due and not confirmed', endpoint, count(*), min(due_at)
FROM (
  SELECT endpoint, due_at FROM {outbox} WHERE status <> 'unroutable' AND NOT {failing}
  UNION ALL
  SELECT endpoint, due_at FROM {timers}
) AS d WHERE due_at < {stuck} GROUP BY endpoint
UNION ALL
SELECT 'silent processes', endpoint, count(*), min(seen_at)
FROM {processes} WHERE seen_at < {silent} GROUP BY endpoint;"
        )
    })
}

/// Instances.
pub(super) fn instances(filter: &InstanceFilter, rows_max: i64) -> Sql {
    Sql::of(|d| {
        let mut of: Vec<String> = d.is("saga", filter.saga.as_ref()).into_iter().collect();
        of.extend(d.is("state", filter.state.as_ref()));
        of.extend(filter.id.as_ref().map(|id| d.begins("id", id)));
        of.extend(filter.paused.then(|| "is_paused".into()));
        of.extend(filter.open.then(|| "NOT is_done".into()));
        of.extend(filter.unchanged_for.map(|time| format!("updated_at <= {}", d.ago(time))));
        of.extend(filter.fields.iter().map(|field| {
            let (name, value) = (d.text(&field.name), d.text(&field.value));
            let fields = d.view("fields");
            format!("(saga, id) IN (SELECT saga, id FROM {fields} WHERE name = {name} AND value = {value})")
        }));
        let order = if filter.unchanged_for.is_some() { "updated_at, id, saga" } else { "updated_at DESC, id, saga" };
        let columns = "saga, id, state, version, is_done, is_paused, created_at, updated_at, completed_at";
        select(columns, &d.view("instances"), of, order, Some(rows_max))
    })
}

/// One instance, with each step of it.
pub(super) fn instance(saga: &str, id: &str) -> Sql {
    Sql::of(|d| {
        let from = format!(
            "{} AS i\nLEFT JOIN {} AS j ON j.saga = i.saga AND j.id = i.id",
            d.view("instances"),
            d.view("journal")
        );
        let of = [format!("i.saga = {}", d.text(saga)), format!("i.id = {}", d.text(id))];
        let columns = "i.state, i.data, j.seq, j.message_id, j.type, j.result, j.from_state, j.to_state, j.handled_at";
        select(columns, &from, of, "j.handled_at, j.seq", None)
    })
}

const HELD: &str = "endpoint, receiver, message_id, type, reason, needs_person, saga, id, error, attempts, held_at";

/// Held messages.
pub(super) fn held(filter: &HeldFilter, rows_max: Option<i64>) -> Sql {
    Sql::of(|d| {
        let mut of: Vec<String> = d.is_alike("endpoint", filter.endpoint.as_ref()).into_iter().collect();
        of.extend(filter.reason.map(|reason| format!("reason = '{}'", reason.as_str())));
        of.extend(d.is_alike("receiver", filter.receiver.as_ref()));
        of.extend(d.is("saga", filter.saga.as_ref()));
        of.extend(d.is("id", filter.saga_id.as_ref()));
        of.extend(d.is_alike("type", filter.type_name.as_ref()));
        of.extend(filter.error.as_ref().map(|text| d.contains("error", text)));
        of.extend(filter.needs_person.then(|| "needs_person".into()));
        of.extend(d.aged("held_at", filter.age));
        select(HELD, &d.view("held"), of, "held_at, message_id", rows_max)
    })
}

/// A held message at each receiver.
pub(super) fn message(id: &str) -> Sql {
    Sql::of(|d| {
        let of = [format!("message_id = {}", d.text(id))];
        select(HELD, &d.view("held"), of, "endpoint, receiver", None)
    })
}

const OUTBOX: &str = "message_id, endpoint, kind, type, destination, saga, id, receiver, status, attempts, last_error, \
                      created_at, due_at";
const TIMERS: &str = "endpoint, saga, id, type, is_due, created_at, due_at";

/// Timers.
pub(super) fn timers(filter: &OutboxFilter, rows_max: Option<i64>) -> Sql {
    Sql::of(|d| {
        let mut of = sent(d, filter);
        of.extend(d.is_alike("endpoint", filter.destination.as_ref())); // where every timer goes
        of.extend(d.is("saga", filter.saga.as_ref()));
        of.extend(d.is("id", filter.saga_id.as_ref()));
        select(TIMERS, &d.view("timers"), of, "due_at, saga, id", rows_max)
    })
}

/// Rows of the outbox, timers among them unless the filter is about others.
pub(super) fn outbox(filter: &OutboxFilter, rows_max: Option<i64>) -> Sql {
    if filter.kind == Some(OutboxKind::Timer) {
        return timers(filter, rows_max);
    }
    // the views do not tell what became of a timer that was to go
    let is_of_errors = filter.failing || filter.error.is_some();
    let has_timers = filter.kind.is_none() && !filter.no_timers && !is_of_errors;
    Sql::of(|d| {
        let from = match has_timers {
            true => format!(
                "(\n  SELECT {OUTBOX}\n  FROM {}\n  UNION ALL\n  \
                 SELECT NULL, endpoint, 'timer', type, endpoint, saga, id, NULL, CASE WHEN is_due THEN 'due' \
                 ELSE 'scheduled' END, 0, NULL, created_at, due_at\n  FROM {}\n) AS o",
                d.view("outbox"),
                d.view("timers")
            ),
            false => d.view("outbox"),
        };
        let mut of = sent(d, filter);
        of.extend(d.is_alike("destination", filter.destination.as_ref()));
        of.extend(filter.kind.map(|kind| format!("kind = '{}'", kind.as_str())));
        of.extend(match (&filter.saga, &filter.saga_id) {
            (Some(saga), Some(id)) => {
                let (saga, id, journal) = (d.text(saga), d.text(id), d.view("journal"));
                Some(format!(
                    "(saga = {saga} AND id = {id} OR kind = 'retry' AND receiver = {saga} \
                     AND (message_id, endpoint) IN (\
                     \n    SELECT message_id, endpoint FROM {journal}\
                     \n    WHERE saga = {saga} AND id = {id} AND receiver = {saga} AND result = 'retrying'))"
                ))
            }
            (saga, _) => d.is("saga", saga.as_ref()),
        });
        if filter.failing {
            of.push("(status = 'unroutable' OR attempts > 0 OR last_error IS NOT NULL)".into());
            of.push("NOT (kind = 'retry' AND attempts = 0 AND status <> 'unroutable')".into());
        }
        of.extend(filter.error.as_ref().map(|text| d.contains("last_error", text)));
        let sql = select(OUTBOX, &from, of, "due_at, message_id", rows_max);
        if is_of_errors && !filter.no_timers {
            format!("-- timers are not told apart by their errors\n{sql}")
        } else {
            sql
        }
    })
}

/// The conditions that rows of the outbox and timers have in common.
fn sent(d: Dialect, filter: &OutboxFilter) -> Vec<String> {
    let mut of: Vec<String> = d.is_alike("endpoint", filter.endpoint.as_ref()).into_iter().collect();
    of.extend(d.is_alike("type", filter.type_name.as_ref()));
    of.extend(filter.due.then(|| format!("due_at <= {}", d.now())));
    of.extend(d.aged("created_at", filter.age));
    of
}

/// One row of the outbox, which a view knows by its message; or by its instance, if it is a timer.
pub(super) fn row(row: &OutboxView) -> Sql {
    Sql::of(|d| {
        if row.kind != "timer" {
            let of = [format!("message_id = {}", d.text(&row.message_id))];
            return select(OUTBOX, &d.view("outbox"), of, "due_at", None);
        }
        let mut of: Vec<String> = d.is("saga", row.saga.as_ref()).into_iter().collect();
        of.extend(d.is("id", row.saga_id.as_ref()));
        of.push(format!("type = {}", d.text(&row.type_name)));
        select(TIMERS, &d.view("timers"), of, "due_at", None)
    })
}

/// Where a message, an instance or a conversation came from, and what it caused, as receivers have had it.
pub(super) fn conversation(id: &str) -> Sql {
    Sql::of(|d| {
        let (id, journal) = (d.text(id), d.view("journal"));
        let is_asked = format!("message_id = {id} OR id = {id} OR conversation_id = {id}");
        format!(
            "WITH RECURSIVE talk AS (
  SELECT * FROM {journal}
  WHERE conversation_id IN (SELECT conversation_id FROM {journal} WHERE {is_asked})
), up (message_id) AS (
  SELECT message_id FROM talk WHERE {is_asked}
  UNION
  SELECT talk.causation_id FROM talk JOIN up ON up.message_id = talk.message_id WHERE causation_id IS NOT NULL
), down (message_id) AS (
  SELECT message_id FROM up
  UNION
  SELECT talk.message_id FROM talk JOIN down ON down.message_id = talk.causation_id
)
SELECT message_id, causation_id, type, endpoint, receiver, saga, id, result, from_state, to_state, handled_at
FROM talk WHERE message_id IN (SELECT message_id FROM down)
ORDER BY handled_at, seq;"
        )
    })
}

/// What has an id that begins with the text.
pub(super) fn search(text: &str, rows_max: i64) -> Sql {
    Sql::of(|d| {
        let of = |what: &str, place: &str, id: &str, view: &str| {
            format!(
                "SELECT '{what}' AS what, {place} AS place, {id} AS id FROM {} WHERE {}",
                d.view(view),
                d.begins(id, text)
            )
        };
        format!(
            "{}\nUNION ALL\n{}\nUNION ALL\n{}\nLIMIT {rows_max};",
            of("instance", "saga", "id", "instances"),
            of("held message", "receiver", "message_id", "held"),
            of("outbox", "destination", "message_id", "outbox"),
        )
    })
}

/// Processes.
pub(super) fn processes(rows_max: usize) -> Sql {
    let columns = "endpoint, owner, started_at, seen_at, asked";
    let order = "endpoint, started_at, owner";
    Sql::of(|d| select(columns, &d.view("processes"), [], order, i64::try_from(rows_max).ok()))
}

/// Versions, by their instances.
pub(super) fn versions() -> Sql {
    let columns = "saga, version, sum(CASE WHEN is_done THEN 0 ELSE 1 END) AS open, \
                   sum(CASE WHEN is_done THEN 1 ELSE 0 END) AS done";
    Sql::of(|d| {
        let (instances, of) = (d.view("instances"), "GROUP BY saga, version");
        let note = "-- a version without instances is in the table `definition` alone";
        format!("{note}\nSELECT {columns}\nFROM {instances}\n{of}\nORDER BY saga, version;")
    })
}

/// What operators did.
pub(super) fn operations(filter: &OperationFilter, rows_max: i64) -> Sql {
    Sql::of(|d| {
        let (each, item) = match d {
            Dialect::Postgres => ("json_array_elements(items) AS item", "item"),
            Dialect::Sqlite => ("json_each(items) AS item", "item.value"),
        };
        let wanted = [("message_id", &filter.message_id), ("saga", &filter.saga), ("saga_id", &filter.saga_id)];
        let is = wanted.iter().filter_map(|(name, text)| d.is(&format!("{item} ->> '{name}'"), text.as_ref()));
        let is = is.collect::<Vec<_>>().join(" AND ");
        let of = (!is.is_empty()).then(|| format!("EXISTS (SELECT 1 FROM {each} WHERE {is})"));
        let columns = "at, who, action, reason, items";
        select(columns, &d.view("operations"), of, "at DESC, id DESC", Some(rows_max))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_literal_whatever_is_in_it() {
        for (text, literal) in [
            ("", "''"),
            ("it's", "'it''s'"),
            ("'", "''''"),
            ("'; DROP TABLE x; --\\", "'''; DROP TABLE x; --\\'"),
            ("a\u{1b}b\n", "'a' || chr(27) || 'b' || chr(10)"),
            ("\u{202e}ä", "chr(8238) || 'ä'"),
        ] {
            assert_eq!(Dialect::Postgres.text(text), literal);
        }
        assert_eq!(Dialect::Sqlite.text("a\t"), "'a' || char(9)");
    }

    #[test]
    fn a_query_says_what_the_filter_says() {
        let filter = HeldFilter {
            type_name: Some("Payment.Paid".into()),
            needs_person: true,
            age: AgeFilter { older_than: Some(Duration::from_secs(900)), newer_than: None },
            ..HeldFilter::default()
        };
        let Sql { postgres, sqlite } = held(&filter, Some(50));
        let expected = "WHERE lower(type) = 'payment.paid'\n  AND needs_person\n  \
                        AND held_at <= now() - interval '900 seconds'\nORDER BY held_at, message_id\nLIMIT 50;";
        assert!(postgres.contains("\nFROM sagabus.v_held\n") && postgres.ends_with(expected), "{postgres}");
        assert!(sqlite.contains("\nFROM sagabus_v_held\n") && sqlite.contains("'now', '-900 seconds')"), "{sqlite}");
    }
}
