//! What is done with messages that never left.

use super::of_message;
use saga_core::{DueAt, Envelope, HeldFilter, OutboxAction, OutboxFilter};
use std::time::Duration;
use tests::tables::{Held, Tables};

suite! {
    a_stranded_message_goes_where_it_was_to_go,
    what_goes_elsewhere_or_at_another_time_begins_anew,
    a_stranded_retry_that_is_discarded_frees_its_instance,
}

async fn a_stranded_message_goes_where_it_was_to_go(tables: Tables) {
    tables.hold(&Held { receiver: "outbox 1", reason: "stranded", saga_id: None, ..Held::default() }).await;
    tables.sql("DELETE FROM {s}inbox").await; // it never came here
    tables.sql("UPDATE {s}held SET kind = 'command', destination = 'payment'").await;
    let listed = tables.store.held(&HeldFilter::default(), 5).await.unwrap();
    assert_eq!((listed[0].kind.as_deref(), listed[0].destination.as_deref()), (Some("command"), Some("payment")));
    let done = tables.store.held_retry(&of_message(&tables, "m").await, "ann", "it never arrived").await;
    assert_eq!(done.count("retried"), 1, "{done:?}");
    let sent = tables.store.outbox(&OutboxFilter::default(), 10).await.unwrap();
    assert_eq!((sent[0].kind.as_str(), sent[0].destination.as_str()), ("command", "payment"));
    let envelope: Envelope = serde_json::from_value(sent[0].envelope.clone()).unwrap();
    assert_eq!((envelope.attempt, envelope.receiver.as_deref()), (1, Some("somebody")), "it goes as it was");
}

async fn a_stranded_retry_that_is_discarded_frees_its_instance(tables: Tables) {
    tables.instance("7", "AwaitingShipment", Some("poison")).await;
    tables.hold(&Held { message_id: "poison", ..Held::default() }).await;
    // it was to be handled again, and the row that takes it there could not be sent
    tables.sql("UPDATE {s}inbox SET result = 'retrying'").await;
    tables.sql("UPDATE {s}held SET receiver = 'outbox 1', reason = 'stranded', saga = NULL, saga_id = NULL").await;
    tables.sql("UPDATE {s}held SET kind = 'retry', destination = 'ordering'").await;
    let envelope = r#"{"message_id":"poison","type":"payment.Paid","conversation_id":"c","receiver":"order"}"#;
    tables.sql(&format!("UPDATE {{s}}held SET envelope = '{envelope}'")).await;
    let done = tables.store.held_discard(&of_message(&tables, "poison").await, "ann", "not a label").await;
    assert_eq!(done.count("discarded"), 1, "{done:?}");
    assert_eq!(tables.one("SELECT paused_by FROM {s}saga").await, None, "nothing pauses it any more");
    let inbox = "SELECT result || ' ' || note FROM {s}inbox";
    assert_eq!(tables.one(inbox).await.as_deref(), Some("discarded discarded by ann: not a label"));
    let sent = tables.store.outbox(&OutboxFilter::default(), 10).await.unwrap();
    assert_eq!(sent.iter().map(|row| row.type_name.as_str()).collect::<Vec<_>>(), [Envelope::WAKE]);
}

/// Its first try, long ago, says nothing about the new destination or the new time: it must not strand there. But a
/// command that goes elsewhere may have arrived where it went first, and whoever takes it back must know.
async fn what_goes_elsewhere_or_at_another_time_begins_anew(tables: Tables) {
    for (kind, to) in [("command", "payment"), ("timer", "ordering"), ("timer", "ordering")] {
        tables.send(kind, to, 0, ", first_attempt_at", ", {now} - {minute}").await;
    }
    let rows = tables.store.outbox(&OutboxFilter::default(), 10).await.unwrap();
    let ids =
        |kind: &str| -> Vec<String> { rows.iter().filter(|row| row.kind == kind).map(|row| row.id.clone()).collect() };
    let timers = ids("timer");
    let hour = DueAt::After(Duration::from_secs(3600));
    for (action, ids) in [
        (OutboxAction::Reroute { to: "bank" }, &ids("command")[..]),
        (OutboxAction::MoveTimer { to: DueAt::Time(4_000_000_000_000_000) }, &timers[..1]),
        (OutboxAction::MoveTimer { to: hour }, &timers[1..]),
    ] {
        let done = tables.store.outbox_act(action, ids, "ann", "elsewhere").await;
        assert_eq!(done.count(OutboxAction::DONE), 1, "{done:?}");
    }
    let tried = |more: &str| format!("SELECT kind FROM {{s}}outbox WHERE first_attempt_at IS NOT NULL{more}");
    assert_eq!(tables.sql(&tried("")).await, [Some("command".into())], "the timers are as new");
    let long_ago = tables.sql(&tried(" AND first_attempt_at <= {now} - {minute}")).await;
    assert_eq!(long_ago, [], "its time begins now");
}
