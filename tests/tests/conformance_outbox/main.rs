//! What docs/conformance.md says of outbox, recoverability and transport, where a real database and a real transport
//! matter. On SQLite in-process and on PostgreSQL with RabbitMQ alike, unless a test says otherwise.

mod handlers;
mod held;
mod in_process;
mod messages;
mod silence;
mod statements;
mod strangers;

use outbox::{Postgres, Sqlite};
use saga_core::{Endpoint, EndpointBuilder, Envelope, Event, Link, Outgoing, Transport};
use std::{sync::Arc, time::Duration};
use tests::{
    Database, File, Vhost,
    link::{self, attach, to},
    model::Effects,
    store_suite::Base,
};
use transports::{InProcess, RabbitMq};
use uuid::Uuid;

/// Two processes on one database, not yet started: each has its own way to it. On SQLite each has a bus of its own.
struct Two<Db, T> {
    stores: [Db; 2],
    transports: [T; 2],
}

impl<Db: Effects + Base, T: Transport + Clone> Two<Db, T> {
    /// An endpoint of one of the processes.
    fn endpoint(&self, process: usize, name: &str) -> EndpointBuilder<Db> {
        let builder = Endpoint::builder(name, self.transports[process].clone(), self.stores[process].clone());
        builder.settings(|settings| {
            settings.poll = Duration::from_millis(100);
            settings.handler_lanes = 1;
        })
    }

    /// The database, as an operator sees it.
    fn db(&self) -> &Db {
        &self.stores[1]
    }

    /// How many rows there are: a table, with a condition.
    async fn count(&self, rows: &str) -> usize {
        let count = self.db().text(&format!("SELECT CAST(count(*) AS text) FROM {rows}")).await;
        count.parse().expect("a count is a number")
    }

    /// Another program beside one of the processes.
    async fn stranger(&self, process: usize) -> Stranger {
        Stranger(attach(&self.transports[process], &format!("stranger-{process}"), &[]).await)
    }
}

/// A program that sends messages to queues.
struct Stranger(Link);

impl Stranger {
    /// Sends each, and waits until all are confirmed: in-process until they are settled.
    async fn send(&mut self, endpoint: &str, envelopes: &[Envelope]) {
        let messages = envelopes.iter().map(|it| Outgoing::new(Uuid::now_v7(), to(endpoint), Arc::new(it.clone())));
        link::send(&mut self.0, messages).await;
    }
}

/// Publishes in one transaction.
async fn publish<Db: Effects, E: Event>(endpoint: &Endpoint<Db>, events: impl IntoIterator<Item = E>) {
    let mut session = endpoint.session().await.expect("a session opens");
    for event in events {
        session.publish(event);
    }
    session.commit().await.expect("the session commits");
}

async fn stop<Db: Effects>(endpoints: impl IntoIterator<Item = Endpoint<Db>>) {
    for endpoint in endpoints {
        endpoint.stop().await.expect("an orderly end");
    }
}

async fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(Two<Sqlite, InProcess>) -> F) {
    let file = File::create();
    let stores = [file.store("one.db").await, file.store("one.db").await];
    test(Two { stores, transports: [InProcess::new(), InProcess::new()] }).await;
}

async fn on_postgres<F: Future<Output = ()>>(test: impl FnOnce(Two<Postgres, RabbitMq>) -> F) {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let stores = [database.store(), database.store()];
    test(Two { stores, transports: [vhost.transport(), vhost.transport()] }).await;
}

macro_rules! suite {
    ($($module:ident::{$($test:ident)*})*) => {
        mod sqlite {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::on_sqlite(super::$module::$test).await;
            })*)*
        }
        mod postgres {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::on_postgres(super::$module::$test).await;
            })*)*
        }
    };
}

suite! {
    handlers::{
        o_002_a_hundred_messages_that_come_three_times_to_two_processes_have_a_hundred_effects
        o_004_two_endpoints_of_one_database_each_handle_an_event
        o_013_row_mark_and_messages_appear_in_one_commit
    }
    held::{
        o_008_a_discarded_message_that_comes_again_is_a_duplicate
        r_028_a_retry_that_is_ordered_while_nobody_runs_is_taken_up_at_the_next_start
        r_029_what_was_held_longer_than_the_retention_runs_without_repeating_its_neighbours_effect
    }
    messages::{
        o_049_a_delayed_message_is_cancelled_by_the_commit_alone_and_one_that_was_sent_says_so
        o_051_what_one_instance_sends_is_handled_in_order_by_any_number_of_lanes
        t_031_a_chain_over_three_endpoints_is_one_conversation
    }
}
