//! What operators read and do, through the store.
//!
//! A store answers a [`Listing`] with one JSON text for each row, and carries out a [`HeldOrder`] in one transaction.
//! The rest is here: [`Inspect`] turns rows into views, and splits an action over many rows into orders.

mod counted;
mod filter;
mod group;
mod held;
mod instance;
mod masked;
mod outbox;
mod read;
mod server;
mod status;
mod trace;
mod view;

pub use counted::{COUNTED_MAX, Counted};
pub use filter::{
    AgeFilter, FieldIs, FieldName, HeldFilter, InstanceFilter, OPERATIONS_LOOKED_AT, OperationFilter, OutboxFilter,
};
pub use group::{GroupName, GroupNote, HELD_GROUPS_MAX, HeldGroup};
pub use held::{HeldAction, HeldOrder};
pub use instance::{Forked, FormCount, InstanceAction, InstanceDone, InstanceOrder, InstanceSeen};
pub use masked::{MASKED_HEADER, masked_fields};
pub use outbox::{DueAt, OutboxAction, OutboxOrder};
pub use server::{ServerView, SubscriptionView, TableView, UpkeepView};
pub use status::{
    EndpointStatus, HeldCount, ProcessReport, ProcessView, RowCount, RunningProcess, StateCount, Status, Unroutable,
};
pub use trace::{
    EffectView, Explained, Explanation, NameView, Story, TraceView, TracedMessage, TracedStep, TracedWait, explain,
};
pub use view::{
    DefinitionView, ExportedInstance, HeldRef, HeldView, InstanceView, JournalAfter, JournalView, OperationItem,
    OperationView, OutboxView,
};

use super::{InstanceKey, StoreError};
use async_trait::async_trait;
use held::in_orders;
use read::{body, count, counted, must_be_json, read};

/// The most notes that are looked through for those of a group.
const NOTES_MAX: i64 = 1000;

/// The most rows in one order: the order locks their instances until it commits, and running endpoints wait for that.
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
    /// [`HeldGroup`]: of each endpoint, reason and type, the first and the last messages that match. A group may come
    /// in several parts.
    HeldGroups(&'a HeldFilter),
    /// The body of a held message: hexadecimal digits in quotes.
    HeldBody(&'a HeldRef),
    /// [`OperationView`], last first; with a filter on items of the newest [`OPERATIONS_LOOKED_AT`].
    Operations(&'a OperationFilter, Wanted),
    /// [`DefinitionView`], by saga and version.
    Definitions,
    /// [`FormCount`], by saga, state and version.
    Forms,
    /// [`FieldName`], by saga and name.
    FieldNames,
    /// One [`ServerView`]. It must not need our tables.
    Server,
    /// One [`UpkeepView`].
    Upkeep,
    /// [`RunningProcess`], by endpoint and start.
    Processes,
    /// [`SubscriptionView`], by endpoint and event.
    Subscriptions,
    /// [`TraceView`]: what inbox, held and outbox have of these messages.
    Traces(&'a [String]),
    /// [`NameView`]: messages and instances whose id begins with this; a hundred of each place are enough.
    Beginning(&'a str),
    /// The ids of the messages of a conversation, oldest first, each in quotes: of the newest that are settled or held.
    Conversation(&'a str, Wanted),
}

/// What is wanted of a listing. Exhaustive: a store must answer every kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// At most this many rows.
    Rows(i64),
    /// One row: the number of rows, counted one by one.
    Count,
    /// One row: two numbers in a JSON array. The number of rows, at most one more than this; and the number of places
    /// where the listing did not look at all rows. It takes no longer than the listing itself.
    CountUpTo(i64),
    /// One row: the number of places where the listing did not look at all rows.
    Beyond,
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
/// A store implements [`Inspect::rows`], [`Inspect::order`], [`Inspect::instance_order`] and [`Inspect::outbox_order`].
#[async_trait]
pub trait Inspect: Send + Sync {
    /// Reads a listing: one JSON text for each row.
    async fn rows(&self, listing: &Listing<'_>) -> Result<Vec<String>, StoreError>;

    /// Carries out an order, all or nothing, under the locks of the instances that it touches.
    async fn order(&self, order: &HeldOrder<'_>) -> Result<Vec<OperationItem>, StoreError>;

    /// Carries out an order about an instance, all or nothing, under its lock.
    async fn instance_order(&self, order: &InstanceOrder<'_>) -> Result<InstanceDone, StoreError>;

    /// Carries out an order about outbox rows, all or nothing. Rows that a process is sending are left alone, and
    /// timers are touched under the locks of their instances.
    async fn outbox_order(&self, order: &OutboxOrder<'_>) -> Result<Vec<OperationItem>, StoreError>;

    /// Asks a process to finish what it has begun and to stop: it reads that with its next heartbeat. Recorded in
    /// `operation`. The result is `asked`, or `gone`; the item's message id is the process.
    async fn process_drain(&self, owner: &str, who: &str, why: &str) -> Result<OperationItem, StoreError>;

    /// Records in `operation` what an operator did or noted that changes nothing else.
    async fn record(&self, action: &str, item: OperationItem, who: &str, why: &str) -> Result<(), StoreError>;

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

    /// How many rows of the outbox there are, counted no further than [`COUNTED_MAX`].
    async fn outbox_counted(&self, filter: &OutboxFilter) -> Result<Counted, StoreError> {
        counted(self.rows(&Listing::Outbox(filter, Wanted::CountUpTo(COUNTED_MAX))).await?)
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

    /// How many instances there are, counted no further than [`COUNTED_MAX`].
    async fn instances_counted(&self, filter: &InstanceFilter) -> Result<Counted, StoreError> {
        counted(self.rows(&Listing::Instances(filter, Wanted::CountUpTo(COUNTED_MAX))).await?)
    }

    /// What one instance handled, in order: the newest `rows_max` lines.
    async fn journal(&self, key: &InstanceKey, rows_max: i64) -> Result<Vec<JournalView>, StoreError> {
        let mut lines: Vec<JournalView> = read(self.rows(&Listing::Journal(key, Wanted::Rows(rows_max))).await?)?;
        lines.iter_mut().for_each(JournalView::part);
        Ok(view::in_order(lines))
    }

    /// An instance with the newest `rows_max` lines of its journal: see [`replay`](crate::testing::replay).
    async fn export(&self, instance: InstanceView, rows_max: i64) -> Result<ExportedInstance, StoreError> {
        let journal = self.journal(&instance.key(), rows_max).await?;
        Ok(ExportedInstance::new(instance, journal))
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

    /// How many messages are held, counted no further than [`COUNTED_MAX`].
    async fn held_counted(&self, filter: &HeldFilter) -> Result<Counted, StoreError> {
        counted(self.rows(&Listing::Held(filter, Wanted::CountUpTo(COUNTED_MAX))).await?)
    }

    /// Held messages by reason, type and error, the largest group first, with what operators noted about each: at most
    /// [`HELD_GROUPS_MAX`]. It looks no further than a list does: a group says whether there may be more messages.
    async fn held_groups(&self, filter: &HeldFilter) -> Result<Vec<HeldGroup>, StoreError> {
        let found: Vec<HeldGroup> = read(self.rows(&Listing::HeldGroups(filter)).await?)?;
        let mut groups = HeldGroup::together(found);
        groups.truncate(HELD_GROUPS_MAX);
        let notes = self.operations(&noted(), NOTES_MAX).await?;
        groups.iter_mut().for_each(|group| group.take(&notes));
        Ok(groups)
    }

    /// What operators noted about messages like this one.
    async fn held_notes(&self, held: &HeldView) -> Result<Vec<GroupNote>, StoreError> {
        let mut group = HeldGroup::like(held);
        group.take(&self.operations(&noted(), NOTES_MAX).await?);
        Ok(group.notes)
    }

    /// Notes something about held messages, for whoever looks at them next: about those of a type that are held for a
    /// reason, and whose error contains a text if one is given.
    async fn held_note(&self, about: GroupName, who: &str, text: &str) -> Result<(), StoreError> {
        let mut item = OperationItem::gone("");
        item.result = "noted".into();
        item.group = Some(about);
        self.record(HeldGroup::NOTE, item, who, text).await
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

    /// Whether there are operations at which [`Inspect::operations`] does not look: of those with a message or an
    /// instance it takes the newest [`OPERATIONS_LOOKED_AT`].
    async fn operations_beyond(&self, filter: &OperationFilter) -> Result<bool, StoreError> {
        Ok(count(self.rows(&Listing::Operations(filter, Wanted::Beyond)).await?)? > 0)
    }

    /// The definitions of sagas that processes registered, by saga and version.
    async fn definitions(&self) -> Result<Vec<DefinitionView>, StoreError> {
        read(self.rows(&Listing::Definitions).await?)
    }

    /// How many instances are stored in which form: of which saga, in which state, written by which version.
    /// Counts may be limited; see [`COUNTED_MAX`].
    async fn forms(&self) -> Result<Vec<FormCount>, StoreError> {
        Ok(view::together(read(self.rows(&Listing::Forms).await?)?))
    }

    /// By which fields, aliases among them, instances are found: each name that an instance has.
    async fn field_names(&self) -> Result<Vec<FieldName>, StoreError> {
        read(self.rows(&Listing::FieldNames).await?)
    }

    /// What the database server says of itself. It works without our tables.
    async fn server(&self) -> Result<ServerView, StoreError> {
        Ok(read(self.rows(&Listing::Server).await?)?.pop().unwrap_or_default())
    }

    /// What our tables say of their state.
    async fn upkeep(&self) -> Result<UpkeepView, StoreError> {
        Ok(read(self.rows(&Listing::Upkeep).await?)?.pop().unwrap_or_default())
    }

    /// The events that endpoints subscribe to.
    async fn subscriptions(&self) -> Result<Vec<SubscriptionView>, StoreError> {
        read(self.rows(&Listing::Subscriptions).await?)
    }

    /// The processes that run, and those that died without signing off within the last day.
    async fn processes(&self) -> Result<Vec<RunningProcess>, StoreError> {
        read(self.rows(&Listing::Processes).await?)
    }

    /// What inbox, held and outbox have of these messages; see [`explain`].
    async fn traces(&self, ids: &[String]) -> Result<Vec<TraceView>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        read(self.rows(&Listing::Traces(ids)).await?)
    }

    /// Messages and instances whose id begins with this.
    async fn beginning(&self, text: &str) -> Result<Vec<NameView>, StoreError> {
        read(self.rows(&Listing::Beginning(text)).await?)
    }

    /// The ids of a conversation's messages, oldest first. No index has them: it looks at the newest messages, so ask
    /// when nothing else helps. A conversation that began here has the id of its first message.
    async fn conversation(&self, id: &str, rows_max: i64) -> Result<Vec<String>, StoreError> {
        read(self.rows(&Listing::Conversation(id, Wanted::Rows(rows_max))).await?)
    }

    /// Whether there are messages at which [`Inspect::conversation`] does not look.
    async fn conversation_beyond(&self, id: &str) -> Result<bool, StoreError> {
        Ok(count(self.rows(&Listing::Conversation(id, Wanted::Beyond)).await?)? > 0)
    }

    /// Does something with exactly these outbox rows, by their ids; see [`OutboxAction`].
    async fn outbox_act(&self, action: OutboxAction<'_>, rows: &[String], who: &str, why: &str) -> ActionDone {
        let mut done = ActionDone::default();
        for rows in rows.chunks(ORDER_ROWS_MAX) {
            match self.outbox_order(&OutboxOrder { action, rows, who, why }).await {
                Ok(items) => done.items.extend(items),
                Err(error) => {
                    done.stopped = Some(error);
                    break;
                }
            }
        }
        done
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
        must_be_json(body)?;
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
        let Some(masked) = masked::of_row(self, row).await? else { return Ok(row.done("gone", None, None)) };
        let old_body = OperationItem::marked(&masked, old_body);
        let action = HeldAction::Edit { body, old_body: &old_body };
        let done = self.order(&HeldOrder { action, rows: std::slice::from_ref(row), who, why }).await?;
        Ok(done.into_iter().next().unwrap_or_else(|| row.done("gone", None, None)))
    }

    /// Lets a paused instance go on, if it is still where it was seen; see [`InstanceAction::Resume`].
    async fn saga_resume(
        &self,
        key: &InstanceKey,
        seen: &InstanceSeen,
        who: &str,
        why: &str,
    ) -> Result<InstanceDone, StoreError> {
        self.instance_order(&InstanceOrder::new(InstanceAction::Resume, key, Some(seen), who, why)).await
    }

    /// Gives an instance a message; see [`InstanceAction::Send`].
    ///
    /// # Errors
    /// When the body is not JSON: nothing is done. When the database fails.
    async fn saga_send(
        &self,
        key: &InstanceKey,
        (type_name, body): (&str, &str),
        who: &str,
        why: &str,
    ) -> Result<InstanceDone, StoreError> {
        must_be_json(body)?;
        self.instance_order(&InstanceOrder::new(InstanceAction::Send { type_name, body }, key, None, who, why)).await
    }

    /// Ends an instance, if it is still where it was seen; see [`InstanceAction::Cancel`].
    async fn saga_cancel(
        &self,
        key: &InstanceKey,
        seen: &InstanceSeen,
        who: &str,
        why: &str,
    ) -> Result<InstanceDone, StoreError> {
        self.instance_order(&InstanceOrder::new(InstanceAction::Cancel, key, Some(seen), who, why)).await
    }

    /// Lets an instance stand again where a step left it, if it is still where it was seen; see
    /// [`InstanceAction::Fork`].
    ///
    /// # Errors
    /// When that cannot be: nothing is done. When the database fails.
    async fn saga_fork(
        &self,
        key: &InstanceKey,
        (at, dry_run): (i64, bool),
        seen: &InstanceSeen,
        who: &str,
        why: &str,
    ) -> Result<InstanceDone, StoreError> {
        let action = InstanceAction::Fork { at, dry_run };
        self.instance_order(&InstanceOrder::new(action, key, Some(seen), who, why)).await
    }
}

fn in_digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("hex:"), |text, byte| text + &format!("{byte:02x}"))
}

/// What was noted about held messages.
fn noted() -> OperationFilter {
    OperationFilter { action: Some(HeldGroup::NOTE.into()), ..OperationFilter::default() }
}

#[cfg(test)]
mod tests;
