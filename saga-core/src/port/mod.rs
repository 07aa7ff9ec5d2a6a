//! The ports: what the endpoint asks of a broker and of a database. To add one, implement [`Transport`], or [`Store`],
//! [`Unit`] and [`Inspect`], and run the conformance suite of `tests/` over it.

mod backoff;
mod error;
mod inspect;
mod kept;
mod relay;
mod store;
mod transport;
mod unit;
mod words;
mod write;

pub use crate::endpoint::BundleSizes;
pub use crate::error_code::ErrorCode;
pub use backoff::Backoff;
pub use error::{StoreError, StoreErrorKind, TransportError, TransportErrorKind};
pub use inspect::{
    ActionDone, AgeFilter, COUNTED_MAX, Counted, DefinitionView, DueAt, EffectView, EndpointStatus, Explained,
    Explanation, ExportedInstance, FieldIs, FieldName, Forked, FormCount, GroupName, GroupNote, HELD_GROUPS_MAX,
    HeldAction, HeldCount, HeldFilter, HeldGroup, HeldOrder, HeldRef, HeldView, Inspect, InstanceAction, InstanceDone,
    InstanceFilter, InstanceOrder, InstanceSeen, InstanceView, JournalAfter, JournalView, Listing, MASKED_HEADER,
    NameView, OPERATIONS_LOOKED_AT, ORDER_ROWS_MAX, OperationFilter, OperationItem, OperationView, OutboxAction,
    OutboxFilter, OutboxOrder, OutboxView, ProcessReport, ProcessView, RowCount, RunningProcess, ServerView,
    StateCount, Status, Story, SubscriptionView, TableView, TraceView, TracedMessage, TracedStep, TracedWait,
    Unroutable, UpkeepView, Wanted, explain, masked_fields,
};
pub use kept::{KeptStep, KeptTimer};
pub use relay::{LeaseRequest, LeaseUpdate, Leased, LeasedRow, PublishFailed, TakenBack};
pub use store::{Asked, Counts, InstanceCount, Process, Registered, Store, Swept, Unit};
pub(crate) use transport::Channel;
pub use transport::{
    Ack, Delivery, Destination, Fate, Link, LinkLimits, LinkState, Outgoing, Report, Topology, Transport,
};
pub use unit::{
    AliasesFound, FIELD_BYTES_MAX, FieldRow, Found, HeldRow, HeldWanted, InboxFound, InstanceKey, InstanceRow, Keys,
    Waiting,
};
pub use words::{HeldReason, InboxResult, OutboxKind};
pub use write::{Caused, HeldIn, HeldKey, InboxRow, InstanceWrite, OutboxRow, TimerOut, Write};
