//! What can go wrong with a store or a transport: a kind to decide by, a text that says what to do, and the cause.

use crate::ErrorCode;
use std::{error::Error, fmt};

type Cause = Box<dyn Error + Send + Sync>;

/// An error of a store. [`StoreError::kind`] tells what follows from it; [`Error::source`] is the driver's own error,
/// which a caller may downcast to ask for a constraint's name.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    /// Of the cause, if it says more than the kind does.
    code: Option<ErrorCode>,
    text: String,
    source: Option<Cause>,
}

/// What an error of a store means, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Another process changed the same rows: run the batch again.
    Conflict,
    /// The database cannot be reached, or it is unknown whether it did what was asked: wait, then run again.
    Unavailable,
    /// The database answers, but can do nothing of the kind now: it is full or read-only, it stops, it has no memory or
    /// no connections left. No message is to blame: wait, then run again.
    Unable,
    /// The database refuses the data: the same write would fail again.
    Rejected,
    /// Tables, columns or permissions are not those that this binary needs. No message is to blame: wait for a
    /// deployment to fix it.
    Schema,
    /// A statement's plan no longer fits the tables: run again on a new connection.
    StalePlan,
    /// The address, the credentials or a setting is wrong.
    Invalid,
}

impl StoreError {
    /// An error with a text for people.
    pub fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        Self { kind, code: None, text: text.into(), source: None }
    }

    /// The same error with the code of its cause, if that says more than the kind's own code.
    pub fn with_code(self, code: ErrorCode) -> Self {
        Self { code: Some(code), ..self }
    }

    /// Its code, which ends its text.
    pub fn code(&self) -> ErrorCode {
        self.code.unwrap_or(match self.kind {
            StoreErrorKind::Conflict => ErrorCode::Conflict,
            StoreErrorKind::Unavailable => ErrorCode::DatabaseUnreachable,
            StoreErrorKind::Unable => ErrorCode::DatabaseUnable,
            StoreErrorKind::Rejected => ErrorCode::StatementRefused,
            StoreErrorKind::Schema => ErrorCode::Tables,
            StoreErrorKind::StalePlan => ErrorCode::StalePlan,
            StoreErrorKind::Invalid => ErrorCode::DatabaseAddress,
        })
    }

    /// Another process changed the same rows.
    pub fn conflict() -> Self {
        Self::new(StoreErrorKind::Conflict, "another process changed the same rows meanwhile")
    }

    /// The same error with its cause.
    pub fn with_source(mut self, source: impl Into<Cause>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What follows from it.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anyone's help.
    pub fn is_transient(&self) -> bool {
        use StoreErrorKind::{Conflict, StalePlan, Unable, Unavailable};
        matches!(self.kind, Conflict | Unavailable | Unable | StalePlan)
    }

    /// Whether no answer came, or one that may have come too soon: what was asked for may have happened, or may still
    /// happen.
    pub fn leaves_unsure(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unavailable | StoreErrorKind::Unable)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, text) = (self.code(), &self.text);
        f.write_str(&match self.kind {
            StoreErrorKind::Unavailable => code.told(format_args!("the database is not available: {text}")),
            StoreErrorKind::Unable => code.told(format_args!("the database is not able to do it now: {text}")),
            StoreErrorKind::Rejected => code.told(format_args!("the database refuses: {text}")),
            _ => code.told(text),
        })
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Why an endpoint could not be attached to a broker.
#[derive(Debug)]
pub struct TransportError {
    kind: TransportErrorKind,
    /// Of the cause, if it says more than the kind does.
    code: Option<ErrorCode>,
    text: String,
    source: Option<Cause>,
}

/// What an error of a transport means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// The broker could not be reached in time.
    Unreachable,
    /// The broker refuses the credentials.
    Denied,
    /// Something exists already and differs from what is needed.
    Mismatch,
    /// The address or a setting is wrong.
    Invalid,
}

impl TransportError {
    /// An error with a text for people.
    pub fn new(kind: TransportErrorKind, text: impl Into<String>) -> Self {
        Self { kind, code: None, text: text.into(), source: None }
    }

    /// The same error with the code of its cause, if that says more than the kind's own code.
    pub fn with_code(self, code: ErrorCode) -> Self {
        Self { code: Some(code), ..self }
    }

    /// Its code, which ends its text.
    pub fn code(&self) -> ErrorCode {
        self.code.unwrap_or(match self.kind {
            TransportErrorKind::Unreachable => ErrorCode::BrokerUnreachable,
            TransportErrorKind::Denied => ErrorCode::BrokerDenied,
            TransportErrorKind::Mismatch => ErrorCode::TopologyDiffers,
            TransportErrorKind::Invalid => ErrorCode::BrokerAddress,
        })
    }

    /// The same error with its cause.
    pub fn with_source(mut self, source: impl Into<Cause>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What follows from it.
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, text) = (self.code(), &self.text);
        f.write_str(&match self.kind {
            TransportErrorKind::Unreachable => code.told(format_args!("the broker cannot be reached: {text}")),
            TransportErrorKind::Denied => code.told(format_args!(
                "the broker refuses the connection: {text}; check user, password and virtual host in the URL"
            )),
            TransportErrorKind::Mismatch => code.told(format_args!("the broker's topology differs: {text}")),
            TransportErrorKind::Invalid => code.told(text),
        })
    }
}

impl Error for TransportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
