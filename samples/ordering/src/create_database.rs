//! Creates a service's database, as whoever deploys it would by hand.

use sqlx::{Connection, Executor, PgConnection, postgres::PgConnectOptions};

/// Creates the database that `url` names if it is not there, through the server's database `postgres`.
pub(crate) async fn create_database(url: &str) -> Result<(), sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let name = options.get_database().unwrap_or_default().to_owned();
    let mut server = PgConnection::connect_with(&options.database("postgres")).await?;
    let exists = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)").bind(&name);
    if exists.persistent(false).fetch_one(&mut server).await? {
        return Ok(());
    }
    let sql = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
    match server.execute(sql.as_str()).await {
        // another process was faster
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P04" | "23505")) => Ok(()),
        created => created.map(drop),
    }
}

/// Whether the server is not there yet, or is still starting.
pub(crate) fn is_starting(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(error, sqlx::Error::Io(_)) || code.is_some_and(|code| code.starts_with("57"))
}
