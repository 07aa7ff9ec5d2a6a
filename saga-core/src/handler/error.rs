//! Why a handler failed.

use std::{error::Error, fmt, time::Duration};

/// Why a handler failed. `?` turns any error into a transient one, unless it or one of its causes is [`Permanent`].
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
        let kind = match is_permanent(&error) {
            true => HandlerErrorKind::Permanent,
            false => HandlerErrorKind::Transient,
        };
        Self { kind, source: error.into() }
    }
}

/// Whether the error or one of its causes is marked.
fn is_permanent(error: &(dyn Error + 'static)) -> bool {
    error.is::<Permanent>() || error.source().is_some_and(is_permanent)
}

/// Marks an error for which trying again is no use, for code that knows nothing of handlers: a bank's client, say. It
/// has the text and the causes of the error that it marks. A handler that meets it by `?`, also as the cause inside
/// another error, has its message held at once.
///
/// ```
/// use sagabus::handler::{HandlerError, HandlerErrorKind, Permanent};
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("the bank said no")]
/// struct BankError(#[source] Permanent);
///
/// fn charge() -> Result<(), BankError> {
///     Err(BankError(Permanent::new("the card is blocked")))
/// }
///
/// fn handle() -> Result<(), HandlerError> {
///     Ok(charge()?)
/// }
///
/// assert_eq!(handle().unwrap_err().kind(), HandlerErrorKind::Permanent);
/// ```
#[derive(Debug)]
pub struct Permanent(Box<dyn Error + Send + Sync>);

impl Permanent {
    /// Marks this error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Permanent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Permanent {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
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

    #[derive(Debug, thiserror::Error)]
    #[error("the order cannot be charged")]
    struct Charge(#[source] Bank);

    #[derive(Debug, thiserror::Error)]
    #[error("the bank said no")]
    struct Bank(#[source] Box<dyn Error + Send + Sync>);

    #[test]
    fn r_005_a_permanent_cause_makes_the_error_permanent() {
        let blocked = || Permanent::new(Outer(Inner));
        let inside = HandlerError::from(Charge(Bank(Box::new(blocked()))));
        assert_eq!(inside.kind(), HandlerErrorKind::Permanent);
        let text = "the order cannot be charged: the bank said no: error returned from database: no table";
        assert_eq!(inside.to_string(), text, "the mark adds nothing to the text");
        assert_eq!(HandlerError::from(blocked()).kind(), HandlerErrorKind::Permanent);
        assert_eq!(HandlerError::from(Charge(Bank(Box::new(Inner)))).kind(), HandlerErrorKind::Transient);
        assert_eq!(HandlerError::transient(blocked()).kind(), HandlerErrorKind::Transient, "who says so decides");
    }
}
