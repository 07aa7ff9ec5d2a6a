//! `sagabus sagas list`.

use super::{list, sagas::spelt};
use crate::{databases::Session, table::Cell};
use clap::Args;
use saga_core::{Inspect, InstanceFilter, InstanceView};
use std::time::Duration;

const HEADER: [&str; 6] = ["saga", "id", "state", "seq", "changed", "paused by"];

#[derive(Args, Default)]
pub(crate) struct Arguments {
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
}

pub(crate) async fn run(session: &mut Session, arguments: Arguments) -> bool {
    let Some((saga, state)) = spelt(session, arguments.saga, arguments.state).await else { return false };
    let filter = InstanceFilter {
        saga,
        state,
        id: arguments.id,
        paused: arguments.paused,
        open: arguments.open,
        unchanged_for: arguments.older_than,
    };
    let rows_max = session.rows_max;
    let read = async |store: &dyn Inspect| {
        Ok((store.instances_count(&filter).await?, store.instances(&filter, rows_max).await?))
    };
    let all = session.each(read).await;
    list::print(session, &all, &HEADER, |row| (cells(row), None), "no instance matches");
    true
}

fn cells(instance: &InstanceView) -> Vec<Cell> {
    vec![
        instance.saga.as_str().into(),
        instance.id.as_str().into(),
        instance.state.as_str().into(),
        Cell::number(instance.seq),
        Cell::At(instance.updated_at_us),
        instance.paused_by.as_deref().unwrap_or("-").into(),
    ]
}
