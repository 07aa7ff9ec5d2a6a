//! `sagabus doctor`: what a database is, and what about it may do harm; the same of a broker.

use super::{doctor_broker, migrate};
use crate::{
    databases::Session,
    screen::Screen,
    table::{Cell, Table},
    text::{count, plain},
};
use clap::Args;
use jiff::Timestamp;
use outbox::Postgres;
use saga_core::{Inspect, ServerView, Store, StoreError, UpkeepView};
use serde_json::json;

const TABLES: [&str; 4] = ["table", "size", "rows", "gone"];

#[derive(Args)]
pub(crate) struct Arguments {
    /// The broker, `amqp://user:password@host:5672/vhost`: looks at the queues of the endpoints as well
    ///
    /// The user needs no more rights than a service, and no management plugin. Without the option,
    /// SAGABUS_BROKER_URL is read: an address with a password is safer there.
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// What the services put before the names of their queues
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
}

/// Where the broker's address comes from when none is given.
const BROKER: &str = "SAGABUS_BROKER_URL";

/// What was found in one database.
struct Found {
    server: ServerView,
    /// The tables may not be there.
    upkeep: Result<UpkeepView, StoreError>,
    advice: Vec<String>,
}

/// What a start of a service would say of the address, such as that a pooler stands there which it does not name. The
/// tables are there, so it creates nothing.
async fn start(url: &str) -> Option<String> {
    let started = async {
        if url.starts_with("sqlite:") {
            return migrate::version(url).await.map(drop);
        }
        Postgres::new(url)?.migrate().await
    };
    started.await.err().map(|error| format!("a service with this address does not start: {error}"))
}

async fn look(store: &dyn Inspect) -> Result<Found, StoreError> {
    let server = store.server().await?;
    let here_us = Timestamp::now().as_microsecond();
    let upkeep = store.upkeep().await;
    let mut advice = Vec::new();
    match &upkeep {
        Ok(upkeep) => advice.extend(server.advice(upkeep, here_us)),
        Err(error) => {
            advice.push(format!("the tables cannot be read: {error}"));
            advice.extend(server.advice(&UpkeepView::default(), here_us));
        }
    }
    Ok(Found { server, upkeep, advice })
}

pub(crate) async fn run(session: &mut Session, arguments: &Arguments) -> bool {
    let mut all = session.each(look).await;
    for (n, found) in all.iter_mut().filter(|(_, found)| found.upkeep.as_ref().is_ok_and(|it| it.schema_version > 0)) {
        found.advice.extend(start(&session.database(*n).url).await);
    }
    let mut is_well = all.iter().all(|(_, found)| found.advice.is_empty());
    let mut rows = Vec::new();
    if session.screen.json {
        rows = all
            .iter()
            .map(|(n, found)| {
                let upkeep = found.upkeep.as_ref().ok();
                let address = &session.database(*n).name;
                json!({ "database": address, "server": found.server, "upkeep": upkeep, "advice": found.advice })
            })
            .collect();
    }
    if !session.screen.json {
        for (n, found) in &all {
            let name = session.database(*n).name.clone();
            show(session, &name, found);
        }
    }
    let broker = arguments.broker.clone().or_else(|| std::env::var(BROKER).ok().filter(|url| !url.is_empty()));
    if let Some(url) = broker {
        let read = all.iter().filter(|(_, found)| found.upkeep.is_ok());
        let read = read.map(|(n, found)| (*n, found.server.now_us)).collect();
        is_well &= doctor_broker::run(session, (&url, &arguments.prefix), &read, &mut rows).await;
    }
    if session.screen.json {
        session.screen.value(&rows);
    }
    is_well
}

fn show(session: &mut Session, name: &str, found: &Found) {
    let screen = &mut session.screen;
    screen.line(plain(name));
    screen.line(format!("server   {}", plain(&found.server.server)));
    if let Ok(upkeep) = &found.upkeep {
        let (version, processes) = (upkeep.schema_version, count(upkeep.processes as i64, "process"));
        screen.line(format!("tables   version {version}; {processes} alive"));
    }
    let mut tables = Table::new(&TABLES);
    for table in &found.server.tables {
        tables.row(
            vec![
                table.table.as_str().into(),
                size(table.bytes).into(),
                Cell::number(table.rows),
                Cell::number(table.dead),
            ],
            None,
        );
    }
    screen.section("size, and rows as the server estimates them", &tables);
    screen.line("");
    findings(screen, &found.advice, true);
}

/// What may do harm, a line each. That there is nothing says only who could look at all.
pub(super) fn findings(screen: &mut Screen, advice: &[String], looked_at_all: bool) {
    match advice.len() {
        0 if !looked_at_all => {}
        0 => screen.line("nothing wrong was found"),
        n => screen.line(format!("{}:", count(n as i64, "finding"))),
    }
    advice.iter().for_each(|text| screen.long(text));
}

/// Bytes as people read them.
fn size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!([size(0), size(1023), size(1536), size(3 << 30)], ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
    }
}
