//! What all pages share: the databases, who may come in, and where the dashboard is.

use super::{access::Access, live::Live, plans::Plans, workbench::Bench};
use crate::{commands::known_sagas, databases, find};
use jiff::tz::TimeZone;
use saga_core::{Inspect, StoreError};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OnceCell, Semaphore};

/// A database that does not answer a page within this time is shown as unreachable.
const ANSWER: Duration = Duration::from_secs(10);
/// The most requests at a time.
pub(super) const REQUESTS_MAX: usize = 64;

/// The dashboard.
pub(super) struct App {
    databases: Vec<Source>,
    /// What every path begins with: empty, or `/…` without a slash at its end.
    pub(super) path: String,
    pub(super) zone: TimeZone,
    pub(super) access: Access,
    pub(super) plans: Plans,
    pub(super) live: Live,
    pub(super) requests: Semaphore,
    pub(super) bench: Option<Bench>,
}

/// One of the databases. It is opened when it is first needed, and again as long as it cannot be.
pub(super) struct Source {
    url: String,
    /// Its address without a password.
    pub(super) name: String,
    /// The label that tells it from the others.
    pub(super) short: String,
    store: OnceCell<Arc<dyn Inspect>>,
}

/// A database that could not be read, and why.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) name: String,
    pub(super) error: String,
}

/// What the databases said.
pub(super) struct Answers<T> {
    /// By the database's number.
    pub(super) all: Vec<(usize, T)>,
    pub(super) away: Vec<Away>,
}

impl App {
    pub(super) fn new(urls: &[String], path: String, zone: TimeZone, access: Access) -> Self {
        let sources = databases::named(urls).into_iter().zip(urls).map(|((name, short), url)| Source {
            url: url.clone(),
            name,
            short,
            store: OnceCell::new(),
        });
        let databases = sources.collect();
        let (plans, live) = (Plans::default(), Live::default());
        Self { databases, path, zone, access, plans, live, requests: Semaphore::new(REQUESTS_MAX), bench: None }
    }

    /// A path of the dashboard as a browser must ask for it.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.path)
    }

    /// The label of a database; `None` when there is only one.
    pub(super) fn label(&self, n: usize) -> Option<&str> {
        (self.databases.len() > 1).then(|| self.databases[n].short.as_str())
    }

    /// Whether one of the databases is on SQLite, or on PostgreSQL.
    pub(super) fn has(&self, sqlite: bool) -> bool {
        self.databases.iter().any(|source| source.url.starts_with("sqlite:") == sqlite)
    }

    /// A database by its number.
    pub(super) fn source(&self, n: usize) -> &Source {
        &self.databases[n]
    }

    /// The number of the database with a label.
    pub(super) fn number(&self, short: &str) -> Option<usize> {
        self.databases.iter().position(|source| source.short == short)
    }

    /// The saga of a filter as the tables spell it.
    ///
    /// # Errors
    /// That nobody knows such a saga, and which there are.
    pub(super) async fn spelt(&self, saga: Option<String>) -> Result<Option<String>, String> {
        let Some(typed) = saga else { return Ok(None) };
        let asked = self.each(|store| {
            let typed = typed.clone();
            async move { known_sagas(&*store, &typed).await }
        });
        let answers = asked.await;
        let known: Vec<String> = answers.all.into_iter().flat_map(|(_, names)| names).collect();
        match find::name(&typed, &known, "saga") {
            Err(_) if !answers.away.is_empty() => Ok(Some(typed)), // it may be known there
            name => name.map(Some),
        }
    }

    /// Asks all databases at once.
    pub(super) async fn each<T, F>(&self, work: impl Fn(Arc<dyn Inspect>) -> F) -> Answers<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let asked = self.databases.iter().map(|source| source.ask(&work));
        let mut answers = Answers { all: Vec::new(), away: Vec::new() };
        for (n, answer) in futures_util::future::join_all(asked).await.into_iter().enumerate() {
            match answer {
                Ok(value) => answers.all.push((n, value)),
                Err(error) => answers.away.push(Away { name: self.databases[n].name.clone(), error }),
            }
        }
        answers
    }
}

impl Source {
    /// The store, opened if it was not.
    pub(super) async fn store(&self) -> Result<Arc<dyn Inspect>, StoreError> {
        self.store.get_or_try_init(async || outbox::open(&self.url).await.map(Arc::from)).await.cloned()
    }

    /// Has it do something, however long that takes: it must not be left half way.
    pub(super) async fn order<T, F>(&self, work: impl Fn(Arc<dyn Inspect>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        work(self.store().await?).await
    }

    /// Asks it, for a while.
    pub(super) async fn ask<T, F>(&self, work: impl Fn(Arc<dyn Inspect>) -> F) -> Result<T, String>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let answer = async { work(self.store().await?).await };
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
        }
    }
}

impl<T> Answers<Vec<T>> {
    /// The rows of all databases.
    pub(super) fn flat(self) -> (Vec<(usize, T)>, Vec<Away>) {
        (crate::find::flat(self.all), self.away)
    }
}
