//! The filters of a listing as parameters: the same on every database, `None` for a filter that is not given.

use super::Params;
use saga_core::{Listing, Wanted};

/// The parameters of a listing, in the order in which the statements number them. The number of rows comes last.
pub(super) fn params(listing: &Listing<'_>) -> Params {
    let flag = |flag: bool| flag.then(|| "1".to_owned());
    let (mut params, wanted) = match listing {
        Listing::Outbox(filter, wanted) => (
            vec![
                filter.id.clone(),
                filter.endpoint.clone(),
                filter.saga.clone(),
                filter.saga_id.clone(),
                flag(filter.failing),
                filter.kind.map(|kind| kind.as_str().to_owned()),
                filter.type_name.clone(),
                filter.destination.clone(),
                filter.error.clone(),
                flag(filter.due),
            ],
            *wanted,
        ),
        Listing::Instances(filter, wanted) => (
            vec![
                filter.saga.clone(),
                filter.id.clone(),
                filter.state.clone(),
                flag(filter.paused),
                flag(filter.open),
                filter.unchanged_for.map(|time| crate::rows::us(time).to_string()),
            ],
            *wanted,
        ),
        Listing::Journal(key, wanted) => (vec![Some(key.saga.clone()), Some(key.id.clone())], *wanted),
        Listing::Held(filter, wanted) => (
            vec![
                filter.message_id.clone(),
                filter.endpoint.clone(),
                filter.reason.map(|reason| reason.as_str().to_owned()),
                filter.receiver.clone(),
                filter.saga.clone(),
                filter.saga_id.clone(),
                filter.type_name.clone(),
                filter.error.clone(),
                flag(filter.needs_person),
            ],
            *wanted,
        ),
        Listing::Operations(filter, wanted) => {
            (vec![filter.message_id.clone(), filter.saga.clone(), filter.saga_id.clone()], *wanted)
        }
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
        Listing::Beginning(text) => (vec![Some((*text).to_owned())], Wanted::Count),
        Listing::Conversation(id, wanted) => (vec![Some((*id).to_owned())], *wanted),
        _ => (Vec::new(), Wanted::Count),
    };
    if let Wanted::Rows(rows_max) = wanted {
        params.push(Some(rows_max.to_string()));
    }
    params
}
