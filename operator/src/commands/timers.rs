//! `sagabus timers`: what is due when, for which instance.

use super::{list, operations, outbox_act, outbox_filter, outbox_list, sagas::spell};
use crate::{databases::Session, names};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use saga_core::{DueAt, Inspect, OutboxAction};
use std::{num::NonZeroU32, time::Duration};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Timers, next due first (the default)
    #[command(after_help = "Example: sagabus timers list --saga order-fulfilment --due")]
    List(List),
    /// Let timers go off now
    #[command(after_help = "Example: sagabus timers fire 01997a10 --reason 'the customer does not want to wait'")]
    Fire(Fire),
    /// Let timers go off at another time
    #[command(
        after_help = "Example: sagabus timers move --saga order-fulfilment --type ordering.PaymentOverdue --in 2h"
    )]
    Move(Move),
    /// Delete timers: they never go off, and their instances wait on for a message or a person
    ///
    /// This cannot be undone.
    #[command(after_help = "Example: sagabus timers cancel 01997a10 --reason 'paid by phone'")]
    Cancel(Cancel),
}

impl Default for Command {
    fn default() -> Self {
        Self::List(List::default())
    }
}

#[derive(Args, Default)]
pub(crate) struct List {
    #[command(flatten)]
    which: outbox_filter::Timers,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("filter").multiple(true).args(
    ["endpoint", "saga", "id", "type_name", "due", "all"]
))]
pub(crate) struct Named {
    /// The timers' ids, or how they begin
    #[arg(value_name = "TIMER", required_unless_present = "filter", conflicts_with = "filter")]
    ids: Vec<String>,
    #[command(flatten)]
    which: outbox_filter::Timers,
    /// All timers
    #[arg(long)]
    all: bool,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    /// At most so many a second
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
}

#[derive(Args)]
pub(crate) struct Fire {
    #[command(flatten)]
    timers: Named,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", default_value = operations::NO_REASON, allow_hyphen_values = true)]
    reason: String,
}

#[derive(Args)]
pub(crate) struct Move {
    #[command(flatten)]
    timers: Named,
    /// After this time from now (`90s`, `15m`, `3h`, `2d`)
    #[arg(long = "in", value_name = "TIME", value_parser = super::length, required_unless_present = "at")]
    after: Option<Duration>,
    /// At this time, with its zone: 2026-11-27T09:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "after")]
    at: Option<Timestamp>,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", default_value = operations::NO_REASON, allow_hyphen_values = true)]
    reason: String,
}

#[derive(Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    timers: Named,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", value_parser = operations::reason, allow_hyphen_values = true)]
    reason: String,
}

pub(crate) async fn run(session: &mut Session, command: Command) -> bool {
    let (action, timers, why) = match &command {
        Command::List(arguments) => return listed(session, arguments).await,
        Command::Fire(Fire { timers, reason }) => (OutboxAction::FireTimer, timers, reason),
        Command::Move(arguments) => {
            (OutboxAction::MoveTimer { to: arguments.to() }, &arguments.timers, &arguments.reason)
        }
        Command::Cancel(Cancel { timers, reason }) => (OutboxAction::CancelTimer, timers, reason),
    };
    let (filter, dry_run, rate) = (timers.which.filter(), timers.dry_run, timers.rate);
    outbox_act::run(session, outbox_act::Orders { action, ids: &timers.ids, filter, dry_run, rate, why }).await
}

impl Move {
    fn to(&self) -> DueAt {
        let after = DueAt::After(self.after.unwrap_or_default());
        self.at.map_or(after, |at| DueAt::Time(at.as_microsecond()))
    }
}

async fn listed(session: &mut Session, arguments: &List) -> bool {
    let mut filter = arguments.which.filter();
    if !spell(session, &mut filter.saga).await {
        return false;
    }
    let rows_max = session.rows_max;
    let read = async |store: &dyn Inspect| {
        let filter = names::outbox(store, &filter).await?;
        Ok((store.outbox_counted(&filter).await?, store.outbox(&filter, rows_max).await?))
    };
    let all = session.each(read).await;
    let row = |row: &saga_core::OutboxView| (outbox_act::timer_cells(row), outbox_list::note(row));
    list::print(session, &all, &outbox_act::TIMERS, row, "no timer matches");
    true
}
