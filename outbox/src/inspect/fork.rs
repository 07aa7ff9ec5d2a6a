//! An operator lets an instance stand again where a step left it: what that step was, whether it can be, what it takes.
//!
//! Everything rests on what the journal keeps of the step ([`KeptStep`]). The saga's code has no part in it.

use super::{
    Session, Tables,
    instance::{Found, params},
    order::{unreadable, wake},
};
use saga_core::{
    ErrorCode, FieldRow, Forked, InstanceKey, InstanceOrder, InstanceRow, KeptStep, KeptTimer, StoreError,
    StoreErrorKind,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The statements of a fork: the saga is the first parameter of each, the id the second.
pub(crate) struct Statements {
    /// Steps (3, a JSON array of their numbers) as [`Step`]s, the last one last: an instance of the same id may have
    /// been there before.
    pub(super) steps: &'static str,
    /// The numbers of its timers in the outbox that have not left, one a row. One that has may have gone off: it may
    /// still stand there although it is handled.
    pub(super) timers: &'static str,
    /// Deletes its timers but those with these numbers (3, a JSON array) that have not left.
    pub(super) other_timers: &'static str,
    /// Sets a timer: id (3), endpoint (4), type (5), number (6), envelope (7), body (8), due (9): microseconds since
    /// 1970, and not before now.
    pub(super) set_timer: &'static str,
    /// It stands elsewhere, and is not paused: state (3), data (4), entries (5), version (6), progress (7), whether it
    /// is over (8).
    pub(super) stand: &'static str,
    /// The instance that has an alias (2, the value) of a name (1).
    pub(super) alias: &'static str,
    /// Deletes its fields.
    pub(super) no_fields: &'static str,
    /// Inserts a field: name (3), value (4), `1` if it is an alias (5).
    pub(super) field: &'static str,
    /// Early messages that wait at an endpoint (3) for an alias (4, 5) wait for it. Returns a row for each.
    pub(super) meet: &'static str,
    /// What each step after one (3) has sent: a JSON array.
    pub(super) sent_after: &'static str,
    /// The types of the saga's timers, one a row; the first parameter alone.
    pub(super) timer_types: &'static str,
}

/// A line of the journal with what is kept of it.
#[derive(Deserialize)]
pub(super) struct Step {
    to_state: Option<String>,
    message: Option<Box<RawValue>>,
}

impl Step {
    /// What is kept of it, if anything is.
    fn kept(&self) -> Result<Option<KeptStep>, String> {
        self.message.as_deref().map_or(Ok(None), |message| KeptStep::read(message.get()))
    }

    /// The locks of the aliases that the instance had: who takes an alias has its lock.
    pub(super) fn locks(&self, key: &InstanceKey) -> Vec<i64> {
        let kept = self.kept().ok().flatten();
        kept.iter().flat_map(|kept| kept.fields(key)).filter(|row| row.is_alias).map(|row| row.field.lock()).collect()
    }
}

fn unfit(text: String) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, text).with_code(ErrorCode::StepUnfit)
}

/// Steps of an instance. They never change, so they may be read before it is locked.
pub(super) async fn steps<T: Tables>(
    session: &mut T::Session,
    key: &InstanceKey,
    numbers: impl IntoIterator<Item = i64>,
) -> Result<Vec<Step>, StoreError> {
    let rows = session.rows(T::FORK.steps, &params(key, &[&list(numbers)])).await?;
    rows.iter().map(|row| serde_json::from_str(row).map_err(unreadable)).collect()
}

/// Numbers as a JSON array.
fn list(numbers: impl IntoIterator<Item = i64>) -> String {
    let numbers: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

/// Carries out what can be; nothing is written before that is known. Returns the id of the line in the journal, and
/// what there is to say. The instance and the aliases of then are locked.
pub(super) async fn perform<T: Tables>(
    session: &mut T::Session,
    endpoint: &str,
    found: &Found,
    (at, step): (i64, Option<&Step>),
    order: &InstanceOrder<'_>,
) -> Result<(String, Forked), StoreError> {
    let key = order.key;
    let (state, kept) = judge(key, found, at, step)?;
    let fields = kept.fields(key);
    free::<T>(session, key, &fields).await?;
    let (there, again) = timers::<T>(session, key, at, &kept).await?;
    let mut forked = Forked::default();
    (forked.at, forked.seq, forked.state, forked.over) = (at, found.seq + 1, state.clone(), kept.done());
    forked.stays_sent = sent_after::<T>(session, key, at).await?;
    forked.timers_set = again.len() as u64;
    forked.timers_kept = kept.alive().iter().filter(|(number, _)| there.contains(number)).count() as u64;
    forked.timers_deleted = there.len() as u64 - forked.timers_kept;

    let (entered, version) = (kept.entered().to_string(), kept.version().to_string());
    let mut stand = params(key, &[&state, kept.data(), &entered, &version]);
    stand.extend([kept.progress().map(str::to_owned), Some(kept.done().to_string())]);
    session.rows(T::FORK.stand, &stand).await?;
    let alive = list(kept.alive().into_iter().map(|(number, _)| number));
    session.rows(T::FORK.other_timers, &params(key, &[&alive])).await?;
    for timer in &again {
        set::<T>(session, key, endpoint, timer).await?;
    }
    session.rows(T::FORK.no_fields, &params(key, &[])).await?;
    for FieldRow { field, is_alias, .. } in &fields {
        let mut row = params(key, &[&field.saga, &field.id]);
        row.push(is_alias.then(|| "1".into()));
        session.rows(T::FORK.field, &row).await?;
        if *is_alias {
            let waited = params(key, &[endpoint, &field.saga, &field.id]);
            forked.offered += session.rows(T::FORK.meet, &waited).await?.len() as u64;
        }
    }
    let line = Uuid::now_v7().to_string();
    let note = format!("forked to step {at} by {}: {}", order.who, order.why);
    let seq = forked.seq.to_string();
    let entry = [endpoint, &line, InstanceRow::FORK, &seq, &found.state, &state, order.who, &note, &kept.fork_column()];
    session.rows(T::INSTANCE_ORDER.journal, &params(key, &entry)).await?;
    forked.offered += found.waiting;
    if forked.offered > 0 {
        wake::<T>(session, endpoint, key).await?;
    }
    Ok((line, forked))
}

/// The state after the step, and what is kept of it; or why the instance cannot stand there.
fn judge(key: &InstanceKey, found: &Found, at: i64, step: Option<&Step>) -> Result<(String, KeptStep), StoreError> {
    let (name, seq) = (format!("{} {}", key.saga, key.id), found.seq);
    if at < 1 || at > seq {
        let text = format!("{name} has no step {at}: its steps are 1 to {seq}");
        return Err(StoreError::new(StoreErrorKind::Invalid, text).with_code(ErrorCode::NotFound));
    }
    if at == seq {
        return Err(unfit(format!("{name} stands where step {at} left it")));
    }
    let Some(Step { to_state: Some(state), .. }) = step else {
        let text = format!("the line of step {at} of {name} is gone: lines of the journal are kept for `retention`");
        return Err(unfit(text));
    };
    match step.map_or(Ok(None), Step::kept) {
        Ok(Some(kept)) => Ok((state.clone(), kept)),
        Ok(None) => Err(unfit(format!(
            "the journal has no copy of {name} after step {at}: an endpoint keeps one of each step that is made while \
             its setting `keep_messages` is on, and none of a cancellation"
        ))),
        Err(error) => Err(unfit(format!("what is kept of step {at} of {name} cannot be read: {error}"))),
    }
}

/// No other instance has taken an alias of then.
async fn free<T: Tables>(session: &mut T::Session, key: &InstanceKey, fields: &[FieldRow]) -> Result<(), StoreError> {
    for alias in fields.iter().filter(|row| row.is_alias).map(|row| &row.field) {
        let has = session.rows(T::FORK.alias, &params(alias, &[])).await?;
        if let Some(other) = has.into_iter().find(|id| *id != key.id) {
            let InstanceKey { saga: name, id: value } = alias;
            return Err(unfit(format!("{} {other} has the alias {name} `{value}` by now", key.saga)));
        }
    }
    Ok(())
}

/// The numbers of the instance's timers in the outbox, and those of then that are not there any more.
async fn timers<T: Tables>(
    session: &mut T::Session,
    key: &InstanceKey,
    at: i64,
    kept: &KeptStep,
) -> Result<(Vec<i64>, Vec<KeptTimer>), StoreError> {
    let there = session.rows(T::FORK.timers, &params(key, &[])).await?;
    let there: Vec<i64> = there.iter().map(|number| number.parse().unwrap_or_default()).collect(); // 0 is none of then
    let mut gone = kept.alive();
    gone.retain(|(number, _)| !there.contains(number));
    let set_by: BTreeSet<i64> = gone.iter().map(|(_, step)| *step).collect();
    let mut set = Vec::new();
    if !set_by.is_empty() {
        let known = steps::<T>(session, key, set_by).await?;
        let known: Vec<KeptStep> = known.iter().filter_map(|step| step.kept().ok().flatten()).collect();
        for (number, step) in gone {
            let mut timers = known.iter().rev().flat_map(KeptStep::timers);
            let Some(timer) = timers.find(|timer| timer.number() == Some(number)) else {
                return Err(unfit(format!(
                    "a timer that was alive after step {at} has gone off or was taken back, and cannot be set again: \
                     the journal has no copy of step {step}, which had set it"
                )));
            };
            set.push(timer.clone());
        }
    }
    Ok((there, set))
}

async fn set<T: Tables>(
    session: &mut T::Session,
    key: &InstanceKey,
    endpoint: &str,
    timer: &KeptTimer,
) -> Result<(), StoreError> {
    let message = timer.again();
    let envelope = serde_json::to_string(&message).map_err(unreadable)?;
    let (number, due) = (timer.number().unwrap_or_default().to_string(), timer.due_us.to_string());
    let row = [&*message.message_id, endpoint, &message.type_name, &number, &envelope, &timer.body, &due];
    session.rows(T::FORK.set_timer, &params(key, &row)).await.map(drop)
}

/// How many messages the steps after one have sent, its own timers apart.
async fn sent_after<T: Tables>(session: &mut T::Session, key: &InstanceKey, at: i64) -> Result<u64, StoreError> {
    #[derive(Deserialize)]
    struct Sent {
        id: Option<String>,
        #[serde(rename = "type")]
        type_name: String,
    }
    let timers = session.rows(T::FORK.timer_types, &[Some(key.saga.clone())]).await?;
    let mut all = 0;
    for effects in session.rows(T::FORK.sent_after, &params(key, &[&at.to_string()])).await? {
        let sent: Vec<Sent> = serde_json::from_str(&effects).map_err(unreadable)?;
        all += sent.iter().filter(|sent| sent.id.is_some() && !timers.contains(&sent.type_name)).count() as u64;
    }
    Ok(all)
}
