//! Which rows of the outbox: the same filter for a list, an action and the dashboard.

use super::age_filter::Age;
use clap::Args;
use saga_core::{OutboxFilter, OutboxKind};

/// The words for why a row is there, as the tables have them.
pub(crate) const KINDS: [&str; 5] = ["command", "event", "reply", "timer", "retry"];

#[derive(Args, Default, Clone)]
pub(crate) struct Which {
    /// Only of this endpoint; names match whatever their case
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only of this kind: command, event, reply, timer or retry
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<OutboxKind>,
    /// Only of this type, by logical name
    #[arg(long = "type", value_name = "NAME")]
    type_name: Option<String>,
    /// Only to this endpoint, queue or event
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Only from this saga
    #[arg(long, value_name = "NAME")]
    saga: Option<String>,
    /// Only from the instance of this id, or for it
    #[arg(long, value_name = "ID", allow_hyphen_values = true, requires = "saga")]
    id: Option<String>,
    /// Only those whose error contains this text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    error: Option<String>,
    /// Only those that could not be published at their last try, and those that no queue takes
    #[arg(long)]
    failing: bool,
    /// Only those that are due
    #[arg(long)]
    due: bool,
    #[command(flatten)]
    age: Age,
}

impl Which {
    pub(crate) fn filter(&self) -> OutboxFilter {
        OutboxFilter {
            id: None,
            endpoint: self.endpoint.clone(),
            saga: self.saga.clone(),
            saga_id: self.id.clone(),
            failing: self.failing,
            kind: self.kind,
            no_timers: false,
            type_name: self.type_name.clone(),
            destination: self.to.clone(),
            error: self.error.clone(),
            due: self.due,
            age: self.age.filter(),
        }
    }
}

fn kind(text: &str) -> Result<OutboxKind, String> {
    OutboxKind::parse(&text.to_lowercase()).ok_or_else(|| format!("there are: {}", KINDS.join(", ")))
}

/// Which timers.
#[derive(Args, Default, Clone)]
pub(crate) struct Timers {
    /// Only of this endpoint; names match whatever their case
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only of this saga
    #[arg(long, value_name = "NAME")]
    saga: Option<String>,
    /// Only of the instance of this id
    #[arg(long, value_name = "ID", allow_hyphen_values = true, requires = "saga")]
    id: Option<String>,
    /// Only of this type, by logical name
    #[arg(long = "type", value_name = "NAME")]
    type_name: Option<String>,
    /// Only those that are due
    #[arg(long)]
    due: bool,
}

impl Timers {
    pub(crate) fn filter(&self) -> OutboxFilter {
        OutboxFilter {
            endpoint: self.endpoint.clone(),
            saga: self.saga.clone(),
            saga_id: self.id.clone(),
            kind: Some(OutboxKind::Timer),
            type_name: self.type_name.clone(),
            due: self.due,
            ..OutboxFilter::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_whatever_its_case_and_a_wrong_one_tells_the_others() {
        assert_eq!(kind("Timer").unwrap(), OutboxKind::Timer);
        assert!(kind("letter").unwrap_err().contains("reply"));
        for word in KINDS {
            assert_eq!(kind(word).unwrap().as_str(), word);
        }
    }
}
