//! `sagabus sagas`.

use super::{sagas_act, sagas_list, sagas_show};
use crate::{databases::Session, find};
use clap::Subcommand;
use saga_core::{ErrorCode, HeldFilter, Inspect, InstanceAction, OutboxFilter, StoreError};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Instances, last changed first (the default)
    List(sagas_list::Arguments),
    /// State, data, what it waits for, and the timeline of one instance
    ///
    /// Under each line of the timeline stands what the step changed in the data, if the endpoint's setting
    /// `keep_messages` was on when the step was made. With --json, `after.data` of a line is the data after it.
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
    /// Let an instance stand again where a step left it, under its own id
    ///
    /// State, data, timers, aliases and fields are those of that step, and it is not paused or done unless it was done
    /// then. Timers of then that have gone off since are set again. Nothing is sent: give it the messages that it needs
    /// by `sagas send`. What it sent after the step stays sent. The step must have been made while the endpoint's
    /// setting `keep_messages` was on: then `sagas show` has its number.
    #[command(after_help = "Example: sagabus sagas fork order 4711 --at 4 --reason 'the price was wrong'")]
    Fork(sagas_act::Fork),
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
        Command::Fork(sagas_act::Fork { which, at, dry_run, reason }) => {
            sagas_act::run(session, InstanceAction::Fork { at, dry_run }, which, &reason).await
        }
    }
}

/// The names of sagas that a database knows: those that are registered, and those with instances. A name that is none
/// of them is known as it was typed if a message bears it: a retry has its sender's saga, which may live elsewhere.
pub(crate) async fn known(store: &dyn Inspect, typed: &str) -> Result<Vec<String>, StoreError> {
    let defined = store.definitions().await?.into_iter().map(|it| it.saga);
    let mut names: Vec<String> = defined.chain(store.forms().await?.into_iter().map(|it| it.saga)).collect();
    if find::name(typed, &names, "saga").is_err() {
        let saga = Some(typed.to_owned());
        let held = store.held(&HeldFilter { saga: saga.clone(), ..HeldFilter::default() }, 1).await?;
        let sent = store.outbox(&OutboxFilter { saga, ..OutboxFilter::default() }, 1).await?;
        names.extend((held.len() + sent.len() > 0).then(|| typed.to_owned()));
    }
    Ok(names)
}

/// Spells the saga of a filter as the tables do. Reports an unknown name at the end.
pub(super) async fn spell(session: &mut Session, saga: &mut Option<String>) -> bool {
    let Some(typed) = saga else { return true };
    let all = session.each(async |store: &dyn Inspect| known(store, typed).await).await;
    let names: Vec<String> = all.into_iter().flat_map(|(_, names)| names).collect();
    match find::name(typed, &names, "saga") {
        Ok(name) => *typed = name,
        Err(text) => {
            session.refused(ErrorCode::NotFound, text);
            return false;
        }
    }
    true
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
