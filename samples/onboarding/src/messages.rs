//! What the services say to each other.

use sagabus::{Command, Event, Message, Outcome, Reply};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Who may decide, from the bottom up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Clerk,
    Manager,
    Director,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clerk => "clerk",
            Self::Manager => "manager",
            Self::Director => "director",
        }
    }

    /// Who decides when this one does not.
    pub(crate) fn above(self) -> Option<Self> {
        match self {
            Self::Clerk => Some(Self::Manager),
            Self::Manager => Some(Self::Director),
            Self::Director => None,
        }
    }
}

/// Somebody wants to become a customer.
#[derive(Debug, Clone, PartialEq, Event, Serialize, Deserialize)]
#[event(from = "desk")]
pub(crate) struct Applied {
    pub(crate) customer: Uuid,
    pub(crate) name: String,
    /// How long somebody has to decide. A transition has no settings, so the application carries it.
    pub(crate) patience: Duration,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "scoring", outcome = ScoreOutcome)]
pub(crate) struct Score {
    pub(crate) customer: Uuid,
}

#[derive(Debug, Outcome)]
pub(crate) enum ScoreOutcome {
    Scored(Scored),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "scoring")]
pub(crate) struct Scored {
    pub(crate) customer: Uuid,
    /// 0 to 100.
    pub(crate) score: u8,
}

/// Asks a person. The answer comes when somebody of that role decides; an older question for the customer is void.
#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "desk", outcome = Verdict)]
pub(crate) struct Approve {
    pub(crate) customer: Uuid,
    pub(crate) name: String,
    pub(crate) score: u8,
    pub(crate) role: Role,
}

#[derive(Debug, Outcome)]
pub(crate) enum Verdict {
    Approved(Approved),
    Declined(Declined),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "desk")]
pub(crate) struct Approved {
    pub(crate) customer: Uuid,
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "desk")]
pub(crate) struct Declined {
    pub(crate) customer: Uuid,
}

/// Nobody need decide any more. Somebody may be deciding at this moment: the desk says who was first.
#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "desk", outcome = CloseOutcome)]
pub(crate) struct CloseTask {
    pub(crate) customer: Uuid,
}

#[derive(Debug, Outcome)]
pub(crate) enum CloseOutcome {
    Closed(TaskClosed),
    Decided(TaskDecided),
}

/// Nobody has decided, and nobody can any more.
#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "desk")]
pub(crate) struct TaskClosed {
    pub(crate) customer: Uuid,
}

/// Somebody was faster: the verdict is on its way.
#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "desk")]
pub(crate) struct TaskDecided {
    pub(crate) customer: Uuid,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "crm", outcome = CrmOutcome)]
pub(crate) struct AddToCrm {
    pub(crate) customer: Uuid,
    pub(crate) name: String,
}

#[derive(Debug, Outcome)]
pub(crate) enum CrmOutcome {
    Added(AddedToCrm),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "crm")]
pub(crate) struct AddedToCrm {
    pub(crate) customer: Uuid,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "mail")]
pub(crate) struct SendMail {
    pub(crate) customer: Uuid,
    pub(crate) text: String,
}

/// Nobody has decided in time.
#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(name = "onboarding.Escalate")]
pub(crate) struct Escalate {}

/// What both versions of the process send about an application.
impl Applied {
    pub(crate) fn score(&self) -> Score {
        Score { customer: self.customer }
    }
    pub(crate) fn approve(&self, role: Role, score: u8) -> Approve {
        Approve { customer: self.customer, name: self.name.clone(), score, role }
    }
    pub(crate) fn close_task(&self) -> CloseTask {
        CloseTask { customer: self.customer }
    }
    pub(crate) fn add_to_crm(&self) -> AddToCrm {
        AddToCrm { customer: self.customer, name: self.name.clone() }
    }
    pub(crate) fn mail(&self, text: &str) -> SendMail {
        SendMail { customer: self.customer, text: format!("Dear {}, {text}", self.name) }
    }
}
