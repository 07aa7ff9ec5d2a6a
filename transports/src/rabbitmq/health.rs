//! Whether the broker can be reached, from both sides of a link.

use saga_core::LinkState;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What the two sides of a link report, and the state of the link: it is up when both sides are.
#[derive(Debug)]
pub(super) struct Health {
    sides: Arc<Mutex<[Option<String>; 2]>>,
    state: Arc<watch::Sender<LinkState>>,
}

impl Health {
    pub(super) fn new() -> (Self, watch::Receiver<LinkState>) {
        let (state, receiver) = watch::channel(LinkState::Up);
        (Self { sides: Arc::default(), state: Arc::new(state) }, receiver)
    }

    pub(super) fn consuming(&self) -> Side {
        Side { sides: self.sides.clone(), state: self.state.clone(), side: 0 }
    }

    pub(super) fn publishing(&self) -> Side {
        Side { sides: self.sides.clone(), state: self.state.clone(), side: 1 }
    }
}

/// One side of a link.
#[derive(Debug)]
pub(super) struct Side {
    sides: Arc<Mutex<[Option<String>; 2]>>,
    state: Arc<watch::Sender<LinkState>>,
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
        let mut sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        sides[self.side] = why;
        let state = sides.iter().flatten().next().map_or(LinkState::Up, |why| LinkState::Down(why.clone()));
        self.state.send_if_modified(|known| {
            let changed = *known != state;
            *known = state;
            changed
        });
    }
}
