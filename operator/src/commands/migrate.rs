//! `sagabus migrate`: creates the tables, as an endpoint does when it starts.

use crate::{databases::without_password, screen::Screen, text::plain};
use clap::Args;
use outbox::{Postgres, Sqlite, migrate, open, schema_for};
use saga_core::StoreError;
use serde_json::json;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Print the statements and do nothing: for a role that owns the tables, or another tool
    #[arg(long, conflicts_with = "check")]
    print: bool,
    /// Change nothing; exit 1 when the tables are not there or not of this version
    #[arg(long)]
    check: bool,
}

/// Returns whether all is well.
pub(crate) async fn run(urls: &[String], screen: &mut Screen, arguments: &Arguments) -> bool {
    let (mut all_is_well, mut rows) = (true, Vec::new());
    for url in urls {
        let name = plain(&without_password(url));
        let done = match arguments {
            Arguments { print: true, .. } => Ok(schema_for(url).trim_end().to_owned()),
            Arguments { check: true, .. } => {
                version(url).await.map(|version| format!("the tables are there, version {version}"))
            }
            _ => migrate(url).await.map(|()| "up to date".into()),
        };
        match done {
            Ok(text) if screen.json => {
                let what = if arguments.print { "statements" } else { "result" };
                rows.push(json!({ "database": name, what: text }));
            }
            Ok(text) if arguments.print => screen.line(text),
            Ok(text) => screen.line(format!("{name}: {text}")),
            Err(error) => {
                all_is_well = false;
                screen.note(format!("sagabus: {name}: {}", plain(&error.to_string())));
            }
        }
    }
    if screen.json {
        screen.value(&rows);
    }
    all_is_well
}

/// The version of the tables, if this program needs no other. Changes nothing.
pub(super) async fn version(url: &str) -> Result<i32, StoreError> {
    open(url).await?; // judges the address, and makes no file
    match url.strip_prefix("sqlite:") {
        Some(path) => Sqlite::open(path.strip_prefix("//").unwrap_or(path)).await?.check_tables().await,
        None => Postgres::new(url)?.check_tables().await,
    }
}
