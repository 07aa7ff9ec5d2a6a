//! Taking commands back that have left: a small message goes after each, and the inbox of the command's endpoint says
//! whether it comes in time.

use crate::{
    Envelope, InboxResult,
    port::{InboxFound, InboxRow},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The body of an [`Envelope::TAKE_BACK`]: the command that its sender wants back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TakeBack {
    /// Its logical name.
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// Its message id.
    pub(crate) id: String,
    /// [`Envelope::body_hash`] of it: another message under its id is not taken for it.
    pub(crate) hash: i64,
}

/// What can still be done about a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chance<'a> {
    /// It has not come: the mark that it was handled is written before.
    BeforeItCame,
    /// It waits for a retry or, held, for a person; or it runs alone after a crash.
    WhileItWaits(&'a InboxFound),
    /// None, and why.
    None(&'static str),
}

impl TakeBack {
    pub(super) fn read(envelope: &Envelope) -> Result<Self, String> {
        let read: Result<Self, _> = serde_json::from_slice(&envelope.body);
        let read = read.map_err(|error| format!("{}: {error}", Envelope::TAKE_BACK))?;
        match Envelope::holds(&read.id) && Envelope::holds(&read.type_name) {
            true => Ok(read),
            false => Err(format!("{}: its id or type is too long or contains U+0000", Envelope::TAKE_BACK)),
        }
    }

    /// What the inbox says of the command at this receiver. What a saga has taken in is a part of its story: a message
    /// that waits there pauses its instance, and only a person takes it away.
    pub(super) fn chance<'a>(&self, inbox: &'a [InboxFound], receiver: &str, is_saga: bool) -> Chance<'a> {
        let Some(row) = inbox.iter().find(|row| row.message_id == self.id && row.receiver == receiver) else {
            return Chance::BeforeItCame;
        };
        if row.type_name != self.type_name || row.body_hash != self.hash {
            return Chance::None("another message has its id");
        }
        match row.result {
            InboxResult::Held | InboxResult::Retrying | InboxResult::Suspect if is_saga => {
                Chance::None("too late: a saga has taken it in")
            }
            InboxResult::Held | InboxResult::Retrying | InboxResult::Suspect => Chance::WhileItWaits(row),
            InboxResult::Handled | InboxResult::Ignored | InboxResult::Stale | InboxResult::Discarded => {
                Chance::None("too late: it is settled")
            }
        }
    }

    /// The command's row in the inbox: it is settled, and never runs.
    pub(super) fn row(&self, receiver: &str, cause: &Envelope, waited: Option<&InboxFound>) -> InboxRow {
        let mut command = Envelope::new(self.id.clone(), self.type_name.clone(), "");
        command.conversation_id.clone_from(&cause.conversation_id);
        command.causation_id = Some(cause.message_id.clone());
        let by = cause.saga.as_ref().map_or_else(String::new, |saga| format!(" by {}/{}", saga.saga, saga.id));
        InboxRow {
            body_hash: self.hash,
            attempts: waited.map_or(0, |row| row.attempts),
            round: waited.map_or(0, |row| row.round),
            note: Some(format!("taken back{by}")),
            ..InboxRow::new(receiver, Arc::new(command), InboxResult::Discarded)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(result: InboxResult, hash: i64) -> [InboxFound; 1] {
        [InboxFound::new("r", "m", "Pay", hash, result)]
    }

    #[test]
    fn only_the_very_command_is_taken_back_and_only_while_it_waits() {
        let pay = TakeBack { type_name: "Pay".into(), id: "m".into(), hash: 7 };
        assert_eq!(pay.chance(&[], "r", false), Chance::BeforeItCame);
        assert_eq!(pay.chance(&known(InboxResult::Handled, 7), "s", false), Chance::BeforeItCame, "another receiver's");
        use InboxResult::{Discarded, Handled, Held, Ignored, Retrying, Stale, Suspect};
        for result in [Held, Retrying, Suspect] {
            let inbox = known(result, 7);
            assert_eq!(pay.chance(&inbox, "r", false), Chance::WhileItWaits(&inbox[0]));
            assert!(matches!(pay.chance(&inbox, "r", true), Chance::None(_)), "{result:?} in a saga");
            assert!(matches!(pay.chance(&known(result, 8), "r", false), Chance::None(_)), "it has another body");
        }
        for result in [Handled, Ignored, Stale, Discarded] {
            assert!(matches!(pay.chance(&known(result, 7), "r", false), Chance::None(_)), "{result:?}");
        }
        let other = TakeBack { type_name: "Refund".into(), ..pay };
        assert!(matches!(other.chance(&known(Retrying, 7), "r", false), Chance::None(_)), "it has another type");
    }
}
