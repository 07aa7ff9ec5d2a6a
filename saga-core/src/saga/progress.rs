//! What an instance knows about its way so far: which of its timers are alive, where it has been, what it has replied.

use super::Aliases;
use serde::{Deserialize, Serialize};

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
}

/// A reply that was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Replied {
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// Its JSON.
    pub(crate) body: String,
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

    pub(crate) fn cancel(&mut self, type_name: &str, key: &str) {
        self.timers.retain(|timer| timer.type_name != type_name || timer.key != key);
    }
}
