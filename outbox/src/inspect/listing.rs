//! Where the rows of a filter are, on every database: which index finds them, and which conditions are left.

use super::{
    Params, Tables, field,
    look::{Bound, EVERY, LOOK_ROWS_MAX, Look, Place, groups},
};
use saga_core::{
    AgeFilter, HeldFilter, HeldReason, InstanceFilter, Listing, OPERATIONS_LOOKED_AT, OperationFilter, OutboxFilter,
    StoreError, StoreErrorKind, Wanted,
};
use std::time::Duration;

/// What one may add to a filter, and still each listing is served by an index; see `schema.sql`.
pub(super) const FAILING: &str = "(waits_for IS NOT NULL OR attempts > 0 OR last_error IS NOT NULL)";
/// The message has another id than the row: it was sent again, or is to be handled again.
pub(super) const RENAMED: &str = "message_id <> CAST(id AS text)";

const OUTBOX: &str = "id, endpoint, message_id, kind, type, destination, saga, saga_id, created_at, due_at,
    first_attempt_at, lease_until, lease_owner, attempts, expired, waits_for, last_error, envelope";
const INSTANCE: &str = "saga, id, state, data, seq, version, paused_by, created_at, updated_at, completed_at";
const HELD: &str = "endpoint, receiver, message_id, type, arrival, reason, saga, saga_id, error, attempts, held_at,
    expires_at, kind, destination, envelope";

/// The parameters of a listing without a filter, in the order in which its statement numbers them. The number of rows
/// comes last.
pub(super) fn params(listing: &Listing<'_>) -> Params {
    let (mut params, wanted) = match listing {
        Listing::Journal(key, wanted) => (vec![Some(key.saga.clone()), Some(key.id.clone())], *wanted),
        Listing::OutboxBody(id) => (vec![Some((*id).to_owned())], Wanted::Count),
        Listing::HeldBody(row) => (
            vec![
                Some(row.endpoint.clone()),
                Some(row.receiver.clone()),
                Some(row.message_id.clone()),
                Some(row.arrival.to_string()),
            ],
            Wanted::Count,
        ),
        Listing::Traces(ids) => (vec![serde_json::to_string(ids).ok()], Wanted::Count),
        Listing::Beginning(text) => {
            let (low, high) = uuids(text).unzip();
            (vec![Some((*text).to_owned()), low, high], Wanted::Count)
        }
        _ => (Vec::new(), Wanted::Count),
    };
    if let Wanted::Rows(rows_max) = wanted {
        params.push(Some(rows_max.to_string()));
    }
    params
}

/// The columns, or the first of them, have the values of a group.
pub(super) fn within(bound: &mut Bound, columns: &[&str], key: &[String]) -> String {
    let is = |(column, value): (&&str, &String)| match *column {
        "version" => format!("version = CAST({} AS integer)", bound.text(value)),
        column => format!("{column} = {}", bound.text(value)),
    };
    columns.iter().zip(key).map(is).collect::<Vec<_>>().join(" AND ")
}

/// The time of a row lies within the bounds.
fn aged<T: Tables>(time: &str, age: AgeFilter) -> impl Iterator<Item = String> {
    let bound = |is: &str, age: Duration| format!("{time} {is} {}", T::ago(crate::rows::us(age)));
    let (older, newer) = (age.older_than.map(|age| bound("<=", age)), age.newer_than.map(|age| bound(">", age)));
    older.into_iter().chain(newer)
}

/// The columns that tell groups of held messages apart.
pub(super) const HELD_GROUP: [&str; 3] = ["endpoint", "reason", "type"];

/// Whether a held message goes on without a person.
pub(super) fn waits(reason: &str) -> bool {
    HeldReason::parse(reason).is_some_and(HeldReason::releases_itself)
}

pub(super) async fn held<T: Tables>(session: &mut T::Session, filter: &HeldFilter) -> Result<Look, StoreError> {
    let mut bound = Bound::default();
    let (mut places, mut rest) = (Vec::new(), Vec::new());
    let reason = filter.reason.map(|reason| reason.as_str().to_owned());
    let mut is_by_group = false;
    if let Some(id) = &filter.message_id {
        places.push(Place::ordered(bound.begins("message_id", id), "message_id"));
        rest.extend(bound.is("saga_id", filter.saga_id.as_ref()));
        rest.extend(bound.is("receiver", filter.receiver.as_ref()));
    } else if filter.saga_id.is_some() {
        let of = bound.is("saga_id", filter.saga_id.as_ref()).unwrap_or_default();
        places.push(Place::unordered(of, "saga, endpoint, reason, type, arrival"));
        rest.extend(bound.is("receiver", filter.receiver.as_ref()));
    } else if let Some(receiver) = filter.receiver.as_ref().or(filter.saga.as_ref()) {
        // what waits for an instance of a saga is held by the saga
        places.push(Place::ordered(format!("receiver = {}", bound.text(receiver)), "arrival"));
    } else {
        is_by_group = true;
        let wanted = [filter.endpoint.as_ref(), reason.as_ref(), filter.type_name.as_ref()];
        for key in groups::<T>(session, "held", &HELD_GROUP, EVERY, &wanted).await? {
            if !(filter.needs_person && waits(&key[1])) {
                places.push(Place::ordered(within(&mut bound, &HELD_GROUP, &key), "arrival"));
            }
        }
    }
    if !is_by_group {
        rest.extend(bound.is("endpoint", filter.endpoint.as_ref()));
        rest.extend(bound.is("reason", reason.as_ref()));
        rest.extend(bound.is("type", filter.type_name.as_ref()));
        if filter.needs_person {
            rest.push("reason NOT IN ('early', 'deferred', 'paused', 'version')".into());
        }
    }
    rest.extend(bound.is("saga", filter.saga.as_ref()));
    rest.extend(aged::<T>("held_at", filter.age));
    if let Some(text) = &filter.error {
        rest.push(bound.contains::<T>("error", text));
    }
    Ok(Look {
        table: "held",
        columns: HELD,
        json: T::HELD.into(),
        order: "arrival",
        places,
        rest,
        at_most: None,
        bound,
    })
}

/// The columns that tell groups of instances apart.
pub(super) const INSTANCE_GROUP: [&str; 3] = ["saga", "version", "state"];
/// Those that are not done have an index, and those that are done have another.
pub(super) const OPEN: &str = "completed_at IS NULL";
/// See [`OPEN`].
pub(super) const DONE: &str = "completed_at IS NOT NULL";
/// So have those that are paused.
pub(super) const PAUSED: &str = "paused_by IS NOT NULL";

/// An inbox row that nothing is left to do with. Their index has them by endpoint and time.
pub(super) const SETTLED: &str = "result IN ('handled', 'ignored', 'stale', 'discarded')";

pub(super) async fn instances<T: Tables>(
    session: &mut T::Session,
    filter: &InstanceFilter,
) -> Result<Look, StoreError> {
    let mut bound = Bound::default();
    let (mut places, mut rest) = (Vec::new(), Vec::new());
    let (by, order) = match filter.unchanged_for {
        None => ("updated_at DESC", "updated_at DESC, id, saga"),
        Some(_) => ("updated_at", "updated_at, id, saga"),
    };
    let unchanged = filter.unchanged_for.map(|time| format!("updated_at <= {}", T::ago(crate::rows::us(time))));
    let (mut is_by_group, mut broad) = (false, Vec::new());
    if !filter.fields.is_empty() {
        (places, broad, rest) = field::places::<T>(session, &mut bound, filter, order).await?;
        rest.extend(filter.id.as_ref().map(|id| bound.begins("id", id)));
        rest.extend(filter.paused.then(|| PAUSED.to_owned()));
    } else if let Some(id) = &filter.id {
        places.push(Place::ordered(bound.begins("id", id), "id, saga"));
        rest.extend(filter.paused.then(|| PAUSED.to_owned()));
    } else if filter.paused {
        for key in groups::<T>(session, "saga", &["saga"], PAUSED, &[filter.saga.as_ref()]).await? {
            places.push(Place::unordered(format!("{PAUSED} AND {}", within(&mut bound, &["saga"], &key)), "id"));
        }
    } else {
        is_by_group = true;
    }
    if is_by_group || !broad.is_empty() {
        for half in if filter.open { &[OPEN][..] } else { &[OPEN, DONE] } {
            // by the broad values of fields: of their sagas alone
            let saga = filter.saga.as_ref().filter(|_| is_by_group);
            for key in groups::<T>(session, "saga", &INSTANCE_GROUP, half, &[saga, None, filter.state.as_ref()]).await?
            {
                if is_by_group || broad.contains(&key[0]) {
                    let of = [Some((*half).to_owned()), unchanged.clone()].into_iter().flatten();
                    let of: Vec<String> = of.chain([within(&mut bound, &INSTANCE_GROUP, &key)]).collect();
                    places.push(Place::ordered(of.join(" AND "), by));
                }
            }
        }
    }
    if !is_by_group {
        rest.extend(unchanged);
        rest.extend(filter.open.then(|| OPEN.to_owned()));
        rest.extend(bound.is("saga", filter.saga.as_ref().filter(|_| filter.fields.is_empty())));
        rest.extend(bound.is("state", filter.state.as_ref()));
    }
    Ok(Look { table: "saga", columns: INSTANCE, json: T::INSTANCE.into(), order, places, rest, at_most: None, bound })
}

pub(super) async fn outbox<T: Tables>(session: &mut T::Session, filter: &OutboxFilter) -> Result<Look, StoreError> {
    let mut bound = Bound::default();
    let (mut places, mut rest) = (Vec::new(), Vec::new());
    if let Some(text) = &filter.id {
        let mut of_id = String::new();
        if let Some((low, high)) = uuids(text) {
            let (low, high) = (T::uuid(&bound.text(&low)), T::uuid(&bound.text(&high)));
            of_id = format!("id >= {low} AND id <= {high}");
            places.push(Place::ordered(of_id.clone(), "id"));
        }
        let renamed = format!("{RENAMED} AND {}", bound.begins("message_id", text));
        let other = if of_id.is_empty() { renamed } else { format!("{renamed} AND NOT ({of_id})") };
        places.push(Place::ordered(other, "message_id"));
    } else if let (Some(saga), Some(id)) = (&filter.saga, &filter.saga_id) {
        let (saga, id) = (bound.text(saga), bound.text(id));
        let sent = T::sent_by(&saga, &id);
        // the journal of an instance has the ids of what it sent, so that no index of the outbox needs its id
        places.push(Place::unordered(format!("kind = 'timer' AND saga_id = {id} AND saga = {saga}"), "due_at"));
        places.push(Place::unordered(
            format!("kind <> 'timer' AND NOT ({RENAMED}) AND id IN (SELECT {} FROM ({sent}) sent)", T::uuid("sent.id")),
            "due_at",
        ));
        let sent_again = format!("{RENAMED} AND message_id IN (SELECT id FROM ({sent}) sent)");
        places.push(Place::unordered(format!("kind <> 'timer' AND {sent_again}"), "due_at"));
        // other receivers of a message retry it as well
        let retried = format!(
            "kind = 'retry' AND {RENAMED} AND coalesce(envelope ->> 'receiver', '') = {saga}
                AND (message_id, endpoint) IN (SELECT message_id, endpoint FROM {}inbox
                    WHERE saga_id = {id} AND saga = {saga} AND receiver = {saga} AND result = 'retrying')",
            T::PREFIX
        );
        places.push(Place::unordered(format!("{retried} AND NOT ({sent_again})"), "due_at"));
        // what the journal does not name any more, such as a message that is delayed beyond its retention
        let named = format!(
            "(NOT ({RENAMED}) AND id IN (SELECT {} FROM ({sent}) sent)) OR ({sent_again}) OR ({retried})",
            T::uuid("sent.id")
        );
        let endpoints = groups::<T>(session, "outbox", &["endpoint"], EVERY, &[]).await?;
        let reach = LOOK_ROWS_MAX / (2 * endpoints.len().max(1)) as i64;
        for key in &endpoints {
            let of = within(&mut bound, &["endpoint"], key);
            for window in [format!("due_at <= {}", T::NOW), format!("due_at > {}", T::NOW)] {
                let seen = format!(
                    "SELECT id FROM (SELECT id, kind, saga, saga_id FROM {}outbox WHERE {of} AND {window}
                        ORDER BY due_at LIMIT {reach}) w WHERE saga_id = {id} AND saga = {saga} AND kind <> 'timer'",
                    T::PREFIX
                );
                places.push(Place::unordered(format!("id IN ({seen}) AND NOT ({named})"), "due_at"));
            }
        }
    } else {
        let now = T::NOW;
        for key in groups::<T>(session, "outbox", &["endpoint"], EVERY, &[filter.endpoint.as_ref()]).await? {
            let of = within(&mut bound, &["endpoint"], &key);
            if filter.failing {
                places.push(Place::ordered(format!("{of} AND {FAILING}"), "due_at"));
                continue;
            }
            places.push(Place::ordered(format!("{of} AND due_at <= {now}"), "due_at"));
            if !filter.due {
                places.push(Place::ordered(format!("{of} AND due_at > {now}"), "due_at"));
            }
        }
    }
    let is_by_time = filter.id.is_none() && filter.saga_id.is_none();
    if !is_by_time {
        rest.extend(bound.is("endpoint", filter.endpoint.as_ref()));
        rest.extend(filter.failing.then(|| FAILING.to_owned()));
    }
    if filter.due && (filter.failing || !is_by_time) {
        rest.push(format!("due_at <= {}", T::NOW));
    }
    if filter.saga_id.is_none() || filter.id.is_some() {
        rest.extend(bound.is("saga", filter.saga.as_ref()));
        rest.extend(bound.is("saga_id", filter.saga_id.as_ref()));
    }
    if filter.failing {
        rest.push("NOT (kind = 'retry' AND attempts = 0 AND waits_for IS NULL)".into()); // its run failed, not its way
    }
    rest.extend(filter.kind.map(|kind| format!("kind = '{}'", kind.as_str())));
    rest.extend(filter.no_timers.then(|| "kind <> 'timer'".to_owned()));
    rest.extend(bound.is("type", filter.type_name.as_ref()));
    rest.extend(bound.is("destination", filter.destination.as_ref()));
    rest.extend(aged::<T>("created_at", filter.age));
    if let Some(text) = &filter.error {
        rest.push(bound.contains::<T>("last_error", text));
    }
    Ok(Look {
        table: "outbox",
        columns: OUTBOX,
        json: T::OUTBOX.into(),
        order: "due_at, id",
        places,
        rest,
        at_most: None,
        bound,
    })
}

/// Operations. What is asked of their items is asked of the newest alone: all that they have is unpacked for that.
pub(super) fn operations<T: Tables>(filter: &OperationFilter) -> Look {
    let mut bound = Bound::default();
    let of = bound.is("action", filter.action.as_ref()).unwrap_or_else(|| EVERY.to_owned());
    let (items, item) = T::ITEMS;
    let wanted = [("message_id", &filter.message_id), ("saga", &filter.saga), ("saga_id", &filter.saga_id)];
    let is = wanted.into_iter().filter_map(|(name, text)| bound.is(&format!("{item} ->> '{name}'"), text.as_ref()));
    let is = is.collect::<Vec<_>>().join(" AND ");
    let rest = if is.is_empty() { Vec::new() } else { vec![format!("EXISTS (SELECT 1 FROM {items} WHERE {is})")] };
    Look {
        table: "operation",
        columns: "id, at, who, action, reason, items",
        json: T::OPERATION.into(),
        order: "at DESC, id DESC",
        places: vec![Place::ordered(of, "at DESC, id DESC")],
        rest,
        at_most: Some(OPERATIONS_LOOKED_AT),
        bound,
    }
}

/// The first and the last uuid that begins so; `None` if none does.
fn uuids(text: &str) -> Option<(String, String)> {
    const SHAPE: &str = "00000000-0000-0000-0000-000000000000";
    let text = text.to_lowercase();
    let fits = |(given, shape): (char, char)| if shape == '-' { given == '-' } else { given.is_ascii_hexdigit() };
    if text.len() > SHAPE.len() || !text.chars().zip(SHAPE.chars()).all(fits) {
        return None;
    }
    let rest = &SHAPE[text.len()..];
    Some((format!("{text}{rest}"), format!("{text}{}", rest.replace('0', "f"))))
}

/// The error for a listing that this store does not know.
pub(super) fn unknown(listing: &Listing<'_>) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, format!("{listing:?} is not known here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_uuid_is_a_range() {
        let (low, high) = uuids("01997A10-1").unwrap();
        assert_eq!(low, "01997a10-1000-0000-0000-000000000000");
        assert_eq!(high, "01997a10-1fff-ffff-ffff-ffffffffffff");
        for other in ["m-7", "0199-", "01997a101", "ä", "01997a10-0000-0000-0000-0000000000000"] {
            assert_eq!(uuids(other), None, "{other}");
        }
    }
}
