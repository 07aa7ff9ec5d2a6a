//! Fields by which operators find instances: which there are, and where the instances with some values are.

use super::{
    Session, Tables,
    look::{Bound, EVERY, LOOK_ROWS_MAX, Place, groups, is_page, keys},
};
use saga_core::{FieldIs, InstanceFilter, StoreError, Wanted};

/// The fields that instances have, each with its saga. An index says which there are (`look.rs`): a name may have a
/// million rows.
async fn known<T: Tables>(session: &mut T::Session) -> Result<Vec<(String, String)>, StoreError> {
    let all = keys(&session.rows(&groups::<T>("field", &["name"], EVERY), &[]).await?);
    let parts = |key: &Vec<String>| key[0].rsplit_once(" by ").map(|(saga, name)| (saga.to_owned(), name.to_owned()));
    Ok(all.iter().filter_map(parts).collect())
}

/// [`Listing::FieldNames`](saga_core::Listing::FieldNames).
pub(super) async fn names<T: Tables>(session: &mut T::Session) -> Result<Vec<String>, StoreError> {
    let row = |(saga, name): &(String, String)| serde_json::json!({ "saga": saga, "name": name }).to_string();
    Ok(known::<T>(session).await?.iter().map(row).collect())
}

/// Where the instances with all the fields of a filter are, in the order of the listing: for each saga that has such
/// fields, those with the value that the fewest have. And what is left to ask of each.
pub(super) async fn places<T: Tables>(
    session: &mut T::Session,
    bound: &mut Bound,
    filter: &InstanceFilter,
    wanted: Wanted,
    order: &'static str,
) -> Result<(Vec<Place>, Vec<String>), StoreError> {
    let known = known::<T>(session).await?;
    let mut sagas: Vec<&String> = known.iter().map(|(saga, _)| saga).collect();
    sagas.sort_unstable();
    sagas.dedup();
    sagas.retain(|saga| {
        let has = |field: &FieldIs| known.iter().any(|(of, name)| of == *saga && *name == field.name);
        filter.saga.as_ref().is_none_or(|wanted| wanted == *saga) && filter.fields.iter().all(has)
    });
    let reach = LOOK_ROWS_MAX / sagas.len().max(1) as i64 + 1; // one more, so that the count knows of more
    let mut places = Vec::new();
    for saga in sagas {
        let narrowest = narrowest::<T>(session, saga, &filter.fields, reach).await?;
        let limit = if is_page(wanted) { format!("LIMIT {reach}") } else { String::new() };
        let (name, value) = (bound.text(&format!("{saga} by {}", narrowest.name)), bound.text(&narrowest.value));
        let of = format!("SELECT id, saga FROM {}field WHERE name = {name} AND value = {value} {limit}", T::PREFIX);
        places.push(Place::ordered(format!("(id, saga) IN ({of})"), order));
    }
    let has = |field: &FieldIs| {
        let (name, value) = (bound.text(&format!(" by {}", field.name)), bound.text(&field.value));
        // the columns have other names in there, so that the instance's are meant
        format!(
            "EXISTS (SELECT 1 FROM (SELECT id AS of_id, saga AS of_saga, name, value FROM {}field) has
                WHERE of_id = id AND of_saga = saga AND name = saga || {name} AND value = {value})",
            T::PREFIX
        )
    };
    let rest = if filter.fields.len() > 1 { filter.fields.iter().map(has).collect() } else { Vec::new() };
    Ok((places, rest))
}

/// The field whose value the fewest instances of the saga have, counted no further than a listing looks.
async fn narrowest<'f, T: Tables>(
    session: &mut T::Session,
    saga: &str,
    fields: &'f [FieldIs],
    reach: i64,
) -> Result<&'f FieldIs, StoreError> {
    let mut narrowest = (i64::MAX, &fields[0]);
    for field in fields.iter().filter(|_| fields.len() > 1) {
        let mut bound = Bound::default();
        let (name, value) = (bound.text(&format!("{saga} by {}", field.name)), bound.text(&field.value));
        let sql = format!(
            "SELECT CAST(count(*) AS text) FROM (
                SELECT 1 FROM {}field WHERE name = {name} AND value = {value} LIMIT {reach}) c",
            T::PREFIX
        );
        let rows = session.rows(&sql, &bound.0).await?;
        let count = rows.first().and_then(|count| count.parse().ok()).unwrap_or(i64::MAX);
        if count < narrowest.0 {
            narrowest = (count, field);
        }
    }
    Ok(narrowest.1)
}
