//! `sagabus sagas`.

use super::{sagas_act, sagas_list, sagas_show};
use crate::{databases::Session, find};
use clap::Subcommand;
use saga_core::{ErrorCode, Inspect, InstanceAction};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Instances, last changed first (the default)
    List(sagas_list::Arguments),
    /// State, data, what it waits for, and the timeline of one instance
    Show(sagas_show::Arguments),
    /// Let a paused instance go on without the message that failed, which stays held
    Resume(sagas_act::Resume),
    /// Give an instance a message, as if it had come
    ///
    /// It goes through the outbox of the instance's endpoint, and only the instance's saga takes it: a running process
    /// handles it like any other message.
    #[command(
        after_help = "Example: sagabus sagas send order 4711 payment.Paid --body-file paid.json --reason 'by fax'"
    )]
    Send(sagas_act::Send),
    /// End an instance where it is, whatever its saga says
    ///
    /// Its timers go, and what is held for it is discarded. Nothing is sent and nobody is told: if the saga has a
    /// message to cancel it, send that instead. What it sent before stays sent. This cannot be undone.
    Cancel(sagas_act::Cancel),
}

impl Default for Command {
    fn default() -> Self {
        Self::List(sagas_list::Arguments::default())
    }
}

pub(crate) async fn run(session: &mut Session, command: Command) -> bool {
    match command {
        Command::List(arguments) => sagas_list::run(session, arguments).await,
        Command::Show(arguments) => sagas_show::run(session, arguments).await,
        Command::Resume(sagas_act::Resume { which, reason }) => {
            sagas_act::run(session, InstanceAction::Resume, which, &reason).await
        }
        Command::Send(arguments) => sagas_act::send(session, arguments).await,
        Command::Cancel(sagas_act::Cancel { which, reason }) => {
            sagas_act::run(session, InstanceAction::Cancel, which, &reason).await
        }
    }
}

/// The saga and the state as spelt in the tables. Reports unknown names at the end.
pub(super) async fn spelt(
    session: &mut Session,
    saga: Option<String>,
    state: Option<String>,
) -> Option<(Option<String>, Option<String>)> {
    if saga.is_none() && state.is_none() {
        return Some((None, None));
    }
    let all = session.each(async |store: &dyn Inspect| store.forms().await).await;
    let states: Vec<_> = all.into_iter().flat_map(|(_, forms)| forms).collect();
    let sagas: Vec<String> = states.iter().map(|state| state.saga.clone()).collect();
    let saga = match saga.map(|saga| find::name(&saga, &sagas, "saga with instances")).transpose() {
        Ok(saga) => saga,
        Err(text) => {
            session.refused(ErrorCode::NotFound, text);
            return None;
        }
    };
    let of_saga = states.iter().filter(|state| saga.as_ref().is_none_or(|saga| *saga == state.saga));
    let states: Vec<String> = of_saga.map(|state| state.state.clone()).collect();
    match state.map(|state| find::name(&state, &states, "state with instances")).transpose() {
        Ok(state) => Some((saga, state)),
        Err(text) => {
            session.refused(ErrorCode::NotFound, text);
            None
        }
    }
}
