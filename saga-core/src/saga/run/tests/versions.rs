//! Rows that another version of the definition wrote.

use super::{
    life::{Life, say},
    *,
};

#[derive(Event, Serialize, Deserialize)]
struct Paid {
    id: u64,
    cents: i64,
}

/// As version 1 knows it.
mod one {
    use super::*;

    #[states]
    pub(super) enum Account {
        Open {
            amount: f64,
        },
        #[done]
        Closed {
            amount: f64,
        },
    }

    #[saga(name = "account", id = id: u64)]
    impl Account {
        fn paid_first(paid: Paid) -> (Open, After<Timeout>) {
            (Open { amount: paid.cents as f64 / 100.0 }, after(seconds(10), Timeout {}))
        }

        fn paid(state: Open, paid: Paid) -> Open {
            Open { amount: state.amount + paid.cents as f64 / 100.0 }
        }

        fn timeout(state: Open, _: Timeout) -> Closed {
            Closed { amount: state.amount }
        }
    }
}

/// As version 2 knows it: in cents, and never in debt.
mod two {
    use super::*;

    #[states]
    pub(super) enum Account {
        Open {
            cents: i64,
        },
        #[done]
        Closed {
            cents: i64,
        },
    }

    #[derive(Deserialize)]
    pub(super) struct OpenV1 {
        amount: f64,
    }

    impl Upcast<1> for Open {
        type Old = OpenV1;
        fn upcast(old: OpenV1) -> Result<Self, String> {
            match old.amount {
                debt if debt < 0.0 => Err(format!("a debt of {}", -debt)),
                amount => Ok(Self { cents: (amount * 100.0).round() as i64 }),
            }
        }
    }

    #[saga(name = "account", id = id: u64, version = 2)]
    impl Account {
        fn paid_first(paid: Paid) -> (Open, After<Timeout>) {
            (Open { cents: paid.cents }, after(seconds(10), Timeout {}))
        }

        fn paid(state: Open, paid: Paid) -> Open {
            Open { cents: state.cents + paid.cents }
        }

        fn timeout(state: Open, _: Timeout) -> Closed {
            Closed { cents: state.cents }
        }
    }
}

fn paid(cents: i64) -> Envelope {
    say(&format!("paid {cents}"), &Paid { id: 7, cents })
}

/// What version 1 left behind.
fn old(cents: i64) -> InstanceRow {
    let mut life = Life::<one::Account>::new();
    life.moves(paid(cents));
    assert_eq!(life.row().version, 1);
    life.row().clone()
}

#[test]
fn s_073_a_row_of_an_older_version_is_upcast_when_a_message_comes() {
    let mut life = Life::<two::Account>::new();
    life.row = Some(old(150));
    assert!(life.offer(Vec::new()).is_empty());
    assert_eq!((life.row().version, life.at().1), (1, r#"{"amount":1.5}"#), "nothing has come");
    life.moves(paid(25));
    assert_eq!((life.row().version, life.at()), (2, ("Open", r#"{"cents":175}"#, 2)));

    let mut life = Life::<two::Account>::new();
    life.row = Some(old(150));
    let of = SagaRef { saga: "account".into(), id: "7".into(), entered: None, timer: Some(1000) };
    let made = life.moves(Envelope { saga: Some(of), ..say("timer", &Timeout {}) });
    assert_eq!((made.to.as_str(), life.row().version), ("Closed", 2), "a timer of version 1 fires in version 2");
    assert_eq!(life.at().1, r#"{"cents":150}"#);
}

#[test]
fn s_074_an_upcast_that_fails_pauses_its_instance_and_leaves_the_row_as_it_was() {
    let mut life = Life::<two::Account>::new();
    let before = old(-150);
    life.row = Some(before.clone());
    let settled = life.offer(vec![paid(25), paid(26)]);
    let Settled::Held { reason: HeldReason::Failed, error: Some(error) } = &settled[0] else {
        panic!("it was expected to be held: {settled:?}")
    };
    for part in ["version 1", "version 2", "a debt of 1.5"] {
        assert!(error.contains(part), "{part} was expected in: {error}");
    }
    assert!(matches!(settled[1], Settled::Held { reason: HeldReason::Paused, .. }), "{settled:?}");
    assert_eq!(*life.row(), InstanceRow { paused_by: Some("paid 25".into()), ..before });
}

#[test]
fn s_075_an_older_version_leaves_a_newer_row_alone_and_the_newer_one_takes_what_waited() {
    let mut newer = Life::<two::Account>::new();
    newer.moves(paid(150));
    let mut life = Life::<one::Account>::new();
    life.row.clone_from(&newer.row);
    let settled = life.offer(vec![paid(25)]);
    assert!(matches!(settled[..], [Settled::Held { reason: HeldReason::Version, .. }]), "{settled:?}");
    assert_eq!(life.row, newer.row);
    let mut life = life.into_saga::<two::Account>();
    let settled = life.offer(Vec::new());
    assert!(matches!(&settled[..], [Settled::Moved(made)] if made.seq == 2), "{settled:?}");
    assert_eq!(life.at(), ("Open", r#"{"cents":175}"#, 2));
}
