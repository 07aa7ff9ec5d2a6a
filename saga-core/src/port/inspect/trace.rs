//! Where a message came from and what it caused, as the rows of all databases tell it: [`explain`].

mod build;

use super::Inspect;
use crate::port::{InstanceKey, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most ids that one statement looks up.
const IDS_MAX: usize = 500;
/// The most causes that are followed upwards: a saga that sets a timer again and again has a cause for each.
const CAUSES_MAX: usize = 200;

/// What [`explain`] found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Explained {
    /// The answer.
    pub answer: Explanation,
    /// The databases, by their place in the argument, that could not be read; their part is missing.
    pub unread: Vec<(usize, StoreError)>,
    /// The id could only be a conversation's, and there are older messages than those that were looked at for it.
    pub beyond: bool,
}

/// What an id means.
#[derive(Debug)]
#[non_exhaustive]
pub enum Explanation {
    /// Nothing that is stored has this id.
    Nothing,
    /// Several ids begin with it.
    Several(Vec<String>),
    /// What happened.
    Story(Story),
}

/// Messages, each with what became of it and what it caused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Story {
    /// The whole id that was asked for.
    pub id: String,
    /// The messages in the order of a tree: each before those that it caused.
    pub messages: Vec<TracedMessage>,
    /// How many more were caused and are left out, at least.
    pub left_out: usize,
}

/// A message of a story. Times are microseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TracedMessage {
    /// Its id.
    pub message_id: String,
    /// The logical name.
    #[serde(rename = "type")]
    pub type_name: String,
    /// How many causes stand above it.
    pub depth: usize,
    /// The message that caused it. At depth 0 none of the databases has it.
    pub caused_by: Option<String>,
    /// The conversation.
    pub conversation_id: Option<String>,
    /// The endpoint or program that sent it, where that is known.
    pub sender: Option<String>,
    /// Where it was sent.
    pub to: Option<String>,
    /// When it was sent.
    pub sent_at_us: Option<i64>,
    /// Whether the id that was asked for means it.
    pub asked: bool,
    /// What became of it at each receiver.
    pub steps: Vec<TracedStep>,
    /// Where it waits to be sent, or to be handled again.
    pub waits: Vec<TracedWait>,
}

/// A message at one receiver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TracedStep {
    /// The database, by its place in the argument of [`explain`].
    pub database: usize,
    /// The endpoint.
    pub endpoint: String,
    /// The saga or handler; empty when none was found.
    pub receiver: String,
    /// What became of it: [`InboxResult`](crate::InboxResult).
    pub result: String,
    /// Why it is held: [`HeldReason`](crate::HeldReason).
    pub reason: Option<String>,
    /// The instance.
    pub saga_id: Option<String>,
    /// The instance's transitions, this one included.
    pub seq: Option<i64>,
    /// The state before.
    pub from_state: Option<String>,
    /// The state after.
    pub to_state: Option<String>,
    /// When it was last handled, or was held.
    pub at_us: i64,
    /// Runs.
    pub attempts: i64,
    /// A remark, or what went wrong.
    pub note: Option<String>,
    /// What it caused, by id.
    pub caused: Vec<String>,
}

/// A row of the outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TracedWait {
    /// The database, by its place in the argument of [`explain`].
    pub database: usize,
    /// The endpoint that sends it.
    pub endpoint: String,
    /// Why it is there: [`OutboxKind`](crate::OutboxKind).
    pub kind: String,
    /// Where it goes.
    pub to: String,
    /// When it is due.
    pub due_at_us: i64,
    /// Why it could not be sent, or why it is put off.
    pub note: Option<String>,
}

/// A row that a message left somewhere: an answer to [`Listing::Traces`](super::Listing::Traces).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct TraceView {
    /// `inbox`, `held` or `outbox`.
    pub place: String,
    /// The endpoint.
    pub endpoint: String,
    /// The message.
    pub message_id: String,
    /// The logical name.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Of inbox and held, the saga or handler.
    pub receiver: String,
    /// Of the inbox the result, of held the reason, of the outbox the kind.
    pub what: String,
    /// Of the outbox, the destination.
    pub to: Option<String>,
    /// The instance at the receiver.
    pub saga_id: Option<String>,
    /// Transitions.
    pub seq: Option<i64>,
    /// The state before.
    pub from_state: Option<String>,
    /// The state after.
    pub to_state: Option<String>,
    /// Messages that it caused: `[{"id","type","to"}]`.
    pub effects: Option<Vec<EffectView>>,
    /// The conversation.
    pub conversation_id: Option<String>,
    /// The message that caused it.
    pub causation_id: Option<String>,
    /// Who sent it.
    pub sender: Option<String>,
    /// When it was sent.
    pub sent_at_us: Option<i64>,
    /// When it was handled or held; of the outbox, when it is due.
    pub at_us: i64,
    /// Runs.
    pub attempts: i64,
    /// A remark or an error.
    pub note: Option<String>,
}

/// A message that another one caused, as the journal names it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct EffectView {
    /// Its id; none when it was not sent.
    pub id: Option<String>,
    /// The logical name.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Where it went.
    pub to: Option<String>,
}

/// Something whose id begins as asked: an answer to [`Listing::Beginning`](super::Listing::Beginning). With a saga it
/// is an instance, else a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NameView {
    /// Its id.
    pub id: String,
    /// The saga, of an instance.
    #[serde(default)]
    pub saga: Option<String>,
}

/// The stores, of which those that have failed are asked no more: each may take seconds to fail again.
struct Stores<'a> {
    stores: &'a [&'a dyn Inspect],
    unread: BTreeMap<usize, StoreError>,
    beyond: bool,
}

impl Stores<'_> {
    async fn ask<T>(&mut self, work: impl AsyncFn(&dyn Inspect) -> Result<Vec<T>, StoreError>) -> Vec<(usize, T)> {
        let mut all = Vec::new();
        for (n, store) in self.stores.iter().enumerate() {
            if self.unread.contains_key(&n) {
                continue;
            }
            match work(*store).await {
                Ok(rows) => all.extend(rows.into_iter().map(|row| (n, row))),
                Err(error) => drop(self.unread.insert(n, error)),
            }
        }
        all
    }
}

/// Tells where something came from and what it caused, across databases: a message, an instance of a saga (its id is
/// usually a business id) or a conversation, by its id or by how that begins. At most `messages_max` messages are told.
///
/// The rows have what their retention leaves of it, so an old story may lack its beginning.
pub async fn explain(stores: &[&dyn Inspect], id: &str, messages_max: usize) -> Explained {
    let mut stores = Stores { stores, unread: BTreeMap::new(), beyond: false };
    let answer = answer(&mut stores, id, messages_max).await;
    Explained { answer, unread: stores.unread.into_iter().collect(), beyond: stores.beyond }
}

async fn answer(stores: &mut Stores<'_>, id: &str, messages_max: usize) -> Explanation {
    if id.is_empty() {
        return Explanation::Nothing;
    }
    let names: BTreeSet<NameView> =
        stores.ask(async |store| store.beginning(id).await).await.into_iter().map(|(_, name)| name).collect();
    let is_whole = names.iter().any(|name| name.id == id);
    let meant: Vec<NameView> = names.into_iter().filter(|name| !is_whole || name.id == id).collect();
    let ids: BTreeSet<&str> = meant.iter().map(|name| name.id.as_str()).collect();
    let mut asked = BTreeSet::new();
    let whole = match ids.len() {
        0 => {
            let of_it = stores.ask(async |store| store.conversation(id, messages_max as i64).await).await;
            asked.extend(of_it.into_iter().map(|(_, message)| message));
            let beyond = stores.ask(async |store| Ok(vec![store.conversation_beyond(id).await?])).await;
            stores.beyond = beyond.into_iter().any(|(_, beyond)| beyond);
            id.to_owned()
        }
        1 => meant[0].id.clone(),
        _ => return Explanation::Several(ids.into_iter().map(str::to_owned).collect()),
    };
    for name in meant {
        let Some(saga) = name.saga else {
            asked.insert(name.id);
            continue;
        };
        let key = InstanceKey { saga, id: name.id };
        let journal = stores.ask(async |store| store.journal(&key, messages_max as i64).await).await;
        asked.extend(journal.into_iter().map(|(_, line)| line.message_id));
    }
    if asked.is_empty() {
        return Explanation::Nothing;
    }
    let mut known = build::Known::default();
    let roots = climb(stores, &mut known, &asked).await;
    let unread = descend(stores, &mut known, &roots, messages_max).await;
    let (messages, left_out) = known.told(&roots, &asked, messages_max);
    Explanation::Story(Story { id: whole, messages, left_out: left_out.max(unread) })
}

/// Follows the causes upwards. Returns the messages whose cause is not stored.
async fn climb(stores: &mut Stores<'_>, known: &mut build::Known, asked: &BTreeSet<String>) -> BTreeSet<String> {
    let mut level: Vec<String> = asked.iter().cloned().collect();
    let mut causes = 0;
    while !level.is_empty() && causes <= CAUSES_MAX {
        read(stores, known, &level).await;
        let next: BTreeSet<String> = level.iter().filter_map(|id| known.cause(id)).map(str::to_owned).collect();
        level = next.into_iter().filter(|id| !known.was_read(id)).collect();
        causes += level.len();
    }
    known.roots_of(asked)
}

/// Follows the effects downwards. Returns how many messages were left, because they are too many.
async fn descend(
    stores: &mut Stores<'_>,
    known: &mut build::Known,
    roots: &BTreeSet<String>,
    messages_max: usize,
) -> usize {
    let mut seen = roots.clone();
    let mut level: Vec<String> = seen.iter().cloned().collect();
    while !level.is_empty() {
        let unread: Vec<String> = level.iter().filter(|id| !known.was_read(id)).cloned().collect();
        read(stores, known, &unread).await;
        let caused: BTreeSet<String> = level.iter().flat_map(|id| known.effects(id)).collect();
        level = caused.into_iter().filter(|id| seen.insert(id.clone())).collect();
        if seen.len() > messages_max {
            return seen.len() - messages_max;
        }
    }
    0
}

/// Reads what is stored of these messages.
async fn read(stores: &mut Stores<'_>, known: &mut build::Known, ids: &[String]) {
    for ids in ids.chunks(IDS_MAX) {
        let rows = stores.ask(async |store| store.traces(ids).await).await;
        known.add(ids, rows);
    }
}

#[cfg(test)]
mod tests;
