//! A broker's limit on bodies, as it told when it refused one.

use std::time::Duration;
use tokio::time::Instant;

/// How long it is believed.
const BELIEVED: Duration = Duration::from_secs(60);

/// The size from which bodies are refused, the broker's words, and until when that is believed.
#[derive(Debug)]
pub(super) struct TooLarge {
    bytes: usize,
    words: String,
    until: Instant,
}

impl TooLarge {
    /// The broker refused a body that is larger than this, with these words.
    pub(super) fn than(largest: usize, words: &str) -> Self {
        Self { bytes: largest.saturating_add(1), words: words.to_owned(), until: Instant::now() + BELIEVED }
    }

    /// The words with which the broker refuses a body of this size.
    pub(super) fn refuses(&self, body_bytes: usize) -> Option<String> {
        (body_bytes >= self.bytes && Instant::now() < self.until).then(|| self.words.clone())
    }
}

/// The largest body that a broker takes which refused one with these words:
/// `PRECONDITION_FAILED - message size 1500018 is larger than configured max size 1048576`.
pub(super) fn largest_body(words: &str) -> Option<usize> {
    let (_, max) = words.split_once("message size ")?.1.split_once("max size ")?;
    max.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_limit_is_read_from_its_words() {
        let words = "PRECONDITION_FAILED - message size 1500018 is larger than configured max size 1048576";
        assert_eq!(largest_body(words), Some(1_048_576));
        assert_eq!(largest_body("PRECONDITION_FAILED - max size 7 of something else"), None);
    }
}
