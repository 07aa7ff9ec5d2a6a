//! `sagabus sagas list`.

use super::{list, sagas::spelt};
use crate::{databases::Session, fields, masks, table::Cell};
use clap::Args;
use saga_core::{ErrorCode, FieldIs, Inspect, InstanceFilter, InstanceView};
use std::time::Duration;

pub(super) const HEADER: [&str; 6] = ["saga", "id", "state", "seq", "changed", "paused by"];

/// Which instances: the same filter for the list and the dashboard.
#[derive(Args, Default, Clone)]
pub(crate) struct Which {
    /// Only of this saga
    #[arg(long, value_name = "NAME")]
    saga: Option<String>,
    /// Only in this state, whatever its case
    #[arg(long, value_name = "NAME")]
    state: Option<String>,
    /// Only those whose id begins with this
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    id: Option<String>,
    /// Only paused ones
    #[arg(long)]
    paused: bool,
    /// Only those that are not done
    #[arg(long)]
    open: bool,
    /// Only those that have not changed for this long (`90s`, `15m`, `3h`, `2d`); longest unchanged first
    #[arg(long, value_name = "TIME", value_parser = super::length)]
    older_than: Option<Duration>,
    /// Only those with this value in a field or an alias; several: all must hold
    #[arg(long = "where", value_name = "FIELD=VALUE", value_parser = fields::parse)]
    fields: Vec<FieldIs>,
}

#[derive(Args, Default)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
}

impl Which {
    /// Names are as they were typed.
    pub(crate) fn filter(&self) -> InstanceFilter {
        InstanceFilter {
            saga: self.saga.clone(),
            state: self.state.clone(),
            id: self.id.clone(),
            paused: self.paused,
            open: self.open,
            unchanged_for: self.older_than,
            fields: self.fields.clone(),
        }
    }
}

pub(crate) async fn run(session: &mut Session, arguments: Arguments) -> bool {
    let filter = arguments.which.filter();
    let Some((saga, state)) = spelt(session, filter.saga.clone(), filter.state.clone()).await else { return false };
    let mut filter = InstanceFilter { saga, state, ..filter };
    if !filter.fields.is_empty() && !spell(session, &mut filter).await {
        return false;
    }
    let (rows_max, unmasked) = (session.rows_max, session.unmasked);
    let read = async |store: &dyn Inspect| {
        let (there, mut rows) = (store.instances_counted(&filter).await?, store.instances(&filter, rows_max).await?);
        if !unmasked {
            masks::instances(store, &mut rows).await?;
        }
        Ok((there, rows))
    };
    let all = session.each(read).await;
    list::print(session, &all, &HEADER, |row| (cells(row), None), "no instance matches");
    true
}

/// Puts the fields as spelt in the tables. Reports unknown names at the end.
async fn spell(session: &mut Session, filter: &mut InstanceFilter) -> bool {
    let unmasked = session.unmasked;
    let known = session.each(async |store: &dyn Inspect| fields::names(store, unmasked).await).await;
    let known = known.into_iter().flat_map(|(_, names)| names);
    match fields::spelt(&filter.fields, filter.saga.as_ref(), known) {
        Ok(fields) => {
            filter.fields = fields;
            true
        }
        Err(text) => {
            session.refused(ErrorCode::NotFound, text);
            false
        }
    }
}

pub(super) fn cells(instance: &InstanceView) -> Vec<Cell> {
    vec![
        instance.saga.as_str().into(),
        instance.id.as_str().into(),
        instance.state.as_str().into(),
        Cell::number(instance.seq),
        Cell::At(instance.updated_at_us),
        instance.paused_by.as_deref().unwrap_or("-").into(),
    ]
}
