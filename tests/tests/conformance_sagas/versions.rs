//! Two versions of one definition, one after the other and side by side.

use super::*;
use saga_core::{After, Message, Upcast, after, hours, saga, states};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Event, Serialize, Deserialize)]
#[event(from = "service")]
struct Paid {
    key: u64,
    cents: i64,
}
#[derive(Message, Serialize, Deserialize)]
#[message(name = "service.Quiet")]
struct Quiet {}

mod one {
    use super::*;

    #[states]
    pub(crate) enum Account {
        Open {
            amount: f64,
        },
        #[done]
        Closed {
            amount: f64,
        },
    }

    #[saga(name = "account", id = key: u64)]
    impl Account {
        fn first(paid: Paid) -> (Open, After<Quiet>) {
            (Open { amount: paid.cents as f64 / 100.0 }, after(hours(1), Quiet {}))
        }

        fn paid(state: Open, paid: Paid) -> Open {
            Open { amount: state.amount + paid.cents as f64 / 100.0 }
        }

        fn quiet(state: Open, _: Quiet) -> Closed {
            Closed { amount: state.amount }
        }
    }
}

mod two {
    use super::*;

    #[states]
    pub(crate) enum Account {
        Open {
            cents: i64,
        },
        #[done]
        Closed {
            cents: i64,
        },
    }

    #[derive(Deserialize)]
    pub(crate) struct OpenV1 {
        amount: f64,
    }

    impl Upcast<1> for Open {
        type Old = OpenV1;
        fn upcast(old: OpenV1) -> Result<Self, String> {
            if old.amount < 0.0 {
                return Err(format!("a debt of {}", -old.amount));
            }
            Ok(Self { cents: (old.amount * 100.0).round() as i64 })
        }
    }

    #[saga(name = "account", id = key: u64, version = 2)]
    impl Account {
        fn first(paid: Paid) -> (Open, After<Quiet>) {
            (Open { cents: paid.cents }, after(hours(1), Quiet {}))
        }

        fn paid(state: Open, paid: Paid) -> Open {
            Open { cents: state.cents + paid.cents }
        }

        fn quiet(state: Open, _: Quiet) -> Closed {
            Closed { cents: state.cents }
        }
    }
}

/// S-073: only what is touched is converted, and old timers fire.
pub(crate) async fn s_073_rows_pass_through_upcast_as_their_messages_come<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<one::Account>()).await;
    publish(&process, (1..=2).map(|key| Paid { key, cents: 150 })).await;
    service.count("account", "Open", 2).await;
    stop([process]).await;

    let process = service.start(0, |builder| builder.saga::<two::Account>()).await;
    publish(&process, [Paid { key: 1, cents: 25 }]).await;
    let touched = service.reaches("account", "1", "Open", 2).await;
    assert_eq!((touched.version, touched.data), (2, json!({ "cents": 175 })));
    let other = service.reaches("account", "2", "Open", 1).await;
    assert_eq!((other.version, other.data), (1, json!({ "amount": 1.5 })));
    service.later(Duration::from_secs(7200)).await;
    let touched = service.reaches("account", "1", "Closed", 3).await;
    assert_eq!((touched.version, touched.data), (2, json!({ "cents": 175 })));
    let other = service.reaches("account", "2", "Closed", 2).await;
    assert_eq!((other.version, other.data), (2, json!({ "cents": 150 })));
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// S-074: the row stays as the old version wrote it, so that a program that can read it goes on.
pub(crate) async fn s_074_a_row_whose_upcast_fails_stays_as_it_was<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<one::Account>()).await;
    publish(&process, [Paid { key: 1, cents: -150 }]).await;
    let before = service.reaches("account", "1", "Open", 1).await;
    stop([process]).await;

    let process = service.start(0, |builder| builder.saga::<two::Account>()).await;
    publish(&process, [Paid { key: 1, cents: 25 }]).await;
    let held = tests::house::one_held(service.db()).await;
    let error = held.error.clone().unwrap_or_default();
    for part in ["version 1", "version 2", "a debt of 1.5"] {
        assert!(error.contains(part), "{part} was expected in: {error}");
    }
    let paused = service.reaches("account", "1", "Open", 1).await;
    assert_eq!((paused.version, &paused.data), (1, &before.data));
    assert_eq!(paused.paused_by.as_deref(), Some(held.message_id.as_str()));
    stop([process]).await;

    let process = service.start(0, |builder| builder.saga::<one::Account>()).await;
    let done = service.db().held_retry(&[held.row()], "me", "back to version 1").await;
    assert_eq!(done.count("retried"), 1, "{done:?}");
    let instance = service.reaches("account", "1", "Open", 2).await;
    assert_eq!((instance.version, instance.data, instance.paused_by), (1, json!({ "amount": -1.25 }), None));
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// S-075: a rolling upgrade.
pub(crate) async fn s_075_an_older_process_leaves_a_newer_row_to_a_newer_process<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let newer = service.start(0, |builder| builder.saga::<two::Account>()).await;
    publish(&newer, [Paid { key: 1, cents: 150 }]).await;
    let before = service.reaches("account", "1", "Open", 1).await;
    stop([newer]).await;
    let older = service.start(1, |builder| builder.saga::<one::Account>()).await;
    publish(&older, [Paid { key: 1, cents: 25 }]).await;
    let held = tests::house::one_held(service.db()).await;
    assert_eq!((held.reason.as_str(), held.attempts, held.saga_id.as_deref()), ("version", 0, Some("1")));
    let after = service.reaches("account", "1", "Open", 1).await;
    assert_eq!((after.version, &after.data, after.updated_at_us), (2, &before.data, before.updated_at_us));
    assert_eq!(after.paused_by, None);
    // one version comes while the other is still there, and nobody does anything about the message
    let newer = service.start(0, |builder| builder.saga::<two::Account>()).await;
    stop([older]).await;
    let after = service.reaches("account", "1", "Open", 2).await;
    assert_eq!((after.version, after.data), (2, json!({ "cents": 175 })));
    assert_eq!(service.held().await.len(), 0);
    stop([newer]).await;
}

/// S-076: of many instances, each is read once, page by page; those that the new program cannot read are listed.
pub(crate) async fn s_076_a_check_of_100_000_instances_takes_seconds<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    service.db().migrate().await.expect("the tables are created");
    service.db().fill().await;
    let next = Endpoint::builder("service", service.transports[0].clone(), service.stores[0].clone());
    let (mut found, began) = (Vec::new(), std::time::Instant::now());
    let checked = next.saga::<two::Account>().check(|instance| found.push(instance)).await.expect("the check runs");
    println!("{checked} in {:?}", began.elapsed());
    assert_eq!((checked.instances, checked.unreadable), (100_000, 20));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let of = |state: &str| found.iter().filter(|it| it.state == state && it.version == 1).count();
    assert_eq!((of("Gone"), of("Open")), (10, 10));
    assert_eq!(service.db().count("process").await, 0, "it is no process of the endpoint");
}
