//! A saga whose transitions break rules that types cannot express.

use super::*;

#[states]
enum Odd {
    Fine {
        ratio: f64,
    },
    #[done]
    Half,
}

#[derive(Event, Serialize, Deserialize)]
struct Large {
    text: String,
}

#[saga(name = "odd", id = id: u64)]
impl Odd {
    fn begin(_: Begin) -> Fine {
        Fine { ratio: 0.5 }
    }

    fn next(state: Fine, _: Next) -> Fine {
        Fine { ratio: state.ratio / 0.0 }
    }

    fn next_in_half(state: Half, _: Next) -> Half {
        state
    }

    fn tick(self, _: Tick) -> Stay<Self> {
        Stay(Self::Half(Half))
    }

    fn join(state: Fine, _: Join) -> (Fine, Publishes<Large>) {
        (state, publish(Large { text: "x".repeat(100) }))
    }
}

fn after_start(type_name: &str) -> (Decided, String) {
    let logic = Typed::<Odd>::new();
    let key = InstanceKey { saga: "odd".into(), id: "7".into() };
    let mut offers: Vec<Offer> = ["Begin", type_name]
        .iter()
        .map(|name| Offer {
            envelope: Arc::new(Envelope::new(*name, *name, "{\"id\":7}")),
            decoded: None,
            waiting: None,
            fault: None,
        })
        .collect();
    let asked =
        Offers { key: &key, row: None, now_us: 0, unread: &[], partial: false, overrule: None, body_bytes_max: 100 };
    let decided = logic.decide(&asked, &mut offers);
    let Settled::Held { reason: HeldReason::Failed, error: Some(error) } = decided.settled[1].1.clone() else {
        panic!("a failure was expected: {:?}", decided.settled)
    };
    (decided, error)
}

#[test]
fn a_state_that_cannot_be_read_back_fails_the_transition_that_made_it() {
    let (decided, error) = after_start("Next");
    assert!(error.contains("cannot be read back") && error.contains("infinity"), "{error}");
    let row = decided.instance.expect("it was started").row;
    assert_eq!((row.data.as_str(), row.paused_by.as_deref()), ("{\"ratio\":0.5}", Some("Next")));
}

#[test]
fn a_stay_that_enters_another_state_fails() {
    let (decided, error) = after_start("Tick");
    assert!(error.contains("says `Stay` in `Fine`, and enters `Half`"), "{error}");
    assert_eq!(decided.instance.expect("it was started").row.state, "Fine");
}

#[test]
fn a_message_that_is_too_large_fails_the_transition_that_sends_it() {
    let (decided, error) = after_start("Join");
    assert!(error.contains("Large has 111 bytes; `body_bytes_max` allows 100"), "{error}");
    assert_eq!(decided.instance.expect("it was started").row.seq, 1);
}
