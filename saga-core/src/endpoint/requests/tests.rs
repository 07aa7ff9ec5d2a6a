//! Requests over a link in the test's hands. Time is tokio's and paused.

use super::*;
use crate::{
    Command, Message, Outcome, Pending, Reply, Request, Requested, TransportError, TransportErrorKind, port::Topology,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

#[derive(Command, Serialize, Deserialize)]
#[command(to = "desk", outcome = Answered)]
struct Ask1 {
    n: u64,
}

#[derive(Debug, PartialEq, Reply, Serialize, Deserialize)]
struct Yes {
    n: u64,
}

#[derive(Debug, PartialEq, Outcome)]
enum Answered {
    Yes(Yes),
}

/// The broker's ends of a link.
struct Ends {
    topology: Topology,
    deliveries: mpsc::UnboundedSender<Delivery>,
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
    reports: mpsc::UnboundedSender<Report>,
    state: watch::Sender<LinkState>,
}

/// Hands the ends of each link to the test; refuses with what it is given.
struct Broker {
    links: mpsc::UnboundedSender<Ends>,
    refuses: Mutex<Option<TransportError>>,
}

#[async_trait]
impl Transport for Broker {
    async fn attach(&self, topology: Topology, _: LinkLimits) -> Result<Link, TransportError> {
        if let Some(error) = self.refuses.lock().unwrap().take() {
            return Err(error);
        }
        let (deliveries, incoming) = mpsc::unbounded_channel();
        let (sender, outgoing) = mpsc::unbounded_channel();
        let (reports, reported) = mpsc::unbounded_channel();
        let (up, state) = watch::channel(LinkState::Up);
        self.links.send(Ends { topology, deliveries, outgoing, reports, state: up }).unwrap();
        Ok(Link::new(incoming, sender, reported, state))
    }
}

struct Rig {
    requests: Arc<Requests>,
    links: mpsc::UnboundedReceiver<Ends>,
    stop: CancellationToken,
}

impl Rig {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        Self::refused(change, None)
    }

    fn refused(change: impl FnOnce(&mut Settings), refuses: Option<TransportError>) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        let (links, linked) = mpsc::unbounded_channel();
        let (requests, asks) = Requests::new("web", "web-1-a", &settings);
        let stop = CancellationToken::new();
        let broker = Arc::new(Broker { links, refuses: Mutex::new(refuses) });
        tokio::spawn(run(requests.clone(), broker, settings, asks, stop.clone()));
        Self { requests, links: linked, stop }
    }

    fn request(&self, n: u64, limit: u64) -> JoinHandle<Result<Requested<Ask1>, RequestError>> {
        tokio::spawn(Request::new(self.requests.clone(), &Ask1 { n }).within(secs(limit)))
    }

    async fn link(&mut self) -> Ends {
        self.links.recv().await.expect("a link was expected")
    }
}

impl Ends {
    async fn sent(&mut self) -> Outgoing {
        self.outgoing.recv().await.expect("a command was expected")
    }

    fn report(&self, sent: &Outgoing, fate: Fate) {
        self.reports.send(Report { row: sent.row, fate }).unwrap();
    }

    /// Answers. What is returned says whether the answer was acknowledged, once it is settled.
    fn answer(&self, sent: &Outgoing, n: u64) -> oneshot::Receiver<bool> {
        let (settled, settles) = oneshot::channel();
        let mut envelope = Envelope::new("a", Yes::TYPE, serde_json::to_vec(&Yes { n }).unwrap());
        envelope.causation_id = Some(sent.envelope.message_id.clone());
        let ack = Ack::new(move |acked| _ = settled.send(acked));
        self.deliveries.send(Delivery::new(Arc::new(envelope), ack)).unwrap();
        settles
    }
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn answered(outcome: Result<Requested<Ask1>, RequestError>) -> u64 {
    match outcome {
        Ok(Requested::Answered(Answered::Yes(Yes { n }))) => n,
        other => panic!("an answer was expected: {other:?}"),
    }
}

fn pending(outcome: Result<Requested<Ask1>, RequestError>) -> Pending<Ask1> {
    match outcome {
        Ok(Requested::Pending(pending)) => pending,
        other => panic!("no answer was expected: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_made_for_the_first_request_and_each_answer_finds_its_request() {
    let mut rig = Rig::new(|_| {});
    assert!(tokio::time::timeout(secs(60), rig.links.recv()).await.is_err(), "nobody has asked yet");
    let (one, two) = (rig.request(1, 1), rig.request(2, 1));
    let mut link = rig.link().await;
    assert!(link.topology.temporary && link.topology.endpoint == "web-1-a#requests", "{:?}", link.topology);
    let (first, second) = (link.sent().await, link.sent().await);
    assert_eq!(first.destination, Destination::Endpoint("desk".into()));
    assert_eq!(first.envelope.reply_to.as_deref(), Some("web-1-a#requests"));
    assert_eq!(first.envelope.message_id, first.row.to_string());
    let settled = [link.answer(&second, 20), link.answer(&first, 10)];
    for settled in settled {
        assert!(settled.await.unwrap(), "the answer is acknowledged");
    }
    assert_eq!((answered(one.await.unwrap()), answered(two.await.unwrap())), (10, 20));
    link.report(&first, Fate::Confirmed);
    let three = rig.request(3, 1);
    let third = link.sent().await;
    link.answer(&third, 30);
    assert_eq!(answered(three.await.unwrap()), 30);
    assert!(rig.links.is_empty(), "one queue for all");
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_it_is_pending_and_can_be_waited_for_again() {
    let mut rig = Rig::new(|_| {});
    let asked = rig.request(1, 1);
    let mut link = rig.link().await;
    let sent = link.sent().await;
    link.report(&sent, Fate::Confirmed);
    let waits = pending(asked.await.unwrap());
    assert_eq!(waits.id(), sent.row);
    let waits = pending(waits.within(secs(5)).await);
    link.answer(&sent, 7);
    assert_eq!(answered(waits.within(secs(5)).await), 7);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_dropped() {
    let mut rig = Rig::new(|_| {});
    let asked = rig.request(1, 1);
    let mut link = rig.link().await;
    let sent = link.sent().await;
    link.report(&sent, Fate::Confirmed);
    drop(pending(asked.await.unwrap()));
    assert!(link.answer(&sent, 7).await.unwrap(), "a late answer is acknowledged, so that it comes no more");
}

#[tokio::test(start_paused = true)]
async fn what_no_queue_takes_and_what_the_broker_refuses_are_errors_at_once() {
    let mut rig = Rig::new(|settings| settings.body_bytes_max = 20);
    let began = Instant::now();
    let (one, two) = (rig.request(1, 60), rig.request(2, 60));
    let mut link = rig.link().await;
    let (first, second) = (link.sent().await, link.sent().await);
    link.report(&first, Fate::Unroutable("no queue".into()));
    link.report(&second, Fate::Refused("no".into()));
    let error = one.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Unroutable);
    assert!(error.to_string().contains("`desk` has no queue"), "{error}");
    assert_eq!(two.await.unwrap().unwrap_err().kind(), RequestErrorKind::Refused);
    let error = rig.request(u64::MAX, 60).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Refused);
    assert!(error.to_string().contains("`body_bytes_max`"), "{error}");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_type_says_which_are_known() {
    let mut rig = Rig::new(|_| {});
    let asked = rig.request(1, 60);
    let mut link = rig.link().await;
    let sent = link.sent().await;
    let mut envelope = Envelope::new("a", "No", "{}");
    envelope.conversation_id = sent.envelope.conversation_id.clone(); // as a stranger echoes the correlation id
    link.deliveries.send(Delivery::new(Arc::new(envelope), Ack::new(|_| {}))).unwrap();
    let error = asked.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Unreadable);
    assert!(error.to_string().contains("`No` is none of its outcomes: Yes"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_fate_is_unknown_goes_again_under_the_same_id() {
    let mut rig = Rig::new(|_| {});
    let asked = rig.request(1, 60);
    let mut link = rig.link().await;
    let first = link.sent().await;
    link.report(&first, Fate::Unknown("the connection broke".into()));
    let again = link.sent().await;
    assert_eq!(first.envelope, again.envelope);
    for _ in 1..TRIES_MAX {
        link.report(&again, Fate::Unknown("the connection broke".into()));
    }
    assert_eq!(asked.await.unwrap().unwrap_err().kind(), RequestErrorKind::Unconfirmed);
}

/// Who reads that it is not handled sends it again, and it is handled twice.
#[tokio::test(start_paused = true)]
async fn a_command_that_may_have_arrived_is_never_said_not_to_be_handled() {
    let mut rig = Rig::new(|_| {});
    let mut link = None;
    for fate in [Fate::Unroutable("deleted".into()), Fate::Refused("no".into()), Fate::QueueRefused("nack".into())] {
        let asked = rig.request(1, 60);
        if link.is_none() {
            link = Some(rig.link().await);
        }
        let link = link.as_mut().expect("it was made for the first request");
        let first = link.sent().await;
        link.report(&first, Fate::Unknown("the connection broke".into()));
        let again = link.sent().await;
        link.report(&again, fate.clone());
        let error = asked.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), RequestErrorKind::Unconfirmed, "{fate:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_link_is_down_the_time_limit_ends_with_an_error() {
    let mut rig = Rig::new(|_| {});
    let asked = rig.request(1, 2);
    let mut link = rig.link().await;
    link.sent().await;
    link.state.send_replace(LinkState::Down("the cable is cut".into()));
    let error = asked.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Unconfirmed);
    assert!(error.to_string().contains("the cable is cut"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_refuses_is_asked_again_by_a_later_request() {
    let refuses = TransportError::new(TransportErrorKind::Denied, "no");
    let mut rig = Rig::refused(|_| {}, Some(refuses));
    let error = rig.request(1, 60).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Unreachable);
    let asked = rig.request(2, 60);
    let mut link = rig.link().await;
    let sent = link.sent().await;
    link.answer(&sent, 2);
    assert_eq!(answered(asked.await.unwrap()), 2);
    // the transport ends: those that wait are told, and the next request makes a new link
    let (lost, Ends { deliveries, .. }) = (rig.request(3, 60), link);
    tokio::task::yield_now().await;
    drop(deliveries);
    assert_eq!(lost.await.unwrap().unwrap_err().kind(), RequestErrorKind::Unconfirmed);
    drop(rig.request(4, 60));
    rig.link().await;
}

#[tokio::test(start_paused = true)]
async fn places_and_bytes_are_bounded_and_a_dropped_future_gives_its_place_free() {
    let mut rig = Rig::new(|settings| (settings.requests, settings.request_bytes) = (2, 10_000));
    let (one, two) = (rig.request(1, 600), rig.request(2, 600));
    let mut link = rig.link().await;
    let (first, second) = (link.sent().await, link.sent().await);
    let error = rig.request(3, 1).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Busy);
    let four = rig.request(4, 600);
    one.abort();
    assert!(one.await.is_err(), "its future is dropped");
    let waits = tokio::time::timeout(secs(1), link.sent()).await;
    assert!(waits.is_err(), "its command is not reported yet, so it has its place");
    link.report(&first, Fate::Confirmed);
    let fourth = link.sent().await;
    link.report(&second, Fate::Confirmed);
    drop(link.answer(&second, 2));
    link.report(&fourth, Fate::Confirmed);
    link.answer(&fourth, 4);
    assert_eq!((answered(two.await.unwrap()), answered(four.await.unwrap())), (2, 4));
    assert_eq!((rig.requests.places.available_permits(), rig.requests.lock().open.len()), (2, 0));

    let mut rig = Rig::new(|settings| settings.request_bytes = 10); // `{"n":1}` has 7 bytes
    let (one, two) = (rig.request(1, 600), rig.request(2, 600));
    let mut link = rig.link().await;
    let first = link.sent().await;
    assert!(tokio::time::timeout(secs(1), link.sent()).await.is_err(), "two bodies are too many");
    link.report(&first, Fate::Confirmed);
    let second = link.sent().await;
    for (sent, asked) in [(first, one), (second, two)] {
        link.answer(&sent, 0);
        answered(asked.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_has_taken_is_not_acknowledged() {
    let mut rig = Rig::new(|_| {});
    let mut asked = Box::pin(Request::new(rig.requests.clone(), &Ask1 { n: 1 }).within(secs(600)));
    assert!(futures_util::poll!(&mut asked).is_pending());
    let mut link = rig.link().await;
    let sent = link.sent().await;
    let mut settled = link.answer(&sent, 1);
    assert!(tokio::time::timeout(secs(1), &mut settled).await.is_err(), "it counts against the prefetch");
    drop(asked);
    assert!(!settled.await.unwrap(), "it goes back");
    assert!(link.answer(&sent, 1).await.unwrap(), "and comes again for nobody");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_endpoint_leaves_nobody_waiting() {
    let mut rig = Rig::new(|settings| settings.requests = 1);
    let (open, waits) = (rig.request(1, 600), rig.request(2, 600));
    rig.link().await.sent().await;
    rig.stop.cancel();
    assert_eq!(open.await.unwrap().unwrap_err().kind(), RequestErrorKind::Stopped);
    assert_eq!(waits.await.unwrap().unwrap_err().kind(), RequestErrorKind::Stopped);
    assert_eq!(rig.request(3, 600).await.unwrap().unwrap_err().kind(), RequestErrorKind::Stopped);
}
