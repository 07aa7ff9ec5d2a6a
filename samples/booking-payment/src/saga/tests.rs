//! Stories of one payment in virtual time, and all of them.

use super::*;
use sagabus::testing::{Explore, Harness};

const ID: Uuid = Uuid::from_u128(7);

fn booked() -> StayBooked {
    let patience =
        Patience { answer: seconds(30), question: minutes(1), questions_max: 2, card: days(14), cards_max: 2 };
    StayBooked { booking_id: ID, cents: 12_000, patience }
}

/// Twenty euros of credits are taken, a hundred are left for the card.
fn charging() -> Harness<Payment> {
    Harness::begin(booked()).give(CreditsTaken { booking_id: ID, cents: 2_000 }).expect_state("Charging")
}

#[test]
fn credits_and_card_pay_together() {
    let paid = charging().give(CardCharged { booking_id: ID }).expect_state("Paid").expect_timers(0);
    assert_eq!(paid.sent::<ChargeCard>(), [ChargeCard { booking_id: ID, attempt: 1, cents: 10_000 }]);
    paid.expect_sent::<ReturnCredits>(0);
}

#[test]
fn a_declined_card_is_replaced_within_two_weeks() {
    let declined = || charging().give(CardDeclined { booking_id: ID, attempt: 1 });
    let waiting = declined().expect_published(&NewCardNeeded { booking_id: ID, attempt: 1 });
    let again = waiting.advance(days(13)).give(CardUpdated { booking_id: ID, attempt: 1 }).expect_state("Charging");
    again.expect_sent::<ChargeCard>(2).give(CardCharged { booking_id: ID }).expect_state("Paid");
    let too_late = declined().advance(days(14)).expect_state("Undoing").expect_sent::<ReturnCredits>(1);
    too_late.give(CreditsReturned { booking_id: ID }).expect_state("Cancelled");
}

#[test]
fn f6_a_card_that_is_entered_twice_is_tried_once() {
    let card = || CardUpdated { booking_id: ID, attempt: 1 };
    let clicked_twice = charging().give(CardDeclined { booking_id: ID, attempt: 1 }).give(card()).give(card());
    let waiting = clicked_twice.expect_sent::<ChargeCard>(2).expect_nothing_held();
    let last = waiting.give(CardDeclined { booking_id: ID, attempt: 2 });
    last.expect_sent::<ChargeCard>(2).expect_state("Undoing");
}

#[test]
fn what_is_said_again_about_an_earlier_card_does_not_count_against_the_next() {
    let declined = |attempt| CardDeclined { booking_id: ID, attempt };
    let card = |attempt| CardUpdated { booking_id: ID, attempt };
    let patience = Patience { cards_max: 3, ..booked().patience };
    let first = Harness::<Payment>::begin(StayBooked { patience, ..booked() }).give(NoCredits { booking_id: ID });
    let second = first.give(declined(1)).give(card(1)).give(declined(1)).expect_state("Charging").expect_timers(1);
    let clicked_late = second.give(declined(2)).give(card(1)).expect_state("AwaitingCard").expect_timers(1);
    clicked_late.give(card(2)).expect_state("Charging").expect_sent::<ChargeCard>(3).expect_nothing_held();
}

#[test]
fn an_outcome_that_stays_unknown_is_asked_for_before_anything_is_undone() {
    let asking = charging().advance(seconds(30)).expect_state("Asking").expect_sent::<AskForCharge>(1);
    let pending = asking.give(ChargePending { booking_id: ID }).expect_sent::<ReturnCredits>(0);
    let asked_twice = pending.advance(minutes(1)).expect_sent::<AskForCharge>(2);
    asked_twice.clone().give(ChargeFound { booking_id: ID }).expect_state("Paid").expect_sent::<ReturnCredits>(0);
    asked_twice
        .clone()
        .give(ChargeVoid { booking_id: ID, attempt: 1 })
        .expect_state("Undoing")
        .expect_sent::<ReturnCredits>(1);
    let unclear = asked_twice.advance(days(30)).expect_state("Unclear").expect_sent::<ReturnCredits>(0);
    unclear.give(ChargeClarified { booking_id: ID, charged: false }).expect_state("Undoing");
}

#[test]
fn an_answer_that_comes_after_the_question_counts() {
    let late = charging().advance(seconds(30)).give(CardCharged { booking_id: ID });
    late.expect_state("Paid").expect_timers(0);
    let declined = charging().advance(seconds(30)).give(CardDeclined { booking_id: ID, attempt: 1 });
    let second = declined.expect_state("AwaitingCard").give(CardUpdated { booking_id: ID, attempt: 1 });
    let second = second.advance(seconds(30));
    let answer_about_the_first = second.expect_state("Asking").give(ChargeVoid { booking_id: ID, attempt: 1 });
    answer_about_the_first.expect_state("Asking").give(ChargeFound { booking_id: ID }).expect_state("Paid");
}

#[test]
fn without_credits_there_is_nothing_to_undo() {
    let none = Harness::<Payment>::begin(booked()).give(NoCredits { booking_id: ID });
    let declined = none.give(CardDeclined { booking_id: ID, attempt: 1 }).advance(days(14));
    declined.expect_state("Cancelled").expect_sent::<ReturnCredits>(0);
}

/// What the bank does with the charge of an attempt: whether it makes it, and whether it says so by itself. What it
/// answers to a question agrees with that, or is "pending".
type Bank = fn(attempt: u32) -> (bool, bool);

const BANKS: [Bank; 5] = [
    |_| (true, true),
    |_| (true, false),
    |_| (false, true),
    |_| (false, false),
    |attempt| (attempt > 1, attempt == 1), // the first card is declined, the second charged without a word
];

/// Every story with this bank, and what must hold in each. `credits`: the customer may have some; `hesitates`: a
/// question may be answered by "pending".
fn with(bank: Bank, credits: bool, hesitates: bool) -> Explore<Payment> {
    let patience = Patience { questions_max: 1, ..booked().patience }; // the stories with more are the same, longer
    Explore::<Payment>::from(StayBooked { patience, ..booked() })
        .answers(move |TakeCredits { booking_id, .. }| {
            let taken = credits.then(|| CreditsTaken { booking_id, cents: 2_000 }.into());
            taken.into_iter().chain([NoCredits { booking_id }.into()]).collect()
        })
        .answers(move |ChargeCard { booking_id, attempt, .. }| match bank(attempt) {
            (_, false) => vec![],
            (true, true) => vec![CardCharged { booking_id }.into()],
            (false, true) => vec![CardDeclined { booking_id, attempt }.into()],
        })
        .answers(move |AskForCharge { booking_id, attempt }| {
            let known = match bank(attempt) {
                (true, _) => ChargeFound { booking_id }.into(),
                (false, _) => ChargeVoid { booking_id, attempt }.into(),
            };
            let pending = hesitates.then(|| ChargePending { booking_id }.into());
            pending.into_iter().chain([known]).collect()
        })
        .answers(|back: ReturnCredits| vec![CreditsReturned { booking_id: back.booking_id }.into()])
        .event(CardUpdated { booking_id: ID, attempt: 1 })
        .event(ChargeClarified { booking_id: ID, charged: bank(2).0 })
        .at_most_once::<ReturnCredits>()
        .in_the_end("who is charged is paid", move |end| {
            let charges = end.sent.iter().filter(|sent| sent.type_name == ChargeCard::TYPE);
            let mut attempts = charges.filter_map(|sent| sent.body["attempt"].as_u64());
            end.state == "Paid" || end.state == "Unclear" || !attempts.any(|attempt| bank(attempt as u32).0)
        })
        .in_the_end("credits are kept for a paid booking alone", |end| {
            let kept = end.came::<CreditsTaken>() - end.came::<CreditsReturned>();
            end.state == "Unclear" || kept == 0 || end.state == "Paid"
        })
}

#[test]
fn money_and_credits_are_kept_for_a_paid_booking_alone_in_any_story() {
    let mut reached = std::collections::BTreeSet::new();
    for bank in BANKS {
        let explored = with(bank, true, true).run();
        explored.expect_no_breach();
        reached.extend(explored.states_reached().iter().cloned());
    }
    assert_eq!(reached.len(), 8, "{reached:?}");
}

/// With these banks the stories are few enough to play them all.
#[test]
fn what_is_said_twice_counts_once_in_any_story() {
    let [_, charges_silently, _, loses_all, charges_the_second] = BANKS;
    for (bank, credits) in [(charges_silently, true), (loses_all, true), (charges_the_second, false)] {
        with(bank, credits, false).duplicates().run().expect_no_breach();
    }
}

#[test]
fn the_chart_is_as_agreed() {
    let chart = Payment::chart();
    assert_eq!(chart.verify(), [] as [String; 0]);
    for extension in ["json", "mmd", "svg"] {
        sagabus::testing::snapshot(&chart, format!("booking-payment.{extension}"));
    }
}
