//! Processes: what they register, and what they release.

use super::*;
use saga_core::Process;

/// A process of `e` that was not seen for this long is dead.
const DEAD: Duration = Duration::from_secs(91);

fn process(owner: &str, subscribes: &[&str]) -> Process {
    crate::with!(
        Process::new("e", owner),
        subscribes = subscribes.iter().map(|event| (*event).to_owned()).collect(),
        types = vec!["test.Message".into()],
        receivers = vec!["r".into()],
        report = json!({ "link": "up" })
    )
}

async fn dropped(store: &impl Lab, process: &Process) -> Vec<String> {
    let registered = store.register(process).await.expect("a process registers");
    assert!(registered.taken.is_empty(), "{registered:?}");
    registered.dropped
}

/// B6: an event that no living process subscribes to any more is dropped, once.
pub async fn b6_an_event_that_nobody_subscribes_to_any_more_is_dropped(store: &impl Lab) {
    assert_eq!(dropped(store, &process("old", &["a", "b"])).await, [""; 0]);
    let other = crate::with!(process("other", &["b"]), endpoint = "other".into());
    assert_eq!(dropped(store, &other).await, [""; 0]);
    assert_eq!(dropped(store, &process("new", &["b", "c"])).await, [""; 0], "the old process lives and wants it");
    store.age("process", "seen_at", DEAD).await;
    store.heartbeat(&process("new", &["b", "c"])).await.unwrap();
    assert_eq!(dropped(store, &process("newer", &["c"])).await, ["a"], "`b` is wanted by a process that lives");
    assert_eq!(dropped(store, &process("newer", &["c"])).await, [""; 0], "it was dropped before");
    store.sign_off("new").await.unwrap();
    assert_eq!(dropped(store, &process("newest", &["c"])).await, ["b"]);
    assert_eq!(store.count("subscription").await, 2, "`c`, and the other endpoint's");
}

/// A process that was frozen for a long time comes back as it was.
pub async fn a_process_that_was_taken_for_dead_is_entered_again(store: &impl Lab) {
    let frozen = process("frozen", &["a"]);
    dropped(store, &frozen).await;
    store.age("process", "seen_at", 2 * WEEK).await;
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 1, "its row goes");
    assert_eq!(dropped(store, &process("other", &[])).await, ["a"]);
    store.heartbeat(&frozen).await.unwrap();
    assert_eq!(store.count("process").await, 2);
    assert_eq!(dropped(store, &process("other", &[])).await, [""; 0]);
    for _ in 0..2 {
        store.sign_off("frozen").await.unwrap();
    }
    assert_eq!(store.count("process").await, 1);
}

/// F5: the name of a saga belongs to one endpoint of a database.
pub async fn f5_a_saga_belongs_to_one_endpoint(store: &impl Lab) {
    let mine = crate::with!(process("mine", &[]), charts = vec![chart(1)]);
    for version in [1, 1, 2] {
        dropped(store, &crate::with!(mine.clone(), charts = vec![chart(version)])).await;
    }
    let theirs = crate::with!(mine, endpoint = "f".into(), owner = "theirs".into(), subscribes = vec!["x".into()]);
    let registered = store.register(&theirs).await.unwrap();
    assert_eq!(registered.taken, [("saga".into(), "e".into())]);
    assert_eq!(store.count("process").await, 1, "nothing of it was entered");
    assert_eq!(store.count("subscription").await, 0);
    assert_eq!(store.count("definition").await, 2);
}

/// The check before a deployment: all instances of an endpoint's sagas, in pages, each once, and its charts.
pub async fn s_076_instances_are_read_page_by_page_and_charts_by_endpoint(store: &impl Lab) {
    let row = |saga: &str, id: &str| {
        let key = InstanceKey { saga: saga.into(), id: id.into() };
        let row = crate::with!(
            InstanceRow::new(key, "S", r#"{"n":1}"#),
            seq = 1,
            entered = 2,
            version = 3,
            progress = Some(r#"{"visited":["A"]}"#.into()),
            done = id == "c"
        );
        saga_core::InstanceWrite::new(row, 0)
    };
    let keys =
        [("saga", "a"), ("saga", "B"), ("other", "b"), ("saga", "b"), ("theirs", "b"), ("saga", "c"), ("saga", "ä")];
    let instances: Vec<_> = keys.iter().map(|(saga, id)| row(saga, id)).collect();
    write(store, crate::with!(writes(), instances = instances.clone())).await.unwrap();
    let sagas = ["saga".to_owned(), "other".to_owned()];
    let (mut after, mut found) = (InstanceKey { saga: String::new(), id: String::new() }, Vec::new());
    loop {
        let page = store.page_of_instances(&sagas, &after, 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = last.key.clone();
        found.extend(page);
    }
    let ids: Vec<(&str, &str)> = found.iter().map(|row| (row.key.saga.as_str(), row.key.id.as_str())).collect();
    let expected = [("saga", "B"), ("saga", "a"), ("other", "b"), ("saga", "b"), ("saga", "c"), ("saga", "ä")];
    assert_eq!(ids, expected, "in the order of their bytes");
    assert!(found.iter().all(|row| instances.iter().any(|written| written.row == *row)), "as written: {found:?}");
    assert_eq!(store.page_of_instances(&[], &after, 2).await.unwrap(), [], "of no saga there are none");

    let both = crate::with!(process("new", &[]), charts = vec![chart(2), chart(1)]);
    dropped(store, &both).await;
    assert_eq!(store.charts("e").await.unwrap(), [chart(1), chart(2)]);
    assert_eq!(store.charts("f").await.unwrap(), []);
}

/// Messages of unknown types, held as the router holds them.
fn unknown(ids: &[&str]) -> Write {
    let held = |id: &&str| {
        let mut envelope = envelope(id);
        envelope.attempt = 3;
        crate::with!(
            held_in(id, HeldReason::Version),
            receiver = String::new(),
            envelope = Arc::new(envelope),
            saga_id = None
        )
    };
    let claim = |id: &&str| crate::with!(inbox_row(id), receiver = String::new(), result = InboxResult::Held);
    crate::with!(writes(), claims = ids.iter().map(claim).collect(), held_in = ids.iter().map(held).collect())
}

/// B22, F4: a message of an unknown type goes back to the outbox when a process that knows the type runs.
pub async fn r_030_b22_an_unknown_type_is_released_by_a_process_that_knows_it(store: &impl Lab) {
    write(store, unknown(&["b", "a"])).await.unwrap();
    let handled = crate::with!(inbox_row("a"), receiver = "s".into());
    write(store, crate::with!(writes(), claims = vec![handled])).await.unwrap();
    let for_one = crate::with!(held_in("one", HeldReason::Version), receiver = String::new(), saga_id = None);
    let mut one = envelope("one");
    one.receiver = Some("r".into());
    write(store, crate::with!(writes(), held_in = vec![crate::with!(for_one, envelope = Arc::new(one.clone()))]))
        .await
        .unwrap();
    let stranger = crate::with!(process("old", &[]), types = vec!["test.Other".into()]);
    assert_eq!(store.release(&stranger).await.unwrap(), 0);
    let renamed = crate::with!(process("renamed", &[]), receivers = vec!["s".into()]);
    assert_eq!(store.release(&renamed).await.unwrap(), 2, "what is addressed to a receiver that is not here waits");
    assert_eq!(store.release(&renamed).await.unwrap(), 0);
    assert_eq!(store.release(&process("new", &[])).await.unwrap(), 1);
    assert_eq!(store.count("held").await, 0);
    let found = store.read(&keys(&["a", "b"])).await.unwrap().inbox;
    let known: Vec<_> = found.iter().map(|row| (row.message_id.as_str(), row.receiver.as_str())).collect();
    assert_eq!(known, [("a", "s")], "to a receiver that knows it now, the message is new");
    let leased = lease(store, "me").await.rows;
    let envelopes: Vec<_> = leased.iter().map(|row| (*row.envelope).clone()).collect();
    assert_eq!(envelopes, [envelope("b"), envelope("a"), one], "as they came, in their order, without attempts");
    assert!(leased.iter().all(|row| row.destination == Destination::Endpoint("e".into())));
    assert_eq!(store.column("outbox", "kind", "a").await, [Some("retry".into())]);
    assert_eq!(store.release(&process("new", &[])).await.unwrap(), 0);
}

/// A retry that an older process held, because it does not know the receiver, comes back as that receiver's retry: else
/// its inbox row, which waits for it, would take it for a duplicate.
pub async fn a_retry_that_an_older_process_held_comes_back_as_the_retry(store: &impl Lab) {
    let retry = crate::with!(envelope("m"), receiver = Some("r".into()), attempt = 3);
    let held = crate::with!(
        held_in("m", HeldReason::Version),
        receiver = String::new(),
        saga_id = None,
        envelope = Arc::new(retry.clone())
    );
    let claims = vec![
        crate::with!(inbox_row("m"), result = InboxResult::Retrying, attempts = 3),
        crate::with!(inbox_row("m"), receiver = String::new(), result = InboxResult::Held, attempts = 0),
    ];
    write(store, crate::with!(writes(), claims = claims, held_in = vec![held])).await.unwrap();
    assert_eq!(store.release(&process("new", &[])).await.unwrap(), 1);
    let rows = lease(store, "me").await.rows;
    assert_eq!(rows.iter().map(|row| &*row.envelope).collect::<Vec<_>>(), [&retry], "as it was put off");
    let found = store.read(&keys(&["m"])).await.unwrap().inbox;
    let known: Vec<_> = found.iter().map(|row| (row.receiver.as_str(), row.result, row.attempts)).collect();
    assert_eq!(known, [("r", InboxResult::Retrying, 3)], "the receiver still waits for it");
}

/// B20: an instance that a newer version wrote is woken by a process of that version, by one message at a time.
pub async fn b20_an_instance_of_a_newer_version_is_woken_once(store: &impl Lab) {
    let mut newer = instance(1, 0);
    newer.row.version = 2;
    let held = ["x", "y"].map(|id| held_in(id, HeldReason::Version));
    write(store, crate::with!(writes(), instances = vec![newer], held_in = held.into())).await.unwrap();
    let of_version = |version| crate::with!(process("p", &[]), charts = vec![chart(version)]);
    assert_eq!(store.release(&of_version(1)).await.unwrap(), 0);
    assert_eq!(store.release(&of_version(2)).await.unwrap(), 1);
    assert_eq!(store.release(&of_version(3)).await.unwrap(), 0, "it has a wake-up already");
    assert_eq!((store.count("held").await, store.count("outbox").await), (2, 1), "they stay until it runs");
    let wake = lease(store, "me").await.rows.pop().expect("a wake-up is due");
    assert_eq!(wake.destination, Destination::Endpoint("e".into()));
    assert_eq!((wake.envelope.type_name.as_str(), wake.envelope.receiver.as_deref()), (Envelope::WAKE, Some("saga")));
    assert_eq!(wake.envelope.saga.as_ref().map(|saga| saga.id.as_str()), Some("7"));
    store.delete_confirmed(&[wake.id]).await.unwrap();
    assert_eq!(store.release(&of_version(2)).await.unwrap(), 1, "what is still held is woken again");
    let again = lease(store, "me").await.rows.pop().expect("a wake-up is due");
    assert_ne!(again.envelope.message_id, wake.envelope.message_id, "the inbox would swallow it");
}

/// A process without the saga, or without the type, leaves held messages alone; so does a process of another endpoint.
pub async fn what_this_process_does_not_know_stays_held(store: &impl Lab) {
    let paused = [held_in("paused", HeldReason::Paused), held_in("failed", HeldReason::Failed)];
    write(store, crate::with!(writes(), held_in = paused.into())).await.unwrap();
    write(store, crate::with!(unknown(&["y"]), held_in = vec![held_in("x", HeldReason::Version)])).await.unwrap();
    let other = crate::with!(process("p", &[]), endpoint = "other".into(), charts = vec![chart(9)]);
    assert_eq!(store.release(&other).await.unwrap(), 0);
    let nothing = crate::with!(process("p", &[]), types = Vec::new());
    assert_eq!(store.release(&nothing).await.unwrap(), 0);
    let version_one = crate::with!(process("p", &[]), types = Vec::new(), charts = vec![chart(1)]);
    assert_eq!(store.release(&version_one).await.unwrap(), 1, "whose instance is gone is woken too");
    assert_eq!(store.count("held").await, 3);
}

/// O-055: endpoints that share a database share nothing in it.
pub async fn o_055_what_belongs_to_one_endpoint_is_not_anothers(store: &impl Lab) {
    let rows = vec![outbox_row("due", None, false), outbox_row("far", Some(WEEK), false)];
    let held = [("early", HeldReason::Early), ("version", HeldReason::Version)];
    let held = held.map(|(id, reason)| crate::with!(held_in(id, reason), expires = Some(LEASE))).to_vec();
    let all = crate::with!(unknown(&["y"]), outbox = rows, instances = vec![instance(1, 0)]);
    write(store, all).await.unwrap();
    write(store, crate::with!(writes(), held_in = held, claims = vec![inbox_row("m")])).await.unwrap();
    let sent = outbox_row("sent", None, true);
    write(store, crate::with!(writes(), lease = Duration::ZERO, outbox = vec![sent])).await.unwrap();
    store.heartbeat(&process("mine", &[])).await.unwrap();
    let times = [
        ("inbox", "handled_at"),
        ("held", "expires_at"),
        ("outbox", "first_attempt_at"),
        ("outbox", "lease_until"),
        ("process", "seen_at"),
    ];
    for (table, column) in times {
        store.age(table, column, WEEK + DEAD).await;
    }
    let tables = ["inbox", "outbox", "held", "saga", "process"];
    let counts = async || {
        let mut counts = Vec::new();
        for table in tables {
            counts.push(store.count(table).await);
        }
        counts
    };
    let before = counts().await;
    let other = crate::with!(process("theirs", &[]), endpoint = "f".into(), charts = vec![chart(9)]);
    let theirs = LeaseRequest::new("f", "theirs", 100, LEASE, WEEK);
    let leased = store.lease(&theirs).await.unwrap();
    assert_eq!((leased.rows.len(), leased.next_due), (0, None));
    assert_eq!(store.release(&other).await.unwrap(), 0);
    assert_eq!(store.reopen("f", "there").await.unwrap(), 0);
    assert_eq!(store.sweep("f", WEEK).await.unwrap().rows, 0);
    assert_eq!(counts().await, before);
    let found = store.read(&crate::with!(keys(&["m"]), endpoint = "f".into())).await.unwrap();
    assert!(found.inbox.is_empty(), "what one endpoint has handled is new to the other");
    let reasons = store.column("held", "reason", "early").await;
    assert_eq!(reasons, [Some("early".into())], "it is not for the other to let it expire");
    assert_eq!(lease(store, "me").await.rows.len(), 1, "the one whose time has come");
}
