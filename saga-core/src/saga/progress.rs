//! What an instance knows about its way so far: which of its timers are alive, where it has been, what it has replied,
//! which commands it could still take back.

use super::{Aliases, KeptFields};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most commands that an instance remembers: they are part of its row.
const SENT_MAX: usize = 200;
/// The most timers that one transition sets: they are numbered by it.
pub(super) const TIMERS_MAX: i64 = 1000;

/// The transition that set a timer.
pub(crate) fn step_of_timer(number: i64) -> i64 {
    number / TIMERS_MAX
}

/// Stored beside the state, as JSON; nothing at all while it is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The timers that are alive: of each type and key, the one that was set last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) timers: Vec<SetTimer>,
    /// The states on cycles that it has been in. A message that one of them takes had its chance there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) visited: Vec<String>,
    /// What it has replied to the message that began it, if a repeated one gets that again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replied: Option<Replied>,
    /// Its aliases as they were written: what the next transition changes is told from these.
    #[serde(default, skip_serializing_if = "Aliases::is_empty")]
    pub(crate) aliases: Aliases,
    /// The fields by which operators find it, likewise.
    #[serde(default, skip_serializing_if = "KeptFields::is_empty")]
    pub(crate) fields: KeptFields,
    /// Commands without an answer, of types that the saga takes back somewhere; the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sent: Vec<SentCommand>,
}

/// A command that was sent and may be taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SentCommand {
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// The endpoint that it was sent to.
    pub(crate) to: String,
    /// Its message id, which is the id of its outbox row too; none before the unit that sends it has given it one.
    pub(crate) id: Option<Uuid>,
    /// Of type and body, as the inbox keeps it.
    pub(crate) hash: i64,
    /// Which one it is of those that its unit sends, while it has no id.
    #[serde(skip)]
    pub(crate) number: i64,
}

/// A reply that was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Replied {
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// Its JSON.
    pub(crate) body: String,
    /// Fields of it that operators do not see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) masked: Vec<String>,
}

/// A timer that is alive. Any other one that arrives is stale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SetTimer {
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// Tells timers of one type apart; empty when there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) key: String,
    /// Which one it is of all that the instance ever set.
    pub(crate) number: i64,
    /// It outlives the state that set it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deadline: bool,
}

impl Progress {
    /// As it was stored; what cannot be read must not pass for an instance without timers.
    pub(crate) fn read(json: Option<&str>) -> Result<Self, String> {
        let read = json.map(serde_json::from_str).transpose();
        read.map(Option::unwrap_or_default).map_err(|error| format!("its timers and states: {error}"))
    }

    /// As it is stored.
    pub(crate) fn json(&self) -> Option<String> {
        (*self != Self::default()).then(|| serde_json::to_string(self).unwrap_or_default())
    }

    pub(crate) fn is_alive(&self, number: i64) -> bool {
        self.timers.iter().any(|timer| timer.number == number)
    }

    /// The timer is alive, and another one of its type and key no longer.
    pub(crate) fn set(&mut self, timer: SetTimer) {
        self.cancel(&timer.type_name, &timer.key);
        self.timers.push(timer);
    }

    /// The command may be taken back from now on; of too many, the oldest is forgotten.
    pub(crate) fn send(&mut self, command: SentCommand) {
        if self.sent.len() == SENT_MAX {
            self.sent.remove(0);
        }
        self.sent.push(command);
    }

    /// A message came that this one caused: if that is a command, it was handled.
    pub(crate) fn answered(&mut self, cause: &str) {
        self.sent.retain(|command| command.id.is_none_or(|id| id.to_string() != cause));
    }

    /// Takes back the commands of this type.
    pub(crate) fn take_back(&mut self, type_name: &str) -> Vec<SentCommand> {
        self.sent.extract_if(.., |command| command.type_name == type_name).collect()
    }

    pub(crate) fn cancel(&mut self, type_name: &str, key: &str) {
        self.timers.retain(|timer| timer.type_name != type_name || timer.key != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answered_command_is_forgotten() {
        let sent = |id: Option<u128>| {
            let id = id.map(Uuid::from_u128);
            SentCommand { type_name: "bank.Pay".into(), to: "bank".into(), id, hash: 0, number: 0 }
        };
        let mut progress = Progress::default();
        [Some(1), Some(2), None].into_iter().for_each(|id| progress.send(sent(id)));
        progress.answered(&Uuid::from_u128(1).to_string());
        assert_eq!(progress.take_back("bank.Refund"), []);
        assert_eq!(progress.take_back("bank.Pay"), [sent(Some(2)), sent(None)], "one without an id is not answered");
        assert_eq!(progress, Progress::default());
    }
}
