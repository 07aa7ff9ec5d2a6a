//! What a state holds while it waits for several things: [`All`] of different kinds, or a [`Gather`] of one kind.

use super::Either;
use serde::{Deserialize, Serialize};

/// Several things that must all come, in any order. A state holds it; each message that brings one of them calls the
/// method of its place, and the last one gets all.
///
/// ```
/// use sagabus::{prelude::*, saga::All};
///
/// let waiting: All<(&str, u32)> = All::none();
/// let Either::A(waiting) = waiting.second(7) else { panic!("one is missing") };
/// let Either::A(waiting) = waiting.second(8) else { panic!("the first is still missing") };
/// assert_eq!(waiting.first("food"), Either::B(("food", 8)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(bound(serialize = "T::Some: Serialize", deserialize = "T::Some: Deserialize<'de>"))]
pub struct All<T: Parts>(T::Some);

/// The tuples that [`All`] can wait for: two to four parts.
pub trait Parts {
    /// Each part, if it has come.
    #[doc(hidden)]
    type Some: Default;
}

impl<T: Parts> All<T> {
    /// Nothing has come yet.
    pub fn none() -> Self {
        Self(T::Some::default())
    }
}

macro_rules! all {
    ($all:ty: $($part:ident $method:ident $place:tt $which:literal),+) => {
        impl<$($part),+> Parts for $all {
            // as tuples of one: `Some(())` would be `null` in JSON, and come back as `None`
            type Some = ($(Option<($part,)>,)+);
        }

        impl<$($part),+> All<$all> {
            $(
                #[doc = concat!("The ", $which, " has come; if it came before, this one takes its place.")]
                pub fn $method(mut self, it: $part) -> Either<Self, $all> {
                    self.0.$place = Some((it,));
                    self.complete()
                }
            )+

            #[allow(non_snake_case)]
            fn complete(self) -> Either<Self, $all> {
                match self.0 {
                    ($(Some(($part,)),)+) => Either::B(($($part,)+)),
                    some => Either::A(Self(some)),
                }
            }
        }
    };
}
all!((A, B): A first 0 "first", B second 1 "second");
all!((A, B, C): A first 0 "first", B second 1 "second", C third 2 "third");
all!((A, B, C, D): A first 0 "first", B second 1 "second", C third 2 "third", D fourth 3 "fourth");

/// Answers of one kind, to a question that was put to several: complete when enough have come.
///
/// ```
/// use sagabus::{prelude::*, saga::Gather};
///
/// let Either::A(quotes) = Gather::asked(3, 2) else { panic!("none has come") };
/// let Either::A(quotes) = quotes.got(40) else { panic!("two are enough, one has come") };
/// assert_eq!(quotes.so_far(), [40]); // what a timer for stragglers looks at
/// assert_eq!(quotes.got(35), Either::B(vec![40, 35]));
/// assert_eq!(Gather::<u32>::asked(0, 0), Either::B(vec![]), "where nobody is asked, nobody is waited for");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gather<T> {
    enough: usize,
    got: Vec<T>,
}

impl<T> Gather<T> {
    /// So many were asked, and so many answers are enough; more than were asked cannot come. If that is none, it is
    /// complete at once.
    pub fn asked(number: usize, enough: usize) -> Either<Self, Vec<T>> {
        Self { enough: enough.min(number), got: Vec::new() }.complete()
    }

    /// An answer has come. The answer that makes it complete gets all of them, in order.
    pub fn got(mut self, it: T) -> Either<Self, Vec<T>> {
        self.got.push(it);
        self.complete()
    }

    /// The answers so far, in order.
    pub fn so_far(&self) -> &[T] {
        &self.got
    }

    /// How many are still needed.
    pub fn missing(&self) -> usize {
        self.enough - self.got.len()
    }

    fn complete(self) -> Either<Self, Vec<T>> {
        if self.got.len() < self.enough { Either::A(self) } else { Either::B(self.got) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_stored_with_the_parts_that_have_come() {
        let Either::A(waiting) = All::<(String, u32, bool)>::none().third(true) else { panic!("two are missing") };
        let stored = serde_json::to_string(&waiting).unwrap();
        assert_eq!(stored, "[null,null,[true]]");
        let waiting: All<(String, u32, bool)> = serde_json::from_str(&stored).unwrap();
        let Either::A(waiting) = waiting.first("a".into()) else { panic!("one is missing") };
        assert_eq!(waiting.second(2), Either::B(("a".into(), 2, true)));
    }

    #[test]
    fn a_part_that_says_nothing_is_a_part_that_has_come() {
        type Both = All<((), Option<u32>)>;
        let read = |all: &Both| serde_json::from_str::<Both>(&serde_json::to_string(all).unwrap()).unwrap();
        let Either::A(waiting) = Both::none().first(()) else { panic!("the second is missing") };
        assert_eq!(read(&waiting).second(None), Either::B(((), None)));
        let Either::A(waiting) = Both::none().second(None) else { panic!("the first is missing") };
        assert_eq!(read(&waiting).first(()), Either::B(((), None)));
    }

    #[test]
    fn more_answers_than_were_asked_for_are_not_waited_for() {
        let Either::A(gather) = Gather::asked(2, 5) else { panic!("two were asked") };
        assert_eq!(gather.missing(), 2);
        let Either::A(gather) = gather.got("a") else { panic!("one is missing") };
        assert_eq!((gather.missing(), gather.got("b")), (1, Either::B(vec!["a", "b"])));
    }
}
