//! Messages that wait.

use super::*;
use crate::eventually;
use saga_core::{HeldKey, HeldRow, HeldWanted};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

fn wanted(type_name: &str, reason: HeldReason) -> HeldWanted {
    HeldWanted::new(key(), type_name, reason)
}

async fn held<S: Store>(store: &S, wanted: &[HeldWanted], rows_max: i64) -> Vec<HeldRow> {
    held_in_bytes(store, wanted, rows_max, i64::MAX).await
}

async fn held_in_bytes<S: Store>(store: &S, wanted: &[HeldWanted], rows_max: i64, bytes_max: i64) -> Vec<HeldRow> {
    let mut unit = store.begin(&[4], LIMIT).await.expect("a unit begins");
    let held = unit.held("e", wanted, rows_max, bytes_max).await.expect("held messages are read");
    unit.rollback().await.expect("a unit is rolled back");
    held
}

fn ids(held: &[HeldRow]) -> Vec<&str> {
    held.iter().map(|row| row.envelope.message_id.as_str()).collect()
}

/// The reason why a message is held, if it is.
async fn reason(store: &impl Lab, message_id: &str) -> Option<String> {
    store.column("held", "reason", message_id).await.pop().flatten()
}

fn typed(mut row: HeldIn, type_name: &str) -> HeldIn {
    let mut envelope = (*row.envelope).clone();
    envelope.type_name = type_name.into();
    row.envelope = Arc::new(envelope);
    row
}

/// Held messages keep their order of arrival, and their bytes.
pub async fn held_messages_keep_order_and_bytes(store: &impl Lab) {
    let mut envelope = envelope("raw");
    envelope.body = Bytes::from_static(&[0xff, 0x00, b'{', 0x80]);
    let raw = crate::with!(held_in("raw", HeldReason::Paused), envelope = Arc::new(envelope.clone()), attempts = 3);
    for row in [held_in("b", HeldReason::Early), held_in("a", HeldReason::Paused), raw] {
        write(store, crate::with!(writes(), held_in = vec![row])).await.unwrap();
    }
    let again = crate::with!(held_in("b", HeldReason::Paused), attempts = 5);
    write(store, crate::with!(writes(), held_in = vec![again])).await.unwrap();
    let all = [wanted("test.Message", HeldReason::Paused)];
    let found = held(store, &all, 100).await;
    assert_eq!(ids(&found), ["b", "a", "raw"]);
    assert_eq!(found[0].attempts, 5, "as it was held the last time");
    assert_eq!((&*found[2].envelope, found[2].attempts), (&envelope, 3));
    assert_eq!((found[2].receiver.as_str(), found[2].saga_id.as_deref()), ("saga", Some("7")));
    assert!(found[0].arrival < found[1].arrival && found[1].arrival < found[2].arrival);
    let gone = |id: &str| HeldKey::new("saga", id);
    write(store, crate::with!(writes(), held_out = vec![gone("b"), gone("a"), gone("never")])).await.unwrap();
    assert_eq!(ids(&held(store, &all, 100).await), ["raw"]);
}

/// O-055: a message that is held for two receivers, or at two endpoints, goes for each by itself.
pub async fn a_held_message_goes_for_one_receiver_at_one_endpoint(store: &impl Lab) {
    let of = |receiver: &str| crate::with!(held_in("m", HeldReason::Early), receiver = receiver.into());
    write(store, crate::with!(writes(), held_in = vec![of("saga"), of("another")])).await.unwrap();
    write(store, crate::with!(Write::new("f", "me", LEASE), held_in = vec![of("saga")])).await.unwrap();
    write(store, crate::with!(writes(), held_out = vec![HeldKey::new("saga", "m")])).await.unwrap();
    let mut left = store.column("held", "receiver", "m").await;
    left.sort_unstable();
    assert_eq!(left, [Some("another".into()), Some("saga".into())]);
    assert!(read(store, &[]).await.waiting.is_empty(), "what waits at another endpoint is not ours");
    assert!(held(store, &[wanted("test.Message", HeldReason::Early)], 100).await.is_empty());
}

/// A message that is held again waits as long as it was said the last time.
pub async fn what_is_held_again_has_its_last_time(store: &impl Lab) {
    let row = |id: &str, reason, expires| crate::with!(held_in(id, reason), expires = Some(expires));
    let (early, version) = (HeldReason::Early, HeldReason::Version);
    let first = vec![row("soon", early, WEEK), row("later", early, Duration::ZERO)];
    write(store, crate::with!(writes(), held_in = first)).await.unwrap();
    let again = vec![row("soon", version, Duration::ZERO), row("later", version, WEEK)];
    write(store, crate::with!(writes(), held_in = again)).await.unwrap();
    eventually("the time to be up", || async {
        (store.sweep("e", WEEK).await.unwrap().without_version == 1).then_some(())
    })
    .await;
    assert_eq!(reason(store, "soon").await.as_deref(), Some("undecodable"));
    assert_eq!(reason(store, "later").await.as_deref(), Some("version"));
}

/// X11: held messages are counted without being read, and only those that fit are read.
pub async fn what_waits_is_counted_and_read_by_type(store: &impl Lab) {
    let many = (0..1200).map(|n| typed(held_in(&format!("m{n}"), HeldReason::Early), "test.Other"));
    write(store, crate::with!(writes(), held_in = many.collect())).await.unwrap();
    let fits = ["y", "x", "z"].map(|id| typed(held_in(id, HeldReason::Early), "test.Fits"));
    for row in fits {
        write(store, crate::with!(writes(), held_in = vec![row])).await.unwrap();
    }
    write(store, crate::with!(writes(), held_in = vec![held_in("paused", HeldReason::Paused)])).await.unwrap();
    let mut waiting = read(store, &[]).await.waiting;
    waiting.sort_by_key(|waiting| waiting.count);
    let waiting: Vec<_> = waiting.iter().map(|w| (w.type_name.as_str(), w.reason, w.count)).collect();
    let expected = [
        ("test.Message", HeldReason::Paused, 1),
        ("test.Fits", HeldReason::Early, 3),
        ("test.Other", HeldReason::Early, 1200),
    ];
    assert_eq!(waiting, expected);
    let fitting = [wanted("test.Fits", HeldReason::Early), wanted("test.Message", HeldReason::Paused)];
    assert_eq!(ids(&held(store, &fitting, 100).await), ["y", "x", "z", "paused"]);
    assert_eq!(ids(&held(store, &fitting, 2).await), ["y", "x"], "at most two, over all types");
    assert_eq!(held(store, &[wanted("test.Fits", HeldReason::Paused)], 100).await.len(), 0);
    assert_eq!(held(store, &[], 100).await.len(), 0);
}

/// M3: an instance of another saga with the same id, with more held messages than fit, hides nothing.
pub async fn m3_another_saga_with_the_same_id_starves_nobody(store: &impl Lab) {
    let other = |n| crate::with!(held_in(&format!("o{n}"), HeldReason::Early), receiver = "other".into());
    write(store, crate::with!(writes(), held_in = (0..20).map(other).collect())).await.unwrap();
    write(store, crate::with!(writes(), held_in = vec![held_in("mine", HeldReason::Early)])).await.unwrap();
    let waiting = read(store, &[]).await.waiting;
    assert_eq!(waiting.iter().map(|w| (&w.key, w.count)).collect::<Vec<_>>(), [(&key(), 1)]);
    let other = InstanceKey { saga: "other".into(), id: "7".into() };
    let both = [
        crate::with!(wanted("test.Message", HeldReason::Early), key = other),
        wanted("test.Message", HeldReason::Early),
    ];
    let found = held(store, &both, 10).await;
    assert_eq!(found.iter().filter(|row| row.receiver == "other").count(), 10, "the limit is each instance's own");
    assert_eq!(found.last().map(|row| row.envelope.message_id.as_str()), Some("mine"));
}

/// Of bodies that are large few are read at a time; each instance gets its first ones before another gets more.
pub async fn held_messages_are_read_up_to_so_many_bytes(store: &impl Lab) {
    let other = InstanceKey { saga: "other".into(), id: "7".into() };
    for (id, receiver) in [("a1", "saga"), ("a2", "saga"), ("a3", "saga"), ("b1", "other"), ("b2", "other")] {
        let large = crate::with!(envelope(id), body = Bytes::from(vec![b' '; 100_000]));
        let row = crate::with!(held_in(id, HeldReason::Early), receiver = receiver.into(), envelope = Arc::new(large));
        write(store, crate::with!(writes(), held_in = vec![row])).await.unwrap();
    }
    let mine = wanted("test.Message", HeldReason::Early);
    let both = [crate::with!(mine.clone(), key = other), mine];
    let read = async |rows_max, bytes_max| {
        let held = held_in_bytes(store, &both, rows_max, bytes_max).await;
        assert!(held.iter().all(|row| row.envelope.body.len() == 100_000));
        ids(&held).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(read(9, i64::MAX).await, ["a1", "a2", "a3", "b1", "b2"]);
    assert_eq!(read(9, 300_001).await, ["a1", "a2", "b1", "b2"]);
    assert_eq!(read(9, 250_000).await, ["a1", "a2", "b1"]);
    assert_eq!(read(1, 250_000).await, ["a1", "b1"]);
    assert_eq!(read(9, 1).await, ["a1"]);
    assert_eq!(read(9, 0).await, [""; 0]);
}

/// O-053: old inbox rows and done instances are deleted, except those that a held message refers to.
pub async fn o_053_old_rows_go_unless_something_held_needs_them(store: &impl Lab) {
    let mut done = instance(1, 0);
    done.row.done = true;
    let mut other = done.clone();
    other.row.key.id = "8".into();
    let waiting = crate::with!(inbox_row("waiting"), result = InboxResult::Retrying);
    let rows = crate::with!(
        writes(),
        claims = vec![inbox_row("old"), inbox_row("kept"), waiting],
        instances = vec![done, other],
        held_in = vec![
            crate::with!(held_in("kept", HeldReason::Failed), receiver = "another".into()),
            held_in("waits", HeldReason::Failed),
        ]
    );
    let process = crate::with!(saga_core::Process::new("e", ""), charts = vec![chart(1)]);
    store.register(&process).await.unwrap();
    write(store, rows).await.unwrap();
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 0, "nothing is old yet");
    store.age("inbox", "handled_at", WEEK + LEASE).await;
    store.age("saga", "completed_at", WEEK + LEASE).await;
    assert_eq!(store.sweep("other", WEEK).await.unwrap().rows, 0, "these are another endpoint's");
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 2);
    let mut found = store.read(&keys(&["old", "kept", "waiting"])).await.unwrap().inbox;
    found.sort_unstable_by(|a, b| a.message_id.cmp(&b.message_id));
    assert_eq!(found.iter().map(|row| row.message_id.as_str()).collect::<Vec<_>>(), ["kept", "waiting"]);
    assert_eq!(store.count("saga").await, 1);
    assert_eq!(read(store, &[]).await.instances.len(), 1, "a held message waits for it");
}

/// An early message with its inbox row; `from` is the saga of its sender.
fn early(message_id: &str, type_name: &str, from: &str) -> Write {
    let mut row = typed(held_in(message_id, HeldReason::Early), type_name);
    let mut envelope = (*row.envelope).clone();
    envelope.saga = Some(SagaRef { saga: from.into(), id: "7".into(), entered: None, timer: None });
    row.envelope = Arc::new(envelope);
    row.expires = Some(Duration::ZERO);
    let claim = crate::with!(
        inbox_row(message_id),
        receiver = "saga".into(),
        result = InboxResult::Held,
        envelope = row.envelope.clone(),
        saga_id = Some("7".into())
    );
    crate::with!(writes(), claims = vec![claim], held_in = vec![row])
}

async fn registered(store: &impl Lab) {
    let process = crate::with!(saga_core::Process::new("e", ""), charts = vec![chart(1)]);
    store.register(&process).await.expect("a process registers");
}

/// S-042: an early event whose instance did not come in time is journaled as discarded; an answer and a command stay
/// for a person.
pub async fn s_042_early_messages_do_not_wait_for_ever(store: &impl Lab) {
    registered(store).await;
    for (id, type_name, from) in
        [("event", "test.Event", "another"), ("answer", "test.Event", "saga"), ("command", "test.Command", "another")]
    {
        write(store, early(id, type_name, from)).await.unwrap();
    }
    let [gone, kept] = [const { AtomicU64::new(0) }; 2];
    eventually("the time to be up", || async {
        let swept = store.sweep("e", WEEK).await.unwrap();
        gone.fetch_add(swept.discarded, Relaxed);
        kept.fetch_add(swept.without_instance, Relaxed);
        let over =
            reason(store, "event").await.is_none() && reason(store, "command").await.as_deref() == Some("failed");
        over.then_some(())
    })
    .await;
    assert_eq!(reason(store, "answer").await.as_deref(), Some("failed"));
    assert_eq!((gone.into_inner(), kept.into_inner()), (1, 2), "what was given up, and what waits for a person");
    let found = store.read(&keys(&["event", "answer", "command"])).await.unwrap();
    let mut results: Vec<_> = found.inbox.iter().map(|row| (row.message_id.as_str(), row.result)).collect();
    results.sort_unstable_by_key(|(id, _)| *id);
    let (held, gone) = (InboxResult::Held, InboxResult::Discarded);
    assert_eq!(results, [("answer", held), ("command", held), ("event", gone)]);
    assert_eq!(store.column("inbox", "note", "event").await, [Some("no instance came in time".into())]);
}

/// M2: with more expired messages than one step takes, each is treated according to its kind, and a step is bounded.
pub async fn m2_of_many_expired_events_none_waits_for_a_person(store: &impl Lab) {
    registered(store).await;
    let (mut claims, mut held_in) = (Vec::new(), Vec::new());
    for n in 0..1500 {
        let write = early(&format!("m{n}"), "test.Event", "another");
        claims.extend(write.claims);
        held_in.extend(write.held_in);
    }
    write(store, crate::with!(writes(), claims = claims, held_in = held_in)).await.unwrap();
    let step = || async {
        let swept = store.sweep("e", WEEK).await.unwrap();
        assert_eq!((swept.rows, swept.without_instance), (swept.discarded, 0), "an event was left to a person");
        swept.rows
    };
    eventually("the first step", || async { (step().await == 1000).then_some(()) }).await;
    assert_eq!(store.count("held").await, 500);
    assert_eq!(step().await, 500);
    assert_eq!(store.count("held").await, 0, "an event was left to a person");
}

/// X10: the time to live is for instances that do not exist; once it does, a message waits for a state that takes it.
pub async fn x10_time_does_not_matter_once_the_instance_exists(store: &impl Lab) {
    registered(store).await;
    write(store, crate::with!(early("event", "test.Event", "another"), instances = vec![instance(1, 0)]))
        .await
        .unwrap();
    write(store, early("answer", "test.Event", "saga")).await.unwrap();
    for _ in 0..2 {
        store.age("held", "expires_at", Duration::from_secs(60)).await;
        store.sweep("e", WEEK).await.unwrap();
    }
    for id in ["event", "answer"] {
        assert_eq!(reason(store, id).await.as_deref(), Some("early"), "{id}");
    }
}

/// B6, B7: a message that waits for a newer binary waits for a person in the end.
pub async fn b6_a_message_for_a_newer_version_ends_with_a_person(store: &impl Lab) {
    let row = |id: &str, expires| crate::with!(held_in(id, HeldReason::Version), expires = expires);
    let (soon, later) = (Some(Duration::ZERO), Some(WEEK));
    write(store, crate::with!(writes(), held_in = vec![row("soon", soon), row("later", later)])).await.unwrap();
    eventually("the time to be up", || async {
        (store.sweep("e", WEEK).await.unwrap().without_version == 1).then_some(())
    })
    .await;
    eventually("the reason to be another", || async {
        (reason(store, "soon").await.as_deref() == Some("undecodable")).then_some(())
    })
    .await;
    let error = store.column("held", "error", "soon").await.pop().flatten().unwrap_or_default();
    assert!(error.contains("no process came in time"), "{error}");
    assert_eq!(reason(store, "later").await.as_deref(), Some("version"));
}
