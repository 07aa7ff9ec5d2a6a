//! What a person decided, and what the tables remember of it.

use super::*;
use async_trait::async_trait;
use saga_core::{Context, Handle, HandlerError, Retries};
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};
use tests::{
    eventually,
    house::{held, one_held, retry},
    model::{Arrived, Listener, Work, Worker},
    store_suite::WEEK,
    works::work,
};

/// O-008: the journal says by whom and why it was given up, and it does not run again.
pub(crate) async fn o_008_a_discarded_message_that_comes_again_is_a_duplicate<
    Db: Effects + Base,
    T: Transport + Clone,
>(
    two: Two<Db, T>,
) {
    two.db().create_effects().await;
    let handler = Worker::default();
    let worker = two.endpoint(0, "worker").handle::<Work>(handler.clone()).start().await.unwrap();
    let mut stranger = two.stranger(0).await;
    let refused = work(1, "permanent");
    stranger.send("worker", std::slice::from_ref(&refused)).await;
    let found = one_held(two.db()).await;
    let done = two.db().held_discard(&[found.row()], "ann", "no use").await;
    assert_eq!(done.count("discarded"), 1, "{done:?}");
    stranger.send("worker", &[refused, work(2, "")]).await; // one lane: the other comes behind it
    eventually("the other's effect", || async { (two.db().effects().await == [2]).then_some(()) }).await;
    assert_eq!((handler.runs(), held(two.db()).await.len()), (2, 0));
    let journal = "SELECT result || ': ' || note FROM {s}inbox WHERE message_id = 'w-1'";
    assert_eq!(two.db().text(journal).await, "discarded: discarded by ann: no use");
    stop([worker]).await;
}

/// the order is a row of the outbox.
pub(crate) async fn r_028_a_retry_that_is_ordered_while_nobody_runs_is_taken_up_at_the_next_start<
    Db: Effects + Base,
    T: Transport + Clone,
>(
    two: Two<Db, T>,
) {
    two.db().create_effects().await;
    let handler = Worker::default();
    handler.runs.store(1, Ordering::SeqCst); // it fails until its second run
    let start = async || {
        let builder = two.endpoint(0, "worker").retries(Retries::none());
        builder.handle::<Work>(handler.clone()).start().await.unwrap()
    };
    let worker = start().await;
    two.stranger(0).await.send("worker", &[work(1, "fail twice")]).await;
    let found = one_held(two.db()).await;
    stop([worker]).await;
    assert_eq!(retry(two.db(), &found).await, 1);
    assert_eq!((handler.runs(), two.count("{s}outbox").await), (2, 1));
    let worker = start().await;
    eventually("the effect", || async { (two.db().effects().await == [1]).then_some(()) }).await;
    eventually("an empty outbox", || async { (two.count("{s}outbox WHERE kind = 'retry'").await == 0).then_some(()) })
        .await;
    assert_eq!((handler.runs(), held(two.db()).await.len()), (3, 0));
    assert_eq!(two.count("{s}inbox WHERE result = 'handled' AND attempts = 2").await, 1);
    stop([worker]).await;
}

/// Fails until it is told not to, and keeps the messages that it saw.
#[derive(Clone, Default)]
struct Stubborn {
    works: Arc<AtomicBool>,
    saw: Arc<Mutex<Vec<Envelope>>>,
}

#[async_trait]
impl<Db: Effects> Handle<Arrived, Db> for Stubborn {
    async fn handle(&self, arrived: Arrived, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        self.saw.lock().expect("nobody panics with this lock").push(cx.envelope().clone());
        Db::effect(cx.tx().await?, arrived.id).await?;
        if self.works.load(Ordering::SeqCst) { Ok(()) } else { Err(HandlerError::permanent("not yet")) }
    }

    fn name(&self) -> &'static str {
        "stubborn"
    }
}

/// of two receivers of an event one is held for 40 days; the marks of both are kept.
pub(crate) async fn r_029_what_was_held_longer_than_the_retention_runs_without_repeating_its_neighbours_effect<
    Db: Effects + Base,
    T: Transport + Clone,
>(
    two: Two<Db, T>,
) {
    two.db().create_effects().await;
    let (heard, stubborn) = (Listener::default(), Stubborn::default());
    let builder = two.endpoint(0, "listener").subscribe::<Arrived>(heard.clone());
    let listener = builder.subscribe::<Arrived>(stubborn.clone()).start().await.unwrap();
    publish(&listener, [Arrived { id: 1 }]).await;
    let found = one_held(two.db()).await;
    assert_eq!(found.receiver, "stubborn");
    eventually("the other receiver", || async {
        (two.count("{s}inbox WHERE result = 'handled'").await == 1).then_some(())
    })
    .await;
    let month = Duration::from_secs(40 * 86_400);
    two.db().age("inbox", "handled_at", month).await;
    two.db().age("held", "held_at", month).await;
    two.db().sweep("listener", WEEK).await.unwrap();
    assert_eq!((two.count("{s}inbox").await, two.count("{s}held").await), (2, 1));

    let again = stubborn.saw.lock().expect("nobody panics with this lock")[0].clone();
    let mut stranger = two.stranger(0).await;
    stranger.send("listener", std::slice::from_ref(&again)).await;
    stubborn.works.store(true, Ordering::SeqCst);
    assert_eq!(retry(two.db(), &one_held(two.db()).await).await, 1);
    eventually("the effect", || async { (two.db().effects().await == [1]).then_some(()) }).await;
    stranger.send("listener", &[again]).await;
    publish(&listener, [Arrived { id: 2 }]).await; // it comes behind it
    eventually("the next one", || async { (two.db().effects().await.len() >= 2).then_some(()) }).await;
    eventually("the next one", || async { (heard.heard().len() >= 2).then_some(()) }).await;
    assert_eq!((two.db().effects().await, heard.heard()), (vec![1, 2], vec![1, 2]));
    assert_eq!(stubborn.saw.lock().expect("nobody panics with this lock").len(), 3);
    stop([listener]).await;
}
