//! Rows of Sagabus' tables, inserted by SQL, on either database: what an operator may find.

use crate::{Database, File};
use outbox::{Postgres, Sqlite};
use saga_core::{Inspect, Store};
use sqlx::{Connection, Executor, PgConnection, Row, SqliteConnection};

/// A database with Sagabus' tables in it.
pub struct Tables {
    /// Its address, in the form that the operator's tool takes.
    pub url: String,
    /// The store.
    pub store: Box<dyn Inspect>,
    place: Place,
}

/// The database or the folder, deleted together with this.
enum Place {
    Postgres { _database: Database },
    Sqlite { _file: File },
}

/// A held message to put into the tables.
pub struct Held<'a> {
    /// The message's id.
    pub message_id: &'a str,
    /// The saga or handler.
    pub receiver: &'a str,
    /// Why it waits.
    pub reason: &'a str,
    /// The instance.
    pub saga_id: Option<&'a str>,
    /// Runs so far.
    pub attempts: i64,
    /// Its type.
    pub type_name: &'a str,
    /// What went wrong.
    pub error: &'a str,
}

impl Default for Held<'_> {
    fn default() -> Self {
        Self {
            message_id: "m",
            receiver: "order",
            reason: "failed",
            saga_id: Some("7"),
            attempts: 3,
            type_name: "payment.Paid",
            error: "no table",
        }
    }
}

impl Tables {
    /// A new database on PostgreSQL.
    ///
    /// # Panics
    /// When it cannot be created.
    pub async fn postgres() -> Self {
        let database = Database::create().await;
        let store = Postgres::new(&database.url()).expect("the address is a PostgreSQL URL");
        store.migrate().await.expect("the tables are created");
        Self { url: database.url(), store: Box::new(store), place: Place::Postgres { _database: database } }
    }

    /// A new SQLite file, with an unusual but valid name.
    ///
    /// # Panics
    /// When it cannot be created.
    pub async fn sqlite() -> Self {
        let file = File::create();
        let name = "100% data? ä b#c x%20y?mode=ro.db";
        let store: Sqlite = file.store(name).await;
        store.migrate().await.expect("the tables are created");
        let url = format!("sqlite:{}", file.folder.join(name).display());
        Self { url, store: Box::new(store), place: Place::Sqlite { _file: file } }
    }

    /// Whether it is PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        matches!(self.place, Place::Postgres { .. })
    }

    /// Runs a statement. In it `{s}` is the prefix of a table's name, `{now}` the clock in the columns' unit,
    /// `{minute}` a minute, and `{body}` a body, `{"a":1}`. Returns the rows' first column, a text.
    ///
    /// # Panics
    /// When the database refuses it.
    pub async fn sql(&self, sql: &str) -> Vec<Option<String>> {
        match &self.place {
            Place::Postgres { .. } => {
                let sql = sql.replace("{s}", "sagabus.").replace("{now}", "clock_timestamp()");
                let sql =
                    sql.replace("{minute}", "interval '1 minute'").replace("{body}", r"'\x7b2261223a317d'::bytea");
                let mut connection = PgConnection::connect(&self.url).await.expect("the server answers");
                let rows = connection.fetch_all(&*sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
                rows.iter().map(|row| row.get(0)).collect()
            }
            Place::Sqlite { .. } => {
                let now = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)";
                let sql = sql.replace("{s}", "sagabus_").replace("{now}", now);
                let sql = sql.replace("{minute}", "60000000").replace("{body}", "x'7b2261223a317d'");
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&self.url["sqlite:".len()..]);
                let connection = SqliteConnection::connect_with(&options).await;
                let mut connection = connection.expect("the file opens");
                let rows = connection.fetch_all(&*sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }

    /// The first column of the only row.
    ///
    /// # Panics
    /// When there is not exactly one row.
    pub async fn one(&self, sql: &str) -> Option<String> {
        let mut rows = self.sql(sql).await;
        assert_eq!(rows.len(), 1, "one row was expected of {sql}");
        rows.pop().flatten()
    }

    /// Inserts a held message with its inbox row. A receiver with an instance is a saga.
    pub async fn hold(&self, held: &Held<'_>) {
        let Held { message_id, receiver, reason, attempts, type_name, error, .. } = held;
        let text = |text: Option<&str>| text.map_or("NULL".into(), |text| format!("'{text}'"));
        let (saga, saga_id) = (text(held.saga_id.map(|_| *receiver)), text(held.saga_id));
        let envelope = format!(
            r#"{{"message_id":"{message_id}","type":"{type_name}","conversation_id":"c","sender":"payment",
                "saga":{{"saga":"asker","id":"9","timer":4}},"attempt":1,"receiver":"somebody"}}"#
        );
        self.sql(&format!(
            "INSERT INTO {{s}}held (endpoint, receiver, message_id, reason, saga, saga_id, error, attempts, held_at,
                type, envelope, body)
             VALUES ('ordering', '{receiver}', '{message_id}', '{reason}', {saga}, {saga_id}, '{error}', {attempts},
                {{now}} - {{minute}}, '{type_name}', '{envelope}', {{body}})"
        ))
        .await;
        self.sql(&format!(
            "INSERT INTO {{s}}inbox (endpoint, receiver, message_id, body_hash, type, result, conversation_id, saga,
                saga_id, claimed_at, handled_at, handled_by, attempts, round)
             VALUES ('ordering', '{receiver}', '{message_id}', 1, '{type_name}', 'held', 'c', {saga}, {saga_id},
                {{now}} - {{minute}}, {{now}} - {{minute}}, 'p', {attempts}, 2)"
        ))
        .await;
    }

    /// Inserts an instance of saga `order`.
    pub async fn instance(&self, id: &str, state: &str, paused_by: Option<&str>) {
        let paused = paused_by.map_or("NULL".into(), |message| format!("'{message}'"));
        let data = r#"{"amount":5}"#;
        self.sql(&format!(
            "INSERT INTO {{s}}saga (saga, id, state, data, seq, entered, version, paused_by, created_at, updated_at)
             VALUES ('order', '{id}', '{state}', '{data}', 2, 2, 1, {paused}, {{now}} - {{minute}},
                {{now}} - {{minute}})"
        ))
        .await;
    }

    /// Inserts a row into the outbox: a message of instance `order 7`, due in `minutes`.
    pub async fn send(&self, kind: &str, to: &str, minutes: i64, more: &str, values: &str) {
        let id = uuid::Uuid::now_v7();
        self.sql(&format!(
            "INSERT INTO {{s}}outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, envelope, body,
                created_at, due_at{more})
             VALUES ('{id}', 'ordering', 'm-{id}', '{kind}', 'payment.MakePayment', '{to}', 'order', '7',
                '{{\"attempt\":8}}', {{body}}, {{now}} - {{minute}}, {{now}} + ({minutes}) * {{minute}}{values})"
        ))
        .await;
    }
}
