//! Trouble that lasts: logged at once, then once a minute, and when it is over.

use std::{
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The same trouble is logged again after this time.
pub(super) const AGAIN: Duration = Duration::from_secs(60);

/// One kind of trouble at one place. [`Trouble::begins`] and [`Trouble::ends`] say when to log.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    now: Option<Now>,
    /// Those who are still in it.
    holders: usize,
}

#[derive(Debug)]
struct Now {
    spell: Spell,
    /// What it is, where somebody asks.
    why: Option<String>,
}

/// Trouble while it lasts: how often it happened, and when it was logged.
#[derive(Debug)]
pub(super) struct Spell {
    since: Instant,
    said: Instant,
    /// How often it happened unlogged since it was last logged.
    pub(super) unsaid: u64,
}

impl Spell {
    /// It happened and is logged.
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self { since: now, said: now, unsaid: 0 }
    }

    /// It happened again. Returns what to log, if it is time to log it.
    pub(super) fn again(&mut self) -> Option<Said> {
        if self.said.elapsed() < AGAIN {
            self.unsaid += 1;
            return None;
        }
        self.said = Instant::now();
        Some(Said { unsaid: std::mem::take(&mut self.unsaid), since: self.since.elapsed() })
    }
}

/// How often it happened unlogged since it was last logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) unsaid: u64,
    pub(crate) since: Duration,
}

impl Trouble {
    /// It happened. Returns what to log, if it is time to log it.
    pub(crate) fn begins(&self) -> Option<Said> {
        match &mut self.state().now {
            Some(known) => known.spell.again(),
            now @ None => {
                *now = Some(Now { spell: Spell::begin(), why: None });
                Some(Said { unsaid: 0, since: Duration::ZERO })
            }
        }
    }

    /// How long it has lasted.
    pub(crate) fn lasts(&self) -> Duration {
        self.state().now.as_ref().map_or(Duration::ZERO, |now| now.spell.since.elapsed())
    }

    /// It happened, for this reason: [`Trouble::why`] tells the latest.
    pub(crate) fn begins_with(&self, why: &impl Display) -> Option<Said> {
        let said = self.begins();
        if let Some(now) = &mut self.state().now {
            now.why = Some(why.to_string());
        }
        said
    }

    /// Until [`Trouble::let_go`] it does not end: what works for another proves nothing.
    pub(crate) fn hold(&self) {
        self.state().holders += 1;
    }

    /// The end of one [`Trouble::hold`].
    pub(crate) fn let_go(&self) {
        self.state().holders -= 1;
    }

    /// The latest reason, while it lasts.
    pub(crate) fn why(&self) -> Option<String> {
        self.state().now.as_ref()?.why.clone()
    }

    /// It is over, unless somebody holds it. Returns how long it lasted, if there was any.
    pub(crate) fn ends(&self) -> Option<Duration> {
        let mut state = self.state();
        let now = if state.holders == 0 { state.now.take() } else { None };
        now.map(|now| now.spell.since.elapsed())
    }

    /// Whether it lasts.
    pub(crate) fn is_there(&self) -> bool {
        self.state().now.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn trouble_is_said_once_a_minute_and_when_it_is_over() {
        let trouble = Trouble::default();
        assert_eq!(trouble.ends(), None, "there was none");
        assert_eq!(trouble.begins(), Some(Said { unsaid: 0, since: Duration::ZERO }));
        assert_eq!((trouble.begins(), trouble.begins()), (None, None));
        tokio::time::advance(AGAIN).await;
        assert_eq!(trouble.begins(), Some(Said { unsaid: 2, since: AGAIN }));
        assert!(trouble.is_there());
        assert_eq!(trouble.ends(), Some(AGAIN));
        assert!(!trouble.is_there());
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_that_one_still_has_is_not_over_because_others_have_none() {
        let trouble = Trouble::default();
        trouble.hold();
        trouble.hold();
        assert!(trouble.begins_with(&"disk full").is_some() && trouble.begins_with(&"disk full").is_none());
        assert_eq!((trouble.ends(), trouble.why().as_deref()), (None, Some("disk full")));
        trouble.let_go();
        assert_eq!(trouble.ends(), None, "one is left");
        trouble.let_go();
        assert_eq!(trouble.ends(), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_reason_is_told_while_trouble_lasts() {
        let trouble = Trouble::default();
        assert_eq!(trouble.why(), None);
        assert!(trouble.begins_with(&"no route").is_some() && trouble.begins_with(&"refused").is_none());
        assert_eq!(trouble.why().as_deref(), Some("refused"));
        trouble.ends();
        assert_eq!(trouble.why(), None);
    }
}
