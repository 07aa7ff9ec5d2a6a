//! Answers that come later: from a person, say.

use super::{Context, HandlerError};
use crate::{Either, Envelope, Message, SagaRef, Store, hash_of};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Whom a command's answer goes to, when it is not given at once. [`Context::later`] hands it out; keep it in a table
/// of yours (it is a serde type) and give the answer with [`Session::answer`](crate::Session::answer).
///
/// ```
/// use sagabus::prelude::*;
/// use serde::{Deserialize, Serialize};
/// # #[derive(Reply, Serialize, Deserialize)] struct Approved { id: i64 }
/// # #[derive(Reply, Serialize, Deserialize)] struct Refused { id: i64 }
///
/// #[derive(Command, Serialize, Deserialize)]
/// #[command(to = "clerks", outcome = Verdict)]
/// struct Approve { id: i64 }
///
/// #[derive(Outcome)]
/// enum Verdict { Approved(Approved), Refused(Refused) }
///
/// struct Clerks;
///
/// #[handlers]
/// impl Clerks {
///     /// Puts a task on the list.
///     async fn approve(&self, approve: Approve, cx: &mut Context<'_, Sqlite>) -> Result<Later, HandlerError> {
///         let later = cx.later();
///         sagabus::sqlx::query("INSERT INTO task (id, later) VALUES (?, ?)")
///             .bind(approve.id)
///             .bind(serde_json::to_string(&later)?)
///             .execute(cx.tx().await?)
///             .await?;
///         Ok(later)
///     }
/// }
///
/// /// A clerk has decided. Says whether nobody did before.
/// async fn decide(clerks: &Endpoint<Sqlite>, id: i64, later: &Later) -> Result<bool, Box<dyn std::error::Error>> {
///     let mut session = clerks.session().await?;
///     let first = session.answer::<Approve>(later, Approved { id }).await?;
///     session.commit().await?;
///     Ok(first)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Later {
    /// The command's logical name.
    command: String,
    message_id: String,
    conversation_id: String,
    reply_to: Option<String>,
    saga: Option<SagaRef>,
}

impl Later {
    pub(super) fn of(command: &Envelope) -> Self {
        Self {
            command: command.type_name.clone(),
            message_id: command.message_id.clone(),
            conversation_id: command.conversation_id.clone(),
            reply_to: command.reply_to.clone(),
            saga: command.saga.clone(),
        }
    }

    /// The command's logical name.
    pub fn command(&self) -> &str {
        &self.command
    }

    pub(crate) fn message_id(&self) -> &str {
        &self.message_id
    }

    /// The command, as far as its answer needs it.
    pub(crate) fn envelope(&self) -> Envelope {
        Envelope {
            conversation_id: self.conversation_id.clone(),
            reply_to: self.reply_to.clone(),
            saga: self.saga.clone(),
            ..Envelope::new(self.message_id.clone(), self.command.clone(), "null")
        }
    }

    /// The receiver under whose name the inbox remembers that the answer was given.
    pub(crate) fn receiver(&self) -> String {
        format!("answer of {}", self.command)
    }

    /// The answer's id: always the same for the same command, so that a requester takes one answer.
    pub(crate) fn answer_id(&self) -> Uuid {
        let half = |which: &[u8]| hash_of([which, self.message_id.as_bytes()]).to_be_bytes();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&half(b"later 1"));
        bytes[8..].copy_from_slice(&half(b"later 2"));
        Uuid::new_v8(bytes)
    }
}

/// Handles a command whose answer may come later. [`#[handlers]`](macro@crate::handlers) writes it for a function that
/// returns [`Later`], or `Either<Outcome, Later>`.
#[async_trait]
pub trait HandleLater<M: Message, Db: Store>: Send + Sync + 'static {
    /// Handles one message; the answer, or who gets it later.
    ///
    /// # Errors
    /// [`HandlerError`]: see [`Handle::handle`](super::Handle::handle).
    async fn handle(&self, message: M, cx: &mut Context<'_, Db>) -> Result<Either<M::Outcome, Later>, HandlerError>;

    /// Its name in the inbox.
    fn name(&self) -> &'static str {
        M::TYPE
    }
}
