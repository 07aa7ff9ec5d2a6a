//! Fields by which operators find instances: which there are, and where the instances with some values are.

use super::{
    Session, Tables,
    look::{Bound, EVERY, Place, groups},
};
use saga_core::{FieldIs, InstanceFilter, StoreError};

/// A value that more instances have is looked for among those that changed last, as any other condition: there are
/// enough of them, and the first in the order of the listing.
const NARROW_ROWS_MAX: i64 = 10_000;

/// The fields that instances have, each with its saga. An index says which there are (`look.rs`): a name may have a
/// million rows.
async fn known<T: Tables>(session: &mut T::Session) -> Result<Vec<(String, String)>, StoreError> {
    let all = groups::<T>(session, "field", &["name"], EVERY, &[None]).await?;
    let parts = |key: &Vec<String>| key[0].rsplit_once(" by ").map(|(saga, name)| (saga.to_owned(), name.to_owned()));
    Ok(all.iter().filter_map(parts).collect())
}

/// [`Listing::FieldNames`](saga_core::Listing::FieldNames).
pub(super) async fn names<T: Tables>(session: &mut T::Session) -> Result<Vec<String>, StoreError> {
    let row = |(saga, name): &(String, String)| serde_json::json!({ "saga": saga, "name": name }).to_string();
    Ok(known::<T>(session).await?.iter().map(row).collect())
}

/// Where the instances with all the fields of a filter are, the sagas of which too many have them for that, and what is
/// left to ask of each instance.
pub(super) async fn places<T: Tables>(
    session: &mut T::Session,
    bound: &mut Bound,
    filter: &InstanceFilter,
    order: &'static str,
) -> Result<(Vec<Place>, Vec<String>, Vec<String>), StoreError> {
    let known = known::<T>(session).await?;
    let mut sagas: Vec<&String> = known.iter().map(|(saga, _)| saga).collect();
    sagas.sort_unstable();
    sagas.dedup();
    sagas.retain(|saga| {
        let has = |field: &FieldIs| known.iter().any(|(of, name)| of == *saga && *name == field.name);
        filter.saga.as_ref().is_none_or(|wanted| wanted == *saga) && filter.fields.iter().all(has)
    });
    let (mut places, mut broad) = (Vec::new(), Vec::new());
    for saga in sagas {
        let (count, field) = narrowest::<T>(session, saga, &filter.fields).await?;
        if count > NARROW_ROWS_MAX {
            broad.push(saga.clone());
            continue;
        }
        let (name, value) = (bound.text(&format!("{saga} by {}", field.name)), bound.text(&field.value));
        let of = format!("SELECT id, saga FROM {}field WHERE name = {name} AND value = {value}", T::PREFIX);
        places.push(Place::ordered(format!("(id, saga) IN ({of})"), order));
    }
    let has = |field: &FieldIs| {
        let (name, value) = (bound.text(&format!(" by {}", field.name)), bound.text(&field.value));
        // The columns have other names in there, so that the instance's are meant. `OFFSET` keeps it a look by the
        // instance: as a join, PostgreSQL may read all rows that have the value under any name.
        format!(
            "EXISTS (SELECT 1 FROM (SELECT id AS of_id, saga AS of_saga, name, value FROM {}field) has
                WHERE of_id = id AND of_saga = saga AND name = saga || {name} AND value = {value} LIMIT 1 OFFSET 0)",
            T::PREFIX
        )
    };
    let is_exact = filter.fields.len() == 1 && broad.is_empty();
    let rest = if is_exact { Vec::new() } else { filter.fields.iter().map(has).collect() };
    Ok((places, broad, rest))
}

/// The field whose value the fewest instances of the saga have, and how many, counted no further than is asked.
async fn narrowest<'f, T: Tables>(
    session: &mut T::Session,
    saga: &str,
    fields: &'f [FieldIs],
) -> Result<(i64, &'f FieldIs), StoreError> {
    let mut narrowest = (i64::MAX, &fields[0]);
    for field in fields {
        let mut bound = Bound::default();
        let (name, value) = (bound.text(&format!("{saga} by {}", field.name)), bound.text(&field.value));
        // in the order of the index: else PostgreSQL may collect all that match before it counts the first
        let sql = format!(
            "SELECT CAST(count(*) AS text) FROM (SELECT 1 FROM {}field WHERE name = {name} AND value = {value}
                ORDER BY is_alias LIMIT {NARROW_ROWS_MAX} + 1) c",
            T::PREFIX
        );
        let rows = session.rows(&sql, &bound.0).await?;
        let count = rows.first().and_then(|count| count.parse().ok()).unwrap_or(i64::MAX);
        if count < narrowest.0 {
            narrowest = (count, field);
        }
    }
    Ok(narrowest)
}
