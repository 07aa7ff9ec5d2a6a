//! The conformance suite of the port `Store`: every store passes the same tests.
//!
//! To test another store, implement [`Lab`] for it, and run the suite by one line in an integration test:
//!
//! ```text
//! tests::store_suite!(mod my_store, [], my_database);
//! ```
//!
//! where `my_database` is an async function that returns a store with its tables, and whatever must live as long as the
//! store.

pub mod aliases;
pub mod held;
pub mod inbox;
mod memory;
pub mod outbox;
pub mod processes;
mod sql;

pub use sql::Base;

use async_trait::async_trait;
use bytes::Bytes;
use saga_core::{
    Chart, Destination, Envelope, FieldRow, Found, HeldIn, HeldReason, InboxResult, InboxRow, InstanceKey, InstanceRow,
    InstanceWrite, Keys, LeaseRequest, Leased, OutboxKind, OutboxRow, SagaRef, Store, StoreError, StoreErrorKind, Unit,
    Write,
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// How long a lease runs here.
pub const LEASE: Duration = Duration::from_secs(30);
/// A retention.
pub const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// How long a unit may be idle.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What the suite needs of a store besides the port: to look into its tables, and to let time pass in them.
///
/// Tables and columns have the names in `postgres/schema.sql`, without schema or prefix.
#[async_trait]
pub trait Lab: Store {
    /// How many rows a table has.
    async fn count(&self, table: &str) -> i64;

    /// A column of the rows of one message, as texts, in no particular order.
    async fn column(&self, table: &str, column: &str, message_id: &str) -> Vec<Option<String>>;

    /// The fields of instances, aliases among them.
    async fn fields(&self) -> Vec<FieldRow>;

    /// Moves a time in all rows of a table into the past.
    async fn age(&self, table: &str, column: &str, by: Duration);
}

/// A message of the endpoint `e`.
pub fn envelope(message_id: &str) -> Envelope {
    let mut envelope = Envelope::new(message_id, "test.Message", Bytes::from_static(b"{\"a\": 1}"));
    envelope.conversation_id = "conversation".into();
    envelope.causation_id = Some("cause".into());
    envelope.saga = Some(SagaRef { saga: "sender".into(), id: "9".into(), entered: Some(2), timer: None });
    envelope.reply_to = Some("e".into());
    envelope.sender = Some("e".into());
    envelope.sent_at_us = Some(1_795_000_000_123_456);
    envelope.headers.insert("tenant".into(), json!("é"));
    envelope.headers.insert("empty".into(), json!(""));
    envelope.headers.insert("sender".into(), json!(5)); // a stranger's, named as a field of ours
    envelope
}

/// The inbox row of a message handled by `r`.
pub fn inbox_row(message_id: &str) -> InboxRow {
    crate::with!(
        InboxRow::new("r", Arc::new(envelope(message_id)), InboxResult::Handled),
        effects = Some(Vec::new()),
        attempts = 1
    )
}

/// A command to `there`.
pub fn outbox_row(message_id: &str, delay: Option<Duration>, leased: bool) -> OutboxRow {
    crate::with!(
        OutboxRow::new(
            Uuid::now_v7(),
            OutboxKind::Command,
            Destination::Endpoint("there".into()),
            Arc::new(envelope(message_id))
        ),
        delay = delay,
        leased = leased
    )
}

/// A message that waits for the instance `saga/7`.
pub fn held_in(message_id: &str, reason: HeldReason) -> HeldIn {
    crate::with!(
        HeldIn::new("saga", Arc::new(envelope(message_id)), reason),
        saga_id = Some("7".into()),
        error = Some("why".into())
    )
}

/// The key of the instance that most tests use.
pub fn key() -> InstanceKey {
    InstanceKey { saga: "saga".into(), id: "7".into() }
}

/// The instance `saga/7` as a transition leaves it.
pub fn instance(seq: i64, base_seq: i64) -> InstanceWrite {
    let row = crate::with!(
        InstanceRow::new(key(), "S", r#"{"n":1}"#),
        seq = seq,
        entered = seq,
        version = 1,
        originator = Some(r#"{"reply_to":"x"}"#.into())
    );
    InstanceWrite::new(row, base_seq)
}

/// A write of the process `me` of endpoint `e`, with nothing in it.
pub fn writes() -> Write {
    Write::new("e", "me", LEASE)
}

/// Commits a write.
///
/// # Errors
/// Those of the store.
pub async fn write<S: Store>(store: &S, write: Write) -> Result<(), StoreError> {
    let mut unit = store.begin(&[1, 2], LIMIT).await?;
    unit.write(&write).await?;
    unit.commit().await
}

/// Keys of messages, and the instance `saga/7`.
pub fn keys(message_ids: &[&str]) -> Keys {
    let message_ids = message_ids.iter().map(|id| (*id).to_owned()).collect();
    crate::with!(Keys::new("e"), message_ids = message_ids, instances = vec![key()])
}

/// What a unit reads about messages and the instance `saga/7`.
///
/// # Panics
/// When it cannot be read.
pub async fn read<S: Store>(store: &S, message_ids: &[&str]) -> Found {
    let mut unit = store.begin(&[3], LIMIT).await.expect("a unit begins");
    let found = unit.read(&keys(message_ids)).await.expect("a unit reads");
    unit.rollback().await.expect("a unit is rolled back");
    found
}

/// A relay's request.
pub fn request(owner: &str) -> LeaseRequest<'_> {
    LeaseRequest::new("e", owner, 100, LEASE, WEEK)
}

/// Leases what is due.
///
/// # Panics
/// When the store refuses.
pub async fn lease<S: Store>(store: &S, owner: &str) -> Leased {
    store.lease(&request(owner)).await.expect("rows are leased")
}

/// A chart of the saga `saga` that takes the event `test.Event` and the command `test.Command`.
pub fn chart(version: u32) -> Chart {
    let message = |type_name: &str, kind: &str| json!({ "type_name": type_name, "kind": kind, "starts": false });
    let messages = [message("test.Event", "event"), message("test.Command", "command")];
    let chart = json!({ "saga": "saga", "version": version, "states": [], "messages": messages, "edges": [] });
    serde_json::from_value(chart).expect("that is a chart")
}

/// The kind of an error.
pub fn kind<T>(result: Result<T, StoreError>) -> Option<StoreErrorKind> {
    result.err().map(|error| error.kind())
}

/// A conflict, as [`kind`] gives it.
pub const CONFLICT: Option<StoreErrorKind> = Some(StoreErrorKind::Conflict);

/// Runs the suite on the stores that a function makes: `store_suite!(mod NAME, [ATTRIBUTES], FUNCTION);`. Each test
/// gets the attributes.
#[macro_export]
macro_rules! store_suite {
    (mod $name:ident, $attributes:tt, $make:path) => {
        mod $name {
            $crate::store_suite! { @each $attributes $make;
                inbox::{
                    o_001_a_message_is_claimed_once
                    o_011_ids_are_compared_byte_for_byte
                    a_row_that_waits_is_completed_once
                    a_row_is_settled_for_one_receiver_at_one_endpoint
                    a_row_may_be_of_a_message_that_is_known_by_its_hash
                    s_067_an_instance_that_changed_is_a_conflict
                    a_unit_without_commit_leaves_nothing
                    m10_a_unit_without_writes_commits
                    a_suspect_is_counted
                    m1_the_journal_names_the_instance_of_every_message
                    a_row_tells_its_round_and_since_when
                    a_message_is_tried_since_its_first_run
                    m8_for_ever_is_a_time_like_any_other
                    m16_an_error_text_may_contain_anything
                }
                outbox::{
                    o_040_a_leased_row_is_what_was_written
                    leases_keep_relays_apart
                    a_renewed_lease_lasts_from_then_on
                    the_oldest_rows_are_leased_first
                    r_035_rows_under_our_own_lease_that_we_do_not_know_of_are_leased_again
                    o_031_a_lease_that_ran_out_is_taken_over
                    o_033_a_row_that_commits_late_is_found
                    s_049_timers_of_a_state_go_with_it
                    s_049_what_is_not_the_timer_stays
                    b9_rows_without_a_way_wait_for_their_destination
                    a_row_that_only_waited_is_no_try
                    rule_7_what_was_first_sent_long_ago_is_held
                    rule_7_the_first_try_stays_the_first
                    b13_a_parked_timer_is_never_stranded
                    what_nobody_publishes_is_taken_back
                    a_timer_tells_by_how_much_it_is_late
                    what_waits_and_lives_is_counted
                    calls_are_given_one_time_each
                    limits_are_swept_when_their_next_call_may_be_made
                    a_clock_that_was_set_back_stops_no_calls_for_long
                }
                held::{
                    held_messages_keep_order_and_bytes
                    a_held_message_goes_for_one_receiver_at_one_endpoint
                    what_is_held_again_has_its_last_time
                    what_waits_is_counted_and_read_by_type
                    held_messages_are_read_up_to_so_many_bytes
                    m3_another_saga_with_the_same_id_starves_nobody
                    o_053_old_rows_go_unless_something_held_needs_them
                    s_042_early_messages_do_not_wait_for_ever
                    m2_of_many_expired_events_none_waits_for_a_person
                    x10_time_does_not_matter_once_the_instance_exists
                    b6_a_message_for_a_newer_version_ends_with_a_person
                }
                aliases::{
                    s_084_an_alias_is_one_instances
                    s_082_what_waits_for_an_alias_meets_its_instance
                    s_083_what_waits_for_an_alias_does_not_wait_for_ever
                    o_053_aliases_go_with_their_instance
                    s_086_a_value_of_a_field_has_many_instances
                }
                processes::{
                    b6_an_event_that_nobody_subscribes_to_any_more_is_dropped
                    a_process_that_was_taken_for_dead_is_entered_again
                    f5_a_saga_belongs_to_one_endpoint
                    s_076_instances_are_read_page_by_page_and_charts_by_endpoint
                    r_030_b22_an_unknown_type_is_released_by_a_process_that_knows_it
                    a_retry_that_an_older_process_held_comes_back_as_the_retry
                    b20_an_instance_of_a_newer_version_is_woken_once
                    what_this_process_does_not_know_stays_held
                    o_055_what_belongs_to_one_endpoint_is_not_anothers
                }
            }
        }
    };
    (@each $attributes:tt $make:path; $($file:ident::{$($test:ident)*})*) => {
        $($($crate::store_suite! { @one $attributes $make; $file $test })*)*
    };
    (@one [$($attribute:meta),*] $make:path; $file:ident $test:ident) => {
        #[tokio::test(flavor = "multi_thread")]
        $(#[$attribute])*
        async fn $test() {
            let (store, _database) = $make().await;
            $crate::store_suite::$file::$test(&store).await;
        }
    };
}
