//! Counts that end where nobody reads them any more.

use std::{fmt, iter, ops};

/// A [`Status`](super::Status) and the lists count no further. A larger number means: more than this.
pub const COUNTED_MAX: i64 = 10_000;

/// How many rows match, as far as they were counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// As many at least.
    pub rows: u64,
    /// There are more, or there may be.
    pub more: bool,
}

impl Counted {
    /// So many, and no more.
    pub fn exactly(rows: u64) -> Self {
        Self { rows, more: false }
    }
}

impl ops::Add for Counted {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, more: self.more || other.more }
    }
}

impl iter::Sum for Counted {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| sum + one)
    }
}

/// `186`, or `10000+` when there are more.
impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.rows, if self.more { "+" } else { "" })
    }
}
