//! `sagabus sagas`.

use super::{sagas_list, sagas_show};
use crate::{databases::Session, find};
use clap::Subcommand;
use saga_core::Inspect;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Instances, last changed first (the default)
    List(sagas_list::Arguments),
    /// State, data, what it waits for, and the timeline of one instance
    Show(sagas_show::Arguments),
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
    let all = session.each(async |store: &dyn Inspect| store.status().await).await;
    let states: Vec<_> = all.into_iter().flat_map(|(_, status)| status.instances).collect();
    let sagas: Vec<String> = states.iter().map(|state| state.saga.clone()).collect();
    let saga = match saga.map(|saga| find::name(&saga, &sagas, "saga with instances")).transpose() {
        Ok(saga) => saga,
        Err(text) => {
            session.failed(text);
            return None;
        }
    };
    let of_saga = states.iter().filter(|state| saga.as_ref().is_none_or(|saga| *saga == state.saga));
    let states: Vec<String> = of_saga.map(|state| state.state.clone()).collect();
    match state.map(|state| find::name(&state, &states, "state with instances")).transpose() {
        Ok(state) => Some((saga, state)),
        Err(text) => {
            session.failed(text);
            None
        }
    }
}
