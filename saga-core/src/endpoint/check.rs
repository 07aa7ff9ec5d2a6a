//! Before a deployment: can this program read what is stored?

use super::EndpointBuilder;
use crate::{
    ErrorCode, Store, StoreError, panics,
    port::{InstanceKey, InstanceRow},
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, process::ExitCode};

/// Instances that are read and decoded at a time; a page of them is all that the check keeps in memory.
const PAGE_ROWS: i64 = 500;

/// A stored instance that this program cannot work with, as [`EndpointBuilder::check`] found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unreadable {
    /// Its saga.
    pub saga: String,
    /// Its business key.
    pub id: String,
    /// The state that it is in, as stored.
    pub state: String,
    /// The version of the saga that wrote it.
    pub version: i32,
    /// What stands in the way.
    pub kind: UnreadableKind,
    /// The same as a sentence, with what to do about it.
    pub reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { saga, id, state, version, reason, .. } = self;
        let code = self.kind.code();
        write!(f, "{saga}/{id} in state `{state}` of version {version}: {reason} [{code}]")
    }
}

/// Why a program cannot work with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum UnreadableKind {
    /// The program has no saga of this name: messages for the instance wait, held as `version`.
    Saga,
    /// A newer version wrote it: this program leaves it alone, and its messages wait for a newer one.
    Newer,
    /// The saga has no such state: its next message pauses the instance.
    State,
    /// The stored form does not fit the state, or the data: its next message pauses the instance.
    Data,
    /// It has set a timer that the saga no longer takes: it waits, held as `version`, when its time has come.
    Timer,
}

impl UnreadableKind {
    /// Its code, which has a paragraph in the book.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Saga => ErrorCode::NoSuchSaga,
            Self::Newer => ErrorCode::NewerInstance,
            Self::State => ErrorCode::NoSuchState,
            Self::Data => ErrorCode::DataUnfit,
            Self::Timer => ErrorCode::TimerUnfit,
        }
    }
}

/// What [`EndpointBuilder::check`] has looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Instances that were read.
    pub instances: u64,
    /// Those among them that this program cannot work with.
    pub unreadable: u64,
}

impl Checked {
    /// Success when all can be read; else failure, so that a deployment stops.
    pub fn exit_code(self) -> ExitCode {
        if self.unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.instances, self.unreadable) {
            (0, _) => write!(f, "no instances are stored"),
            (instances, 0) => write!(f, "all {instances} instances can be read"),
            (instances, unreadable) => write!(f, "{unreadable} of {instances} instances cannot be read"),
        }
    }
}

impl<Db: Store> EndpointBuilder<Db> {
    /// Reads every stored instance of the endpoint's sagas as this program would, and tells `found` each that it cannot
    /// work with. Done instances are among them: they too take messages until they are deleted. Nothing is written, and
    /// nothing is locked; running processes do not notice. Needs no broker.
    ///
    /// A service runs it before a deployment, with the new program on the old tables:
    ///
    /// ```no_run
    /// # async fn example<Db: sagabus::port::Store>(
    /// #     endpoint: sagabus::endpoint::EndpointBuilder<Db>,
    /// # ) -> Result<std::process::ExitCode, Box<dyn std::error::Error>> {
    /// if std::env::args().any(|argument| argument == "--check") {
    ///     return Ok(endpoint.check(|instance| println!("{instance}")).await?.exit_code());
    /// }
    /// # unreachable!() }
    /// ```
    ///
    /// # Errors
    /// Those of the database; its tables are not upgraded here.
    pub async fn check(&self, mut found: impl FnMut(Unreadable)) -> Result<Checked, StoreError> {
        panics::install_hook(); // an `Upcast` that panics is one of the findings
        let logic: BTreeMap<&str, _> = self.sagas.iter().map(|saga| (saga.logic.name(), &saga.logic)).collect();
        let stored = self.store.charts(&self.name).await?;
        let mut sagas: Vec<String> = stored.into_iter().map(|chart| chart.saga).collect();
        sagas.extend(logic.keys().map(|name| (*name).to_owned()));
        sagas.sort_unstable();
        sagas.dedup();
        let mut checked = Checked::default();
        let mut after = InstanceKey { saga: String::new(), id: String::new() };
        loop {
            let page = self.store.page_of_instances(&sagas, &after, PAGE_ROWS).await?;
            let Some(last) = page.last() else { return Ok(checked) };
            after = last.key.clone();
            for row in &page {
                checked.instances += 1;
                let fault = match logic.get(row.key.saga.as_str()) {
                    Some(logic) => logic.check(row),
                    None => Err((UnreadableKind::Saga, "this program has no saga of this name".into())),
                };
                if let Err((kind, reason)) = fault {
                    checked.unreadable += 1;
                    found(unreadable(row, kind, reason));
                }
            }
            tokio::task::yield_now().await; // decoding is not what a service's runtime is for
        }
    }
}

fn unreadable(row: &InstanceRow, kind: UnreadableKind, reason: String) -> Unreadable {
    let InstanceKey { saga, id } = row.key.clone();
    Unreadable { saga, id, state: row.state.clone(), version: row.version, kind, reason }
}
