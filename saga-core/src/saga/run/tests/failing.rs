//! What fails, what waits behind it, and what is left alone.

use super::*;

#[test]
fn s_069_s_070_s_071_a_panic_pauses_and_a_success_of_the_same_message_releases() {
    let mut instance = Instance::at(&["Begin"]);
    let words = instance.batch(&["Tick", "Boom", "Tick", "Next"]);
    assert_eq!(words, ["Tick: A 2", "Boom: held failed", "Tick: held paused", "Next: held paused"]);
    assert!(instance.row().data.contains("\"ticks\":1"), "what came before the panic counts");
    assert_eq!(instance.row().paused_by.as_deref(), Some("Boom-3"));
    // the operator retries the message: it panics again, and the rest stays behind it
    let position = instance.held.iter().position(|(envelope, _)| envelope.type_name == "Boom").expect("it is held");
    let (boom, _) = instance.held.remove(position);
    assert_eq!(instance.offer(vec![boom]), ["Boom: held failed"]);
    // repaired: the same message id is taken now, and waiting messages follow in order
    let position = instance.held.iter().position(|(envelope, _)| envelope.type_name == "Boom").expect("it is held");
    let (boom, _) = instance.held.remove(position);
    let repaired = Arc::new(Envelope { type_name: "Tick".into(), ..(*boom).clone() });
    assert_eq!(instance.offer(vec![repaired]), ["Tick: A 3", "Tick: A 4", "Next: B 5"]);
    assert_eq!(instance.row().paused_by, None);
}

#[test]
fn s_047_an_early_message_that_panics_does_not_undo_the_transition_that_released_it() {
    let mut instance = Instance::at(&["Begin"]);
    assert_eq!(instance.batch(&["Bang"]), ["Bang: held early"]);
    assert_eq!(instance.batch(&["Next"]), ["Next: B 2", "Bang: held failed"]);
    assert_eq!(instance.row().paused_by.as_deref(), Some("Bang-2"));
    assert_eq!(instance.row().state, "B");
}

#[test]
fn s_072_a_start_that_cannot_be_read_pauses_nobody() {
    let mut instance = Instance::default();
    let broken = Arc::new(Envelope { body: "{".into(), ..(*instance.message("Begin", None)).clone() });
    assert_eq!(instance.offer(vec![broken]), ["Begin: held undecodable"]);
    assert!(instance.row.is_none());
    assert_eq!(instance.batch(&["Next", "Begin"]), ["Begin: A 1", "Next: B 2"]);
}

#[test]
fn a_state_that_cannot_be_read_pauses_its_instance_and_stays_as_it_is() {
    let mut instance = Instance::at(&["Begin"]);
    let data = "{\"ticks\":\"many\"}".to_owned();
    instance.row.as_mut().expect("it was started").data = data.clone();
    assert_eq!(instance.batch(&["Tick", "Next"]), ["Tick: held failed", "Next: held paused"]);
    assert_eq!(instance.row().data, data);
    assert!(instance.row().paused_by.is_some());
}

#[test]
fn timers_that_cannot_be_read_pause_the_instance_and_stay_as_they_are() {
    let mut instance = Instance::at(&["Begin"]);
    let progress = Some("{\"timers\":[{}]}".to_owned());
    instance.row.as_mut().expect("it was started").progress = progress.clone();
    let tick = instance.message("Tick", None);
    let (decided, words) = instance.decide(vec![tick]);
    assert_eq!(words, [("Tick".into(), "held failed".into())]);
    assert_eq!((decided.timers_out.len(), &instance.row().progress), (0, &progress));
    assert!(instance.row().paused_by.is_some());
}

#[test]
fn r_019_an_undecodable_message_that_names_the_instance_pauses_it() {
    let mut instance = Instance::at(&["Begin"]);
    let broken = Arc::new(Envelope { body: "{".into(), ..(*instance.message("Tick", Some(1))).clone() });
    assert_eq!(instance.offer(vec![broken]), ["Tick: held undecodable"]);
    assert!(instance.row().paused_by.is_some());
}

#[test]
fn an_instance_never_pauses_behind_a_message_that_waits_for_it() {
    let mut instance = Instance::at(&["Begin"]);
    let broken = Arc::new(Envelope { body: "{".into(), ..(*instance.message("Join", Some(1))).clone() });
    assert_eq!(instance.offer(vec![broken.clone()]), ["Join: held early"], "not decoded before its time");
    let mut instance = Instance::at(&["Begin"]);
    instance.row.as_mut().expect("it was started").paused_by = Some("Join-9".into());
    assert_eq!(instance.batch(&["Next"]), ["Next: held paused"]);
    // the cause is repaired, and the message turns out to be early: it must not keep the others waiting
    let join = Arc::new(Envelope { message_id: "Join-9".into(), ..(*instance.message("Join", None)).clone() });
    assert_eq!(instance.offer(vec![join]), ["Next: B 2", "Join: Done 3"]);
    assert_eq!(instance.row().paused_by, None);
}

#[test]
fn what_waits_and_fits_goes_before_what_comes() {
    let mut instance = Instance::at(&["Begin"]);
    instance.batch(&["Boom", "Tick"]);
    instance.row.as_mut().expect("it was started").paused_by = None;
    assert_eq!(instance.batch(&["Next"]), ["Tick: A 2", "Next: B 3"]);
}

#[test]
fn what_a_newer_version_wrote_is_left_alone_until_a_process_knows_it() {
    let mut instance = Instance::at(&["Begin"]);
    let newer = InstanceRow { version: 2, paused_by: Some("Tick-9".into()), ..instance.row().clone() };
    instance.row = Some(newer.clone());
    let tick = Arc::new(Envelope { message_id: "Tick-9".into(), ..(*instance.message("Tick", None)).clone() });
    let messages = vec![tick, instance.message("Next", None), instance.message("Tick", None)];
    let left = ["Tick: left to a newer version", "Next: held version", "Tick: held version"];
    assert_eq!(instance.offer(messages), left, "nothing would wake the instance for the first");
    assert_eq!(instance.row(), &newer, "the row was expected to stay as it is");
    // this process is of the newer version now
    instance.row.as_mut().expect("it is there").version = 1;
    instance.row.as_mut().expect("it is there").paused_by = None;
    assert_eq!(instance.batch(&[]), ["Next: B 2", "Tick: B 3"], "in the order in which they came");
}

#[test]
fn a_message_that_fails_pauses_its_instance_however_the_batches_fall() {
    let apart = {
        let mut instance = Instance::default();
        let words = [instance.batch(&["Boom"]), instance.batch(&["Begin"]), instance.batch(&["Next"])];
        (words.concat().last().cloned(), instance.row().paused_by.clone())
    };
    let together = {
        let mut instance = Instance::default();
        let words = instance.batch(&["Boom", "Begin", "Next"]);
        (words.last().cloned(), instance.row().paused_by.clone())
    };
    assert_eq!(apart, (Some("Next: held paused".into()), Some("Boom-1".into())));
    assert_eq!(together, apart);
}

#[test]
fn a_held_message_that_was_not_read_stops_the_instance_where_it_would_fit() {
    let mut instance = Instance::at(&["Begin"]);
    let messages = vec![instance.message("Next", None), instance.message("Cancel", None)];
    let unread = [("Join".to_owned(), HeldReason::Early)];
    let (decided, words) = instance.decide_with(messages, &unread, None);
    assert_eq!(words, [("Next".into(), "B 2".into())], "`Join` fits B and came before `Cancel`");
    assert!(decided.more);
    let mut instance = Instance::at(&["Begin"]);
    let messages = vec![instance.message("Tick", None)];
    let (decided, _) = instance.decide_with(messages, &unread, None);
    assert!(!decided.more, "in A it does not fit");
}

#[test]
fn a_refused_projection_puts_the_message_off_and_later_ones_wait_behind_it() {
    let mut instance = Instance::at(&["Begin"]);
    let messages = vec![instance.message("Tick", None), instance.message("Next", None)];
    let overrule = Overrule::PutOff(Duration::from_secs(10), "no such column".into());
    let (_, words) = instance.decide_with(messages, &[], Some(&overrule));
    assert_eq!(words, [("Tick".into(), "put off 10s".into()), ("Next".into(), "held paused".into())]);
    assert_eq!((instance.row().seq, instance.row().paused_by.as_deref()), (1, Some("Tick-2")));
    let retry = Arc::new(Envelope { message_id: "Tick-2".into(), ..(*instance.message("Tick", None)).clone() });
    assert_eq!(instance.offer(vec![retry]), ["Tick: A 2", "Next: B 3"]);
}

#[test]
fn a_timer_without_the_entry_that_set_it_is_stale_unless_it_is_a_deadline() {
    let mut instance = Instance::at(&["Begin"]);
    let forged = instance.message("Timeout", None);
    assert_eq!(instance.offer(vec![forged]), ["Timeout: stale"]);
}

#[test]
fn s_045_a_rejected_message_says_which_state_rejects_it() {
    let mut instance = Instance::at(&["Begin"]);
    let before = instance.row().clone();
    let refuse = instance.message("Refuse", None);
    let (decided, _) = instance.decide(vec![refuse]);
    let Settled::Held { reason: HeldReason::Rejected, error: Some(error) } = &decided.settled[0].1 else {
        panic!("it was expected to be held: {:?}", decided.settled)
    };
    assert!(error.contains("`A`") && error.contains("Refuse"), "{error}");
    assert_eq!(instance.row(), &before);
    assert_eq!(instance.batch(&["Next"]), ["Next: B 2"], "it does not come back by itself, and pauses nobody");
}
