//! What handlers post: later messages, headers, and what becomes of the properties of a message on its way.

use super::*;
use async_trait::async_trait;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Posts one event for later, one without delay and one at once; fails as often as it is told. Keeps what it saw.
#[derive(Clone, Default)]
struct Poster(Arc<Mutex<Saw>>);

#[derive(Default)]
struct Saw {
    fails: usize,
    envelopes: Vec<Envelope>,
}

impl Poster {
    fn that_fails(fails: usize) -> Self {
        Self(Arc::new(Mutex::new(Saw { fails, envelopes: Vec::new() })))
    }

    fn envelopes(&self) -> Vec<Envelope> {
        self.0.lock().unwrap().envelopes.clone()
    }
}

#[async_trait]
impl crate::Handle<Do, MemoryStore> for Poster {
    async fn handle(
        &self,
        Do { n }: Do,
        cx: &mut crate::Context<'_, MemoryStore>,
    ) -> Result<Deed, crate::HandlerError> {
        cx.publish(Seen { n: 3.0 }).delay(secs(3));
        cx.publish(Seen { n: 0.0 }).delay(Duration::ZERO);
        cx.publish(Seen { n: -1.0 });
        let mut saw = self.0.lock().unwrap();
        saw.envelopes.push(cx.envelope().clone());
        if saw.envelopes.len() <= saw.fails {
            return Err(crate::HandlerError::transient("the handler fails"));
        }
        Ok(Did { n }.into())
    }
}

async fn posting(poster: &Poster, retries: Retries) -> Rig {
    Rig::start(|builder| builder.retries(retries).handle::<Do>(poster.clone())).await
}

/// The events that were sent, in the order of their numbers.
fn seen(rig: &Rig) -> Vec<f64> {
    let sent = rig.broker.sent_of("Seen").into_iter();
    let mut numbers: Vec<f64> =
        sent.map(|sent| serde_json::from_slice::<Seen>(&sent.envelope.body).expect("it was sent").n).collect();
    numbers.sort_unstable_by(f64::total_cmp);
    numbers
}

/// Restated: a delay is a span, and none is negative; the shortest is none.
#[tokio::test(start_paused = true)]
async fn o_047_a_delayed_message_leaves_when_it_is_due_and_one_without_delay_at_once() {
    let rig = posting(&Poster::default(), Retries::none()).await;
    let began = Instant::now();
    rig.broker.deliver(command(1));
    rig.until_within(ms(100), "two leave at once", |rig| seen(rig) == [-1.0, 0.0]).await;
    tokio::time::sleep_until(began + ms(2_900)).await;
    assert_eq!(seen(&rig), [-1.0, 0.0]);
    tokio::time::sleep_until(began + ms(3_100)).await;
    assert_eq!(seen(&rig), [-1.0, 0.0, 3.0]);
    rig.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn o_048_a_delayed_message_of_a_handler_that_fails_does_not_exist() {
    let rig = posting(&Poster::that_fails(1), Retries::none()).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    assert_eq!(rig.the_held().reason, HeldReason::Failed);
    assert_eq!(rig.store.outbox(), []);
    tokio::time::sleep(secs(3600)).await;
    assert_eq!(rig.broker.sent().len(), 0);
}

/// Cancels the message whose id it finds, then fails as often as it is told.
#[derive(Clone, Default)]
struct Canceller(Arc<Mutex<Cancelling>>);

#[derive(Default)]
struct Cancelling {
    id: Option<uuid::Uuid>,
    /// Runs that are left, of which only the last succeeds.
    runs: usize,
    /// What each cancellation said.
    said: Vec<bool>,
}

#[async_trait]
impl crate::Handle<Do, MemoryStore> for Canceller {
    async fn handle(
        &self,
        Do { n }: Do,
        cx: &mut crate::Context<'_, MemoryStore>,
    ) -> Result<Deed, crate::HandlerError> {
        let regretted = cx.publish(Seen { n: 1.0 }).message_id();
        assert!(cx.cancel(regretted).await?, "it has not left");
        let id = self.0.lock().unwrap().id.expect("the test says which");
        let cancelled = cx.cancel(id).await?;
        let mut this = self.0.lock().unwrap();
        this.said.push(cancelled);
        this.runs = this.runs.saturating_sub(1);
        if this.runs > 0 { Err(crate::HandlerError::transient("by order")) } else { Ok(Did { n }.into()) }
    }
}

#[tokio::test(start_paused = true)]
async fn o_049_a_handler_cancels_a_delayed_message_when_it_commits() {
    let canceller = Canceller::default();
    let retries = Retries::none().immediate(1);
    let rig = Rig::start(|builder| builder.retries(retries).handle::<Do>(canceller.clone())).await;
    let mut session = rig.endpoint.session().await.unwrap();
    let id = session.publish(Seen { n: 0.0 }).delay(secs(60)).message_id();
    session.commit().await.unwrap();
    *canceller.0.lock().unwrap() = Cancelling { id: Some(id), runs: 2, said: Vec::new() };
    // the database is away at first: no run is counted
    rig.store.fail_next(Operation::TakeBack, StoreErrorKind::Unavailable);
    rig.broker.deliver_all([command(1), command(2)]);
    rig.all_acked().await;
    assert_eq!(canceller.0.lock().unwrap().said, [true, true, false], "a run that failed has cancelled nothing");
    assert_eq!((rig.inbox("do-1").attempts, rig.inbox("do-2").attempts), (2, 1));
    tokio::time::sleep(secs(120)).await;
    assert_eq!(seen(&rig), [] as [f64; 0]);
}

#[tokio::test(start_paused = true)]
async fn o_049_what_was_tried_may_have_arrived_though_it_was_cancelled() {
    let canceller = Canceller::default();
    let rig = Rig::start(|builder| builder.handle::<Do>(canceller.clone())).await;
    rig.broker.fates(|sent| {
        Some(match sent.envelope.type_name.as_str() {
            "Seen" => crate::Fate::Unknown("no confirm".into()),
            _ => crate::Fate::Confirmed,
        })
    });
    for by_handler in [true, false] {
        let mut session = rig.endpoint.session().await.unwrap();
        let id = session.publish(Seen { n: 0.0 }).message_id();
        session.commit().await.unwrap();
        let waits = |rig: &Rig| rig.the_outbox().attempts > 4 && rig.the_outbox().lease_owner.is_none();
        rig.until("it was tried in vain", waits).await;
        let is_gone_for_sure = if by_handler {
            *canceller.0.lock().unwrap() = Cancelling { id: Some(id), runs: 0, said: Vec::new() };
            rig.broker.deliver(command(1));
            rig.all_acked().await;
            canceller.0.lock().unwrap().said[0]
        } else {
            let mut session = rig.endpoint.session().await.unwrap();
            let gone = session.cancel(id).await.unwrap();
            session.commit().await.unwrap();
            gone
        };
        assert!(!is_gone_for_sure, "by a handler: {by_handler}");
        assert_eq!(rig.store.outbox(), [], "it is not tried any more");
    }
}

#[tokio::test(start_paused = true)]
async fn r_013_after_two_rounds_a_message_is_the_original_and_nothing_of_its_retries_goes_on() {
    let poster = Poster::that_fails(2);
    let rig = posting(&poster, Retries::none().delayed([secs(60), secs(60)])).await;
    let mut original = Envelope {
        conversation_id: "talk".into(),
        causation_id: Some("cause".into()),
        sender: Some("client".into()),
        sent_at_us: Some(1_795_000_000_123_456),
        reply_to: Some("asker".into()),
        ..command(1)
    };
    original.headers.insert("tenant".into(), "é".into());
    rig.broker.deliver(original.clone());
    rig.until_within(secs(200), "it is handled at last", |rig| seen(rig).len() == 3).await;
    rig.until("its answer is sent", |rig| rig.broker.sent_of("shop.Did").len() == 1).await;
    let runs = poster.envelopes();
    assert_eq!((runs.len(), &runs[0]), (3, &original));
    assert_eq!((runs[2].attempt, runs[2].receiver.as_deref()), (2, Some("shop.Do")));
    assert_eq!(Envelope { attempt: 0, receiver: None, ..runs[2].clone() }, original);
    for sent in rig.broker.sent_of("Seen").iter().chain(&rig.broker.sent_of("shop.Did")) {
        let sent = &sent.envelope;
        assert_eq!((sent.conversation_id.as_str(), sent.causation_id.as_deref()), ("talk", Some("do-1")));
        assert_eq!((sent.attempt, sent.receiver.as_deref(), sent.headers.len()), (0, None, 0));
    }
}

/// Publishes as many events as it is told.
struct Many;

#[async_trait]
impl crate::Handle<Do, MemoryStore> for Many {
    async fn handle(
        &self,
        Do { n }: Do,
        cx: &mut crate::Context<'_, MemoryStore>,
    ) -> Result<Deed, crate::HandlerError> {
        for number in 0..u32::try_from(n)? {
            cx.publish(Seen { n: number.into() });
        }
        Ok(Did { n }.into())
    }
}

#[tokio::test(start_paused = true)]
async fn o_022_five_thousand_messages_of_one_handler_commit_together_and_all_arrive() {
    let rig = Rig::start(|builder| builder.handle::<Do>(Many).settings(|settings| settings.window = 100)).await;
    rig.broker.fates(|_| None);
    rig.broker.deliver(command(5000));
    rig.all_acked().await;
    assert_eq!(rig.store.outbox().len(), 5000, "with the commit");
    tokio::time::sleep(secs(10)).await;
    assert_eq!(rig.broker.sent().len(), 100, "no more than the window is in memory");
    rig.broker.fates(|_| Some(crate::Fate::Confirmed));
    for sent in rig.broker.sent() {
        rig.broker.report(sent.row, crate::Fate::Confirmed);
    }
    rig.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
    assert!(seen(&rig).into_iter().eq((0..5000).map(f64::from)), "each once");
}

/// One statement deletes no more than 5000 rows.
#[tokio::test(start_paused = true)]
async fn what_is_confirmed_together_is_deleted_however_much_it_is() {
    let rig = Rig::start(|builder| builder.handle::<Do>(Many).settings(|settings| settings.window = 20_000)).await;
    rig.broker.fates(|_| None);
    rig.broker.deliver(command(10_500));
    rig.until("all are sent", |rig| rig.broker.sent().len() == 10_500).await;
    for sent in rig.broker.sent() {
        rig.broker.report(sent.row, crate::Fate::Confirmed);
    }
    rig.until_within(secs(2), "the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
}

/// Sends itself the next command: the first bears headers, the others do not; the seventh bears one that is reserved.
#[derive(Clone, Default)]
struct Chain(Arc<Mutex<Vec<Envelope>>>);

#[async_trait]
impl crate::Handle<Do, MemoryStore> for Chain {
    async fn handle(
        &self,
        Do { n }: Do,
        cx: &mut crate::Context<'_, MemoryStore>,
    ) -> Result<Deed, crate::HandlerError> {
        self.0.lock().unwrap().push(cx.envelope().clone());
        match n {
            1 => _ = cx.send(Do { n: 2 }).header("tenant", "é").header("empty", ""),
            2 => _ = cx.send(Do { n: 3 }),
            7 => _ = cx.send(Do { n: 8 }).header("saga", "x"),
            _ => {}
        }
        Ok(Did { n }.into())
    }
}

#[tokio::test(start_paused = true)]
async fn t_034_headers_arrive_unchanged_go_no_further_and_reserved_ones_are_refused() {
    let chain = Chain::default();
    let rig = Rig::start(|builder| builder.retries(Retries::none()).handle::<Do>(chain.clone())).await;
    rig.broker.deliver(command(1));
    rig.until("the chain is handled", |_| chain.0.lock().unwrap().len() == 3).await;
    let came = chain.0.lock().unwrap().clone();
    let texts: Vec<_> = came[1].headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(texts, [("empty", Some("")), ("tenant", Some("é"))]);
    assert!(came[2].headers.is_empty(), "{:?}", came[2].headers);
    rig.broker.deliver(command(7));
    rig.until("it is held", |rig| rig.held().len() == 1).await;
    let error = rig.the_held().error.unwrap_or_default();
    assert!(error.contains("`saga`") && error.contains("reserved"), "{error}");
    rig.until("nothing is left", |rig| rig.store.outbox().is_empty()).await;
    assert_eq!(chain.0.lock().unwrap().len(), 4, "8 does not exist");
}
