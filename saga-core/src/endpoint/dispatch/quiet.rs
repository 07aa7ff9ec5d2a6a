//! A moment in which no unit begins, so that the relay catches up with those that go on and on.

use super::Dispatcher;
use std::time::Duration;

/// The longest time for which the relay waits for units that are about to commit rows.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// The longest time for which units wait for the relay's look.
const QUIET_MAX: Duration = Duration::from_secs(1);

/// No unit begins while it lives.
pub(crate) struct Quiet<'a>(&'a Dispatcher);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.quiet.send_replace(false);
    }
}

impl Dispatcher {
    /// Lets no unit begin, and waits for those that leave rows to the relay. While units overlap, one of them is always
    /// about to commit such rows, and messages would go by the relay for ever.
    pub(crate) async fn quiet(&self) -> Quiet<'_> {
        self.quiet.send_replace(true);
        let quiet = Quiet(self);
        let ended = async {
            loop {
                let ended = self.overflowed.notified();
                if self.lock().overflowing == 0 {
                    return;
                }
                ended.await;
            }
        };
        let _ = tokio::time::timeout(WAIT_MAX, ended).await; // one that takes longer is met at the next try
        quiet
    }

    /// Waits until a unit may begin.
    pub(crate) async fn may_begin(&self) {
        if *self.quiet.borrow() {
            let mut quiet = self.quiet.subscribe();
            let _ = tokio::time::timeout(QUIET_MAX, quiet.wait_for(|quiet| !quiet)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Load, *};
    use tokio::{sync::mpsc, time::Instant};

    #[tokio::test(start_paused = true)]
    async fn the_relay_catches_up_with_units_that_always_overlap() {
        let (outgoing, _sent) = mpsc::unbounded_channel();
        let dispatcher = Dispatcher::new("e", Load { messages: 10, bytes: 1000 }, outgoing);
        let unit = |begins: u64| {
            let dispatcher = dispatcher.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(begins)).await;
                for messages in [11].into_iter().chain(std::iter::repeat(1)) {
                    dispatcher.may_begin().await;
                    let _reserved = dispatcher.reserve(Load { messages, bytes: 0 });
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        let units = [tokio::spawn(unit(0)), tokio::spawn(unit(7)), tokio::spawn(unit(14))];
        tokio::time::sleep(Duration::from_millis(100)).await;
        let look = async |quiet: bool| {
            let quiet = if quiet { Some(dispatcher.quiet().await) } else { None };
            let (_, overflows) = dispatcher.room_for_relay();
            let began = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            dispatcher.caught_up(overflows, began);
            drop(quiet);
        };
        for _ in 0..100 {
            look(false).await;
        }
        assert!(dispatcher.is_behind(), "units overlap: this is what the quiet moment is for");
        look(true).await;
        assert!(!dispatcher.is_behind(), "nobody was about to leave rows");
        tokio::time::timeout(Duration::from_millis(1), dispatcher.may_begin()).await.expect("units go on");
        units.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
