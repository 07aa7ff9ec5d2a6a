//! The suite's view of the store in memory.

use super::Lab;
use async_trait::async_trait;
use saga_core::{FieldRow, testing::MemoryStore};
use std::time::Duration;

#[async_trait]
impl Lab for MemoryStore {
    async fn count(&self, table: &str) -> i64 {
        let count = match table {
            "inbox" => self.inbox().len(),
            "outbox" => self.outbox().len(),
            "held" => self.held().len(),
            "saga" => self.instances().len(),
            "field" => self.aliases().len() + MemoryStore::fields(self).len(),
            "definition" => self.definitions().len(),
            "subscription" => self.subscriptions().len(),
            "process" => self.processes().len(),
            _ => panic!("the store in memory has no table {table}"),
        };
        i64::try_from(count).expect("memory holds fewer rows")
    }

    async fn column(&self, table: &str, column: &str, message_id: &str) -> Vec<Option<String>> {
        let unknown = || panic!("the store in memory has no column {table}.{column}");
        let inbox = self.inbox().into_iter().filter(|row| row.message_id == message_id);
        let outbox = self.outbox().into_iter().filter(|row| row.envelope.message_id == message_id);
        let held = self.held().into_iter().filter(|row| row.envelope.message_id == message_id);
        match table {
            "inbox" => inbox
                .map(|row| match column {
                    "note" => row.note,
                    "saga" => row.saga_id.map(|_| row.receiver),
                    "saga_id" => row.saga_id,
                    _ => unknown(),
                })
                .collect(),
            "outbox" => outbox
                .map(|row| match column {
                    "kind" => Some(row.kind.as_str().into()),
                    "last_error" => row.last_error,
                    "waits_for" => row.waits_for,
                    _ => unknown(),
                })
                .collect(),
            "held" => held
                .map(|row| match column {
                    "destination" => row.stranded.map(|(_, destination)| destination.name().into()),
                    "error" => row.error,
                    "kind" => row.stranded.map(|(kind, _)| kind.as_str().into()),
                    "reason" => Some(row.reason.as_str().into()),
                    "receiver" => Some(row.receiver),
                    "saga" => row.saga_id.map(|_| row.alias.unwrap_or(row.receiver)),
                    _ => unknown(),
                })
                .collect(),
            _ => vec![unknown()],
        }
    }

    async fn fields(&self) -> Vec<FieldRow> {
        self.aliases().into_iter().chain(MemoryStore::fields(self)).collect()
    }

    async fn age(&self, table: &str, column: &str, by: Duration) {
        let by = i64::try_from(by.as_micros()).expect("a test's time fits");
        let older = |at: &mut Option<i64>| *at = at.map(|at| at - by);
        match (table, column) {
            ("inbox", "claimed_at") => self.change_inbox(|row| row.claimed_at_us -= by),
            ("inbox", "handled_at") => self.change_inbox(|row| row.handled_at_us -= by),
            ("outbox", "created_at") => self.change_outbox(|row| row.created_at_us -= by),
            ("outbox", "due_at") => self.change_outbox(|row| row.due_at_us -= by),
            ("outbox", "lease_until") => self.change_outbox(|row| older(&mut row.lease_until_us)),
            ("outbox", "first_attempt_at") => self.change_outbox(|row| older(&mut row.first_attempt_at_us)),
            ("held", "expires_at") => self.change_held(|row| older(&mut row.expires_at_us)),
            ("saga", "completed_at") => self.change_instances(|row| older(&mut row.completed_at_us)),
            ("rate_limit", "next_at") => self.change_limits(|next| *next -= by),
            ("process", "seen_at") => self.change_processes(|row| row.seen_at_us -= by),
            _ => panic!("the store in memory has no time {table}.{column}"),
        }
    }
}
