//! A request as its caller sees it: a command, a time limit, an outcome.

use super::requests::{Came, Requests, Waiting};
use crate::{Command, Encoded, Envelope, ErrorCode, LinkState, OutgoingMessage, ReadOutcome, handler::request};
use serde_json::Value;
use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// A command whose outcome the caller waits for. [`Endpoint::request`](crate::Endpoint::request) makes one; nothing
/// happens until [`within`](Self::within) is awaited.
#[must_use = "nothing is sent until `.within(..)` is awaited"]
pub struct Request<C: Command> {
    requests: Arc<Requests>,
    message: OutgoingMessage,
    command: PhantomData<fn() -> C>,
}

impl<C: Command> fmt::Debug for Request<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("message", &self.message).finish()
    }
}

impl<C: Command> Request<C>
where
    C::Outcome: ReadOutcome,
{
    pub(super) fn new(requests: Arc<Requests>, command: &C) -> Self {
        Self { requests, message: request(C::QUEUE, Encoded::checked(command)), command: PhantomData }
    }

    /// Sets a header, as [`OutgoingMessage::header`] does.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.message.header(name, value);
        self
    }

    /// The id that the command will have.
    pub fn message_id(&self) -> Uuid {
        self.message.id
    }

    /// Sends the command and waits for its outcome, no longer than `limit`.
    ///
    /// Dropping the future gives the request's place free; the command may be handled all the same.
    ///
    /// # Errors
    /// [`RequestError`]; its kind says whether the command may be handled.
    pub async fn within(self, limit: Duration) -> Result<Requested<C>, RequestError> {
        let until = deadline(limit);
        let envelope = self.requests.envelope(&self.message)?;
        let waiting = match tokio::time::timeout_at(until, self.requests.ask(self.message.id, envelope, C::QUEUE)).await
        {
            Ok(asked) => asked?,
            Err(_) => {
                let text = format!("more requests are open than `requests` and `request_bytes` allow for {limit:?}");
                return Err(RequestError::new(RequestErrorKind::Busy, text));
            }
        };
        Pending { waiting, command: PhantomData }.until(until).await
    }
}

/// A time limit that every clock can add.
fn deadline(limit: Duration) -> Instant {
    /// "For ever" becomes this.
    const LONGEST: Duration = Duration::from_secs(30 * 86_400);
    Instant::now() + limit.min(LONGEST)
}

/// What a request led to in its time.
#[must_use = "it holds the answer, or the way to it"]
pub enum Requested<C: Command> {
    /// The answer.
    Answered(C::Outcome),
    /// The command is on its way or being handled, and there is no answer yet.
    Pending(Pending<C>),
}

impl<C: Command> fmt::Debug for Requested<C>
where
    C::Outcome: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(outcome) => f.debug_tuple("Answered").field(outcome).finish(),
            Self::Pending(pending) => f.debug_tuple("Pending").field(pending).finish(),
        }
    }
}

/// A request that was not answered in its time. The process that asked can go on waiting with it; dropped, it gives
/// the request's place free, and an answer that comes later is dropped.
#[must_use = "dropped, the answer is not waited for any more"]
pub struct Pending<C: Command> {
    waiting: Waiting,
    command: PhantomData<fn() -> C>,
}

impl<C: Command> fmt::Debug for Pending<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pending").field(&self.id()).finish()
    }
}

impl<C: Command> Pending<C>
where
    C::Outcome: ReadOutcome,
{
    /// Waits again, no longer than `limit`.
    ///
    /// # Errors
    /// As [`Request::within`].
    pub async fn within(self, limit: Duration) -> Result<Requested<C>, RequestError> {
        self.until(deadline(limit)).await
    }

    async fn until(mut self, until: Instant) -> Result<Requested<C>, RequestError> {
        let Ok(came) = tokio::time::timeout_at(until, self.waiting.answer()).await else {
            return match self.waiting.trouble() {
                Some(error) => Err(error),
                None => Ok(Requested::Pending(self)),
            };
        };
        let Came { envelope, ack } = came?;
        ack.ack();
        let read = C::Outcome::read(&envelope.type_name, &envelope.body);
        let outcome = read.map_err(|error| {
            let text = format!("the answer to {} cannot be read: {error}", C::TYPE);
            RequestError::new(RequestErrorKind::Unreadable, text)
        })?;
        Ok(Requested::Answered(outcome))
    }
}

impl<C: Command> Pending<C> {
    /// The command's message id, as the journal of the endpoint that handles it has it: for a status page, or a log.
    pub fn id(&self) -> Uuid {
        self.waiting.id()
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.code().told(text))]
pub struct RequestError {
    kind: RequestErrorKind,
    text: String,
}

/// What an error of a request means for the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestErrorKind {
    /// It may not leave (too large, a reserved header, a value that JSON does not have), or the broker refuses it. It
    /// is not handled.
    Refused,
    /// The endpoint that it is for has no queue: it never ran, or has another name. It is not handled.
    Unroutable,
    /// More requests are open than [`Settings::requests`](crate::Settings::requests) and
    /// [`Settings::request_bytes`](crate::Settings::request_bytes) allow. It was not sent.
    Busy,
    /// The broker could not be reached. It was not sent.
    Unreachable,
    /// The broker did not confirm it: it may be handled, or not.
    Unconfirmed,
    /// The endpoint has stopped: it may be handled, or not.
    Stopped,
    /// It was handled, and its answer is none that this program knows.
    Unreadable,
}

impl RequestError {
    pub(super) fn new(kind: RequestErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(super) fn stopped(endpoint: &str) -> Self {
        Self::new(RequestErrorKind::Stopped, format!("the endpoint `{endpoint}` has stopped"))
    }

    /// The link was down when the time was up.
    pub(super) fn unconfirmed(state: &LinkState) -> Self {
        let why = match state {
            LinkState::Down(why) | LinkState::Failed(why) => why.as_str(),
            LinkState::Up => "it does not confirm",
        };
        Self::new(RequestErrorKind::Unconfirmed, format!("the broker has not confirmed the request: {why}"))
    }

    /// Its code, which ends its text.
    pub fn code(&self) -> ErrorCode {
        match self.kind {
            RequestErrorKind::Refused => ErrorCode::MessageRefused,
            RequestErrorKind::Unroutable => ErrorCode::Unroutable,
            RequestErrorKind::Busy => ErrorCode::RequestsBusy,
            RequestErrorKind::Unreachable => ErrorCode::BrokerUnreachable,
            RequestErrorKind::Unconfirmed => ErrorCode::RequestUnconfirmed,
            RequestErrorKind::Stopped => ErrorCode::EndpointStopped,
            RequestErrorKind::Unreadable => ErrorCode::AnswerUnreadable,
        }
    }

    /// What it means for the command.
    pub fn kind(&self) -> RequestErrorKind {
        self.kind
    }

    /// Whether the same request may succeed later without anyone's help. Ask [`kind`](Self::kind) whether this one may
    /// be handled as well.
    pub fn is_transient(&self) -> bool {
        use RequestErrorKind::{Busy, Stopped, Unconfirmed, Unreachable};
        matches!(self.kind, Busy | Stopped | Unconfirmed | Unreachable)
    }
}

impl Requests {
    /// The envelope of a request; or why it must not leave.
    fn envelope(&self, message: &OutgoingMessage) -> Result<Envelope, RequestError> {
        let refused = |text| RequestError::new(RequestErrorKind::Refused, text);
        let new = super::emission::posted(self.endpoint(), self.body_bytes_max(), None, message).map_err(refused)?;
        Ok(Envelope { reply_to: Some(self.reply_to().into()), ..new })
    }
}
