//! Why a handler failed.

use std::{error::Error, fmt, time::Duration};

/// Why a handler failed. `?` turns any error into a transient one.
pub struct HandlerError {
    kind: HandlerErrorKind,
    source: Box<dyn Error + Send + Sync>,
}

/// What follows from a handler's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerErrorKind {
    /// A retry may help: the retry policy decides.
    Transient,
    /// Trying again is no use: the message is held at once.
    Permanent,
    /// A retry may help after this time.
    RetryAfter(Duration),
}

impl HandlerError {
    /// A retry may help.
    pub fn transient(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: HandlerErrorKind::Transient, source: error.into() }
    }

    /// Trying again is no use: the message is held at once.
    pub fn permanent(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: HandlerErrorKind::Permanent, source: error.into() }
    }

    /// Retry after `delay`, overriding the policy's delays. The message is held when it has failed for a day
    /// ([`Retries::LONGEST`](crate::Retries::LONGEST)).
    pub fn retry_after(error: impl Into<Box<dyn Error + Send + Sync>>, delay: Duration) -> Self {
        Self { kind: HandlerErrorKind::RetryAfter(delay), source: error.into() }
    }

    /// What follows from it.
    pub fn kind(&self) -> HandlerErrorKind {
        self.kind
    }

    /// The error that the handler met.
    pub fn source(&self) -> &(dyn Error + 'static) {
        &*self.source
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::transient(error)
    }
}

impl fmt::Display for HandlerError {
    /// The error and its causes. A cause whose text already ends the text before it is not repeated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.source.to_string();
        f.write_str(&said)?;
        let mut source = self.source.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandlerError({self}, {:?})", self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("error returned from database: {0}")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("no table")]
    struct Inner;

    #[test]
    fn a_cause_is_said_once() {
        assert_eq!(HandlerError::from(Outer(Inner)).to_string(), "error returned from database: no table");
    }
}
