//! `sagabus outbox`.

use super::{outbox_list, outbox_show};
use crate::databases::Session;
use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Rows by due time (the default)
    List(outbox_list::Arguments),
    /// One row with its body
    Show(outbox_show::Arguments),
}

impl Default for Command {
    fn default() -> Self {
        Self::List(outbox_list::Arguments::default())
    }
}

pub(crate) async fn run(session: &mut Session, command: Command) -> bool {
    match command {
        Command::List(arguments) => outbox_list::run(session, arguments).await,
        Command::Show(arguments) => outbox_show::run(session, &arguments).await,
    }
}
