//! `sagabus held`.

use super::{held_act, held_edit, held_groups, held_list, held_show};
use crate::databases::Session;
use clap::Subcommand;
use saga_core::HeldAction;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Held messages in order of arrival (the default)
    List(held_list::Arguments),
    /// Held messages counted by reason, type and error, with what was noted about them
    #[command(after_help = "Example: sagabus held groups --needs-person")]
    Groups(held_groups::Arguments),
    /// Note something about held messages of a reason and a type, for whoever looks at them next
    ///
    /// `sagabus held groups` shows it.
    #[command(
        after_help = "Example: sagabus held note --reason-is failed --type payment.MakePayment 'the bank is asked'"
    )]
    Note(held_groups::Note),
    /// One held message with its body, its error, and what operators did with it
    Show(held_show::Arguments),
    /// Have held messages handled again: those named, or those of a filter
    ///
    /// A filter matches messages that wait for a person; messages that wait for their turn go on by themselves.
    Retry(held_act::Retry),
    /// Replace the body of a held message, and have it handled again
    ///
    /// Without --body or --body-file the body opens in the program that VISUAL or EDITOR names. A body that is not
    /// JSON is refused; without a change nothing is done. What operators did keeps the old body.
    Edit(held_edit::Arguments),
    /// Give held messages up: those named, or those of a filter
    ///
    /// Messages that wait behind one are handled, in order. This cannot be undone. A filter matches messages that wait
    /// for a person.
    Discard(held_act::Discard),
}

impl Default for Command {
    fn default() -> Self {
        Self::List(held_list::Arguments::default())
    }
}

pub(crate) async fn run(session: &mut Session, command: Command) -> bool {
    match command {
        Command::List(arguments) => held_list::run(session, arguments).await,
        Command::Groups(arguments) => held_groups::run(session, &arguments).await,
        Command::Note(note) => held_groups::note(session, &note).await,
        Command::Show(arguments) => held_show::run(session, &arguments).await,
        Command::Retry(held_act::Retry { which, reason }) => {
            held_act::run(session, HeldAction::Retry, which, &reason).await
        }
        Command::Edit(arguments) => held_edit::run(session, arguments).await,
        Command::Discard(held_act::Discard { which, reason }) => {
            held_act::run(session, HeldAction::Discard, which, &reason).await
        }
    }
}
