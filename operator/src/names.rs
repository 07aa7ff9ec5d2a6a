//! Names in filters match whatever their case: endpoints, receivers, types and destinations. Each database spells them
//! as its rows have them. What it does not know stays as it was typed, and finds nothing.

use crate::find;
use saga_core::{HeldFilter, Inspect, OutboxFilter, ProcessReport, StoreError};

/// A filter of held messages as this database spells it.
pub(crate) async fn held(store: &dyn Inspect, filter: &HeldFilter) -> Result<HeldFilter, StoreError> {
    let others = HeldFilter { endpoint: None, receiver: None, type_name: None, ..filter.clone() };
    // what finds something is meant as it was typed
    if others == *filter || !store.held(filter, 1).await?.is_empty() {
        return Ok(filter.clone());
    }
    let (rows, groups) = (store.held(&others, find::ROWS_MAX).await?, store.held_groups(&others).await?);
    let mut known = Known::of(store).await?;
    for row in rows {
        known.endpoints.push(row.endpoint);
        known.receivers.push(row.receiver);
        known.types.push(row.type_name);
    }
    known.types.extend(groups.into_iter().map(|group| group.type_name));
    Ok(HeldFilter {
        endpoint: spelt(&filter.endpoint, &known.endpoints),
        receiver: spelt(&filter.receiver, &known.receivers),
        type_name: spelt(&filter.type_name, &known.types),
        ..others
    })
}

/// A filter of the outbox as this database spells it.
pub(crate) async fn outbox(store: &dyn Inspect, filter: &OutboxFilter) -> Result<OutboxFilter, StoreError> {
    let others = OutboxFilter { endpoint: None, type_name: None, destination: None, ..filter.clone() };
    if others == *filter || !store.outbox(filter, 1).await?.is_empty() {
        return Ok(filter.clone());
    }
    let rows = store.outbox(&others, find::ROWS_MAX).await?;
    let mut known = Known::of(store).await?;
    for row in rows {
        known.endpoints.push(row.endpoint);
        known.types.push(row.type_name);
        known.destinations.push(row.destination);
    }
    Ok(OutboxFilter {
        endpoint: spelt(&filter.endpoint, &known.endpoints),
        type_name: spelt(&filter.type_name, &known.types),
        destination: spelt(&filter.destination, &known.destinations),
        ..others
    })
}

fn spelt(typed: &Option<String>, known: &[String]) -> Option<String> {
    typed.as_ref().map(|typed| find::name(typed, known, "name").unwrap_or_else(|_| typed.clone()))
}

/// The names that a database knows without a look at every row.
#[derive(Default)]
struct Known {
    endpoints: Vec<String>,
    receivers: Vec<String>,
    types: Vec<String>,
    destinations: Vec<String>,
}

impl Known {
    async fn of(store: &dyn Inspect) -> Result<Self, StoreError> {
        let mut known = Self::default();
        for endpoint in store.status().await?.endpoints {
            known.destinations.extend(endpoint.unroutable.into_iter().map(|it| it.destination));
            let reports = endpoint.processes.iter().map(|process| ProcessReport::read(&process.report));
            known.receivers.extend(reports.flat_map(|report| report.lanes.into_keys()));
            known.endpoints.push(endpoint.endpoint);
        }
        for definition in store.definitions().await? {
            known.receivers.push(definition.saga);
            known.types.extend(definition.chart.messages.into_iter().map(|message| message.type_name));
            for effect in definition.chart.edges.into_iter().flat_map(|edge| edge.effects) {
                known.destinations.extend(effect.to);
                known.types.push(effect.type_name);
            }
        }
        known.types.extend(store.subscriptions().await?.into_iter().map(|it| it.event));
        known.destinations.extend(known.endpoints.iter().chain(&known.types).cloned().collect::<Vec<_>>());
        Ok(known)
    }
}
