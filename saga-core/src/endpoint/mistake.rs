//! What is wrong with an endpoint before it starts.

use crate::ErrorCode;
use std::fmt;

/// One thing that is wrong with an endpoint, as [`StartError::Definition`](super::StartError::Definition) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mistake {
    /// The kind of mistake.
    pub code: ErrorCode,
    /// What is wrong, and what to do.
    pub text: String,
}

impl Mistake {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// All of one kind.
    pub(super) fn all(code: ErrorCode, texts: Vec<String>) -> impl Iterator<Item = Self> {
        texts.into_iter().map(move |text| Self { code, text })
    }
}

/// The text with the code at its end.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code.told(&self.text))
    }
}
