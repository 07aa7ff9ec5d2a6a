use super::{reports::Accounts, *};
use crate::{
    Crashes,
    port::{Fate, Report},
};

fn dispatcher() -> (Arc<Dispatcher>, mpsc::UnboundedReceiver<Outgoing>) {
    let (outgoing, sent) = mpsc::unbounded_channel();
    (Dispatcher::new("e", Load { messages: 10, bytes: 1000 }, outgoing), sent)
}

fn rows(messages: usize) -> Load {
    Load { messages, bytes: 0 }
}

fn row(n: u128, to: &str) -> LeasedRow {
    LeasedRow {
        id: Uuid::from_u128(n),
        destination: Destination::Endpoint(to.into()),
        envelope: Arc::new(Envelope::new("m", "t", "{}")),
        attempts: 0,
        expired: 0,
        late: None,
        wanted: false,
    }
}

fn report(n: u128, fate: Fate) -> Report {
    Report { row: Uuid::from_u128(n), fate }
}

#[test]
fn what_does_not_fit_goes_to_the_relay_and_so_does_all_after_it_until_it_caught_up() {
    let (dispatcher, _sent) = dispatcher();
    let small = dispatcher.reserve(rows(8));
    assert!(small.leased);
    let big = dispatcher.reserve(rows(3));
    assert!(!big.leased, "3 more do not fit a window of 10");
    assert!(!dispatcher.reserve(rows(1)).leased, "1 would fit, but it would overtake");
    let (_, overflows) = dispatcher.room_for_relay();
    assert_eq!(overflows, None, "a unit is about to commit rows that the relay has not seen");
    drop(big);
    let (_, overflows) = dispatcher.room_for_relay();
    drop(dispatcher.reserve(rows(1))); // comes and goes while the relay looks
    dispatcher.caught_up(overflows, Instant::now());
    assert!(!dispatcher.reserve(rows(1)).leased);
    let (room, overflows) = dispatcher.room_for_relay();
    assert_eq!(room, Load { messages: 2, bytes: 1000 });
    dispatcher.caught_up(overflows, Instant::now());
    assert!(dispatcher.reserve(rows(1)).leased);
}

#[test]
fn what_is_sent_is_bounded_in_bytes_and_a_larger_body_goes_alone() {
    let (dispatcher, _sent) = dispatcher();
    let of = |bytes| Load { messages: 1, bytes };
    let large = dispatcher.reserve(of(5000));
    assert!(large.leased, "nothing else is in the window");
    let (room, _) = dispatcher.room_for_relay();
    assert_eq!(room, Load::default(), "nothing beside it");
    drop(large);
    let mut leased = row(1, "e");
    leased.envelope = Arc::new(Envelope::new("m", "t", "x".repeat(600)));
    dispatcher.send(&[leased]);
    let (room, _) = dispatcher.room_for_relay();
    assert_eq!(room, Load { messages: 9, bytes: 400 });
    let fits = dispatcher.reserve(of(400));
    assert!(fits.leased && !dispatcher.reserve(of(1)).leased, "600 + 400 + 1 are more than 1000");
    drop(fits);
    dispatcher.account(&mut vec![report(1, Fate::Confirmed)], &Crashes::default());
    let (room, overflows) = dispatcher.room_for_relay();
    assert_eq!(room, Load { messages: 10, bytes: 1000 }, "it has arrived");
    dispatcher.caught_up(overflows, Instant::now());
    assert!(dispatcher.reserve(of(1000)).leased);
}

#[tokio::test(start_paused = true)]
async fn the_relay_looks_for_what_a_unit_left_while_the_next_one_is_about_to_leave_more() {
    let (dispatcher, _sent) = dispatcher();
    let poll = Instant::now() + Duration::from_secs(2);
    let (first, second) = (dispatcher.reserve(rows(11)), dispatcher.reserve(rows(11)));
    assert_eq!(dispatcher.relay_at(poll), poll, "nothing is committed yet");
    drop(first);
    assert_eq!(dispatcher.relay_at(poll), Instant::now());
    dispatcher.forget_due();
    assert_eq!(dispatcher.relay_at(poll), poll, "it has looked");
    drop(second);
    assert_eq!(dispatcher.relay_at(poll), Instant::now());
}

#[tokio::test(start_paused = true)]
async fn what_goes_to_a_closed_destination_waits_behind_one_probe() {
    let (dispatcher, mut sent) = dispatcher();
    let crashes = Crashes::default();
    dispatcher.send(&[row(1, "later"), row(2, "there")]);
    let mut reports = vec![report(1, Fate::Unroutable("no queue".into())), report(2, Fate::Confirmed)];
    let Accounts { failed, reopened, .. } = dispatcher.account(&mut reports, &crashes);
    assert_eq!((failed.len(), failed[0].unroutable, failed[0].tried), (1, true, true));
    assert_eq!(reopened, ["there"], "an earlier process may have put rows off");
    assert!(sent.try_recv().is_ok() && sent.try_recv().is_ok());
    dispatcher.send(&[row(3, "later"), row(4, "there")]);
    assert_eq!(sent.try_recv().map(|message| message.row), Ok(Uuid::from_u128(4)), "row 3 was expected to wait");
    let Accounts { failed, .. } = dispatcher.account(&mut Vec::new(), &crashes);
    assert_eq!((failed.len(), failed[0].id, failed[0].tried), (1, Uuid::from_u128(3), false));
    assert!(dispatcher.is_closed("later") && !dispatcher.is_closed("there"));
    tokio::time::advance(Duration::from_secs(600)).await;
    dispatcher.send(&[row(1, "later")]);
    let mut reports = vec![report(1, Fate::Confirmed)];
    assert_eq!(dispatcher.account(&mut reports, &crashes).reopened, ["later"]);
    assert!(!dispatcher.is_closed("later"), "what waits for it is made due, until it closes again");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_comes_back_after_it_was_given_up_gets_answers_again() {
    let (dispatcher, mut sent) = dispatcher();
    let crashes = Crashes::default();
    let answer = |n: u128| LeasedRow { destination: Destination::ReplyTo("web-1-a#requests".into()), ..row(n, "") };
    dispatcher.send(&[answer(1)]);
    let mut confirmed = Vec::new();
    for n in 1..20 {
        let report =
            if sent.try_recv().is_ok() { vec![report(n, Fate::Unroutable("no queue".into()))] } else { vec![] };
        dispatcher.account(&mut { report }, &crashes);
        confirmed.extend(dispatcher.take_confirmed());
        tokio::time::advance(Duration::from_secs(300)).await;
        dispatcher.send(&[answer(n + 1)]);
    }
    assert!(!confirmed.is_empty(), "answers to a process that is gone were expected to be dropped");
    let probe = sent.try_recv().expect("an answer was expected to ask whether the process is back").row.as_u128();
    dispatcher.account(&mut vec![report(probe, Fate::Confirmed)], &crashes);
    dispatcher.send(&[answer(100), answer(101)]);
    assert!(sent.try_recv().is_ok() && sent.try_recv().is_ok(), "it is back: both were expected to be sent");
}

#[tokio::test]
async fn lost_leases_empty_the_window_too() {
    let (dispatcher, _sent) = dispatcher();
    dispatcher.send(&[row(1, "there")]);
    let waiting = tokio::spawn({
        let dispatcher = dispatcher.clone();
        async move { dispatcher.emptied().await }
    });
    tokio::task::yield_now().await;
    dispatcher.lost(&[Uuid::from_u128(1)]);
    waiting.await.expect("`emptied` was expected to end when the last lease is lost");
}

#[tokio::test(start_paused = true)]
async fn after_a_commit_without_an_answer_the_relay_asks_for_rows_under_our_own_lease() {
    let (dispatcher, _sent) = dispatcher();
    dispatcher.send(&[row(1, "there"), row(2, "there"), row(3, "there")]);
    let of = |n: u128| {
        let mut row = OutboxRow::new(
            Uuid::from_u128(n),
            crate::port::OutboxKind::Command,
            Destination::Endpoint("there".into()),
            Arc::new(Envelope::new("m", "t", "{}")),
        );
        row.leased = true;
        row
    };
    let crashes = Crashes::default();
    dispatcher.account(&mut vec![report(1, Fate::Confirmed), report(2, Fate::Unknown("no answer".into()))], &crashes);
    assert_eq!(dispatcher.forget_due(), None, "nothing is amiss");
    let mut other = dispatcher.reserve(rows(1));
    other.commits(&[of(4)]);
    let mut unit = dispatcher.reserve(rows(1));
    unit.commits(&[of(5)]);
    drop(unit);
    let poll = Instant::now() + Duration::from_secs(2);
    assert_eq!(dispatcher.relay_at(poll), Instant::now(), "the relay was expected to look at once");
    // one arrived, one failed, one is in flight, one is being committed; the server may still be at work on the fifth
    for (after, known) in [(0, true), (2, true), (4, true), (6, true)] {
        let (_, overflows) = dispatcher.room_for_relay();
        let known = known.then(|| [1, 2, 3, 4].map(Uuid::from_u128).to_vec());
        assert_eq!(dispatcher.forget_due(), known, "after {after} s");
        assert_eq!(dispatcher.relay_at(poll), poll, "it has looked");
        dispatcher.caught_up(overflows, Instant::now());
        assert_eq!(
            dispatcher.reserve(rows(1)).leased,
            after == 6,
            "what comes later must not overtake, after {after} s"
        );
        dispatcher.forget_due();
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    dispatcher.enqueue(other, vec![of(4)]);
    let mut unit = dispatcher.reserve(rows(1));
    unit.commits(&[of(6)]);
    unit.answered();
    drop(unit);
    assert_eq!(dispatcher.forget_due(), None, "what was refused left nothing");
}

#[tokio::test(start_paused = true)]
async fn what_is_being_deleted_or_waits_for_its_destination_is_known_when_the_relay_is_in_doubt() {
    let (dispatcher, _sent) = dispatcher();
    let crashes = Crashes::default();
    let known = |dispatcher: &Dispatcher| {
        dispatcher.lose_sight();
        dispatcher.forget_due().map(|known| known.iter().map(Uuid::as_u128).collect::<Vec<_>>())
    };
    dispatcher.send(&[row(1, "there"), row(2, "later")]);
    let mut reports = vec![report(1, Fate::Confirmed), report(2, Fate::Unroutable("no queue".into()))];
    dispatcher.account(&mut reports, &crashes);
    dispatcher.failed();
    dispatcher.send(&[row(3, "later")]);
    let confirmed = dispatcher.take_confirmed();
    assert_eq!(known(&dispatcher), Some(vec![1, 3]), "one is being deleted, the other was not sent");
    dispatcher.give_back_confirmed(confirmed);
    assert_eq!(known(&dispatcher), Some(vec![1, 3]), "the database did not delete it");
    assert_eq!(dispatcher.take_confirmed(), [Uuid::from_u128(1)], "it is tried again");
    dispatcher.deleted();
    dispatcher.account(&mut Vec::new(), &crashes);
    dispatcher.failed();
    assert_eq!(known(&dispatcher), Some(vec![]), "the database has heard of all");
}

/// A probe that nobody ends would close its destination for ever.
#[tokio::test(start_paused = true)]
async fn a_probe_without_an_answer_makes_room_for_the_next() {
    let (dispatcher, mut sent) = dispatcher();
    let crashes = Crashes::default();
    dispatcher.send(&[row(1, "later")]);
    dispatcher.account(&mut vec![report(1, Fate::Unroutable("no queue".into()))], &crashes);
    assert!(sent.try_recv().is_ok());
    let ends = [Some(Fate::Refused("it is full".into())), Some(Fate::Unknown("no confirm".into())), None];
    for (probe, end) in (2..).zip(ends) {
        tokio::time::advance(Duration::from_secs(600)).await;
        dispatcher.send(&[row(probe, "later")]);
        assert_eq!(sent.try_recv().map(|sent| sent.row.as_u128()), Ok(probe), "it asks whether the queue is there");
        match end {
            Some(fate) => drop(dispatcher.account(&mut vec![report(probe, fate)], &crashes)),
            None => dispatcher.lost(&[Uuid::from_u128(probe)]),
        }
    }
    dispatcher.send(&[row(9, "later")]);
    assert_eq!(sent.try_recv().map(|sent| sent.row.as_u128()), Ok(9), "after a lost lease as well");
}

/// Each try of a row that stays unanswered is a command that the broker keeps for the channel: after a few dozen it
/// reads nothing more from it, for whomever.
#[tokio::test(start_paused = true)]
async fn an_event_that_is_not_answered_and_a_queue_that_refuses_wait_behind_one_probe() {
    let crashes = Crashes::default();
    let of = |n, to: &Destination| LeasedRow { destination: to.clone(), ..row(n, "") };
    let event = (Destination::Event("happened".into()), Fate::Unanswered("no confirm".into()));
    let full = (Destination::Endpoint("full".into()), Fate::QueueRefused("nack".into()));
    for (to, fate) in [event, full] {
        let (dispatcher, mut sent) = dispatcher();
        dispatcher.send(&[of(1, &to), of(2, &to)]);
        let mut reports = vec![report(1, fate.clone()), report(2, fate)];
        let Accounts { failed, .. } = dispatcher.account(&mut reports, &crashes);
        assert!(failed.iter().all(|failed| failed.unroutable), "they wait for {to:?}: {failed:?}");
        assert!(sent.try_recv().is_ok() && sent.try_recv().is_ok());
        dispatcher.send(&[of(3, &to)]);
        assert!(sent.try_recv().is_err(), "a new row for {to:?} was expected to wait");
        tokio::time::advance(Duration::from_secs(600)).await;
        dispatcher.send(&[of(1, &to), of(2, &to), of(3, &to)]);
        assert_eq!(sent.try_recv().map(|sent| sent.row.as_u128()), Ok(1));
        assert!(sent.try_recv().is_err(), "one asks, the others wait");
        let reopened = dispatcher.account(&mut vec![report(1, Fate::Confirmed)], &crashes).reopened;
        assert_eq!(reopened, [to.name()], "what waits is made due");
    }
    // the other subscribers have got it
    let (dispatcher, mut sent) = dispatcher();
    let event = Destination::Event("happened".into());
    dispatcher.send(&[of(1, &event)]);
    let mut reports = vec![report(1, Fate::QueueRefused("nack".into()))];
    let Accounts { failed, .. } = dispatcher.account(&mut reports, &crashes);
    assert!(failed.iter().all(|failed| !failed.unroutable), "{failed:?}");
    dispatcher.send(&[of(2, &event)]);
    assert!(sent.try_recv().is_ok() && sent.try_recv().is_ok(), "an event that one queue refuses goes on");
}
