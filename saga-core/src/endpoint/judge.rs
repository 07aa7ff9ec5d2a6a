//! What the inbox says about incoming messages: which run, which are known, which carry the id of another message.

use crate::{
    Envelope, HeldReason,
    port::{InboxFound, InboxResult},
};
use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

/// What is to be done with a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It runs.
    Run(Before),
    /// It is settled, waits elsewhere, or already runs in this batch.
    Duplicate,
    /// Its id belongs to another message.
    Reused(String),
}

/// What happened to a message before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Before {
    /// The `attempts` of the unsettled inbox row that this run completes; `None`: there is no row yet.
    pub(crate) completes: Option<i64>,
    /// Delayed retries so far.
    pub(crate) round: u32,
    /// Time since the inbox row was claimed.
    pub(crate) elapsed: Duration,
}

impl Before {
    /// Runs that were counted.
    pub(crate) fn attempts(self) -> i64 {
        self.completes.unwrap_or(0)
    }
}

/// The reason for which a message under the id of another is held.
pub(crate) const REUSED: HeldReason = HeldReason::Rejected;

/// Judges the messages of one batch, in their order, each with its receiver's name.
///
/// Only the inbox knows what a retry is: a header that says so proves nothing. Within the batch, only messages that
/// will run are remembered, each with its hash. So a retry behind its own redelivered original runs, and a second
/// message under the same id is never taken for the first.
pub(crate) fn judge<'a>(
    messages: impl IntoIterator<Item = (&'a str, &'a Envelope)>,
    inbox: &[InboxFound],
    now_us: i64,
) -> Vec<Verdict> {
    let known: HashMap<(&str, &str), &InboxFound> =
        inbox.iter().map(|row| ((row.receiver.as_str(), row.message_id.as_str()), row)).collect();
    let mut running: HashMap<(&str, &str), i64> = HashMap::new();
    let judged = messages.into_iter().map(|(receiver, envelope)| {
        let key = (receiver, envelope.message_id.as_str());
        let verdict = one(known.get(&key).copied(), envelope, now_us);
        if !matches!(verdict, Verdict::Run(_)) {
            return verdict;
        }
        let hash = envelope.body_hash();
        match running.entry(key) {
            Entry::Vacant(first) => {
                first.insert(hash);
                verdict
            }
            Entry::Occupied(first) if *first.get() == hash => Verdict::Duplicate,
            Entry::Occupied(_) => reused(envelope, &envelope.type_name),
        }
    });
    judged.collect()
}

fn one(row: Option<&InboxFound>, envelope: &Envelope, now_us: i64) -> Verdict {
    let Some(row) = row else { return Verdict::Run(Before::default()) };
    if row.body_hash != envelope.body_hash() || row.type_name != envelope.type_name {
        return reused(envelope, &row.type_name);
    }
    let before = Before {
        completes: Some(row.attempts),
        round: row.round,
        elapsed: Duration::from_micros(now_us.saturating_sub(row.since_us).max(0) as u64),
    };
    // what was put off without a run has the attempt of its original: only what goes to one handler alone is its retry
    let is_retry = envelope.attempt == row.attempts && (row.attempts > 0 || envelope.receiver.is_some());
    match row.result {
        InboxResult::Retrying if is_retry => Verdict::Run(before),
        InboxResult::Suspect => Verdict::Run(before),
        InboxResult::Handled
        | InboxResult::Ignored
        | InboxResult::Stale
        | InboxResult::Discarded
        | InboxResult::Held
        | InboxResult::Retrying => Verdict::Duplicate,
    }
}

fn reused(envelope: &Envelope, type_name: &str) -> Verdict {
    let id = &envelope.message_id;
    Verdict::Reused(format!(
        "message id {id} was used before for another message of type {type_name}: a producer must give each message \
         its own id"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, body: &'static str) -> Envelope {
        Envelope::new(id, "t", body)
    }

    fn row(envelope: &Envelope, result: InboxResult, attempts: i64) -> InboxFound {
        InboxFound {
            receiver: "r".into(),
            message_id: envelope.message_id.clone(),
            type_name: envelope.type_name.clone(),
            body_hash: envelope.body_hash(),
            result,
            attempts,
            round: 2,
            since_us: 1_000_000,
        }
    }

    fn judged(messages: &[&Envelope], inbox: &[InboxFound]) -> Vec<Verdict> {
        judge(messages.iter().map(|envelope| ("r", *envelope)), inbox, 4_000_000)
    }

    fn run(completes: i64) -> Verdict {
        Verdict::Run(Before { completes: Some(completes), round: 2, elapsed: Duration::from_secs(3) })
    }

    #[test]
    fn o_009_a_settled_or_held_message_is_a_duplicate() {
        let m = message("m", "{}");
        use InboxResult::{Discarded, Handled, Held, Ignored, Stale};
        for result in [Handled, Ignored, Stale, Discarded, Held] {
            assert_eq!(judged(&[&m], &[row(&m, result, 1)]), [Verdict::Duplicate], "{result:?}");
        }
        assert_eq!(judged(&[&m], &[]), [Verdict::Run(Before::default())]);
    }

    #[test]
    fn only_the_retry_itself_continues_a_message_that_was_put_off() {
        let original = message("m", "{}");
        let retry = |attempt| Envelope { attempt, ..original.clone() };
        let inbox = [row(&original, InboxResult::Retrying, 4)];
        assert_eq!(judged(&[&original], &inbox), [Verdict::Duplicate]);
        assert_eq!(judged(&[&retry(4)], &inbox), [run(4)]);
        assert_eq!(judged(&[&retry(3)], &inbox), [Verdict::Duplicate]);
        let forged = retry(i64::MAX);
        assert_eq!(judged(&[&forged], &[]), [Verdict::Run(Before::default())], "a stranger's header proves nothing");
    }

    #[test]
    fn a_retry_behind_its_own_redelivered_original_runs() {
        let original = message("m", "{}");
        let retry = Envelope { attempt: 1, ..original.clone() };
        let inbox = [row(&original, InboxResult::Retrying, 1)];
        assert_eq!(judged(&[&original, &retry], &inbox), [Verdict::Duplicate, run(1)]);
        assert_eq!(judged(&[&retry, &original], &inbox), [run(1), Verdict::Duplicate]);
        assert_eq!(judged(&[&retry, &retry], &inbox), [run(1), Verdict::Duplicate]);
    }

    #[test]
    fn o_010_the_same_id_with_another_body_is_no_duplicate() {
        let (m, other) = (message("m", "{}"), message("m", "{ }"));
        let inbox = [row(&m, InboxResult::Handled, 1)];
        assert!(matches!(judged(&[&other], &inbox)[..], [Verdict::Reused(_)]));
        let retry = Envelope { attempt: 1, ..other.clone() };
        assert!(matches!(judged(&[&retry], &inbox)[..], [Verdict::Reused(_)]), "a retry has the body of the original");
        let batch = judged(&[&m, &other, &m], &[]);
        assert!(
            matches!(batch[..], [Verdict::Run(_), Verdict::Reused(_), Verdict::Duplicate]),
            "the batch must not matter: {batch:?}"
        );
        let typed = Envelope { type_name: "other".into(), ..m.clone() };
        assert!(matches!(judged(&[&m, &typed], &[])[..], [Verdict::Run(_), Verdict::Reused(_)]));
    }

    #[test]
    fn two_receivers_of_one_message_are_judged_apart() {
        let m = message("m", "{}");
        let inbox = [row(&m, InboxResult::Handled, 1)];
        let verdicts = judge([("r", &m), ("s", &m)], &inbox, 0);
        assert_eq!(verdicts, [Verdict::Duplicate, Verdict::Run(Before::default())]);
    }
}
