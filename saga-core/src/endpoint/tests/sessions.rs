//! Messages sent outside handlers.

use super::*;

#[tokio::test(start_paused = true)]
async fn o_042_a_session_sends_with_its_commit_or_not_at_all() {
    let rig = Rig::walk().await;
    let mut session = rig.endpoint.session().await.unwrap();
    session.tx().insert("done", 1).unwrap();
    let id = session.publish(Begin { id: 1 }).header("tenant", "north").message_id();
    session.send(Do { n: 1 }).delay(secs(60));
    tokio::time::sleep(secs(1)).await;
    assert_eq!((rig.broker.sent().len(), rig.done()), (0, vec![]));
    session.commit().await.unwrap();
    rig.until("the event is sent", |rig| rig.broker.sent().len() == 1).await;
    let sent = rig.broker.sent().remove(0).envelope;
    assert_eq!((sent.message_id.clone(), sent.headers["tenant"].as_str()), (id.to_string(), Some("north")));
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
async fn o_043_a_session_of_a_stopped_endpoint_still_commits_and_another_process_sends() {
    let rig = Rig::walk().await;
    let mut session = rig.endpoint.session().await.unwrap();
    session.publish(Begin { id: 1 });
    rig.endpoint.stop().await.unwrap();
    session.commit().await.unwrap();
    let next = Rig::start_on(rig.store, Broker::new(), |builder| builder.saga::<Walk>()).await.unwrap();
    next.until("it is sent", |rig| rig.broker.sent().len() == 1).await;
}
