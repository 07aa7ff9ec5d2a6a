//! Ctrl-C.

use futures_util::{FutureExt, future::maybe_done};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// Ctrl-C since a command began to listen. A command has one, and asks it as often as it likes: what comes while it
/// does something else is not lost, and stays true.
pub(crate) struct Interrupt(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Interrupt {
    pub(crate) fn listen() -> Self {
        let mut interrupt = Self(Box::pin(maybe_done(tokio::signal::ctrl_c())));
        // it listens from its first poll on
        let _ = (&mut interrupt).now_or_never();
        interrupt
    }
}

impl Future for Interrupt {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn what_comes_while_nobody_waits_is_not_lost() {
        let mut interrupt = Interrupt::listen();
        assert!((&mut interrupt).now_or_never().is_none(), "nothing has come");
        let own = std::process::id().to_string();
        assert!(Command::new("kill").args(["-INT", &own]).status().unwrap().success());
        (&mut interrupt).await;
        (&mut interrupt).await; // whoever asks later is told as well
    }
}
