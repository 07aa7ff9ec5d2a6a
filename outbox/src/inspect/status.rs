//! Counts and ages that do not become slower with the number of rows: every group of rows is found by an index, and
//! counted up to [`COUNTED_MAX`].

use super::{
    Session, Tables,
    listing::{DONE, FAILING, HELD_GROUP, INSTANCE_GROUP, OPEN, PAUSED, SETTLED, within},
    look::{Bound, EVERY, PLACES_MAX, groups},
};
use saga_core::{COUNTED_MAX, StoreError};

/// Rows that are counted of a group: one more says that there are more.
const SOME: i64 = COUNTED_MAX + 1;

/// [`Listing::Status`](saga_core::Listing::Status).
pub(super) async fn status<T: Tables>(session: &mut T::Session) -> Result<Vec<String>, StoreError> {
    let mut parts = session.rows(T::STATUS, &[]).await?;
    parts.extend(handled::<T>(session).await?);
    parts.extend(outbox::<T>(session).await?);
    parts.extend(unroutable::<T>(session).await?);
    let of_held = |of: &str, bound: &mut Bound, key: &[String]| {
        let (table, endpoint, reason) = (format!("{}held", T::PREFIX), bound.text(&key[0]), bound.text(&key[1]));
        let oldest = T::ms_since(&format!("(SELECT held_at FROM {table} WHERE {of} ORDER BY arrival LIMIT 1)"));
        format!(
            "{0}('held', {0}('endpoint', CAST({endpoint} AS text), 'reason', CAST({reason} AS text),
                'count', c.n, 'oldest_ms', {oldest}))",
            T::OBJECT
        )
    };
    parts.extend(each::<T>(session, "held", &HELD_GROUP, EVERY, of_held).await?);
    for half in [OPEN, DONE] {
        let of_state = |of: &str, bound: &mut Bound, key: &[String]| {
            let (table, saga, state) = (format!("{}saga", T::PREFIX), bound.text(&key[0]), bound.text(&key[2]));
            let oldest =
                T::ms_since(&format!("(SELECT updated_at FROM {table} WHERE {of} ORDER BY updated_at LIMIT 1)"));
            let done = if half == DONE { "c.n" } else { "0" };
            let waiting = T::ms_since(&format!(
                "(SELECT updated_at FROM (SELECT updated_at, paused_by FROM {table} WHERE {of}
                    ORDER BY updated_at LIMIT {SOME}) o WHERE paused_by IS NULL ORDER BY updated_at LIMIT 1)"
            ));
            let waiting = if half == DONE { "0".to_owned() } else { format!("coalesce({waiting}, 0)") };
            format!(
                "{0}('state', {0}('saga', CAST({saga} AS text), 'state', CAST({state} AS text), 'count', c.n,
                    'paused', 0, 'done', {done}, 'oldest_ms', {oldest}, 'waiting_ms', {waiting}))",
                T::OBJECT
            )
        };
        parts.extend(each::<T>(session, "saga", &INSTANCE_GROUP, half, of_state).await?);
    }
    parts.extend(paused::<T>(session).await?);
    Ok(parts)
}

/// What each endpoint settled within the last minute: of all at once the index would be read from end to end.
async fn handled<T: Tables>(session: &mut T::Session) -> Result<Vec<String>, StoreError> {
    let (minute, mut parts) = (T::ago(60_000_000), Vec::new());
    for keys in groups::<T>(session, "inbox", &["endpoint"], SETTLED, &[]).await?.chunks(PLACES_MAX) {
        let (mut bound, mut all) = (Bound::default(), Vec::new());
        for key in keys {
            let endpoint = bound.text(&key[0]);
            all.push(format!(
                "SELECT CAST({0}('handled', {0}('endpoint', CAST({endpoint} AS text), 'count', c.n)) AS text) FROM (
                    SELECT count(*) AS n FROM {1}inbox
                    WHERE endpoint = {endpoint} AND {SETTLED} AND handled_at > {minute}) c
                 WHERE c.n > 0",
                T::OBJECT,
                T::PREFIX
            ));
        }
        parts.extend(session.rows(&all.join(" UNION ALL "), &bound.0).await?);
    }
    Ok(parts)
}

/// Paused instances by state, of each saga as many as are counted: those of one must not hide those of another.
async fn paused<T: Tables>(session: &mut T::Session) -> Result<Vec<String>, StoreError> {
    let mut parts = Vec::new();
    for keys in groups::<T>(session, "saga", &["saga"], PAUSED, &[]).await?.chunks(PLACES_MAX) {
        let (mut bound, mut seen) = (Bound::default(), Vec::new());
        for key in keys {
            let of = within(&mut bound, &["saga"], key);
            seen.push(format!(
                "SELECT * FROM (SELECT saga, state, updated_at FROM {}saga
                 WHERE {PAUSED} AND {of} ORDER BY id LIMIT {SOME}) p",
                T::PREFIX
            ));
        }
        // a paused instance changes no more: it was paused when it last changed
        let sql = format!(
            "SELECT CAST({0}('state', {0}('saga', saga, 'state', state, 'count', 0, 'paused', count(*), 'done', 0,
                'oldest_ms', 0, 'paused_ms', {1})) AS text)
             FROM ({2}) s GROUP BY saga, state",
            T::OBJECT,
            T::ms_since("min(updated_at)"),
            seen.join(" UNION ALL ")
        );
        parts.extend(session.rows(&sql, &bound.0).await?);
    }
    Ok(parts)
}

/// [`Listing::Forms`](saga_core::Listing::Forms).
pub(super) async fn forms<T: Tables>(session: &mut T::Session) -> Result<Vec<String>, StoreError> {
    let mut forms = Vec::new();
    for half in [OPEN, DONE] {
        let of_form = |_: &str, bound: &mut Bound, key: &[String]| {
            let (saga, version, state) = (bound.text(&key[0]), bound.text(&key[1]), bound.text(&key[2]));
            let done = if half == DONE { "c.n" } else { "0" };
            format!(
                "{0}('saga', CAST({saga} AS text), 'state', CAST({state} AS text),
                    'version', CAST({version} AS integer), 'count', c.n, 'done', {done})",
                T::OBJECT
            )
        };
        forms.extend(each::<T>(session, "saga", &INSTANCE_GROUP, half, of_form).await?);
    }
    Ok(forms)
}

/// A row for each group; in it `c.n` is the number of the group's rows.
async fn each<T: Tables>(
    session: &mut T::Session,
    table: &str,
    columns: &[&str],
    half: &str,
    row: impl Fn(&str, &mut Bound, &[String]) -> String,
) -> Result<Vec<String>, StoreError> {
    let mut parts = Vec::new();
    for keys in groups::<T>(session, table, columns, half, &[]).await?.chunks(PLACES_MAX) {
        let (mut bound, mut all) = (Bound::default(), Vec::new());
        for key in keys {
            let of = format!("{half} AND {}", within(&mut bound, columns, key));
            let row = row(&of, &mut bound, key);
            let some = format!("SELECT 1 FROM {}{table} WHERE {of} LIMIT {SOME}", T::PREFIX);
            // the last row of a group may have gone since the groups were read
            let counted = format!("(SELECT count(*) AS n FROM ({some}) s) c WHERE c.n > 0");
            all.push(format!("SELECT CAST({row} AS text) FROM {counted}"));
        }
        parts.extend(session.rows(&all.join(" UNION ALL "), &bound.0).await?);
    }
    Ok(parts)
}

/// What is due or was, what is due next, and what failed, of each endpoint. Timers are usually due in the future, so
/// the kind decides first; a retry that is due counts like any other row.
async fn outbox<T: Tables>(session: &mut T::Session) -> Result<Vec<String>, StoreError> {
    let mut parts = Vec::new();
    // three selects for each endpoint
    for endpoints in groups::<T>(session, "outbox", &["endpoint"], EVERY, &[]).await?.chunks(PLACES_MAX / 3) {
        parts.extend(outbox_of::<T>(session, endpoints).await?);
    }
    Ok(parts)
}

async fn outbox_of<T: Tables>(session: &mut T::Session, endpoints: &[Vec<String>]) -> Result<Vec<String>, StoreError> {
    let (now, mut bound, mut seen) = (T::NOW, Bound::default(), Vec::new());
    for key in endpoints {
        let of = within(&mut bound, &["endpoint"], key);
        for (look, more) in
            [("time", format!("due_at <= {now}")), ("time", format!("due_at > {now}")), ("failing", FAILING.to_owned())]
        {
            let columns = "endpoint, kind, due_at, attempts, last_error, waits_for, first_attempt_at";
            seen.push(format!(
                "SELECT * FROM (SELECT '{look}' AS look, {columns} FROM {}outbox
                 WHERE {of} AND {more} ORDER BY due_at LIMIT {SOME}) p",
                T::PREFIX
            ));
        }
    }
    let seen = seen.join(" UNION ALL ");
    let counts = format!(
        "SELECT CAST({0}('outbox', {0}('endpoint', endpoint, 'which', which, 'count', count(*),
            'oldest_ms', {1}, 'error', max(last_error))) AS text)
         FROM (SELECT s.*, CASE
                WHEN kind = 'timer' AND due_at > {now} THEN 'timers'
                WHEN kind <> 'timer' AND (attempts > 0 OR (kind <> 'retry' AND last_error IS NOT NULL)) THEN 'failing'
                WHEN due_at <= {now} THEN 'due'
                WHEN kind = 'retry' THEN 'retrying' ELSE 'delayed' END AS which
            FROM ({seen}) s WHERE waits_for IS NULL) w
         WHERE CASE WHEN which IN ('failing', 'retrying') AND {FAILING}
            THEN look = 'failing' ELSE look = 'time' END
         GROUP BY endpoint, which",
        T::OBJECT,
        T::ms_since("min(CASE WHEN which = 'failing' THEN coalesce(first_attempt_at, due_at) ELSE due_at END)")
    );
    let mut parts = session.rows(&counts, &bound.0).await?;
    let unconfirmed = format!(
        "SELECT CAST({0}('unconfirmed', {0}('endpoint', endpoint, 'oldest_ms', {1})) AS text)
         FROM ({seen}) s WHERE first_attempt_at IS NOT NULL OR due_at <= {now} GROUP BY endpoint",
        T::OBJECT,
        T::ms_since("min(coalesce(first_attempt_at, due_at))")
    );
    parts.extend(session.rows(&unconfirmed, &bound.0).await?);
    Ok(parts)
}

/// What no queue takes, by destination.
async fn unroutable<T: Tables>(session: &mut T::Session) -> Result<Vec<String>, StoreError> {
    let (columns, waits) = (["endpoint", "waits_for"], "waits_for IS NOT NULL");
    let mut parts = Vec::new();
    for keys in groups::<T>(session, "outbox", &columns, waits, &[]).await?.chunks(PLACES_MAX) {
        let (mut bound, mut seen) = (Bound::default(), Vec::new());
        for key in keys {
            let of = within(&mut bound, &columns, key);
            seen.push(format!(
                "SELECT * FROM (SELECT endpoint, waits_for, coalesce(first_attempt_at, created_at) AS at
                 FROM {}outbox WHERE {waits} AND {of} LIMIT {SOME}) p",
                T::PREFIX
            ));
        }
        let sql = format!(
            "SELECT CAST({0}('unroutable', {0}('endpoint', endpoint, 'destination', waits_for, 'count', count(*),
                'oldest_ms', {1})) AS text)
             FROM ({2}) s GROUP BY endpoint, waits_for",
            T::OBJECT,
            T::ms_since("min(at)"),
            seen.join(" UNION ALL ")
        );
        parts.extend(session.rows(&sql, &bound.0).await?);
    }
    Ok(parts)
}
