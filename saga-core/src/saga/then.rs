//! What a transition returns: the next state with its effects.

use super::{ChartEdge, Effect, Emits, Saga, State};

/// What a transition returns: the next state, with its effects.
///
/// - a state alone;
/// - a tuple `(State, Effect, …)` of a state and up to eight effects: [`Sends`](super::Sends),
///   [`Publishes`](super::Publishes), [`Replies`](super::Replies), [`After`](super::After),
///   [`Deadline`](super::Deadline), [`Keep`](super::Keep), and `Option` and `Vec` of them;
/// - an [`Either`] of two such;
/// - an enum of such with `#[derive(Then)]`, which gives the branches names;
/// - a [`Stay`].
///
/// The type is the edge of the state chart, so it is written out: `type Then = ..`.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// impl On<Scanned> for Travelling {
///     type Then = (Travelling, Keep, Publishes<ParcelMoved>, Vec<Sends<PayFee>>);
///
///     fn on(self, scanned: Scanned, _: &Moment) -> Self::Then {
///         let Travelling { id, scans } = self;
///         let fees = scanned.fees.iter().map(|&cents| send(PayFee { id, cents })).collect();
///         let moved = ParcelMoved { id, place: scanned.place };
///         (Travelling { id, scans: scans + 1 }, Keep, publish(moved), fees)
///     }
/// }
/// # fn main() {}
/// ```
//
// There is no blanket `impl<S: State> Then for S`: it would make rustc hide the helpful message about a state that
// cannot take an outcome. The derive writes one impl per state instead.
#[diagnostic::on_unimplemented(
    message = "a transition cannot return `{Self}`",
    label = "not a state with effects",
    note = "return a state, a tuple `(State, Effect, …)`, an `Either`, `Stay`, or an enum with `#[derive(Then)]`"
)]
pub trait Then {
    /// The saga it belongs to.
    type Saga;
    #[doc(hidden)]
    const KEEPS: Keeps = Keeps::NONE;
    #[doc(hidden)]
    fn apply(self, out: &mut Emits) -> Self::Saga;
    #[doc(hidden)]
    fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>);
}

/// The states that the branches of a transition enter with `Keep`: known to the compiler, so that a `Keep` which enters
/// another state than the one left does not compile.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum Keeps {
    /// No branch keeps.
    None,
    /// A branch stays in whatever state is current.
    Stay,
    /// A branch enters the state with `Keep`.
    In(&'static str),
    /// What two branches keep.
    Both {
        /// The first.
        a: &'static Self,
        /// The second.
        b: &'static Self,
    },
}

#[doc(hidden)]
impl Keeps {
    pub const NONE: Self = Self::None;

    /// Whether no state but `from` is entered with `Keep`.
    pub const fn only_in(&self, from: &str) -> bool {
        match self {
            Self::None | Self::Stay => true,
            Self::In(state) => super::derived::same(state, from),
            Self::Both { a, b } => a.only_in(from) && b.only_in(from),
        }
    }

    /// Whether no branch keeps.
    pub const fn nowhere(&self) -> bool {
        match self {
            Self::None => true,
            Self::Stay | Self::In(_) => false,
            Self::Both { a, b } => a.nowhere() && b.nowhere(),
        }
    }
}

macro_rules! then_tuple {
    ($($e:ident)+) => {
        #[allow(non_snake_case)]
        impl<S: State, $($e: Effect<S>),+> Then for (S, $($e),+) {
            type Saga = S::Saga;
            const KEEPS: Keeps = if false $(|| $e::KEEPS)+ { Keeps::In(S::NAME) } else { Keeps::NONE };
            fn apply(self, out: &mut Emits) -> S::Saga {
                let (state, $($e),+) = self;
                $($e.emit(out);)+
                state.into()
            }
            fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
                let mut effects = Vec::new();
                $($e::describe(&mut effects);)+
                out.push(ChartEdge::new(from, on, branch, S::NAME, effects));
            }
        }
    };
}
then_tuple!(A);
then_tuple!(A B);
then_tuple!(A B C);
then_tuple!(A B C D);
then_tuple!(A B C D E);
then_tuple!(A B C D E F);
then_tuple!(A B C D E F G);
then_tuple!(A B C D E F G H);

/// One of two ways to go on. For more than two, or for names on the chart, derive `Then` for an enum.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// impl On<Scanned> for Travelling {
///     type Then = Either<(Travelling, Keep), Arrived>;
///
///     fn on(self, scanned: Scanned, _: &Moment) -> Self::Then {
///         match scanned.place.as_str() {
///             "front door" => Either::B(Arrived),
///             _ => Either::A((self, Keep)),
///         }
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Either<A, B> {
    /// The first.
    A(A),
    /// The second.
    B(B),
}

impl<A: Then, B: Then<Saga = A::Saga>> Then for Either<A, B> {
    type Saga = A::Saga;
    const KEEPS: Keeps = Keeps::Both { a: &A::KEEPS, b: &B::KEEPS };
    fn apply(self, out: &mut Emits) -> A::Saga {
        match self {
            Self::A(then) => then.apply(out),
            Self::B(then) => then.apply(out),
        }
    }
    fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
        A::edges(from, on, branch, out);
        B::edges(from, on, branch, out);
    }
}

/// A transition that leaves the state as it is: `Stay(self)`, on the enum. The state's timers stay too.
///
/// It is for transitions of the whole enum, which do not know the state. To send something, return the state and
/// [`Keep`](super::Keep).
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # impl On<Scanned> for Travelling {
/// #     type Then = Travelling;
/// #     fn on(self, _: Scanned, _: &Moment) -> Travelling { self }
/// # }
/// #[derive(Event, Serialize, Deserialize)]
/// struct Renamed { key: u64 }
/// # #[derive(Serialize, Deserialize)] struct Open;
/// # #[derive(Serialize, Deserialize)] struct Closed;
///
/// #[derive(Saga)]
/// #[saga(name = "account", id = key: u64)]
/// #[starts(Renamed)]
/// #[on(Renamed)]
/// enum Account { Open(Open) }
///
/// impl On<Renamed> for Account {
///     type Then = Stay<Self>;
///     fn on(self, _: Renamed, _: &Moment) -> Stay<Self> { Stay(self) }
/// }
/// # impl Starts<Renamed> for Account {
/// #     type Then = Open;
/// #     fn start(_: Renamed, _: &Moment) -> Open { Open }
/// # }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Stay<S>(pub S);

impl<S: Saga> Then for Stay<S> {
    type Saga = S;
    const KEEPS: Keeps = Keeps::Stay;
    fn apply(self, out: &mut Emits) -> S {
        out.keep = true;
        self.0
    }
    fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
        out.push(ChartEdge::new(from, on, branch, from, Vec::new()));
    }
}

/// What the derives call for a bare state.
#[doc(hidden)]
pub fn bare_edge<S: State>(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
    out.push(ChartEdge::new(from, on, branch, S::NAME, Vec::new()));
}
