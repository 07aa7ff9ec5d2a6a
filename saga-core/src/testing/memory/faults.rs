//! Failures that tests order.

use crate::{StoreError, StoreErrorKind};
use std::collections::{BTreeMap, VecDeque};

/// What a store is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// `Store::migrate`.
    Migrate,
    /// `Store::register`.
    Register,
    /// `Store::heartbeat`.
    Heartbeat,
    /// `Store::sign_off`.
    SignOff,
    /// `Store::begin`.
    Begin,
    /// `Store::read` and `Unit::read`.
    Read,
    /// `Unit::held`.
    Held,
    /// `Store::aliases` and `Unit::aliases`.
    Aliases,
    /// `Unit::take_back`.
    TakeBack,
    /// `Unit::write`.
    Write,
    /// `Unit::commit`.
    Commit,
    /// `Unit::rollback`.
    Rollback,
    /// `Store::count_crash`.
    CountCrash,
    /// `Store::reserve_calls`.
    Reserve,
    /// `Store::delete_confirmed`.
    Delete,
    /// `Store::lease`.
    Lease,
    /// `Store::renew_and_fail`.
    Renew,
    /// `Store::reopen`.
    Reopen,
    /// `Store::release`.
    Release,
    /// `Store::sweep`.
    Sweep,
    /// `MemoryTx::insert`: a statement of user code.
    Insert,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy)]
pub(in crate::testing) enum Fault {
    /// It does nothing.
    Fails(StoreErrorKind),
    /// A commit's answer is lost.
    Unknown { committed: bool },
}

impl Fault {
    pub(super) fn kind(self) -> StoreErrorKind {
        match self {
            Self::Fails(kind) => kind,
            Self::Unknown { .. } => StoreErrorKind::Unavailable,
        }
    }

    pub(super) fn error(self, operation: Operation) -> StoreError {
        StoreError::new(self.kind(), format!("the test ordered {operation:?} to fail"))
    }
}

type Ask = Box<dyn FnMut(Operation) -> Option<Fault> + Send>;

#[derive(Default)]
pub(super) struct Faults {
    ordered: BTreeMap<Operation, VecDeque<Fault>>,
    asked: Option<Ask>,
}

impl Faults {
    pub(super) fn order(&mut self, operation: Operation, fault: Fault) {
        self.ordered.entry(operation).or_default().push_back(fault);
    }

    pub(super) fn ask(&mut self, fails: impl FnMut(Operation) -> Option<Fault> + Send + 'static) {
        self.asked = Some(Box::new(fails));
    }

    /// How this operation, which happens now, fails.
    pub(super) fn take(&mut self, operation: Operation) -> Option<Fault> {
        let ordered = self.ordered.get_mut(&operation).and_then(VecDeque::pop_front);
        ordered.or_else(|| self.asked.as_mut()?(operation))
    }
}
