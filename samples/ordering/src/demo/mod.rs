//! `ordering demo`: the three services in one process.

mod report;
mod run;

use crate::{
    choreography, create_tables,
    ledger::{Ledger, Service, create_database},
    servers::{BROKER, DATABASE, Server, Usage, place_of, variable},
    services::{self, World},
    sqlite_of,
    verify::{self, Books},
};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use report::Report;
use sagabus::{InProcess, Postgres, RabbitMq, Sqlite, port::Transport};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// How long after the last order's end the books may take to agree (late charges are refunded meanwhile).
const SETTLE: Duration = Duration::from_secs(30);

/// How long messages of a demo that was killed wait for the next one.
const LEASE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Orders to place
    #[arg(long, value_name = "N", default_value_t = 1000)]
    orders: usize,
    #[command(flatten)]
    world: World,
    /// How long a payment may take
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    payment_timeout: f64,
    /// Orders under way at a time
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: u32,
    /// The folder of the SQLite files; orders are added to existing ones [default: target/ordering-demo]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["broker", "database"])]
    data: Option<PathBuf>,
    /// A RabbitMQ broker, `amqp://user:password@host:5672/vhost`; with --database [env: ORDERING_BROKER_URL]
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    #[command(flatten)]
    server: Server,
    /// The same process without a saga, by events alone
    #[arg(long)]
    choreographed: bool,
    /// One JSON object on stdout and nothing else
    #[arg(long)]
    json: bool,
}

/// A number of seconds above 0.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e9 => Ok(seconds),
        _ => Err("expected a number of seconds above 0".into()),
    }
}

pub(crate) async fn sqlite_books(folder: &Path) -> Result<Books<Sqlite>> {
    if !folder.join("ordering.db").is_file() {
        bail!("there are no books in {}", folder.display());
    }
    Ok(Books {
        ordering: sqlite_of(folder, Service::Ordering).await?,
        payment: sqlite_of(folder, Service::Payment).await?,
        warehouse: sqlite_of(folder, Service::Warehouse).await?,
    })
}

/// Where the demo runs.
#[derive(Debug, PartialEq)]
enum Stage {
    /// In this process alone, with SQLite files in a folder.
    Folder(PathBuf),
    /// On a broker and a database server.
    Servers { broker: String, database: String },
}

impl Demo {
    pub(crate) async fn run(self) -> Result<bool> {
        match self.stage(variable(BROKER), variable(DATABASE))? {
            Stage::Servers { broker, database } => {
                let bus = RabbitMq::new(&broker).map_err(|error| Usage(format!("--broker: {error}")))?;
                let bus = bus.with_prefix(self.server.prefix());
                let mut stores = Vec::new();
                for service in Service::ALL {
                    let url = self.server.database_of(&database, service)?;
                    create_database(&url).await.with_context(|| format!("cannot create {}", place_of(&url)))?;
                    stores.push(Postgres::new(&url)?);
                }
                let stage = format!("on RabbitMQ, {},\nand PostgreSQL, {}", place_of(&broker), place_of(&database));
                self.with(&stage, bus.clone(), bus.clone(), bus, stores).await
            }
            Stage::Folder(folder) => {
                std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
                let mut stores = Vec::new();
                for service in Service::ALL {
                    stores.push(sqlite_of(&folder, service).await?);
                }
                let bus = InProcess::of(&Service::ALL.map(Service::name));
                let stage = format!("in this process, with SQLite files in\n{}", folder.display());
                self.with(&stage, bus.clone(), bus.clone(), bus, stores).await
            }
        }
    }

    /// Options win over the environment, and half an environment counts as none.
    fn stage(&self, broker: Option<String>, database: Option<String>) -> Result<Stage, Usage> {
        if let Some(folder) = &self.data {
            return Ok(Stage::Folder(folder.clone()));
        }
        let typed = (&self.broker, &self.server.database);
        match (typed.0.clone().or(broker), typed.1.clone().or(database), typed) {
            (Some(broker), Some(database), _) => Ok(Stage::Servers { broker, database }),
            (_, None, (Some(_), _)) => Err(Usage(format!("--broker needs --database URL, or {DATABASE}"))),
            (None, _, (_, Some(_))) => Err(Usage(format!(
                "--database needs --broker URL, or {BROKER}: without a broker the services use SQLite files"
            ))),
            _ => Ok(Stage::Folder(PathBuf::from("target/ordering-demo"))),
        }
    }

    /// After how many seconds an order ends that meets a silent bank: without a saga, when the bank has answered.
    fn silence(&self) -> f64 {
        if self.choreographed { self.payment_timeout * 1.5 } else { self.payment_timeout }
    }

    async fn with<Db: Ledger>(
        self,
        stage: &str,
        t1: impl Transport,
        t2: impl Transport,
        t3: impl Transport,
        stores: Vec<Db>,
    ) -> Result<bool> {
        let [ordering, payment, warehouse]: [Db; 3] =
            stores.try_into().map_err(|_| anyhow!("three services, three stores"))?;
        let books = Books { ordering: ordering.clone(), payment: payment.clone(), warehouse: warehouse.clone() };
        for (service, store) in Service::ALL.into_iter().zip([&ordering, &payment, &warehouse]) {
            create_tables(store, service).await?;
        }
        if !self.json {
            report::opening(self.orders, self.world, self.silence(), stage);
        }
        let (ended, end) = mpsc::unbounded_channel();
        let timeout = Duration::from_secs_f64(self.payment_timeout);
        let (ordering, payment, warehouse) = if self.choreographed {
            let ordering = choreography::ordering(t1, ordering, Some(ended));
            let payment = choreography::payment(t2, payment, self.world, timeout);
            (ordering, payment, choreography::warehouse(t3, warehouse, self.world))
        } else {
            let ordering = services::ordering(t1, ordering, Some(ended));
            let payment = services::payment(t2, payment, self.world, timeout);
            (ordering, payment, services::warehouse(t3, warehouse, self.world))
        };
        let [ordering, payment, warehouse] =
            [ordering, payment, warehouse].map(|service| service.settings(|settings| settings.lease = LEASE));
        let ordering = ordering.start().await?;
        let (payment, warehouse) = (payment.start().await?, warehouse.start().await?);

        let before = books.audit_within(None, Duration::ZERO).await?;
        let ordering = Arc::new(ordering);
        let run = tokio::select! {
            run = self.place(&ordering, end, timeout) => match run {
                Ok(run) => run,
                Err(error) => {
                    // the books tell what became of the orders that do not end
                    if !self.json
                        && let Ok(audit) = books.audit_within(None, Duration::ZERO).await
                    {
                        verify::print(&audit);
                    }
                    return Err(error);
                }
            },
            ended = ordering.ended() => bail!("ordering: {ended}"),
            ended = payment.ended() => bail!("payment: {ended}"),
            ended = warehouse.ended() => bail!("warehouse: {ended}"),
        };
        let after = books.audit_within(Some(before.orders + self.orders), SETTLE).await?;
        // without a saga nobody can tell it
        let story = if self.choreographed { None } else { report::story(&books.ordering, self.world, &run).await? };

        let ordering = Arc::into_inner(ordering).context("an order is still being placed")?;
        let (a, b, c) = tokio::join!(ordering.stop(), payment.stop(), warehouse.stop());
        a.and(b).and(c)?;
        let report = Report::new(&before, &after, &run);
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            report.print(self.silence(), story.as_deref(), &after);
        }
        Ok(after.violations.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        demo: Demo,
    }

    #[test]
    fn what_is_typed_counts_more_than_the_environment() {
        let servers =
            |broker: &str, database: &str| Stage::Servers { broker: broker.into(), database: database.into() };
        let folder = |folder: &str| Stage::Folder(folder.into());
        let (b, d) = (Some("env-b"), Some("env-d"));
        for (typed, broker, database, stage) in [
            ("", None, None, Ok(folder("target/ordering-demo"))),
            ("", b, None, Ok(folder("target/ordering-demo"))),
            ("", None, d, Ok(folder("target/ordering-demo"))),
            ("", b, d, Ok(servers("env-b", "env-d"))),
            ("--data here", b, d, Ok(folder("here"))),
            ("--broker b", b, d, Ok(servers("b", "env-d"))),
            ("--database d", b, d, Ok(servers("env-b", "d"))),
            ("--broker b --database d", None, None, Ok(servers("b", "d"))),
            ("--broker b", b, None, Err("--broker needs --database")),
            ("--database d", None, d, Err("--database needs --broker")),
        ] {
            let line = Line::parse_from(["demo"].into_iter().chain(typed.split_whitespace()));
            let found = line.demo.stage(broker.map(str::to_owned), database.map(str::to_owned));
            match (stage, found) {
                (Ok(stage), Ok(found)) => assert_eq!(found, stage, "{typed} {broker:?} {database:?}"),
                (Err(says), Err(Usage(error))) => assert!(error.contains(says), "{typed}: {error}"),
                (stage, found) => panic!("{typed} {broker:?} {database:?}: {stage:?} expected, {found:?} found"),
            }
        }
        assert!(Line::try_parse_from(["demo", "--data", "here", "--database", "d"]).is_err());
    }
}
