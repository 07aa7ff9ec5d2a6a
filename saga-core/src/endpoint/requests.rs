//! The requests of a process: commands that are sent at once, without an outbox, and whose answers come to a queue that
//! the process has for itself. The queue and its link exist from the first request on.
//!
//! | from | to | what | bound |
//! |---|---|---|---|
//! | request | task | commands to send | places, and bytes of bodies |
//! | task | link | the same | the same |
//! | link | task | reports; answers | the same; the prefetch, as large as there are places, and its bytes |
//! | task | request | one answer or error | one for each place |
//!
//! A request has a place until its caller has the answer or wants it no more, and until its command is reported. An
//! answer is acknowledged when its caller takes it, so the prefetch bounds the answers that nobody has taken yet.

use super::{
    request::{RequestError, RequestErrorKind},
    settings::Settings,
    trouble::Trouble,
};
use crate::{
    Ack, Backoff, Delivery, Destination, Envelope, Fate, Link, LinkLimits, LinkState, Outgoing, Report, Topology,
    Transport,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What the name of a queue for answers ends with. It begins with the process's name, so each is used once.
const QUEUE: &str = "#requests";
/// How often a command is sent whose fate is unknown.
const TRIES_MAX: u32 = 10;
/// The pauses between these tries, and between tries to attach.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Whether this is the queue of a process for the answers to its requests. Once gone, it does not come back.
pub(super) fn is_for_answers(destination: &Destination) -> bool {
    matches!(destination, Destination::ReplyTo(name) if name.ends_with(QUEUE))
}

/// The requests of a process.
#[derive(Debug)]
pub(crate) struct Requests {
    endpoint: String,
    reply_to: String,
    body_bytes_max: usize,
    asks: mpsc::UnboundedSender<Ask>,
    state: Mutex<State>,
    places: Arc<Semaphore>,
    /// Bytes of bodies that the broker has not confirmed.
    bytes: Arc<Semaphore>,
    bytes_max: usize,
    trouble: Trouble,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that somebody waits for, by their message ids.
    open: BTreeMap<Uuid, Open>,
    link: Option<watch::Receiver<LinkState>>,
}

#[derive(Debug)]
struct Open {
    answer: oneshot::Sender<Answer>,
    sent: Sent,
}

/// How far a command has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    NotYet,
    /// The link has it.
    Handed,
    Confirmed,
}

/// An answer that came.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) envelope: Arc<Envelope>,
    pub(super) ack: Ack,
}

type Answer = Result<Came, RequestError>;

/// A command to send.
#[derive(Debug)]
pub(crate) struct Ask {
    id: Uuid,
    to: Destination,
    envelope: Arc<Envelope>,
    tries: u32,
    _place: Arc<OwnedSemaphorePermit>,
    _bytes: OwnedSemaphorePermit,
}

/// Somebody waits for an answer. Dropped, nobody does any more.
#[derive(Debug)]
pub(super) struct Waiting {
    requests: Arc<Requests>,
    id: Uuid,
    answer: oneshot::Receiver<Answer>,
    _place: Arc<OwnedSemaphorePermit>,
}

impl Requests {
    /// The requests of the process `owner`, and what its task takes.
    pub(super) fn new(endpoint: &str, owner: &str, settings: &Settings) -> (Arc<Self>, mpsc::UnboundedReceiver<Ask>) {
        let (asks, asked) = mpsc::unbounded_channel();
        let bytes_max = settings.request_bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let requests = Self {
            endpoint: endpoint.into(),
            reply_to: format!("{owner}{QUEUE}"),
            body_bytes_max: settings.body_bytes_max,
            asks,
            state: Mutex::default(),
            places: Arc::new(Semaphore::new(settings.requests.into())),
            bytes: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
            trouble: Trouble::default(),
        };
        (Arc::new(requests), asked)
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn reply_to(&self) -> &str {
        &self.reply_to
    }

    pub(super) fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place, then has the command sent.
    pub(super) async fn ask(self: &Arc<Self>, id: Uuid, envelope: Envelope, to: &str) -> Result<Waiting, RequestError> {
        let stopped = || RequestError::stopped(&self.endpoint);
        // a body that is larger than all bodies may be goes when it is alone
        let bytes = envelope.body.len().min(self.bytes_max) as u32;
        let place = Arc::new(self.places.clone().acquire_owned().await.map_err(|_| stopped())?);
        let bytes = self.bytes.clone().acquire_many_owned(bytes).await.map_err(|_| stopped())?;
        let (sender, answer) = oneshot::channel();
        let waiting = Waiting { requests: self.clone(), id, answer, _place: place.clone() };
        self.lock().open.insert(id, Open { answer: sender, sent: Sent::NotYet });
        let (to, envelope) = (Destination::Endpoint(to.into()), Arc::new(envelope));
        let ask = Ask { id, to, envelope, tries: 0, _place: place, _bytes: bytes };
        self.asks.send(ask).map_err(|_| stopped())?;
        Ok(waiting)
    }

    /// Notes how far a command has got. Says whether somebody waits for its answer.
    fn note(&self, id: Uuid, sent: Sent) -> bool {
        let mut state = self.lock();
        let open = state.open.get_mut(&id);
        open.map(|open| open.sent = sent).is_some()
    }

    /// Something got through.
    fn works(&self) {
        if let Some(lasted) = self.trouble.ends() {
            tracing::info!(endpoint = self.endpoint, ?lasted, "requests go through again");
        }
    }

    fn end(&self, id: Uuid, answer: Answer) {
        let open = self.lock().open.remove(&id);
        match open {
            // the caller may have gone just now: an answer goes back then, and comes again for nobody
            Some(open) => drop(open.answer.send(answer)),
            None => {
                if let Ok(Came { envelope, ack }) = answer {
                    let (endpoint, type_name) = (&self.endpoint, &envelope.type_name);
                    tracing::debug!(endpoint, %id, type_name, "nobody waits for this answer any more");
                    ack.ack();
                }
            }
        }
    }

    fn end_all(&self, error: &RequestError) {
        let open = std::mem::take(&mut self.lock().open);
        for open in open.into_values() {
            let _ = open.answer.send(Err(error.clone())); // its caller may have gone
        }
    }
}

impl Waiting {
    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    pub(super) async fn answer(&mut self) -> Answer {
        let answer = (&mut self.answer).await;
        answer.unwrap_or_else(|_| Err(RequestError::stopped(&self.requests.endpoint)))
    }

    /// Why an answer is not even on its way when the time is up. What was not sent then, never is.
    pub(super) fn trouble(&self) -> Option<RequestError> {
        let mut state = self.requests.lock();
        let link = state.link.as_ref().map(|link| link.borrow().clone());
        match (state.open.get(&self.id)?.sent, link) {
            (Sent::NotYet, _) => {
                state.open.remove(&self.id);
                let text = "the broker could not be reached in time; the request was not sent";
                Some(RequestError::new(RequestErrorKind::Unreachable, text))
            }
            (Sent::Handed, Some(state)) if state != LinkState::Up => Some(RequestError::unconfirmed(&state)),
            (Sent::Handed | Sent::Confirmed, _) => None,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.requests.lock().open.remove(&self.id);
    }
}

/// When the task is gone, nobody is left waiting.
struct Ends(Arc<Requests>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.places.close();
        self.0.bytes.close();
        self.0.end_all(&RequestError::stopped(&self.0.endpoint));
    }
}

/// Sends requests and hands their answers out, until the endpoint stops.
pub(super) async fn run(
    requests: Arc<Requests>,
    transport: Arc<dyn Transport>,
    settings: Settings,
    mut asks: mpsc::UnboundedReceiver<Ask>,
    stop: CancellationToken,
) {
    let _ends = Ends(requests.clone());
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let serve = async {
        while let Some(first) = asks.recv().await {
            let error = match attach(&requests, &*transport, &settings).await {
                Ok(link) => {
                    requests.lock().link = Some(link.state.clone());
                    serve(&requests, link, &mut asks, first).await
                }
                Err(error) => {
                    drop(first);
                    RequestError::new(RequestErrorKind::Unreachable, error.to_string())
                }
            };
            if !requests.trouble.is_there() {
                backoff.reset(); // it worked until now
            }
            if let Some(said) = requests.trouble.begins() {
                tracing::warn!(endpoint = requests.endpoint, %error, unsaid = said.unsaid, "requests fail");
            }
            while asks.try_recv().is_ok() {}
            requests.end_all(&error);
            backoff.pause().await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = serve => {}
    }
}

async fn attach(
    requests: &Requests,
    transport: &dyn Transport,
    settings: &Settings,
) -> Result<Link, crate::TransportError> {
    let topology = Topology { temporary: true, bundles: !settings.passive, ..Topology::new(requests.reply_to.clone()) };
    let limits = LinkLimits {
        prefetch: settings.requests,
        prefetch_bytes: settings.prefetch_bytes,
        parallel: settings.requests.into(),
        body_bytes_max: settings.body_bytes_max,
        window: settings.requests.into(),
        confirm: settings.confirm,
        connect: settings.connect,
    };
    transport.attach(topology, limits).await
}

/// Works on one link until it ends. Returns what that means for those that wait.
async fn serve(
    requests: &Requests,
    mut link: Link,
    asks: &mut mpsc::UnboundedReceiver<Ask>,
    first: Ask,
) -> RequestError {
    let mut sending = Sending { requests, outgoing: link.outgoing, in_flight: HashMap::new(), again: BTreeSet::new() };
    sending.send(first);
    loop {
        let again = sending.again.first().map(|(at, _)| *at);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => sending.retry(),
            report = link.reports.recv() => match report {
                Some(report) => sending.reported(report),
                None => break,
            },
            delivery = link.deliveries.recv() => match delivery {
                Some(delivery) => answered(requests, delivery),
                None => break,
            },
            Some(ask) = asks.recv() => sending.send(ask),
        }
    }
    RequestError::new(RequestErrorKind::Unconfirmed, "the transport of the requests has ended")
}

/// An answer names its command as what caused it; one of another program at least echoes the correlation id.
fn answered(requests: &Requests, delivery: Delivery) {
    requests.works();
    let Delivery { envelope, fault, ack, .. } = delivery;
    let ids = [envelope.causation_id.as_deref(), Some(envelope.conversation_id.as_str())];
    let id = ids.into_iter().flatten().find_map(|id| Uuid::parse_str(id).ok()).unwrap_or_default();
    match fault {
        Some(fault) => {
            ack.ack();
            let text = format!("the answer cannot be read: {fault}");
            requests.end(id, Err(RequestError::new(RequestErrorKind::Unreadable, text)));
        }
        None => requests.end(id, Ok(Came { envelope, ack })),
    }
}

struct Sending<'a> {
    requests: &'a Requests,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    /// Commands that are not reported yet, or wait for another try.
    in_flight: HashMap<Uuid, Ask>,
    /// When what is sent again.
    again: BTreeSet<(Instant, Uuid)>,
}

impl Sending<'_> {
    /// Sends a command, unless nobody waits for its answer any more.
    fn send(&mut self, ask: Ask) {
        if ask.tries > 0 || self.requests.note(ask.id, Sent::Handed) {
            let message = Outgoing::new(ask.id, ask.to.clone(), ask.envelope.clone());
            // a link that has ended reports nothing, and its other channels say so
            let _ = self.outgoing.send(Outgoing { attempts: ask.tries, ..message });
            self.in_flight.insert(ask.id, ask);
        }
    }

    fn reported(&mut self, Report { row, fate }: Report) {
        let Some(mut ask) = self.in_flight.remove(&row) else { return };
        let (kind, text) = match fate {
            Fate::Confirmed => {
                self.requests.works();
                self.requests.note(row, Sent::Confirmed);
                return;
            }
            // what became of this try says nothing about an earlier one
            Fate::Unroutable(text) | Fate::Refused(text) | Fate::QueueRefused(text) if ask.tries > 0 => {
                (RequestErrorKind::Unconfirmed, format!("an earlier try may have arrived; the last did not: {text}"))
            }
            Fate::Unroutable(text) => {
                let to = ask.to.name();
                (RequestErrorKind::Unroutable, format!("`{to}` has no queue: has it ever run? ({text})"))
            }
            Fate::Refused(text) | Fate::QueueRefused(text) => (RequestErrorKind::Refused, text),
            Fate::Unknown(text) | Fate::Unanswered(text) if ask.tries + 1 >= TRIES_MAX => {
                (RequestErrorKind::Unconfirmed, text)
            }
            Fate::Unknown(_) | Fate::Unanswered(_) => {
                ask.tries += 1;
                self.again.insert((Instant::now() + Backoff::after(PAUSE_MIN, PAUSE_MAX, ask.tries), row));
                self.in_flight.insert(row, ask);
                return;
            }
        };
        self.requests.end(row, Err(RequestError::new(kind, text)));
    }

    /// Sends again what is due.
    fn retry(&mut self) {
        let now = Instant::now();
        while let Some((_, row)) = self.again.first().copied().filter(|(at, _)| *at <= now) {
            self.again.pop_first();
            if let Some(ask) = self.in_flight.remove(&row) {
                self.send(ask);
            }
        }
    }
}

#[cfg(test)]
mod tests;
