//! The suite's view of the stores in `outbox`.

use super::Lab;
use async_trait::async_trait;
use outbox::{Postgres, Sqlite};
use saga_core::{FieldRow, Inspect, InstanceKey};
use std::time::Duration;

/// A database whose tables a test looks into by statements of its own.
#[async_trait]
pub trait Base: Lab + Inspect {
    /// The only value of a statement, in which `{s}` is the prefix of a table's name.
    async fn text(&self, sql: &str) -> String;
}

#[async_trait]
impl Base for Postgres {
    async fn text(&self, sql: &str) -> String {
        let sql = sql.replace("{s}", "sagabus.");
        sqlx::query_scalar(&sql).fetch_one(self.pool()).await.expect("the statement is right")
    }
}

#[async_trait]
impl Base for Sqlite {
    async fn text(&self, sql: &str) -> String {
        let sql = sql.replace("{s}", "sagabus_");
        sqlx::query_scalar(&sql).fetch_one(self.pool()).await.expect("the statement is right")
    }
}

fn field((name, value, saga, id, is_alias): (String, String, String, String, Option<bool>)) -> FieldRow {
    let (field, instance) = (InstanceKey { saga: name, id: value }, InstanceKey { saga, id });
    if is_alias.is_some() { FieldRow::alias(field, instance) } else { FieldRow::new(field, instance) }
}

// each statement in a transaction and without a name, so that it works behind a pooler too
#[async_trait]
impl Lab for Postgres {
    async fn count(&self, table: &str) -> i64 {
        let mut tx = self.pool().begin().await.expect("a transaction begins");
        let sql = format!("SELECT count(*) FROM sagabus.{table}");
        let count = sqlx::query_scalar(&sql).persistent(false).fetch_one(&mut *tx).await;
        count.expect("rows are counted")
    }

    async fn column(&self, table: &str, column: &str, message_id: &str) -> Vec<Option<String>> {
        let mut tx = self.pool().begin().await.expect("a transaction begins");
        let sql = format!("SELECT {column}::text FROM sagabus.{table} WHERE message_id = $1");
        let texts = sqlx::query_scalar(&sql).bind(message_id).persistent(false).fetch_all(&mut *tx).await;
        texts.expect("a column is read")
    }

    async fn fields(&self) -> Vec<FieldRow> {
        let mut tx = self.pool().begin().await.expect("a transaction begins");
        let sql = "SELECT name, value, saga, id, is_alias FROM sagabus.field";
        let rows = sqlx::query_as(sql).persistent(false).fetch_all(&mut *tx).await;
        rows.expect("fields are read").into_iter().map(field).collect()
    }

    async fn age(&self, table: &str, column: &str, by: Duration) {
        let mut tx = self.pool().begin().await.expect("a transaction begins");
        let sql = format!("UPDATE sagabus.{table} SET {column} = {column} - $1 * interval '1 second'");
        let aged = sqlx::query(&sql).bind(by.as_secs_f64()).persistent(false).execute(&mut *tx).await;
        aged.expect("rows are aged");
        tx.commit().await.expect("a transaction commits");
    }
}

#[async_trait]
impl Lab for Sqlite {
    async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM sagabus_{table}");
        let count = sqlx::query_scalar(&sql).fetch_one(self.writer()).await;
        count.expect("rows are counted")
    }

    async fn column(&self, table: &str, column: &str, message_id: &str) -> Vec<Option<String>> {
        let sql = format!("SELECT CAST({column} AS TEXT) FROM sagabus_{table} WHERE message_id = $1");
        let texts = sqlx::query_scalar(&sql).bind(message_id).fetch_all(self.writer()).await;
        texts.expect("a column is read")
    }

    async fn fields(&self) -> Vec<FieldRow> {
        let sql = "SELECT name, value, saga, id, is_alias FROM sagabus_field";
        let rows = sqlx::query_as(sql).fetch_all(self.writer()).await;
        rows.expect("fields are read").into_iter().map(field).collect()
    }

    async fn age(&self, table: &str, column: &str, by: Duration) {
        let sql = format!("UPDATE sagabus_{table} SET {column} = {column} - $1");
        let aged = sqlx::query(&sql).bind(by.as_micros() as i64).execute(self.writer()).await;
        aged.expect("rows are aged");
    }
}
