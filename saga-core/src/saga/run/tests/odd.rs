//! A saga whose transitions break rules that types cannot express.

use super::*;

#[states]
enum Odd {
    Fine {
        ratio: f64,
    },
    Calm,
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

    fn later(_: Fine, _: Later) -> Calm {
        Calm
    }

    fn end(_: Calm, _: Bye) -> Half {
        Half
    }

    /// As many timers as it is told, each in the place of the one before.
    fn line(state: Fine, line: Line) -> (Fine, Vec<After<Timeout>>) {
        (state, (0..line.line).map(|_| after(seconds(1), Timeout {})).collect())
    }

    fn timeout(state: Fine, _: Timeout) -> Fine {
        state
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
    let decided = decided(type_name, "{\"id\":7}");
    let Settled::Held { reason: HeldReason::Failed, error: Some(error) } = decided.settled[1].1.clone() else {
        panic!("a failure was expected: {:?}", decided.settled)
    };
    (decided, error)
}

/// What becomes of a message after the start.
fn decided(type_name: &str, body: &str) -> Decided {
    let logic = Typed::<Odd>::new();
    let key = InstanceKey { saga: "odd".into(), id: "7".into() };
    let mut offers: Vec<Offer> = ["Begin", type_name]
        .iter()
        .map(|name| Offer {
            envelope: Arc::new(Envelope::new(*name, *name, body.to_owned())),
            decoded: None,
            waiting: None,
            fault: None,
        })
        .collect();
    let asked = Offers {
        key: &key,
        row: None,
        now_us: 0,
        unread: &[],
        partial: false,
        overrule: None,
        body_bytes_max: 100,
        aliases: &KnownAliases::default(),
        keeps: false,
    };
    logic.decide(&asked, &mut offers)
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

#[test]
fn one_transition_sets_a_thousand_timers_and_not_one_more() {
    let timers = |n: u32| decided("Line", &format!("{{\"id\":7,\"line\":{n}}}"));
    assert_eq!(timers(1000).timers, [2999], "all but the last were replaced");
    let Settled::Held { error: Some(error), .. } = &timers(1001).settled[1].1 else { panic!("a failure was expected") };
    assert!(error.contains("sets more than 1000 timers"), "{error}");
}

#[test]
fn only_states_that_can_be_entered_again_are_remembered() {
    let row = decided("Later", "{\"id\":7}").instance.expect("it was started").row;
    assert_eq!((row.state.as_str(), row.progress), ("Calm", None), "`Fine` is left for good");
}

/// States with the names of what a saga's traits declare.
mod names {
    use super::{Begin, Next, Tick};
    use crate::{saga, states};

    #[states]
    pub(super) enum Names {
        In,
        Id,
        Data,
        #[done]
        Then,
    }

    #[saga(name = "names", id = id: u64)]
    impl Names {
        fn begin(_: Begin) -> In {
            In
        }
        fn next(_: In, _: Next) -> Id {
            Id
        }
        fn tick(_: Id, _: Tick) -> Data {
            Data
        }
        fn over(self, _: Tick) -> Then {
            Then
        }
    }
}

#[test]
fn states_may_have_the_names_of_what_traits_declare() {
    let states: Vec<_> = names::Names::chart().states.into_iter().map(|state| state.name).collect();
    assert_eq!(states, ["In", "Id", "Data", "Then"]);
}

/// An operator has ended it: whatever comes is journaled, and changes nothing, whichever version wrote it.
#[test]
fn r_031_a_cancelled_instance_takes_nothing_any_more() {
    let mut instance = Instance::at(&["Begin"]);
    let row = instance.row.as_mut().expect("it was started");
    (row.state, row.progress, row.done, row.version) = (InstanceRow::CANCELLED.into(), None, true, 99);
    let before = instance.row().clone();
    let types = ["Begin", "Next", "Tick", "Refuse", "Later", "Cancel"];
    assert_eq!(instance.batch(&types), types.map(|name| format!("{name}: ignored")));
    assert_eq!(instance.timer("Timeout", 1000), ["Timeout: stale"]);
    assert_eq!(instance.timer("GiveUp", 1001), ["GiveUp: stale"]);
    for (name, reason) in [("Skip", HeldReason::Early), ("Later", HeldReason::Deferred), ("Tick", HeldReason::Paused)] {
        let waits = instance.message(name, None);
        instance.held.push((waits, reason));
        assert_eq!(instance.offer(vec![]), [format!("{name}: ignored")]);
    }
    assert_eq!(instance.row(), &before);
    assert_eq!(Typed::<Walk>::new().check(instance.row()), Ok(()), "no program has to read it");
}
