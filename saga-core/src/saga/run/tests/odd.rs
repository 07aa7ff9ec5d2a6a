//! A saga whose transitions break rules that types cannot express.

use super::*;

#[derive(Saga)]
#[saga(name = "odd", id = id: u64)]
#[starts(Begin)]
#[on(Tick)]
enum Odd {
    #[on(Next, Join)]
    Fine(Fine),
    #[done]
    #[on(Next)]
    Half(Half),
}

#[derive(Event, Serialize, Deserialize)]
struct Large {
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Fine {
    ratio: f64,
}
#[derive(Serialize, Deserialize)]
struct Half;

impl Starts<Begin> for Odd {
    type Then = Fine;
    fn start(_: Begin, _: &Moment) -> Fine {
        Fine { ratio: 0.5 }
    }
}
impl On<Next> for Fine {
    type Then = Fine;
    fn on(self, _: Next, _: &Moment) -> Fine {
        Fine { ratio: self.ratio / 0.0 }
    }
}
impl On<Next> for Half {
    type Then = Half;
    fn on(self, _: Next, _: &Moment) -> Half {
        self
    }
}
impl On<Tick> for Odd {
    type Then = Stay<Self>;
    fn on(self, _: Tick, _: &Moment) -> Stay<Self> {
        Stay(Self::Half(Half))
    }
}

impl On<Join> for Fine {
    type Then = (Fine, Publishes<Large>);
    fn on(self, _: Join, _: &Moment) -> Self::Then {
        (self, publish(Large { text: "x".repeat(100) }))
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
fn keeping_the_timers_of_one_state_in_another_fails() {
    let (decided, error) = after_start("Tick");
    assert!(error.contains("keeps the timers of `Fine` and enters `Half`"), "{error}");
    assert_eq!(decided.instance.expect("it was started").row.state, "Fine");
}

#[test]
fn a_message_that_is_too_large_fails_the_transition_that_sends_it() {
    let (decided, error) = after_start("Join");
    assert!(error.contains("Large has 111 bytes; `body_bytes_max` allows 100"), "{error}");
    assert_eq!(decided.instance.expect("it was started").row.seq, 1);
}
