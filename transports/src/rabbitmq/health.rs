//! Whether the broker can be reached, from both sides of a link.

use saga_core::LinkState;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The places of the two sides.
const CONSUMING: usize = 0;
const PUBLISHING: usize = 1;

/// What the two sides of a link report, and the state of the link: it is up when both sides are.
#[derive(Debug, Clone)]
pub(super) struct Health {
    sides: Arc<Mutex<[Option<String>; 2]>>,
    state: watch::Sender<LinkState>,
    publishing: watch::Sender<LinkState>,
}

impl Health {
    pub(super) fn new() -> (Self, watch::Receiver<LinkState>) {
        let (state, receiver) = watch::channel(LinkState::Up);
        let publishing = watch::Sender::new(LinkState::Up);
        (Self { sides: Arc::default(), state, publishing }, receiver)
    }

    /// The state of publishing alone.
    pub(super) fn of_publishing(&self) -> watch::Receiver<LinkState> {
        self.publishing.subscribe()
    }

    pub(super) fn consuming(&self) -> Side {
        Side { health: self.clone(), side: CONSUMING }
    }

    pub(super) fn publishing(&self) -> Side {
        Side { health: self.clone(), side: PUBLISHING }
    }
}

/// One side of a link.
#[derive(Debug)]
pub(super) struct Side {
    health: Health,
    side: usize,
}

impl Side {
    pub(super) fn up(&self) {
        self.set(None);
    }

    pub(super) fn down(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, why: Option<String>) {
        let Health { sides, state, publishing } = &self.health;
        let mut sides = sides.lock().unwrap_or_else(PoisonError::into_inner);
        sides[self.side] = why;
        let of = |why: Option<&String>| why.map_or(LinkState::Up, |why| LinkState::Down(why.clone()));
        say(publishing, of(sides[PUBLISHING].as_ref()));
        say(state, of(sides.iter().flatten().next()));
    }
}

fn say(to: &watch::Sender<LinkState>, state: LinkState) {
    to.send_if_modified(|known| {
        let changed = *known != state;
        *known = state;
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_cannot_be_consumed_is_no_reason_to_publish_nothing() {
        let (health, state) = Health::new();
        let publishes = health.of_publishing();
        let (consuming, publishing) = (health.consuming(), health.publishing());
        let down = |why: &str| LinkState::Down(why.into());
        consuming.down("a");
        assert_eq!((&*state.borrow(), &*publishes.borrow()), (&down("a"), &LinkState::Up));
        publishing.down("b");
        assert_eq!((&*state.borrow(), &*publishes.borrow()), (&down("a"), &down("b")));
        consuming.up();
        assert_eq!((&*state.borrow(), &*publishes.borrow()), (&down("b"), &down("b")));
        publishing.up();
        assert_eq!((&*state.borrow(), &*publishes.borrow()), (&LinkState::Up, &LinkState::Up));
    }
}
