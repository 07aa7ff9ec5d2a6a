//! Which held messages: the same filter for a list, an action and the dashboard.

use super::age_filter::Age;
use crate::choice::Holder;
use clap::Args;
use saga_core::{HeldFilter, HeldReason};

/// The words for why a message waits, as the tables have them.
pub(crate) const REASONS: [&str; 9] =
    ["failed", "rejected", "crashes", "undecodable", "stranded", "early", "deferred", "paused", "version"];

#[derive(Args, Default, Clone)]
pub(crate) struct Which {
    /// Only at this endpoint; names match whatever their case
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only for this reason: failed, rejected, crashes, undecodable or stranded (for a person);
    /// early, deferred, paused or version (for their turn)
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason_is: Option<HeldReason>,
    /// Only for this saga or handler
    #[arg(long, value_name = "NAME")]
    receiver: Option<String>,
    /// Only for instances of this saga
    #[arg(long, value_name = "NAME")]
    saga: Option<String>,
    /// Only for the instance of this id
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    id: Option<String>,
    /// Only of this type, by logical name
    #[arg(long = "type", value_name = "NAME")]
    type_name: Option<String>,
    /// Only those whose error contains this text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    error: Option<String>,
    /// Only those that wait for a person
    #[arg(long)]
    needs_person: bool,
    #[command(flatten)]
    age: Age,
}

impl Which {
    pub(crate) fn filter(&self) -> HeldFilter {
        HeldFilter {
            message_id: None,
            endpoint: self.endpoint.clone(),
            reason: self.reason_is,
            receiver: self.receiver.clone(),
            saga: self.saga.clone(),
            saga_id: self.id.clone(),
            type_name: self.type_name.clone(),
            error: self.error.clone(),
            needs_person: self.needs_person,
            age: self.age.filter(),
        }
    }

    /// Of the receivers that hold a message, those that are meant.
    pub(super) fn holder(&self) -> Holder {
        Holder { receiver: self.receiver.clone(), endpoint: self.endpoint.clone() }
    }
}

/// A text that is not blank.
pub(super) fn text(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("a blank note says nothing") } else { Ok(text.to_owned()) }
}

pub(super) fn reason(text: &str) -> Result<HeldReason, String> {
    let known = || format!("there are: {}", REASONS.join(", "));
    HeldReason::parse(&text.to_lowercase()).ok_or_else(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_read_whatever_its_case_and_a_wrong_one_tells_the_others() {
        assert_eq!(reason("Failed").unwrap(), HeldReason::Failed);
        assert!(reason("lost").unwrap_err().contains("undecodable"));
        for word in REASONS {
            assert_eq!(reason(word).unwrap().as_str(), word);
        }
    }
}
