//! The macros take no name from the user's module, and warn of nothing.
#![deny(warnings)]
include!("ui/common.rs");

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[allow(dead_code)]
enum ProcessIn {
    Mine,
}
mod derived {}

type Keeps = Option<Replies<No>>;

#[saga(name = "order", id = id: u64, by(No = id))]
impl Process {
    fn start(_: Placed) -> Waiting {
        Waiting
    }
    fn on(_: Waiting, _: Pay) -> (Waiting, Sends<Pay>, After<Overdue>, Keeps, Reenter) {
        (Waiting, send(Pay { id: 1 }), after(seconds(1), Overdue {}), None, Reenter)
    }
    fn step(_: Waiting, _: No) -> Done {
        Done
    }
    #[on(anyone)]
    fn load(self, _: Yes) -> Done {
        Done
    }
    fn go(self, _: Overdue) -> Done {
        Done
    }
}

impl Process {
    fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
    fn store(&self) -> u8 {
        3
    }
    fn read() -> u8 {
        4
    }
    fn id(&self) -> u8 {
        5
    }
}

// a saga whose only state takes nothing, and one of whose messages every one is taken
#[states]
enum Short {
    #[done]
    Finished,
}
#[saga(name = "short", id = id: u64)]
impl Short {
    fn placed(_: Placed) -> Finished {
        Finished
    }
}

#[states]
enum Full {
    Counting { n: u32 },
}
#[saga(name = "full", id = id: u64)]
impl Full {
    fn placed(_: Placed) -> Counting {
        Counting { n: 0 }
    }
    fn again(self, _: Placed) -> Counting {
        let Self::Counting(Counting { n }) = self;
        Counting { n: n + 1 }
    }
}

// names that are keywords
#[derive(Event, Serialize, Deserialize)]
#[allow(non_camel_case_types)]
struct r#match {
    r#type: u64,
}
#[states]
#[allow(non_camel_case_types)]
enum r#enum {
    r#try {
        r#in: u32,
    },
    #[done]
    Over,
}
#[saga(name = "match", id = r#type: u64)]
impl r#enum {
    fn r#loop(_: r#match) -> r#try {
        r#try { r#in: 1 }
    }
    fn r#break(state: r#try, _: r#match) -> Either<Over, r#try> {
        if state.r#in == 1 { Either::A(Over) } else { Either::B(state) }
    }
}

// in a function, as a test has it
fn local() -> String {
    #[states]
    enum Local {
        #[done]
        Here,
    }
    #[saga(name = "local", id = id: u64)]
    impl Local {
        fn placed(_: Placed) -> Here {
            Here
        }
    }
    Local::chart().saga
}

#[test]
fn the_macros_take_no_name_from_the_users_module() {
    let chart = <r#enum as Saga>::chart();
    assert_eq!((chart.states[0].name.as_str(), chart.subscribes()), ("try", vec!["match"]));
    assert_eq!(r#enum::r#break(r#try { r#in: 1 }, r#match { r#type: 1 }), Either::A(Over));
    let process = Process::from(Process::start(Placed { id: 1 }));
    assert!(!process.is_done());
    assert_eq!([process.store(), Process::read(), process.id()], [3, 4, 5]);
    assert_eq!(Process::on(Waiting, Pay { id: 1 }).0, Waiting);
    assert_eq!((Process::step(Waiting, No { id: 1 }), process.load(Yes { id: 1 })), (Done, Done));
    assert_eq!(Process::from(Waiting).go(Overdue {}), Done);
    assert_eq!(Process::chart().subscribes(), ["Placed", "Yes"]);
    assert_eq!(Full::from(Full::placed(Placed { id: 1 })).again(Placed { id: 1 }), Counting { n: 1 });
    assert_eq!((Short::chart().verify(), local()), (vec![], "local".into()));
}
