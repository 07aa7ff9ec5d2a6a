//! Who gets a message, and what cannot be handled.

use super::*;
use crate::{Destination, InstanceKey};

#[tokio::test(start_paused = true)]
async fn an_answer_to_somebody_elses_question_leaves_no_row() {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    let paid = |id| message(id, &Paid { id: 1 });
    rig.broker.deliver_all([paid("p1"), from_instance("other", "1", paid("p2"))]);
    rig.all_acked().await;
    assert_eq!((rig.store.inbox().len(), rig.held(), rig.walk_at(1).0), (1, vec![], "Here".into()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_finds_the_instance_that_asked_though_its_body_names_another() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), begin(2)]);
    rig.all_acked().await;
    rig.broker.deliver(message("buy-1", &Buy { id: 1 }));
    rig.until("it asks", |rig| rig.broker.sent_of("bank.Pay").len() == 1).await;
    let asked = rig.broker.sent_of("bank.Pay").remove(0);
    assert_eq!(asked.destination, Destination::Endpoint("bank".into()));
    let saga = asked.envelope.saga.clone().expect("a command names its sender");
    assert_eq!((saga.saga.as_str(), saga.id.as_str()), ("walk", "1"));
    // like a bank that pads numbers and answers with its own id
    let mut answer = from_instance("walk", "001", message("paid", &Paid { id: 2 }));
    answer.receiver = Some("walk".into());
    rig.broker.deliver(answer);
    rig.all_acked().await;
    assert_eq!((rig.walk_at(1).0, rig.walk_at(2).0), ("There".into(), "Here".into()));
    rig.until_within(secs(4000), "the timer of the state is gone", |rig| rig.store.outbox().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_with_an_id_of_its_own_goes_there_whatever_its_sender_is_called() {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    // its sender is a saga `walk` of another service, whose ids are not numbers
    rig.broker.deliver(from_instance("walk", "north-7", step(1, 1)));
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.held()), (vec![1], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_message_to_a_receiver_that_is_not_here_waits_for_one_that_has_it() {
    let rig = Rig::walk().await;
    rig.broker.deliver(Envelope { receiver: Some("run".into()), ..step(1, 1) });
    rig.all_acked().await;
    let held = rig.the_held();
    assert_eq!((held.receiver.as_str(), held.reason), ("", HeldReason::Version));
    assert!(held.error.unwrap().contains("no receiver `run` here"));
}

#[tokio::test(start_paused = true)]
async fn r_019_an_undecodable_message_pauses_the_instance_that_its_headers_name() {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    let broken = from_instance("walk", "1", Envelope::new("broken", "Step", "{\"id\":"));
    rig.broker.deliver_all([broken, step(1, 1)]);
    rig.all_acked().await;
    use HeldReason::{Paused, Undecodable};
    assert_eq!(rig.held(), [("broken".into(), Undecodable), ("step-1-1".into(), Paused)]);
    assert_eq!(rig.store.instances()[0].row.paused_by.as_deref(), Some("broken"));
}

#[tokio::test(start_paused = true)]
async fn r_019_an_undecodable_message_that_names_no_instance_is_held_by_itself() {
    let script = Script::new();
    let rig = Rig::start(|builder| builder.saga::<Walk>().handle::<Do>(script.clone())).await;
    let broken = [Envelope::new("a", "Step", "{\"id\":"), Envelope::new("b", "shop.Do", "7")];
    rig.broker.deliver_all(broken.into_iter().chain([begin(1), step(1, 1), command(1)]));
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.done()), (vec![1], vec![1]));
    use HeldReason::Undecodable;
    let mut held = rig.store.held();
    held.sort_by_key(|row| row.envelope.message_id.clone());
    let held: Vec<_> = held.iter().map(|row| (row.receiver.as_str(), row.reason)).collect();
    assert_eq!(held, [("walk", Undecodable), ("shop.Do", Undecodable)]);
}

#[tokio::test(start_paused = true)]
async fn r_016_what_cannot_be_read_is_held_with_the_place_and_its_bytes_and_never_runs() {
    let script = Script::new();
    let rig = Rig::start(|builder| {
        let builder = builder.handle::<Do>(script.clone());
        builder.settings(|settings| settings.body_bytes_max = 100)
    })
    .await;
    let bodies: [&[u8]; 4] = [b"{\"n\":", b"7", b"", &[b' '; 101]];
    let broken = bodies.iter().enumerate().map(|(n, body)| Envelope::new(format!("m-{n}"), "shop.Do", body.to_vec()));
    rig.broker.deliver_all(broken.chain([command(1)]));
    rig.all_acked().await;
    assert_eq!((script.runs(), rig.done(), rig.broker.acked().len()), (vec![(1, 0)], vec![1], 5));
    let mut held = rig.store.held();
    held.sort_by_key(|row| row.envelope.message_id.clone());
    assert_eq!(held.len(), bodies.len());
    let says = ["line 1 column 5", "line 1 column 1", "line 1 column 0", "101 bytes"];
    for ((row, body), says) in held.iter().zip(bodies).zip(says) {
        let error = row.error.as_deref().unwrap_or_default();
        assert!(error.contains(says), "`{says}` was expected in: {error}");
        assert_eq!((row.reason, &row.envelope.body[..]), (HeldReason::Undecodable, body));
    }
}

/// Restated: it waits a day for a process that knows the type, and then for a person.
#[tokio::test(start_paused = true)]
async fn r_017_an_unknown_type_is_held_naming_those_that_are_known_and_others_go_on() {
    let rig = Rig::start(|builder| builder.saga::<Walk>().handle::<Do>(Script::new())).await;
    rig.broker.deliver_all([Envelope::new("m", "new.Thing", "{}"), begin(1)]);
    rig.all_acked().await;
    assert_eq!(rig.walk_at(1), ("Here".into(), 1));
    let held = rig.the_held();
    let error = held.error.unwrap_or_default();
    for name in ["unknown type `new.Thing`", "Begin", "Step", "shop.Do"] {
        assert!(error.contains(name), "`{name}` was expected in: {error}");
    }
    assert_eq!(held.reason, HeldReason::Version);
    rig.until_within(secs(90_000), "a day later it is for a person", |rig| {
        rig.the_held().reason == HeldReason::Undecodable
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn t_029_more_fields_another_order_and_blanks_are_read_and_kept_byte_by_byte() {
    let script = Script::new();
    script.plan(2, [Act::Fail]).plan(3, [Act::Fail, Act::Fail]);
    let rig = Rig::start(|builder| builder.retries(Retries::none().delayed([secs(60)])).handle::<Do>(script.clone()));
    let rig = rig.await;
    let body = |n: u64| format!("{{ \"extra\": [1 ,2],\r\n\t\"n\" : {n} }} ");
    let loose = |n| Envelope::new(format!("do-{n}"), "shop.Do", body(n));
    rig.broker.deliver_all([1, 2, 3].map(loose));
    rig.all_acked().await;
    assert_eq!(rig.done(), [1]);
    let put_off: Vec<_> = rig.store.outbox().iter().map(|row| row.envelope.body.clone()).collect();
    assert!(put_off.contains(&body(2).into()) && put_off.contains(&body(3).into()), "{put_off:?}");
    rig.until_within(secs(90), "the other is held", |rig| rig.held().len() == 1).await;
    rig.all_acked().await;
    assert_eq!((rig.done(), rig.the_held().envelope.body.clone()), (vec![1, 2], body(3).into()));
}

#[tokio::test(start_paused = true)]
async fn t_028_what_nobody_can_read_is_held_with_the_reason() {
    let rig = Rig::start(|builder| builder.saga::<Walk>().settings(|settings| settings.body_bytes_max = 100)).await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    let mut nul = step(1, 1);
    nul.headers.insert("note".into(), "a\0b".into());
    let large = Envelope { body: vec![b' '; 101].into(), ..step(1, 2) };
    let xml = Envelope { content_type: Some("application/xml; charset=utf-8".into()), ..step(1, 3) };
    let long = Envelope { message_id: "x".repeat(2000), ..step(1, 4) };
    rig.broker.deliver_all([nul, large, xml, long]);
    rig.broker.deliver_faulty(step(1, 5), "no message id");
    rig.all_acked().await;
    assert_eq!(rig.steps(1).len(), 0);
    let held = rig.store.held();
    let expected = ["U+0000", "101 bytes", "is not JSON", "longer than 1000 bytes", "no message id"];
    assert_eq!(held.len(), expected.len());
    for (row, expected) in held.iter().zip(expected) {
        let error = row.error.as_deref().unwrap_or_default();
        assert!(error.contains(expected), "`{expected}` was expected in: {error}");
        assert_eq!((row.reason, row.receiver.as_str()), (HeldReason::Undecodable, ""));
    }
}

#[tokio::test(start_paused = true)]
async fn r_016_what_cannot_be_read_is_held_after_no_run_with_its_place_and_its_bytes() {
    let script = Script::new();
    let rig = Rig::start(|builder| {
        let builder = builder.saga::<Walk>().handle::<Do>(script.clone());
        builder.settings(|settings| settings.body_bytes_max = 100)
    })
    .await;
    let long = format!("{{\"n\":1{}}}", " ".repeat(100));
    let cases: [(&str, &[u8], &str); 9] = [
        ("shop.Do", b"{\"n\":1", "line 1 column 6"),
        ("shop.Do", b"{\"n\":\"one\"}", "line 1 column 10"),
        ("shop.Do", b"{\"n\":\n-1}", "line 2 column 2"),
        ("shop.Do", b"", "line 1 column 0"),
        ("shop.Do", long.as_bytes(), "the body has 107 bytes; `body_bytes_max` is 100"),
        ("shop.Do", b"{\"n\":1}\xff\0", "line 1 column 8"),
        ("Step", b"{\"id\":1,\"n\":}", "line 1 column 13"),
        ("Step", b"[]", "line 1 column"),
        ("Step", b"{\"id\":1}", "missing field `n`"),
    ];
    let messages =
        cases.iter().enumerate().map(|(n, (name, body, _))| Envelope::new(n.to_string(), *name, body.to_vec()));
    rig.broker.deliver_all(messages.collect::<Vec<_>>());
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    let mut held = rig.store.held();
    held.sort_by_key(|row| row.envelope.message_id.clone());
    assert_eq!(held.len(), cases.len());
    for (row, (name, body, place)) in held.iter().zip(cases) {
        let error = row.error.as_deref().unwrap_or_default();
        assert!(error.contains(place), "`{place}` was expected in: {error}");
        assert_eq!((row.reason, row.attempts), (HeldReason::Undecodable, 0), "{name}: {error}");
        assert_eq!(&row.envelope.body[..], body, "the bytes are kept");
        assert_eq!(rig.inbox(&row.envelope.message_id).attempts, 0);
    }
    assert_eq!((script.runs(), rig.done()), (vec![(1, 0)], vec![1]));
}

#[tokio::test(start_paused = true)]
async fn r_018_an_endpoint_asks_its_transport_to_generate_ids_if_it_is_set_so() {
    assert!(!Rig::walk().await.broker.topology().generates_ids);
    let rig = Rig::start(|builder| builder.saga::<Walk>().settings(|settings| settings.generate_ids = true)).await;
    assert!(rig.broker.topology().generates_ids);
}

#[tokio::test(start_paused = true)]
async fn r_021_thousands_that_cannot_be_read_hold_up_nobody_and_are_held() {
    let script = Script::new();
    let rig =
        Rig::start(|builder| builder.handle::<Do>(script.clone()).settings(|settings| settings.prefetch = 100)).await;
    let broken = (0..5000).map(|n| Envelope::new(format!("broken-{n}"), "shop.Do", "{"));
    rig.broker.deliver_all(broken.chain((1..=10).map(command)));
    rig.all_acked().await;
    assert_eq!((rig.store.held().len(), rig.done()), (5000, (1..=10).collect()));
}

#[tokio::test(start_paused = true)]
async fn t_028_json_by_another_name_and_a_byte_order_mark_are_read() {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    let json = |n, content_type: &str| Envelope { content_type: Some(content_type.into()), ..step(1, n) };
    let mut marked = b"\xef\xbb\xbf".to_vec();
    marked.extend_from_slice(&step(1, 3).body);
    let marked = Envelope { body: marked.into(), ..step(1, 3) };
    let types = [json(1, "application/vnd.shop+json"), json(2, "Application/JSON; charset=utf-8")];
    rig.broker.deliver_all(types.into_iter().chain([marked]));
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.held()), (vec![1, 2, 3], vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_even_be_held_is_set_aside_and_others_go_on() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), begin(2)]);
    rig.all_acked().await;
    for _ in 0..6 {
        rig.store.fail_next(Operation::Write, StoreErrorKind::Rejected);
    }
    rig.broker.deliver(Envelope::new("m", "what.Nobody.Knows", "{}"));
    rig.until("it is tried", |rig| rig.broker.open() == 1).await;
    tokio::time::sleep(secs(30)).await;
    rig.broker.deliver_all([step(1, 1), step(2, 1)]);
    rig.until("the others go on", |rig| rig.broker.open() == 1).await;
    assert_eq!((rig.steps(1), rig.steps(2), rig.held()), (vec![1], vec![1], vec![]));
    assert_eq!(rig.broker.given_back(), 0, "it would come again at once");
    // when a channel is lost it comes again, and the copy of before goes
    for _ in 0..6 {
        rig.store.fail_next(Operation::Write, StoreErrorKind::Rejected);
    }
    rig.broker.lose_channel();
    tokio::time::sleep(secs(60)).await;
    assert_eq!((rig.broker.open(), rig.broker.in_memory()), (1, 1));
    // a transport closes when the last delivery is settled
    let Rig { endpoint, broker, .. } = rig;
    assert_eq!(endpoint.stop().await, Ok(()));
    assert_eq!((broker.open(), broker.in_memory(), broker.given_back()), (0, 0, 1), "the next process gets it");
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_of_an_instance_for_which_nothing_is_held_does_nothing() {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    rig.broker.deliver(Envelope::wake(&InstanceKey { saga: "walk".into(), id: "1".into() }));
    rig.all_acked().await;
    assert_eq!((rig.walk_at(1).1, rig.store.inbox().len(), rig.held()), (1, 1, vec![]));
}
