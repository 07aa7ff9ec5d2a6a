//! The messages of a conversation. An index would cost every message more than this look does, so it ends among the
//! newest.

use super::{
    Tables,
    listing::{HELD_GROUP, SETTLED, within},
    look::{Bound, EVERY, LOOK_ROWS_MAX, Look, Place, groups},
    order::unreadable,
};
use saga_core::{StoreError, Wanted};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A row of the look.
#[derive(Deserialize)]
struct Seen {
    message_id: String,
    at_us: i64,
}

/// [`Listing::Conversation`](saga_core::Listing::Conversation).
pub(super) async fn conversation<T: Tables>(
    session: &mut T::Session,
    id: &str,
    wanted: Wanted,
) -> Result<Vec<String>, StoreError> {
    let mut rows = settled::<T>(session, id).await?.read::<T>(session, wanted).await?;
    rows.extend(held::<T>(session, id).await?.read::<T>(session, wanted).await?);
    let Wanted::Rows(rows_max) = wanted else {
        let counts = rows.iter().map(|n| serde_json::from_str::<i64>(n)).collect::<Result<Vec<_>, _>>();
        return Ok(vec![counts.map_err(unreadable)?.iter().sum::<i64>().to_string()]);
    };
    // a message has a row for each receiver
    let mut first = BTreeMap::new();
    for row in &rows {
        let Seen { message_id, at_us } = serde_json::from_str(row).map_err(unreadable)?;
        first.entry(message_id).and_modify(|first: &mut i64| *first = at_us.min(*first)).or_insert(at_us);
    }
    let mut messages: Vec<(i64, String)> = first.into_iter().map(|(message, at)| (at, message)).collect();
    messages.sort_unstable();
    messages.truncate(usize::try_from(rows_max).unwrap_or(usize::MAX));
    messages.iter().map(|(_, message)| serde_json::to_string(message).map_err(unreadable)).collect()
}

/// What is settled, the newest of each endpoint.
async fn settled<T: Tables>(session: &mut T::Session, id: &str) -> Result<Look, StoreError> {
    let (mut bound, mut places) = (Bound::default(), Vec::new());
    for key in groups::<T>(session, "inbox", &["endpoint"], SETTLED, &[]).await? {
        let of = format!("{SETTLED} AND {}", within(&mut bound, &["endpoint"], &key));
        places.push(Place::unordered(of, "handled_at DESC"));
    }
    let rest = format!("conversation_id = {}", bound.text(id));
    let columns = "message_id, conversation_id, handled_at AS at";
    Ok(Look { table: "inbox", columns, places, rest: vec![rest], bound, ..oldest_first::<T>() })
}

/// What is held, which that index does not have: the newest of each group.
async fn held<T: Tables>(session: &mut T::Session, id: &str) -> Result<Look, StoreError> {
    let (mut bound, mut places) = (Bound::default(), Vec::new());
    for key in groups::<T>(session, "held", &HELD_GROUP, EVERY, &[]).await? {
        places.push(Place::unordered(within(&mut bound, &HELD_GROUP, &key), "arrival DESC"));
    }
    let rest = format!("envelope ->> 'conversation_id' = {}", bound.text(id));
    let columns = "message_id, envelope, held_at AS at";
    Ok(Look { table: "held", columns, places, rest: vec![rest], bound, ..oldest_first::<T>() })
}

fn oldest_first<T: Tables>() -> Look {
    Look {
        table: "",
        columns: "",
        json: format!("CAST({}('message_id', message_id, 'at_us', {}) AS text)", T::OBJECT, T::us("at")),
        order: "at, message_id",
        places: Vec::new(),
        rest: Vec::new(),
        at_most: Some(LOOK_ROWS_MAX),
        bound: Bound::default(),
    }
}
