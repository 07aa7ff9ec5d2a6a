//! Messages that leave one after another, a few at a time. An AMQP message costs the broker as much with one of ours in
//! it as with a hundred, so the next ones gather.

use std::time::Duration;
use tokio::time::Instant;

/// So many are worth an AMQP message of their own.
const FEW: usize = 4;
/// What leaves so long after others has come alone.
const SOON: Duration = Duration::from_millis(3);
/// How long the next ones gather.
const GATHER: Duration = Duration::from_millis(5);

/// Whether messages leave a few at a time, one after another.
#[derive(Default)]
pub(super) struct Few {
    last: Option<Instant>,
    /// Until when others gather.
    pub(super) gather: Option<Instant>,
}

impl Few {
    /// So many messages have left together.
    pub(super) fn left(&mut self, messages: usize) {
        if messages > 0 {
            let now = Instant::now();
            let soon = self.last.replace(now).is_some_and(|last| now - last < SOON);
            self.gather = (soon && messages < FEW).then(|| now + GATHER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn messages_that_leave_in_crumbs_gather_and_others_go_at_once() {
        let mut few = Few::default();
        few.left(1);
        assert_eq!(few.gather, None, "the first one goes, and so does the next");
        few.left(0);
        tokio::time::advance(SOON).await;
        few.left(1);
        assert_eq!(few.gather, None, "it came alone");
        few.left(FEW);
        assert_eq!(few.gather, None, "so many are worth an AMQP message");
        few.left(FEW - 1);
        assert_eq!(few.gather, Some(Instant::now() + GATHER));
    }
}
