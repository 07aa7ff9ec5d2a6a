//! What operators read and do, through the store.
//!
//! A store answers a [`Listing`] with one JSON text for each row, and carries out a [`HeldOrder`] in one transaction.
//! The rest is here: [`Inspect`] turns rows into views, and splits an action over many rows into orders.

mod filter;
mod instance;
mod status;
mod view;

pub use filter::{HeldFilter, InstanceFilter, OperationFilter, OutboxFilter};
pub use instance::{InstanceAction, InstanceDone, InstanceOrder};
pub use status::{EndpointStatus, HeldCount, ProcessReport, ProcessView, RowCount, StateCount, Status, Unroutable};
pub use view::{
    DefinitionView, ExportedInstance, FormCount, HeldRef, HeldView, InstanceView, JournalView, OperationItem,
    OperationView, OutboxView,
};

use super::{InstanceKey, StoreError, StoreErrorKind};
use async_trait::async_trait;
use serde::de::DeserializeOwned;

/// The most held messages in one order: the order locks their instances until it commits, and running endpoints wait
/// for that.
pub const ORDER_ROWS_MAX: usize = 100;

/// What to list. The store answers with one JSON text for each row: an object with the fields of the view named here,
/// or a number where a count is asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Listing<'a> {
    /// The parts of a [`Status`], each an object with one field (see the stores' SQL).
    Status,
    /// [`OutboxView`], next due first.
    Outbox(&'a OutboxFilter, Wanted),
    /// The body of an outbox row, by the row's id: hexadecimal digits in quotes.
    OutboxBody(&'a str),
    /// [`InstanceView`], last changed first; with `unchanged_for`, longest unchanged first.
    Instances(&'a InstanceFilter, Wanted),
    /// [`JournalView`] of one instance, last handled first.
    Journal(&'a InstanceKey, Wanted),
    /// [`HeldView`], in order of arrival.
    Held(&'a HeldFilter, Wanted),
    /// The body of a held message: hexadecimal digits in quotes.
    HeldBody(&'a HeldRef),
    /// [`OperationView`], last first.
    Operations(&'a OperationFilter, Wanted),
    /// [`DefinitionView`], by saga and version.
    Definitions,
    /// [`FormCount`], by saga, state and version.
    Forms,
}

/// What is wanted of a listing. Exhaustive: a store must answer every kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// At most this many rows.
    Rows(i64),
    /// One row: the number of rows.
    Count,
}

/// What an operator orders: done in one transaction, which also records it in `operation`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HeldOrder<'a> {
    /// What to do.
    pub action: HeldAction<'a>,
    /// With which messages: at most [`ORDER_ROWS_MAX`]. Messages that are no longer held, or were held anew since they
    /// were listed, are left alone.
    pub rows: &'a [HeldRef],
    /// Who orders it.
    pub who: &'a str,
    /// Why.
    pub why: &'a str,
}

impl<'a> HeldOrder<'a> {
    /// An order by `who`, who gives the reason.
    pub fn new(action: HeldAction<'a>, rows: &'a [HeldRef], who: &'a str, why: &'a str) -> Self {
        Self { action, rows, who, why }
    }
}

/// What to do with held messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldAction<'a> {
    /// Have them handled again by the receiver that holds them. A stranded message, which never left, is sent to its
    /// destination.
    Retry,
    /// Give them up. Messages that wait behind one are offered again, in order.
    Discard,
    /// Give it this body and have it handled again. The inbox follows: from now on the message's id belongs to the new
    /// body, and a copy of the old one that still comes is held as another message.
    Edit {
        /// The new body, which is JSON.
        body: &'a str,
        /// The old body as the audit keeps it: as it was; after `hex:` as hexadecimal digits, if it was no text.
        old_body: &'a str,
    },
}

impl HeldAction<'_> {
    /// Its name in `operation.action`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "held retry",
            Self::Discard => "held discard",
            Self::Edit { .. } => "held edit",
        }
    }
}

/// What became of an action.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ActionDone {
    /// The messages that were dealt with, and the result of each. They stay dealt with if a later one fails.
    pub items: Vec<OperationItem>,
    /// Why the action stopped early.
    pub stopped: Option<StoreError>,
}

impl ActionDone {
    /// How many messages ended with this result.
    pub fn count(&self, result: &str) -> usize {
        self.items.iter().filter(|item| item.result == result).count()
    }
}

/// The operator's side of a store: reads for listings, and actions. Object-safe, so that one tool serves every
/// database.
///
/// A store implements [`Inspect::rows`], [`Inspect::order`] and [`Inspect::instance_order`].
#[async_trait]
pub trait Inspect: Send + Sync {
    /// Reads a listing: one JSON text for each row.
    async fn rows(&self, listing: &Listing<'_>) -> Result<Vec<String>, StoreError>;

    /// Carries out an order, all or nothing, under the locks of the instances that it touches.
    async fn order(&self, order: &HeldOrder<'_>) -> Result<Vec<OperationItem>, StoreError>;

    /// Carries out an order about an instance, all or nothing, under its lock.
    async fn instance_order(&self, order: &InstanceOrder<'_>) -> Result<InstanceDone, StoreError>;

    /// Counts and ages per endpoint, instances per saga and state.
    async fn status(&self) -> Result<Status, StoreError> {
        Ok(Status::of(read(self.rows(&Listing::Status).await?)?))
    }

    /// Rows of the outbox, next due first.
    async fn outbox(&self, filter: &OutboxFilter, rows_max: i64) -> Result<Vec<OutboxView>, StoreError> {
        read(self.rows(&Listing::Outbox(filter, Wanted::Rows(rows_max))).await?)
    }

    /// How many rows of the outbox there are.
    async fn outbox_count(&self, filter: &OutboxFilter) -> Result<u64, StoreError> {
        count(self.rows(&Listing::Outbox(filter, Wanted::Count)).await?)
    }

    /// The body of an outbox row; `None` when the row is gone.
    async fn outbox_body(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        body(self.rows(&Listing::OutboxBody(id)).await?)
    }

    /// Instances, last changed first; with `unchanged_for`, longest unchanged first.
    async fn instances(&self, filter: &InstanceFilter, rows_max: i64) -> Result<Vec<InstanceView>, StoreError> {
        read(self.rows(&Listing::Instances(filter, Wanted::Rows(rows_max))).await?)
    }

    /// How many instances there are.
    async fn instances_count(&self, filter: &InstanceFilter) -> Result<u64, StoreError> {
        count(self.rows(&Listing::Instances(filter, Wanted::Count)).await?)
    }

    /// What one instance handled, in order: the newest `rows_max` lines.
    async fn journal(&self, key: &InstanceKey, rows_max: i64) -> Result<Vec<JournalView>, StoreError> {
        Ok(view::in_order(read(self.rows(&Listing::Journal(key, Wanted::Rows(rows_max))).await?)?))
    }

    /// An instance with the newest `rows_max` lines of its journal: see [`replay`](crate::testing::replay).
    async fn export(&self, instance: InstanceView, rows_max: i64) -> Result<ExportedInstance, StoreError> {
        let key = InstanceKey { saga: instance.saga.clone(), id: instance.id.clone() };
        Ok(ExportedInstance::new(instance, self.journal(&key, rows_max).await?))
    }

    /// How many lines an instance's journal has.
    async fn journal_count(&self, key: &InstanceKey) -> Result<u64, StoreError> {
        count(self.rows(&Listing::Journal(key, Wanted::Count)).await?)
    }

    /// Held messages, in order of arrival.
    async fn held(&self, filter: &HeldFilter, rows_max: i64) -> Result<Vec<HeldView>, StoreError> {
        read(self.rows(&Listing::Held(filter, Wanted::Rows(rows_max))).await?)
    }

    /// How many messages are held.
    async fn held_count(&self, filter: &HeldFilter) -> Result<u64, StoreError> {
        count(self.rows(&Listing::Held(filter, Wanted::Count)).await?)
    }

    /// The body of a held message; `None` when it is no longer held.
    async fn held_body(&self, row: &HeldRef) -> Result<Option<Vec<u8>>, StoreError> {
        body(self.rows(&Listing::HeldBody(row)).await?)
    }

    /// What operators did, last first; of each operation, the items that match the filter.
    async fn operations(&self, filter: &OperationFilter, rows_max: i64) -> Result<Vec<OperationView>, StoreError> {
        let mut found: Vec<OperationView> =
            read(self.rows(&Listing::Operations(filter, Wanted::Rows(rows_max))).await?)?;
        found.iter_mut().for_each(|operation| operation.items.retain(|item| filter.matches(item)));
        Ok(found)
    }

    /// The definitions of sagas that processes registered, by saga and version.
    async fn definitions(&self) -> Result<Vec<DefinitionView>, StoreError> {
        read(self.rows(&Listing::Definitions).await?)
    }

    /// How many instances are stored in which form: of which saga, in which state, written by which version.
    async fn forms(&self) -> Result<Vec<FormCount>, StoreError> {
        read(self.rows(&Listing::Forms).await?)
    }

    /// Has exactly these held messages handled again; see [`HeldAction::Retry`].
    async fn held_retry(&self, rows: &[HeldRef], who: &str, why: &str) -> ActionDone {
        in_orders(self, HeldAction::Retry, rows, who, why).await
    }

    /// Gives exactly these held messages up; see [`HeldAction::Discard`].
    async fn held_discard(&self, rows: &[HeldRef], who: &str, why: &str) -> ActionDone {
        in_orders(self, HeldAction::Discard, rows, who, why).await
    }

    /// Replaces the body of a held message and has it handled again; see [`HeldAction::Edit`]. The result is `edited`,
    /// or `unchanged` when it has this body already: then nothing is done.
    ///
    /// # Errors
    /// When the new body is not JSON: nothing is done. When the database fails.
    async fn held_edit(&self, row: &HeldRef, body: &str, who: &str, why: &str) -> Result<OperationItem, StoreError> {
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(body) {
            let text = format!("the new body is not JSON: {error}");
            return Err(StoreError::new(StoreErrorKind::Invalid, text));
        }
        // as long as the row has this arrival it has this body, because an edit releases it
        let Some(old) = self.held_body(row).await? else { return Ok(row.done("gone", None, None)) };
        if old == body.as_bytes() {
            return Ok(row.done("unchanged", None, None));
        }
        let old_body = match String::from_utf8(old) {
            Ok(text) if !text.contains('\0') => text,
            Ok(text) => in_digits(text.as_bytes()),
            Err(bytes) => in_digits(bytes.as_bytes()),
        };
        let action = HeldAction::Edit { body, old_body: &old_body };
        let done = self.order(&HeldOrder { action, rows: std::slice::from_ref(row), who, why }).await?;
        Ok(done.into_iter().next().unwrap_or_else(|| row.done("gone", None, None)))
    }

    /// Lets a paused instance go on; see [`InstanceAction::Resume`].
    async fn saga_resume(&self, key: &InstanceKey, who: &str, why: &str) -> Result<InstanceDone, StoreError> {
        self.instance_order(&InstanceOrder { action: InstanceAction::Resume, key, who, why }).await
    }

    /// Ends an instance; see [`InstanceAction::Cancel`].
    async fn saga_cancel(&self, key: &InstanceKey, who: &str, why: &str) -> Result<InstanceDone, StoreError> {
        self.instance_order(&InstanceOrder { action: InstanceAction::Cancel, key, who, why }).await
    }
}

async fn in_orders<I: Inspect + ?Sized>(
    store: &I,
    action: HeldAction<'_>,
    rows: &[HeldRef],
    who: &str,
    why: &str,
) -> ActionDone {
    let mut done = ActionDone::default();
    for rows in rows.chunks(ORDER_ROWS_MAX) {
        match store.order(&HeldOrder { action, rows, who, why }).await {
            Ok(items) => done.items.extend(items),
            Err(error) => {
                done.stopped = Some(error);
                break;
            }
        }
    }
    done
}

fn in_digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("hex:"), |text, byte| text + &format!("{byte:02x}"))
}

fn unreadable(row: &str, error: &serde_json::Error) -> StoreError {
    let row: String = row.chars().take(200).collect();
    StoreError::new(StoreErrorKind::Schema, format!("the tables hold what this binary cannot read: {error} in {row}"))
}

fn read<T: DeserializeOwned>(rows: Vec<String>) -> Result<Vec<T>, StoreError> {
    rows.iter().map(|row| serde_json::from_str(row).map_err(|error| unreadable(row, &error))).collect()
}

fn count(rows: Vec<String>) -> Result<u64, StoreError> {
    Ok(read(rows)?.first().copied().unwrap_or_default())
}

fn body(rows: Vec<String>) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(digits) = read::<String>(rows)?.pop() else { return Ok(None) };
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = digits.as_bytes().chunks(2).map(pair).collect::<Option<_>>();
    bytes.map(Some).ok_or_else(|| StoreError::new(StoreErrorKind::Schema, "a body did not come as hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds nothing; fails at the third order.
    struct Counting(std::sync::Mutex<Vec<usize>>);

    #[async_trait]
    impl Inspect for Counting {
        async fn rows(&self, listing: &Listing<'_>) -> Result<Vec<String>, StoreError> {
            Ok(match listing {
                Listing::Held(_, Wanted::Count) => vec!["186".into()],
                Listing::HeldBody(_) => vec![r#""7b7D""#.into()],
                _ => vec!["{}".into()],
            })
        }

        async fn order(&self, order: &HeldOrder<'_>) -> Result<Vec<OperationItem>, StoreError> {
            let mut orders = self.0.lock().unwrap();
            if orders.len() == 2 {
                return Err(StoreError::conflict());
            }
            orders.push(order.rows.len());
            Ok(order.rows.iter().map(|row| row.done(order.action.as_str(), None, None)).collect())
        }

        async fn instance_order(&self, _: &InstanceOrder<'_>) -> Result<InstanceDone, StoreError> {
            Err(StoreError::conflict())
        }
    }

    fn counting() -> Counting {
        Counting(std::sync::Mutex::default())
    }

    #[tokio::test]
    async fn an_action_over_many_rows_is_done_in_bounded_orders_and_says_where_it_stopped() {
        let store = counting();
        let row = HeldRef { endpoint: "e".into(), receiver: "r".into(), message_id: "m".into(), arrival: 7 };
        let done = store.held_retry(&vec![row; 250], "me", "because").await;
        assert_eq!(*store.0.lock().unwrap(), [100, 100]);
        assert_eq!((done.items.len(), done.count("held retry")), (200, 200));
        assert!(done.stopped.is_some(), "what stopped it is told");
    }

    #[tokio::test]
    async fn counts_and_bodies_are_read_and_what_is_no_view_is_an_error() {
        let store = counting();
        assert_eq!(store.held_count(&HeldFilter::default()).await.unwrap(), 186);
        let row = HeldRef { endpoint: "e".into(), receiver: "r".into(), message_id: "m".into(), arrival: 7 };
        assert_eq!(store.held_body(&row).await.unwrap().unwrap(), b"{}");
        let error = store.held(&HeldFilter::default(), 5).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Schema);
        assert!(error.to_string().contains("missing field"), "{error}");
    }

    #[tokio::test]
    async fn r_025_an_edit_is_checked_before_anything_is_done() {
        let store = counting();
        let row = HeldRef { endpoint: "e".into(), receiver: "r".into(), message_id: "m".into(), arrival: 7 };
        for (body, line) in [("{\"a\":", "line 1"), ("", "line 1"), ("{}x", "trailing"), ("\u{feff}{}", "line 1")] {
            let refused = store.held_edit(&row, body, "me", "because").await.unwrap_err();
            assert_eq!(refused.kind(), StoreErrorKind::Invalid);
            assert!(refused.to_string().contains("not JSON") && refused.to_string().contains(line), "{refused}");
        }
        assert_eq!(store.held_edit(&row, "{}", "me", "because").await.unwrap().result, "unchanged");
        assert_eq!(*store.0.lock().unwrap(), [0; 0], "nothing was ordered so far");
        assert_eq!(store.held_edit(&row, "[]", "me", "because").await.unwrap().result, "held edit");
        assert_eq!(in_digits(b"\xff\0a"), "hex:ff0061");
    }
}
