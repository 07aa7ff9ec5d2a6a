//! `sagabus outbox`.

use super::{operations, outbox_act, outbox_filter, outbox_list, outbox_show};
use crate::databases::Session;
use clap::{Args, Subcommand};
use saga_core::OutboxAction;
use std::num::NonZeroU32;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Rows by due time (the default)
    #[command(after_help = "Example: sagabus outbox list --failing --to payment")]
    List(outbox_list::Arguments),
    /// One row with its body
    #[command(after_help = "Example: sagabus outbox show 01997a10")]
    Show(outbox_show::Arguments),
    /// Send rows now: delayed messages, retries, and those whose publishing is put off
    #[command(after_help = "Example: sagabus outbox send-now --failing --reason 'the queue is back'")]
    SendNow(SendNow),
    /// Give rows up: they are never sent
    ///
    /// A message that was to be handled again is journaled as discarded. This cannot be undone.
    #[command(after_help = "Example: sagabus outbox discard 01997a10 --reason 'sent by hand'")]
    Discard(Discard),
    /// Send commands or answers to another endpoint or queue
    #[command(
        after_help = "Example: sagabus outbox reroute --to warehouse --new warehouse-2 --reason 'it was renamed'"
    )]
    Reroute(Reroute),
}

impl Default for Command {
    fn default() -> Self {
        Self::List(outbox_list::Arguments::default())
    }
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("filter").multiple(true).args(
    ["endpoint", "kind", "type_name", "to", "saga", "id", "error", "failing", "due", "older_than", "newer_than", "all"]
))]
pub(crate) struct Rows {
    /// The rows' ids or their messages', or how they begin
    #[arg(value_name = "ROW", required_unless_present = "filter", conflicts_with = "filter")]
    ids: Vec<String>,
    #[command(flatten)]
    which: outbox_filter::Which,
    /// All but timers, which only `--kind timer` and `sagabus timers` touch
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
pub(crate) struct SendNow {
    #[command(flatten)]
    rows: Rows,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", default_value = operations::NO_REASON, allow_hyphen_values = true)]
    reason: String,
}

#[derive(Args)]
pub(crate) struct Discard {
    #[command(flatten)]
    rows: Rows,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", value_parser = operations::reason, allow_hyphen_values = true)]
    reason: String,
}

#[derive(Args)]
pub(crate) struct Reroute {
    #[command(flatten)]
    rows: Rows,
    /// The endpoint or queue that gets them
    #[arg(long, value_name = "NAME")]
    new: String,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", value_parser = operations::reason, allow_hyphen_values = true)]
    reason: String,
}

pub(crate) async fn run(session: &mut Session, command: Command) -> bool {
    let (action, rows, why) = match &command {
        Command::List(_) | Command::Show(_) => return read(session, command).await,
        Command::SendNow(SendNow { rows, reason }) => (OutboxAction::SendNow, rows, reason),
        Command::Discard(Discard { rows, reason }) => (OutboxAction::Discard, rows, reason),
        Command::Reroute(Reroute { rows, new, reason }) => (OutboxAction::Reroute { to: new }, rows, reason),
    };
    let (filter, dry_run, rate) = (rows.which.filter(), rows.dry_run, rows.rate);
    outbox_act::run(session, outbox_act::Orders { action, ids: &rows.ids, filter, dry_run, rate, why }).await
}

async fn read(session: &mut Session, command: Command) -> bool {
    match command {
        Command::Show(arguments) => outbox_show::run(session, &arguments).await,
        Command::List(arguments) => outbox_list::run(session, arguments).await,
        _ => true,
    }
}
