use super::*;
use crate::{ChartMessage, MessageKind};

const HOUR: Duration = Duration::from_secs(3600);

fn done(id: &str) -> InstanceWrite {
    let mut write = instance(1, 0);
    write.row.key.id = id.into();
    write.row.done = true;
    write
}

async fn register(store: &MemoryStore) {
    let event = ChartMessage {
        type_name: "test.Event".into(),
        kind: MessageKind::Event,
        starts: false,
        outcome: Vec::new(),
        rejects_repeats: false,
        returns_repeats: false,
        anyone: false,
        echo: false,
        can_wait: false,
        masked: Vec::new(),
    };
    let chart = Chart { messages: vec![event], ..chart("saga", 1) };
    let process = Process { endpoint: "e".into(), owner: "me".into(), charts: vec![chart], ..Process::default() };
    store.register(&process).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn old_rows_go_unless_something_held_needs_them() {
    let store = MemoryStore::new();
    register(&store).await;
    let rows = Write {
        claims: vec![handled("old"), handled("kept"), inbox("waits", InboxResult::Retrying, 1)],
        instances: vec![done("7"), done("8")],
        held_in: vec![
            HeldIn { receiver: "another".into(), ..held("kept", HeldReason::Failed) },
            held("h", HeldReason::Failed),
        ],
        ..writes()
    };
    write(&store, rows).await.unwrap();
    tokio::time::advance(HOUR).await;
    assert_eq!(store.sweep("e", HOUR).await.unwrap().rows, 0, "nothing is older than an hour");
    tokio::time::advance(HOUR).await;
    assert_eq!(store.sweep("another endpoint", HOUR).await.unwrap().rows, 0);
    assert_eq!(store.sweep("e", HOUR).await.unwrap().rows, 2);
    assert_eq!(store.inbox().iter().map(|row| row.message_id.as_str()).collect::<Vec<_>>(), ["kept", "waits"]);
    assert_eq!(store.instances().iter().map(|row| row.row.key.id.as_str()).collect::<Vec<_>>(), ["7"]);
    assert_eq!(store.sweep("e", Duration::MAX).await.unwrap().rows, 0);
}

#[tokio::test(start_paused = true)]
async fn one_step_is_bounded() {
    let store = MemoryStore::new();
    let claims = (0..1001).map(|n| handled(&n.to_string())).collect();
    write(&store, Write { claims, ..writes() }).await.unwrap();
    tokio::time::advance(HOUR).await;
    for rows in [1000, 1, 0] {
        assert_eq!(store.sweep("e", Duration::ZERO).await.unwrap().rows, rows);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_first_published_too_long_ago_is_held_and_not_leased() {
    let store = MemoryStore::new();
    let leased = OutboxRow { leased: true, ..outbox("stale") };
    write(&store, Write { outbox: vec![leased, outbox("fresh")], lease: WEEK, ..writes() }).await.unwrap();
    tokio::time::advance(HOUR).await;
    assert_eq!(store.sweep("e", Duration::ZERO).await.unwrap().rows, 0, "its lease runs: somebody is publishing it");
    tokio::time::advance(WEEK).await;
    let request = LeaseRequest::new("e", "me", 9, LEASE, WEEK);
    let rows = store.lease(&request).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.envelope.message_id.as_str()).collect::<Vec<_>>(), ["fresh"]);
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 1);
    let held = &store.held()[0];
    assert_eq!((held.reason, held.envelope.message_id.as_str()), (HeldReason::Stranded, "stale"));
    assert_eq!(held.stranded, Some((OutboxKind::Command, Destination::Endpoint("there".into()))));
    assert_eq!(store.outbox().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn early_messages_expire_only_while_their_instance_does_not_exist() {
    let store = MemoryStore::new();
    let early = |saga: &str| HeldIn { receiver: saga.into(), expires: Some(HOUR), ..held("m", HeldReason::Early) };
    let rows = Write { instances: vec![instance(1, 0)], held_in: vec![early("saga"), early("absent")], ..writes() };
    write(&store, rows).await.unwrap();
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 0);
    tokio::time::advance(HOUR * 2).await;
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 2);
    assert_eq!(
        store.sweep("e", WEEK).await.unwrap().rows,
        0,
        "once: for the one whose instance exists time does not matter"
    );
    let reasons: Vec<_> = store.held().into_iter().map(|row| (row.receiver, row.reason)).collect();
    assert_eq!(reasons, [("saga".to_owned(), HeldReason::Early), ("absent".to_owned(), HeldReason::Failed)]);
}

#[tokio::test(start_paused = true)]
async fn an_early_event_that_answers_nobody_is_journaled_as_discarded() {
    let store = MemoryStore::new();
    register(&store).await;
    let event = |id: &str, from: &str| {
        let mut envelope = Envelope::new(id, "test.Event", "{}");
        envelope.saga = Some(SagaRef { saga: from.into(), id: "7".into(), entered: None, timer: None });
        Arc::new(envelope)
    };
    for (id, from) in [("event", "another"), ("answer", "saga")] {
        let claim = InboxRow { receiver: "saga".into(), envelope: event(id, from), ..inbox(id, InboxResult::Held, 0) };
        let held = HeldIn { envelope: event(id, from), expires: Some(HOUR), ..held(id, HeldReason::Early) };
        write(&store, Write { claims: vec![claim], held_in: vec![held], ..writes() }).await.unwrap();
    }
    tokio::time::advance(HOUR * 2).await;
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 2);
    let results: Vec<_> = store.inbox().into_iter().map(|row| (row.message_id, row.result)).collect();
    assert_eq!(results, [("answer".into(), InboxResult::Held), ("event".into(), InboxResult::Discarded)]);
    let held = store.held();
    assert_eq!((held.len(), held[0].reason), (1, HeldReason::Failed));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_version_in_vain_is_for_a_person() {
    let store = MemoryStore::new();
    let version = HeldIn { expires: Some(HOUR), ..held("m", HeldReason::Version) };
    write(&store, Write { instances: vec![instance(1, 0)], held_in: vec![version], ..writes() }).await.unwrap();
    tokio::time::advance(HOUR * 2).await;
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 1);
    let held = &store.held()[0];
    assert_eq!((held.reason, held.expires_at_us), (HeldReason::Undecodable, None));
    assert!(held.error.is_some());
}

#[tokio::test]
async fn a_process_that_knows_the_type_gets_what_was_held_for_it() {
    let store = MemoryStore::new();
    let unknown = HeldIn { receiver: String::new(), saga_id: None, ..held("m", HeldReason::Version) };
    let claim = InboxRow { receiver: String::new(), ..inbox("m", InboxResult::Held, 0) };
    write(&store, Write { claims: vec![claim], held_in: vec![unknown], ..writes() }).await.unwrap();
    let mut process = Process { endpoint: "e".into(), owner: "me".into(), ..Process::default() };
    assert_eq!(store.release(&process).await.unwrap(), 0, "it does not know the type either");
    process.types = vec!["test.Message".into()];
    assert_eq!(store.release(&Process { endpoint: "another".into(), ..process.clone() }).await.unwrap(), 0);
    assert_eq!(store.release(&process).await.unwrap(), 1);
    assert!(store.held().is_empty());
    let row = lease(&store, "me").await.rows.pop().expect("the message is due");
    assert_eq!((row.envelope, row.destination), (envelope("m"), Destination::Endpoint("e".into())));
}

#[tokio::test]
async fn an_instance_is_woken_once_by_a_process_of_its_version() {
    let store = MemoryStore::new();
    let mut newer = instance(1, 0);
    newer.row.version = 2;
    let held_in = vec![held("m", HeldReason::Version), held("n", HeldReason::Version)];
    write(&store, Write { instances: vec![newer], held_in, ..writes() }).await.unwrap();
    let process =
        |version| Process { endpoint: "e".into(), charts: vec![chart("saga", version)], ..Process::default() };
    assert_eq!(store.release(&process(1)).await.unwrap(), 0);
    assert_eq!(store.release(&process(2)).await.unwrap(), 1);
    assert_eq!(store.release(&process(2)).await.unwrap(), 0, "the wake-up is on its way");
    let row = lease(&store, "me").await.rows.pop().expect("a wake-up is due");
    assert_eq!((row.envelope.type_name.as_str(), row.envelope.receiver.as_deref()), (Envelope::WAKE, Some("saga")));
    assert_eq!(store.held().len(), 2, "the instance's own unit takes them");
}

#[tokio::test(start_paused = true)]
async fn processes_that_ended_without_a_word_are_kept_for_a_day() {
    let store = MemoryStore::new();
    register(&store).await;
    tokio::time::advance(HOUR * 24).await;
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 0);
    tokio::time::advance(HOUR).await;
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 1);
    assert!(store.processes().is_empty());
}
