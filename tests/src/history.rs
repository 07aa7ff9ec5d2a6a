//! Histories of lists that clients append to and read, and whether each can be explained: whether there is one order of
//! all operations, each at one moment between its begin and its end, in which every client saw what it saw. That is
//! linearizability (Herlihy and Wing, 1990), found by the search of Wing and Gong (1993).

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// One operation of one client on one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The list.
    pub list: String,
    /// What it appends; a read appends nothing. No number is appended to a list by two operations.
    pub appends: Option<u32>,
    /// The whole list that the client saw, with what it appended; `None`: it was told nothing.
    pub saw: Option<Vec<u32>>,
    /// When it began.
    pub began: u64,
    /// When it had taken effect for certain. `None`: it may have, may yet, or never.
    pub ended: Option<u64>,
}

/// What clients record while they work.
#[derive(Debug, Default)]
pub struct History {
    clock: AtomicU64,
    operations: Mutex<Vec<Operation>>,
}

impl History {
    /// A moment. Later moments are larger numbers, whoever asks.
    pub fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Records an operation.
    pub fn record(&self, operation: Operation) {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    /// How many operations are recorded.
    pub fn len(&self) -> usize {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that was recorded.
    pub fn operations(&self) -> Vec<Operation> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Checks each list by itself: a history is linearizable if each of its objects is.
///
/// # Errors
/// What cannot be explained, and how far an explanation goes.
pub fn explain(operations: &[Operation]) -> Result<(), String> {
    let mut lists: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        lists.entry(&operation.list).or_default().push(operation);
    }
    lists.into_values().try_for_each(|operations| Search::of(operations).run())
}

/// The search for an order of the operations on one list.
struct Search<'a> {
    operations: Vec<&'a Operation>,
    /// The longest list that anybody saw. A list only grows, so what is in it says in which order it was appended;
    /// without this the search would try all orders of appends that nobody saw at once.
    longest: &'a [u32],
    /// Those in the order so far; and the list that they make.
    placed: Vec<bool>,
    list: Vec<u32>,
}

impl<'a> Search<'a> {
    fn of(mut operations: Vec<&'a Operation>) -> Self {
        operations.sort_by_key(|operation| (operation.ended.is_none(), operation.began));
        let longest = operations.iter().filter_map(|operation| operation.saw.as_deref()).max_by_key(|saw| saw.len());
        let placed = vec![false; operations.len()];
        Self { operations, longest: longest.unwrap_or_default(), placed, list: Vec::new() }
    }

    /// Depth first. The operations that are placed determine the list as far as anybody saw it, so that no set of them
    /// is looked at twice.
    fn run(mut self) -> Result<(), String> {
        let (mut order, mut seen, mut best) = (Vec::new(), HashSet::new(), (0, String::new()));
        let mut from = 0;
        loop {
            if self.left().next().is_none() {
                return Ok(());
            }
            let until = self.left().filter_map(|operation| operation.ended).min().unwrap_or(u64::MAX);
            match (from..self.operations.len()).find(|&n| self.fits(n, until)) {
                Some(n) => {
                    self.place(n);
                    if seen.insert(self.placed.clone()) {
                        order.push(n);
                        from = 0;
                    } else {
                        self.take_back(n);
                        from = n + 1;
                    }
                }
                None => {
                    if order.len() >= best.0 {
                        best = (order.len(), self.end(until));
                    }
                    let Some(last) = order.pop() else { return Err(best.1) };
                    self.take_back(last);
                    from = last + 1;
                }
            }
        }
    }

    /// Those that took effect for certain and are not in the order yet.
    fn left(&self) -> impl Iterator<Item = &'a Operation> {
        let left = self.operations.iter().zip(&self.placed).filter(|(operation, placed)| {
            let is_certain = operation.ended.is_some();
            is_certain && !**placed
        });
        left.map(|(operation, _)| *operation)
    }

    /// Whether an operation can be the next one: it began before any other ended, and saw what is there.
    fn fits(&self, n: usize, until: u64) -> bool {
        let operation = self.operations[n];
        let appends = |number| match self.longest.get(self.list.len()) {
            Some(next) => *next == number,
            // what nobody saw comes when nobody looks any more
            None => operation.ended.is_some() && self.left().all(|operation| operation.saw.is_none()),
        };
        !self.placed[n]
            && operation.began < until
            && operation.appends.is_none_or(appends)
            && (operation.saw.as_ref())
                .is_none_or(|saw| saw.iter().eq(self.list.iter().chain(operation.appends.as_ref())))
    }

    fn place(&mut self, n: usize) {
        self.placed[n] = true;
        self.list.extend(self.operations[n].appends);
    }

    fn take_back(&mut self, n: usize) {
        self.placed[n] = false;
        self.list.truncate(self.list.len() - usize::from(self.operations[n].appends.is_some()));
    }

    fn end(&self, until: u64) -> String {
        let open: Vec<String> =
            self.left().filter(|operation| operation.began < until).map(|operation| format!("{operation:?}")).collect();
        let longest = &self.longest;
        format!("after {:?} none of these can follow, and somebody saw {longest:?}:\n{}", self.list, open.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    fn operation(appends: Option<u32>, saw: Option<&[u32]>, began: u64, ended: Option<u64>) -> Operation {
        Operation { list: "a".into(), appends, saw: saw.map(<[u32]>::to_vec), began, ended }
    }
    fn append(number: u32, saw: &[u32], began: u64, ended: u64) -> Operation {
        operation(Some(number), Some(saw), began, Some(ended))
    }
    fn read(saw: &[u32], began: u64, ended: u64) -> Operation {
        operation(None, Some(saw), began, Some(ended))
    }

    /// What `clients` could have seen of one list: each operation takes effect at a moment between its begin and its
    /// end. Some hear nothing, and some of those have no effect. A read of the end is the last operation.
    fn sound(seed: u64, clients: usize, operations: u32) -> Vec<Operation> {
        let mut dice = Dice::new(seed);
        let (mut clock, mut list, mut history) = (0, Vec::new(), Vec::new());
        let mut open: Vec<Option<Operation>> = vec![None; clients];
        let mut number = 0;
        while number < operations {
            clock += 1;
            let place = &mut open[dice.below(clients)];
            match place.take() {
                None => *place = Some(operation((dice.below(3) > 0).then_some(number), None, clock, None)),
                Some(mut begun) => {
                    let (told, happens) = (dice.below(8) > 0, dice.below(2) > 0);
                    if told || happens {
                        list.extend(begun.appends);
                    }
                    if told {
                        (begun.saw, begun.ended) = (Some(list.clone()), Some(clock));
                    }
                    history.push(begun);
                }
            }
            number += 1;
        }
        history.push(read(&list, clock + 1, clock + 2));
        history
    }

    #[test]
    fn what_happened_in_some_order_is_explained() {
        let overlapping = [append(1, &[2, 1], 0, 9), append(2, &[2], 1, 8), read(&[], 2, 7), read(&[2], 3, 6)];
        assert_eq!(explain(&overlapping), Ok(()), "each has a moment between its begin and its end");
        let unheard = [operation(Some(1), None, 0, None), operation(Some(2), None, 1, Some(6)), read(&[2], 7, 8)];
        assert_eq!(explain(&unheard), Ok(()), "an append without an end may never happen");
        let late = [operation(Some(1), None, 0, None), read(&[], 5, 6), read(&[1], 7, 8)];
        assert_eq!(explain(&late), Ok(()), "or after an operation that began later");
        for seed in 0..200 {
            assert_eq!(explain(&sound(seed, 5, 60)), Ok(()), "seed {seed}");
        }
    }

    #[test]
    fn what_no_order_explains_is_found() {
        let lost = [append(1, &[1], 0, 1), append(2, &[2], 2, 3)];
        assert!(explain(&lost).is_err(), "the first append is lost");
        let doubled = [append(1, &[1], 0, 1), read(&[1, 1], 2, 3)];
        assert!(explain(&doubled).is_err(), "one effect is there twice");
        let stale = [append(1, &[1], 0, 1), read(&[], 2, 3)];
        assert!(explain(&stale).is_err(), "a read after an acknowledgement does not show it");
        let reordered = [append(1, &[1], 0, 1), append(2, &[1, 2], 2, 3), read(&[2, 1], 4, 5)];
        assert!(explain(&reordered).is_err(), "the second came before the first, which had ended");
        let forked = [append(1, &[1], 0, 9), append(2, &[2], 0, 9)];
        assert!(explain(&forked).is_err(), "each was alone");
        let back = [append(1, &[1], 0, 9), read(&[1], 1, 2), read(&[], 3, 4)];
        assert!(explain(&back).is_err(), "what was there is gone again");
        let invented = [read(&[7], 0, 1)];
        assert!(explain(&invented).is_err(), "nobody appended it");
        let accepted = [operation(Some(1), None, 0, Some(3)), read(&[], 4, 5)];
        assert!(explain(&accepted).is_err(), "an effect that was promised is lost");
        let early = [read(&[1], 0, 1), operation(Some(1), None, 2, None)];
        assert!(explain(&early).is_err(), "an effect before its command");
    }

    #[test]
    fn lists_are_explained_by_themselves() {
        let of = |list: &str, it: Operation| Operation { list: list.into(), ..it };
        let both = [of("a", append(1, &[1], 0, 1)), of("b", append(1, &[1], 2, 3))];
        assert_eq!(explain(&both), Ok(()));
        let wrong = explain(&[both.to_vec(), vec![of("b", read(&[], 4, 5))]].concat()).unwrap_err();
        assert!(wrong.contains("after [1]") && wrong.contains(r#"list: "b""#), "{wrong}");
    }

    /// Whatever is done to a sound history: two answers swapped, an effect doubled or lost wherever it was seen since.
    #[test]
    fn planted_faults_are_found_in_histories_by_chance() {
        type Plant = fn(&mut Vec<Operation>, &mut Dice) -> bool;
        let swapped: Plant = |history, dice| {
            let at = dice.below(history.len() - 1);
            let (one, other) = (history[at].saw.clone(), history[at + 1].saw.clone());
            (history[at].saw, history[at + 1].saw) = (other.clone(), one.clone());
            // answers that are alike are the same answers, and one to nobody is no answer
            one != other && one.is_some() && other.is_some() && history[at].appends.is_some()
        };
        let doubled: Plant = |history, dice| change(history, dice, |list, at| list.insert(at, list[at]));
        let lost: Plant = |history, dice| {
            change(history, dice, |list, at| {
                list.remove(at);
            })
        };
        for (name, plant) in [("swapped", swapped), ("doubled", doubled), ("lost", lost)] {
            let mut planted = 0;
            for seed in 0..100 {
                let (mut history, mut dice) = (sound(seed, 4, 50), Dice::for_the(seed, name));
                if plant(&mut history, &mut dice) {
                    planted += 1;
                    assert!(explain(&history).is_err(), "seed {seed}: {name} was expected to be found: {history:#?}");
                }
            }
            assert!(planted > 20, "{name}: only {planted} faults were planted");
        }
    }

    /// Changes the place of one number in all lists that were seen with it. The number's own client was told that it
    /// is there: otherwise it may never have been.
    fn change(history: &mut [Operation], dice: &mut Dice, change: impl Fn(&mut Vec<u32>, usize)) -> bool {
        let told: Vec<u32> = history.iter().filter(|it| it.saw.is_some()).filter_map(|it| it.appends).collect();
        if told.is_empty() {
            return false;
        }
        let number = told[dice.below(told.len())];
        for list in history.iter_mut().filter_map(|operation| operation.saw.as_mut()) {
            if let Some(at) = list.iter().position(|it| *it == number) {
                change(list, at);
            }
        }
        true
    }
}
