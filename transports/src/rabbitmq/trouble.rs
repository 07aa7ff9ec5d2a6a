//! Trouble in the log: one line when it begins, one a minute while it lasts, one when it is over.

use std::time::Duration;
use tokio::time::Instant;

/// How often lasting trouble is logged again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// One thing that can be wrong.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Trouble {
    /// It is (still) wrong. Returns whether to log that now.
    pub(super) fn is_news(&mut self) -> bool {
        let now = Instant::now();
        self.since.get_or_insert(now);
        let is_news = self.said.is_none_or(|said| now - said >= AGAIN_AFTER);
        if is_news {
            self.said = Some(now);
        }
        is_news
    }

    /// Whether it is wrong.
    pub(super) fn lasts(&self) -> bool {
        self.since.is_some()
    }

    /// It is over. Returns how long it lasted, if it was logged. The last log line is remembered for a while, so that
    /// trouble which comes and goes makes two lines a minute.
    pub(super) fn is_over(&mut self) -> Option<Duration> {
        let since = self.since.take()?;
        self.said.is_some_and(|said| said >= since).then(|| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn trouble_is_said_once_a_minute_and_when_it_is_over() {
        let mut trouble = Trouble::default();
        assert_eq!(trouble.is_over(), None, "nothing was wrong");
        assert!(trouble.is_news());
        assert!(!trouble.is_news());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(trouble.is_news() && trouble.lasts());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(trouble.is_over(), Some(Duration::from_secs(62)));
        assert!(!trouble.is_news(), "it was said a second ago");
        tokio::time::advance(Duration::from_millis(10)).await;
        assert_eq!(trouble.is_over(), None, "its beginning was not said either");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(trouble.is_news());
    }
}
