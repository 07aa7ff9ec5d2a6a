//! Aliases with what waits for them, and the other fields of instances.

use super::*;
use crate::eventually;
use saga_core::{AliasesFound, FieldRow, HeldWanted};

/// `saga by reference`, with this value.
fn alias(value: &str) -> InstanceKey {
    InstanceKey { saga: "saga by reference".into(), id: value.into() }
}

fn row(value: &str, id: &str) -> FieldRow {
    FieldRow::alias(alias(value), InstanceKey { saga: "saga".into(), id: id.into() })
}

/// A field that is no alias.
fn field(name: &str, value: &str, id: &str) -> FieldRow {
    let key = InstanceKey { saga: format!("saga by {name}"), id: value.into() };
    FieldRow::new(key, InstanceKey { saga: "saga".into(), id: id.into() })
}

/// The instance `saga/ID`, new.
fn new(id: &str) -> InstanceWrite {
    let mut new = instance(1, 0);
    new.row.key.id = id.into();
    new
}

/// What a unit knows of aliases.
async fn found<S: Store>(store: &S, values: &[&str]) -> AliasesFound {
    let mut unit = store.begin(&[5], LIMIT).await.expect("a unit begins");
    assert_eq!(unit.lock(&[6, 7]).await.expect("locks are tried"), [0; 0]);
    let aliases: Vec<InstanceKey> = values.iter().map(|value| alias(value)).collect();
    let found = unit.aliases("e", &aliases).await.expect("aliases are read");
    unit.rollback().await.expect("a unit is rolled back");
    found
}

fn sorted(mut rows: Vec<FieldRow>) -> Vec<FieldRow> {
    rows.sort_unstable();
    rows
}

/// A message that waits for an alias.
fn early(message_id: &str, value: &str) -> HeldIn {
    let soon = Some(Duration::ZERO);
    let held = crate::with!(held_in(message_id, HeldReason::Early), saga_id = Some(value.into()), expires = soon);
    crate::with!(held, alias = Some("saga by reference".into()))
}

/// S-084: a value of an alias has one instance, compared byte for byte.
pub async fn s_084_an_alias_is_one_instances(store: &impl Lab) {
    let both = vec![row("a", "7"), row("A", "8")];
    write(store, crate::with!(writes(), instances = vec![new("7"), new("8")], fields_in = both.clone())).await.unwrap();
    assert_eq!(sorted(store.aliases(&[alias("A"), alias("a"), alias("b")]).await.unwrap()), sorted(both.clone()));
    assert_eq!(sorted(found(store, &["a", "b", "A"]).await.rows), sorted(both));
    for owner in ["7", "8"] {
        let again = crate::with!(writes(), fields_in = vec![row("b", owner), row("a", owner)]);
        assert_eq!(kind(write(store, again).await), CONFLICT, "{owner} takes what 7 has");
    }
    assert_eq!(store.count("field").await, 2, "a conflict writes nothing");
    // nobody gives back what another has
    write(store, crate::with!(writes(), fields_out = vec![row("a", "8")])).await.unwrap();
    assert_eq!(store.count("field").await, 2, "nor what it has by that");
    write(store, crate::with!(writes(), fields_out = vec![row("A", "8")])).await.unwrap();
    assert_eq!(store.aliases(&[alias("a"), alias("A")]).await.unwrap(), [row("a", "7")]);
    write(store, crate::with!(writes(), fields_out = vec![row("a", "7")])).await.unwrap();
    write(store, crate::with!(writes(), fields_in = vec![row("a", "8")])).await.unwrap();
    assert_eq!(store.aliases(&[alias("a")]).await.unwrap(), [row("a", "8")]);
}

/// S-082: what waits for an alias waits for its instance from then on, in the order of its arrival.
pub async fn s_082_what_waits_for_an_alias_meets_its_instance(store: &impl Lab) {
    for (id, value) in [("m1", "a"), ("other", "b"), ("m2", "a")] {
        write(store, crate::with!(writes(), held_in = vec![early(id, value)])).await.unwrap();
    }
    let failed = crate::with!(early("failed", "a"), reason = HeldReason::Failed, expires = None);
    write(store, crate::with!(writes(), held_in = vec![failed])).await.unwrap();
    write(store, crate::with!(Write::new("f", "me", LEASE), held_in = vec![early("elsewhere", "a")])).await.unwrap();
    assert_eq!(found(store, &["a", "c"]).await.awaited, [alias("a")]);
    assert!(read(store, &[]).await.waiting.is_empty(), "nothing waits for the instance yet");
    let met = crate::with!(writes(), instances = vec![new("7")], fields_in = vec![row("a", "7")]);
    write(store, crate::with!(met, aliases_met = vec![row("a", "7")])).await.unwrap();
    assert!(found(store, &["a"]).await.awaited.is_empty());
    let waiting = read(store, &[]).await.waiting;
    assert_eq!(
        waiting.iter().map(|waiting| (waiting.reason, waiting.count)).collect::<Vec<_>>(),
        [(HeldReason::Early, 2)]
    );
    let mut unit = store.begin(&[4], LIMIT).await.unwrap();
    let wanted = [HeldWanted::new(key(), "test.Message", HeldReason::Early)];
    let held = unit.held("e", &wanted, 100, i64::MAX).await.unwrap();
    unit.rollback().await.unwrap();
    assert_eq!(held.iter().map(|row| &*row.envelope.message_id).collect::<Vec<_>>(), ["m1", "m2"]);
    assert_eq!((held[0].receiver.as_str(), held[0].saga_id.as_deref()), ("saga", Some("7")));
    for id in ["other", "failed", "elsewhere"] {
        assert_eq!(store.column("held", "saga", id).await, [Some("saga by reference".into())], "{id}");
    }
    for (id, saga) in [("m1", "saga"), ("m2", "saga")] {
        assert_eq!(store.column("held", "saga", id).await, [Some(saga.into())], "{id}");
    }
    // one that is held again, for the instance, waits for it
    write(store, crate::with!(writes(), held_in = vec![held_in("other", HeldReason::Paused)])).await.unwrap();
    assert_eq!(store.column("held", "saga", "other").await, [Some("saga".into())]);
}

/// S-083: after its time, an event that waits for an alias is discarded, and anything else waits for a person.
pub async fn s_083_what_waits_for_an_alias_does_not_wait_for_ever(store: &impl Lab) {
    let process = crate::with!(saga_core::Process::new("e", "me"), charts = vec![chart(1)]);
    store.register(&process).await.unwrap();
    for (id, type_name, from) in
        [("event", "test.Event", "another"), ("answer", "test.Event", "saga"), ("command", "test.Command", "another")]
    {
        let mut envelope = envelope(id);
        envelope.type_name = type_name.into();
        envelope.saga.as_mut().expect("it has a sender").saga = from.into();
        let envelope = Arc::new(envelope);
        let claim = InboxRow::new("saga", envelope.clone(), InboxResult::Held);
        let held = crate::with!(early(id, "a"), envelope = envelope);
        write(store, crate::with!(writes(), held_in = vec![held], claims = vec![claim])).await.unwrap();
    }
    eventually("the time to be up", || async {
        store.sweep("e", WEEK).await.unwrap();
        store.column("held", "reason", "event").await.is_empty().then_some(())
    })
    .await;
    for id in ["answer", "command"] {
        assert_eq!(store.column("held", "reason", id).await, [Some("failed".into())], "{id}");
    }
    assert_eq!(store.column("inbox", "note", "event").await, [Some("no instance came in time".into())]);
    assert!(found(store, &["a"]).await.awaited.is_empty(), "nobody waits for it but a person");
}

/// O-053: the aliases of an instance go with it.
pub async fn o_053_aliases_go_with_their_instance(store: &impl Lab) {
    let process = crate::with!(saga_core::Process::new("e", "me"), charts = vec![chart(1)]);
    store.register(&process).await.unwrap();
    let mut done = new("8");
    done.row.done = true;
    let aliases = vec![row("a", "7"), row("b", "8"), row("c", "8")];
    write(store, crate::with!(writes(), instances = vec![new("7"), done], fields_in = aliases)).await.unwrap();
    store.age("saga", "completed_at", WEEK * 2).await;
    store.sweep("e", WEEK).await.unwrap();
    assert_eq!((store.count("saga").await, store.count("field").await), (1, 1));
    assert_eq!(found(store, &["a", "b", "c"]).await.rows, [row("a", "7")]);
}

/// S-086: many instances have one value of a field; it changes and goes with the instance, and is no alias.
pub async fn s_086_a_value_of_a_field_has_many_instances(store: &impl Lab) {
    let process = crate::with!(saga_core::Process::new("e", "me"), charts = vec![chart(1)]);
    store.register(&process).await.unwrap();
    let begun =
        vec![field("customer", "a", "7"), field("region", "eu", "7"), field("customer", "a", "8"), row("a", "8")];
    write(store, crate::with!(writes(), instances = vec![new("7"), new("8")], fields_in = begun.clone()))
        .await
        .unwrap();
    assert_eq!(sorted(store.fields().await), sorted(begun.clone()));
    assert_eq!(found(store, &["a", "eu"]).await.rows, [row("a", "8")], "a field is no alias");
    // whatever its value is now; another field, and that of another instance, stay
    let other = field("customer", "b", "7");
    for _ in 0..2 {
        let changed = crate::with!(writes(), fields_out = vec![other.clone()], fields_in = vec![other.clone()]);
        write(store, changed).await.unwrap();
    }
    let after = [&begun[1..], &[other]].concat();
    assert_eq!(sorted(store.fields().await), sorted(after));
    let gone = vec![field("region", "", "7"), field("region", "eu", "8")];
    write(store, crate::with!(writes(), fields_out = gone)).await.unwrap();
    assert_eq!(store.count("field").await, 3, "what is not there goes unnoticed");
    let mut done = instance(2, 1);
    (done.row.key.id, done.row.done) = ("7".into(), true);
    write(store, crate::with!(writes(), instances = vec![done])).await.unwrap();
    store.age("saga", "completed_at", WEEK * 2).await;
    store.sweep("e", WEEK).await.unwrap();
    assert_eq!(sorted(store.fields().await), sorted(begun[2..].to_vec()), "they go with their instance");
}
