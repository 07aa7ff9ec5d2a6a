//! `sagabus doctor`: what a database is, and what about it may do harm.

use crate::{
    databases::Session,
    table::{Cell, Table},
    text::{count, plain},
};
use jiff::Timestamp;
use saga_core::{Inspect, ServerView, StoreError, UpkeepView};
use serde_json::json;

const TABLES: [&str; 4] = ["table", "size", "rows", "gone"];

/// What was found in one database.
struct Found {
    server: ServerView,
    /// The tables may not be there.
    upkeep: Result<UpkeepView, StoreError>,
    advice: Vec<String>,
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

pub(crate) async fn run(session: &mut Session) -> bool {
    let all = session.each(look).await;
    let is_well = all.iter().all(|(_, found)| found.advice.is_empty());
    if session.screen.json {
        let rows: Vec<_> = all
            .iter()
            .map(|(n, found)| {
                let upkeep = found.upkeep.as_ref().ok();
                let address = &session.database(*n).name;
                json!({ "database": address, "server": found.server, "upkeep": upkeep, "advice": found.advice })
            })
            .collect();
        session.screen.value(&rows);
        return is_well;
    }
    for (n, found) in &all {
        let name = session.database(*n).name.clone();
        show(session, &name, found);
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
    match found.advice.len() {
        0 => screen.line("nothing wrong was found"),
        n => screen.line(format!("{}:", count(n as i64, "finding"))),
    }
    found.advice.iter().for_each(|text| screen.long(text));
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
