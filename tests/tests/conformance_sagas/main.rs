//! What docs/conformance.md says of sagas, where a real database matters: commits, ids as text, the database's clock,
//! and several processes of one service. On SQLite in-process and on PostgreSQL with RabbitMQ alike.

mod aliases;
mod effects;
mod finding;
mod lives;
mod sagas;
mod several;
mod starts;
mod timers;
mod trouble;
mod versions;
mod waiting;

use async_trait::async_trait;
use outbox::{Postgres, Sqlite};
use saga_core::{
    Endpoint, EndpointBuilder, Envelope, Event, HeldView, InstanceFilter, InstanceKey, InstanceView, JournalView, Link,
    Message, OutboxFilter, OutboxView, Outgoing, Transport,
};
use std::{sync::Arc, time::Duration};
use tests::{Database, File, Vhost, eventually, link};
use transports::InProcess;
use uuid::Uuid;

/// A database whose tables a test looks into.
#[async_trait]
trait Base: tests::store_suite::Base {
    /// Stores 100,000 instances of the saga `account` as its version 1 wrote them; of 10,000, one is in the state
    /// `Gone`, and one has no amount.
    async fn fill(&self);
}

#[async_trait]
impl Base for Postgres {
    async fn fill(&self) {
        let fill = sqlx::query(
            "INSERT INTO sagabus.saga (saga, id, state, data, seq, entered, version, created_at, updated_at)
             SELECT 'account', n::text, CASE WHEN n % 10000 = 0 THEN 'Gone' ELSE 'Open' END,
                CASE WHEN n % 10000 = 1 THEN '{}' ELSE '{\"amount\": 1.5}' END::json, 1, 1, 1, now(), now()
             FROM generate_series(1, 100000) n",
        );
        fill.execute(self.pool()).await.expect("the statement is right");
    }
}

#[async_trait]
impl Base for Sqlite {
    async fn fill(&self) {
        let fill = sqlx::query(
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 100000)
             INSERT INTO sagabus_saga (saga, id, state, data, seq, entered, version, created_at, updated_at)
             SELECT 'account', '' || n, CASE WHEN n % 10000 = 0 THEN 'Gone' ELSE 'Open' END,
                CASE WHEN n % 10000 = 1 THEN '{}' ELSE '{\"amount\": 1.5}' END, 1, 1, 1, 0, 0 FROM s",
        );
        fill.execute(self.writer()).await.expect("the statement is right");
    }
}

/// Three processes of one service, not yet started: each has its own way to the database that they share.
struct Service<Db, T> {
    stores: [Db; 3],
    transports: [T; 3],
}

impl<Db: Base, T: Transport + Clone> Service<Db, T> {
    /// Starts a process.
    async fn start(&self, n: usize, build: impl FnOnce(EndpointBuilder<Db>) -> EndpointBuilder<Db>) -> Endpoint<Db> {
        let builder = Endpoint::builder("service", self.transports[n].clone(), self.stores[n].clone());
        let builder = builder.settings(|settings| settings.poll = Duration::from_millis(100));
        build(builder).start().await.expect("the process starts")
    }

    /// The database, as an operator sees it.
    fn db(&self) -> &Db {
        &self.stores[2]
    }

    async fn instance(&self, saga: &str, id: &str) -> Option<InstanceView> {
        let filter = InstanceFilter { saga: Some(saga.into()), id: Some(id.into()), ..Default::default() };
        let found = self.db().instances(&filter, 1000).await.expect("the database answers");
        found.into_iter().find(|instance| instance.id == id) // ids that begin like it are among them
    }

    /// Waits until an instance is in a state after so many transitions.
    async fn reaches(&self, saga: &str, id: &str, state: &str, seq: i64) -> InstanceView {
        eventually(&format!("{saga} {id} to be {state} after {seq} transitions"), || async {
            self.instance(saga, id).await.filter(|it| (it.state.as_str(), it.seq) == (state, seq))
        })
        .await
    }

    /// Waits until so many instances are in a state.
    async fn count(&self, saga: &str, state: &str, expected: u64) {
        let filter = InstanceFilter { saga: Some(saga.into()), state: Some(state.into()), ..Default::default() };
        eventually(&format!("{expected} instances of {saga} to be {state}"), || async {
            (self.db().instances_count(&filter).await.ok()? == expected).then_some(())
        })
        .await;
    }

    async fn journal(&self, saga: &str, id: &str) -> Vec<JournalView> {
        let key = InstanceKey { saga: saga.into(), id: id.into() };
        self.db().journal(&key, 1000).await.expect("the database answers")
    }

    /// Waits until an instance's journal has so many lines; type and result of each.
    async fn journaled(&self, saga: &str, id: &str, lines: usize) -> Vec<(String, String)> {
        let journal = eventually(&format!("{lines} lines in the journal of {saga} {id}"), || async {
            let journal = self.journal(saga, id).await;
            (journal.iter().filter(|line| line.result != "held").count() == lines).then_some(journal)
        })
        .await;
        journal.into_iter().map(|line| (line.type_name, line.result)).collect()
    }

    async fn held(&self) -> Vec<HeldView> {
        tests::house::held(self.db()).await
    }

    async fn timers(&self) -> Vec<OutboxView> {
        let rows = self.db().outbox(&OutboxFilter::default(), 10_000).await.expect("the database answers");
        rows.into_iter().filter(|row| row.kind == "timer").collect()
    }

    /// Waits until nothing is in the outbox.
    async fn quiet(&self) {
        eventually("an empty outbox", || async { (self.db().count("outbox").await == 0).then_some(()) }).await;
    }

    /// Another program beside a process: what it sends to the service comes to that one.
    async fn stranger(&self, n: usize, name: &str) -> Link {
        link::attach(&self.transports[n], name, &[]).await
    }

    /// Lets time pass for what is in the outbox.
    async fn later(&self, by: Duration) {
        self.db().age("outbox", "due_at", by).await;
    }
}

/// Publishes from a process, in one transaction.
async fn publish<Db: Base, E: Event>(process: &Endpoint<Db>, events: impl IntoIterator<Item = E>) {
    let mut session = process.session().await.expect("a session opens");
    for event in events {
        session.publish(event);
    }
    session.commit().await.expect("the session commits");
}

/// A message as another program sends it.
fn message<M: Message + serde::Serialize>(id: &str, message: &M) -> Envelope {
    Envelope::new(id, M::TYPE, serde_json::to_vec(message).expect("a message is JSON"))
}

/// Sends each to the service, in order, and waits until all are confirmed: in-process until they are settled.
async fn tell(stranger: &mut Link, envelopes: impl IntoIterator<Item = Envelope>) {
    let messages = envelopes.into_iter().map(|it| Outgoing::new(Uuid::now_v7(), link::to("service"), Arc::new(it)));
    link::send(stranger, messages).await;
}

async fn stop<Db: Base>(processes: impl IntoIterator<Item = Endpoint<Db>>) {
    for process in processes {
        process.stop().await.expect("an orderly end");
    }
}

/// Each process has a bus of its own: what it sends to the service comes to itself, unless another relay takes it.
async fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(Service<Sqlite, InProcess>) -> F) {
    let file = File::create();
    let stores = [file.store("one.db").await, file.store("one.db").await, file.store("one.db").await];
    test(Service { stores, transports: std::array::from_fn(|_| InProcess::new()) }).await;
}

async fn on_postgres<F: Future<Output = ()>>(test: impl FnOnce(Service<Postgres, transports::RabbitMq>) -> F) {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let stores = std::array::from_fn(|_| database.store());
    test(Service { stores, transports: std::array::from_fn(|_| vhost.transport()) }).await;
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
    aliases::{
        s_081_s_082_whoever_is_first_a_message_meets_the_instance_that_takes_its_alias
        s_084_two_instances_with_one_alias_are_a_persons_business
        s_085_an_alias_that_changes_is_found_by_its_new_value
    }
    effects::{
        s_011_two_sagas_take_one_event_and_a_panic_of_one_is_not_the_others
        s_012_a_saga_and_a_handler_take_one_event_and_neither_waits_for_the_other
        s_023_s_024_effects_leave_in_their_order_and_bear_what_caused_them
        s_026_s_027_the_states_own_transition_goes_before_the_enums
    }
    finding::{
        s_016_s_017_a_nested_field_names_the_instance_and_one_that_is_missing_is_named
        s_018_outcomes_without_an_id_reach_the_instances_that_asked
        s_019_s_022_headers_name_an_instance_of_their_saga_alone
        s_020_of_an_outcome_that_comes_on_two_routes_one_copy_counts
        s_021_a_child_of_the_same_endpoint_answers_its_parent_at_once_or_days_later
        s_063_a_reply_without_addressee_is_journaled_and_goes_nowhere
    }
    lives::{
        s_061_s_062_a_child_answers_the_very_parent_after_a_restart
        s_043_s_044_s_045_a_state_decides_what_becomes_of_messages
        s_008_s_038_what_waits_for_an_instance_goes_when_it_is_done
        s_001_a_start_appears_with_its_timer_and_its_journal_in_one_commit
        s_010_two_sagas_with_one_id_are_two_instances
        s_013_an_event_of_its_own_comes_back_after_the_commit
        s_014_numbers_and_uuids_are_exact_as_text
        s_014_ids_of_several_fields_are_told_apart
        s_015_texts_that_differ_in_one_byte_are_different_instances
        s_034_half_a_join_survives_a_restart
        s_034_what_a_state_has_gathered_survives_a_restart
        s_068_each_key_is_handled_in_the_order_of_the_queue
    }
    several::{
        s_009_five_hundred_instances_run_through_in_two_processes
        s_035_both_halves_at_once_join_exactly_once
        s_058_an_answer_and_a_timer_at_once_have_one_effect
        s_064_two_messages_for_one_instance_are_applied_one_after_the_other
        s_065_two_starts_of_one_instance_make_one_row
        s_066_no_message_of_two_hundred_for_a_new_instance_is_lost
    }
    starts::{
        s_003_s_004_s_032_s_033_two_halves_join_once_whichever_begins
        s_005_a_start_into_a_done_state_sends_and_leaves_no_timer
        s_006_what_comes_for_a_done_instance_is_late_and_leaves_its_row_alone
        s_007_an_id_that_retention_has_removed_begins_anew
    }
    timers::{
        s_028_s_029_a_transition_into_the_same_state_keeps_what_it_does_not_set
        s_050_s_056_a_timer_that_is_on_its_way_counts_if_it_is_alive
        s_052_of_two_timers_the_one_that_leads_out_takes_the_other_with_it
        s_053_a_timer_that_sets_itself_again_comes_each_time_once
        s_055_a_deadline_keeps_its_row_through_all_states
        s_057_a_timer_of_two_sagas_comes_to_the_one_that_set_it
        s_048_s_054_a_timer_is_due_by_the_databases_clock
        s_051_only_the_timer_of_the_second_entry_has_effect
        s_059_timers_that_fall_due_while_all_are_down_are_handled_once
    }
    trouble::{
        s_060_s_070_s_071_what_came_while_an_instance_was_paused_follows_in_order
        s_047_an_early_message_that_panics_leaves_the_start_as_it_is
        s_072_what_comes_behind_a_start_that_panics_waits_for_it
    }
    versions::{
        s_073_rows_pass_through_upcast_as_their_messages_come
        s_074_a_row_whose_upcast_fails_stays_as_it_was
        s_075_an_older_process_leaves_a_newer_row_to_a_newer_process
        s_076_a_check_of_100_000_instances_takes_seconds
    }
    waiting::{
        s_030_s_036_s_037_a_chain_of_early_messages_is_one_commit_of_messages_as_they_came
        s_039_a_message_that_no_state_ahead_takes_is_late
        s_046_an_early_message_that_comes_again_is_held_once_and_handled_once
    }
}
