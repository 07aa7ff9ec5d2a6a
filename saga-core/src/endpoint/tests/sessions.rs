//! Messages sent outside handlers.

use super::*;
use crate::{Fate, LinkState};

#[tokio::test(start_paused = true)]
async fn o_041_o_042_t_032_a_session_sends_with_its_commit_or_not_at_all() {
    // a relay that hardly ever looks: what a session commits waits for no look
    let rig = Rig::start(|builder| builder.saga::<Walk>().settings(|settings| settings.poll = secs(3600))).await;
    let mut session = rig.endpoint.session().await.unwrap();
    session.tx().insert("done", 1).unwrap();
    let id = session.publish(Begin { id: 1 }).header("tenant", "north").message_id();
    session.send(Do { n: 1 }).delay(secs(60));
    tokio::time::sleep(secs(1)).await;
    assert_eq!((rig.broker.sent().len(), rig.done()), (0, vec![]));
    session.commit().await.unwrap();
    let at_once = Duration::from_millis(50);
    rig.until_within(at_once, "the event is sent", |rig| rig.broker.sent().len() == 1).await;
    let sent = rig.broker.sent().remove(0).envelope;
    assert_eq!((sent.message_id.clone(), sent.headers["tenant"].as_str()), (id.to_string(), Some("north")));
    // T-032: nothing caused it, so it begins a conversation
    assert_eq!((&sent.conversation_id, &sent.causation_id), (&sent.message_id, &None));
    assert_eq!(rig.done(), [1]);
    tokio::time::sleep(secs(50)).await;
    assert_eq!(rig.broker.sent().len(), 1);
    rig.until("the command is sent", |rig| rig.broker.sent().len() == 2).await;

    let mut session = rig.endpoint.session().await.unwrap();
    session.tx().insert("done", 2).unwrap();
    session.publish(Begin { id: 2 });
    session.rollback().await.unwrap();
    let mut dropped = rig.endpoint.session().await.unwrap();
    dropped.tx().insert("done", 3).unwrap();
    dropped.publish(Begin { id: 3 });
    drop(dropped);
    let mut cancelled = rig.endpoint.session().await.unwrap();
    let task = tokio::spawn(async move {
        cancelled.tx().insert("done", 4).unwrap();
        cancelled.publish(Begin { id: 4 });
        std::future::pending::<()>().await;
        cancelled.commit().await
    });
    tokio::time::sleep(secs(1)).await;
    task.abort();
    let mut panicking = rig.endpoint.session().await.unwrap();
    let panicked = tokio::spawn(async move {
        panicking.tx().insert("done", 5).unwrap();
        panicking.publish(Begin { id: 5 });
        panic!("a request handler panics");
    });
    panicked.await.expect_err("it panicked");
    tokio::time::sleep(secs(60)).await;
    assert_eq!((rig.done(), rig.broker.sent().len(), rig.store.outbox().len()), (vec![1], 2, 0));
}

#[tokio::test(start_paused = true)]
async fn t_013_what_may_not_leave_fails_the_commit_and_leaves_nothing() {
    let rig = Rig::start(|builder| builder.saga::<Walk>().settings(|settings| settings.body_bytes_max = 10)).await;
    let commit = async |post: &dyn Fn(&mut crate::Session<MemoryStore>)| {
        let mut session = rig.endpoint.session().await.unwrap();
        session.tx().insert("done", 1).unwrap();
        post(&mut session);
        let error = session.commit().await.expect_err("it was expected to be refused");
        assert_eq!(error.kind(), StoreErrorKind::Rejected);
        error.to_string()
    };
    let text = commit(&|session| _ = session.publish(Seen { n: f64::NAN })).await;
    assert!(text.contains("NaN"), "{text}");
    let text = commit(&|session| _ = session.publish(Begin { id: 1 }).header("saga", "x")).await;
    assert!(text.contains("`saga`") && text.contains("reserved"), "{text}");
    let text = commit(&|session| _ = session.publish(Begin { id: 1 }).header("note", "a\0b")).await;
    assert!(text.contains("U+0000"), "{text}");
    let text = commit(&|session| _ = session.publish(Begin { id: u64::MAX })).await;
    assert!(text.contains("body_bytes_max"), "{text}");
    assert_eq!((rig.done(), rig.store.outbox().len()), (vec![], 0));
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_outcome_nobody_knows_says_so() {
    let rig = Rig::walk().await;
    for committed in [true, false] {
        rig.store.lose_next_commit(committed);
        let mut session = rig.endpoint.session().await.unwrap();
        session.publish(Begin { id: 1 });
        let error = session.commit().await.expect_err("nobody knows");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    }
    // what was committed leaves all the same: its lease runs out
    rig.until("it is sent", |rig| rig.broker.sent().len() == 1).await;
    rig.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn o_043_a_session_of_an_endpoint_that_is_gone_still_commits_and_another_process_sends() {
    for killed in [false, true] {
        let Rig { store, endpoint, .. } = Rig::walk().await;
        let mut session = endpoint.session().await.unwrap();
        session.publish(Begin { id: 1 });
        match killed {
            true => drop(endpoint),
            false => endpoint.stop().await.unwrap(),
        }
        tokio::time::sleep(secs(1)).await;
        session.commit().await.unwrap();
        let next = Rig::start_on(store, Broker::new(), |builder| builder.saga::<Walk>()).await.unwrap();
        next.until("it is sent", |rig| rig.broker.sent().len() == 1).await;
        next.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn o_044_a_commit_does_not_wait_for_a_broker_that_is_away() {
    let rig = Rig::walk().await;
    rig.broker.link(LinkState::Down("gone".into()));
    rig.broker.fates(|_| Some(Fate::Unknown("gone".into())));
    rig.until("it is known to be away", |rig| rig.endpoint.link() != LinkState::Up).await;
    let began = tokio::time::Instant::now();
    let mut session = rig.endpoint.session().await.unwrap();
    session.tx().insert("done", 1).unwrap();
    let id = session.publish(Begin { id: 1 }).message_id();
    session.commit().await.unwrap();
    assert_eq!((began.elapsed(), rig.done()), (Duration::ZERO, vec![1]));
    tokio::time::sleep(secs(600)).await;
    assert_eq!(rig.the_outbox().envelope.message_id, id.to_string());
    rig.broker.fates(|_| Some(Fate::Confirmed));
    rig.broker.link(LinkState::Up);
    rig.until("it leaves", |rig| rig.store.outbox().is_empty()).await;
    let last = rig.broker.sent().pop().expect("it was sent");
    assert_eq!(last.envelope.message_id, id.to_string());
}

#[tokio::test(start_paused = true)]
async fn o_045_a_session_that_was_open_longer_than_a_lease_sends_once() {
    let rig = Rig::walk().await;
    let mut session = rig.endpoint.session().await.unwrap();
    session.tx().insert("done", 1).unwrap();
    session.publish(Begin { id: 1 });
    tokio::time::sleep(3 * Settings::default().lease).await;
    session.commit().await.unwrap();
    rig.until("it leaves", |rig| rig.store.outbox().is_empty()).await;
    tokio::time::sleep(secs(600)).await;
    let sent: Vec<_> = rig.broker.sent().iter().map(|sent| (sent.attempts, sent.expired)).collect();
    assert_eq!((sent, rig.done()), (vec![(0, 0)], vec![1]), "its lease began with the commit");
}

#[tokio::test(start_paused = true)]
async fn o_046_of_two_sessions_at_once_only_the_one_that_commits_leaves_anything() {
    let rig = Rig::walk().await;
    let (mut kept, mut undone) = (rig.endpoint.session().await.unwrap(), rig.endpoint.session().await.unwrap());
    for (session, id) in [(&mut kept, 1), (&mut undone, 2)] {
        session.tx().insert("done", id).unwrap();
        session.publish(Begin { id });
    }
    let (committed, rolled_back) = tokio::join!(kept.commit(), undone.rollback());
    committed.unwrap();
    rolled_back.unwrap();
    rig.until("it leaves", |rig| rig.store.outbox().is_empty()).await;
    tokio::time::sleep(secs(60)).await;
    let sent = rig.broker.sent();
    assert_eq!((sent.len(), rig.done()), (1, vec![1]));
    assert_eq!(&sent[0].envelope.body[..], br#"{"id":1}"#);
}
