//! What the journal keeps of a step, where an endpoint keeps messages of sagas: beside the message the instance as the
//! step left it, and the timers that the step set. With these an operator lets the instance stand there again.

use super::{FieldRow, InstanceKey, OutboxKind, OutboxRow};
use crate::{
    Envelope, ambient,
    saga::{Progress, alias_key, logic::Left, step_of_timer},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// No timer is due later than this after it was set: it stays within every database's calendar.
const LONGEST: Duration = Duration::from_secs(1000 * 365 * 86_400);

/// An instance as a step left it, and the timers that the step set.
#[derive(Debug)]
pub struct KeptStep {
    after: Instance,
    progress: Progress,
    timers: Vec<KeptTimer>,
}

/// The row of the instance, but for what stands in other columns of the journal. Data and progress are kept as they
/// were written: a number must not lose its digits on the way.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Instance {
    data: Box<RawValue>,
    #[serde(default)]
    progress: Option<Box<RawValue>>,
    entered: i64,
    version: i32,
    done: bool,
}

/// A timer that a step set: enough to set it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeptTimer {
    /// The message without its body. It says which of the instance's timers it is.
    pub envelope: Envelope,
    /// The body.
    pub body: String,
    /// When it was due: microseconds since 1970.
    pub due_us: i64,
}

impl KeptTimer {
    /// A row of the outbox that is written now, if it is a timer.
    pub(crate) fn of(row: &OutboxRow, now_us: i64) -> Option<Self> {
        let delay = row.delay.filter(|_| row.kind == OutboxKind::Timer)?.min(LONGEST);
        let envelope = Envelope::clone(&row.envelope);
        let body = String::from_utf8(envelope.body.to_vec()).ok()?;
        Some(Self { envelope, body, due_us: now_us.saturating_add(delay.as_micros() as i64) })
    }

    /// Which of the instance's timers it is.
    pub fn number(&self) -> Option<i64> {
        self.envelope.saga.as_ref()?.timer
    }

    /// The message to set again. It has another id: the inbox knows the old one, if the timer has gone off.
    pub fn again(&self) -> Envelope {
        let message_id = ambient::fresh_id().to_string();
        Envelope { message_id, body: Bytes::copy_from_slice(self.body.as_bytes()), ..self.envelope.clone() }
    }
}

impl KeptStep {
    /// What a transition left, with the ids under which its unit sends commands. A command without one did not leave.
    pub(crate) fn of(left: Left, entered: i64, ids: &HashMap<i64, Uuid>, timers: Vec<KeptTimer>) -> Option<Self> {
        let Left { data, mut progress, version, done } = left;
        progress.sent.retain_mut(|command| {
            command.id = command.id.or_else(|| ids.get(&command.number).copied());
            command.id.is_some()
        });
        let raw = |json: String| RawValue::from_string(json).ok();
        let after = Instance { data: raw(data)?, progress: progress.json().and_then(raw), entered, version, done };
        Some(Self { after, progress, timers })
    }

    /// The column of a line of the journal: the message that led to it, and what it led to.
    pub(crate) fn column(message: Option<&Envelope>, step: Option<&Self>) -> Option<String> {
        #[derive(Serialize)]
        struct Column<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            envelope: Option<&'a Envelope>,
            #[serde(skip_serializing_if = "Option::is_none")]
            body: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            after: Option<&'a Instance>,
            #[serde(skip_serializing_if = "<[KeptTimer]>::is_empty")]
            timers: &'a [KeptTimer],
        }
        // what is no text was no message of a saga
        let body = message.map(|envelope| std::str::from_utf8(&envelope.body)).transpose().ok()?;
        let (after, timers) = step.map(|step| (&step.after, &*step.timers)).unzip();
        let column = Column { envelope: message, body, after, timers: timers.unwrap_or_default() };
        serde_json::to_string(&column).ok()
    }

    /// What a line of the journal has kept; `None` if it has no instance.
    ///
    /// # Errors
    /// When this program cannot read it.
    pub fn read(column: &str) -> Result<Option<Self>, String> {
        #[derive(Deserialize)]
        struct Column {
            after: Option<Instance>,
            #[serde(default)]
            timers: Vec<KeptTimer>,
        }
        let Column { after, timers } = serde_json::from_str(column).map_err(|error| error.to_string())?;
        let Some(after) = after else { return Ok(None) };
        let progress = Progress::read(after.progress.as_deref().map(RawValue::get))?;
        Ok(Some(Self { after, progress, timers }))
    }

    /// The column of the line from which on the instance stands there again: later forks, and whoever looks at what
    /// each step changed, go on from it. It sets no timers of its own: those that are alive name the steps that did.
    pub fn fork_column(&self) -> String {
        let stands = Self { after: self.after.clone(), progress: Progress::default(), timers: Vec::new() };
        Self::column(None, Some(&stands)).unwrap_or_default()
    }

    /// The state's data, JSON.
    pub fn data(&self) -> &str {
        self.after.data.get()
    }

    /// Living timers and what else the instance knows of its way, JSON.
    pub fn progress(&self) -> Option<&str> {
        self.after.progress.as_deref().map(RawValue::get)
    }

    /// State entries so far.
    pub fn entered(&self) -> i64 {
        self.after.entered
    }

    /// The version of the definition that wrote it.
    pub fn version(&self) -> i32 {
        self.after.version
    }

    /// Whether the process was over.
    pub fn done(&self) -> bool {
        self.after.done
    }

    /// The timers that the step set.
    pub fn timers(&self) -> &[KeptTimer] {
        &self.timers
    }

    /// The numbers of the timers that were alive, each with the step that had set it.
    pub fn alive(&self) -> Vec<(i64, i64)> {
        self.progress.timers.iter().map(|timer| (timer.number, step_of_timer(timer.number))).collect()
    }

    /// The aliases and fields that the instance had.
    pub fn fields(&self, key: &InstanceKey) -> Vec<FieldRow> {
        let named = |(name, value): (&String, &String)| alias_key(&key.saga, name, value.clone());
        let aliases = self.progress.aliases.iter().map(|alias| FieldRow::alias(named(alias), key.clone()));
        aliases.chain(self.progress.fields.iter().map(|field| FieldRow::new(named(field), key.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        SagaRef,
        saga::{SentCommand, SetTimer},
    };

    fn timer(number: i64) -> SetTimer {
        SetTimer { type_name: "s.Overdue".into(), key: String::new(), number, deadline: false }
    }

    fn sent(id: Option<u128>, number: i64) -> SentCommand {
        let id = id.map(Uuid::from_u128);
        SentCommand { type_name: "bank.Pay".into(), to: "bank".into(), id, hash: 0, number }
    }

    #[test]
    fn what_is_kept_of_a_step_is_read_back_as_it_was() {
        let mut progress = Progress { timers: vec![timer(4_001), timer(7_000)], ..Progress::default() };
        progress.aliases.insert("reference".into(), "r-7".into());
        progress.fields.insert("customer".into(), "Ann".into());
        progress.sent = vec![sent(Some(1), 0), sent(None, 1), sent(None, 2)];
        let data = r#"{"cents":1.10,"big":12345678901234567890123}"#.to_owned();
        let left = Left { data: data.clone(), progress, version: 2, done: false };
        let own = SagaRef { saga: "s".into(), id: "7".into(), entered: None, timer: Some(7_000) };
        let envelope = Envelope { saga: Some(own), ..Envelope::new("m", "s.Overdue", "{}") };
        let set = KeptTimer { envelope, body: "{\"n\":1}".into(), due_us: 5 };
        let kept = KeptStep::of(left, 3, &HashMap::from([(2, Uuid::from_u128(9))]), vec![set]).expect("it is JSON");
        let column = KeptStep::column(Some(&Envelope::new("c", "s.Came", "{\"a\":1}")), Some(&kept)).expect("JSON");
        let read = KeptStep::read(&column).expect("it is readable").expect("it has an instance");
        assert_eq!((read.data(), read.entered(), read.version(), read.done()), (&*data, 3, 2, false));
        assert_eq!(read.alive(), [(4_001, 4), (7_000, 7)], "each names the step that set it");
        let ids: Vec<_> = read.progress.sent.iter().map(|command| command.id.map(|id| id.as_u128())).collect();
        assert_eq!(ids, [Some(1), Some(9)], "a command that never left is not remembered");
        let key = InstanceKey { saga: "s".into(), id: "7".into() };
        let fields: Vec<_> = read.fields(&key).into_iter().map(|row| (row.field.saga, row.is_alias)).collect();
        assert_eq!(fields, [("s by reference".to_owned(), true), ("s by customer".to_owned(), false)]);
        let again = read.timers()[0].again();
        assert_eq!((read.timers()[0].number(), again.body.as_ref()), (Some(7_000), b"{\"n\":1}".as_slice()));
        assert_ne!(again.message_id, "m", "the inbox may know the old one");
        let forked = KeptStep::read(&read.fork_column()).expect("readable").expect("it has an instance");
        assert_eq!((forked.data(), forked.progress(), forked.timers().len()), (read.data(), read.progress(), 0));
        assert!(KeptStep::read("{\"envelope\":{},\"body\":\"\"}").expect("readable").is_none(), "the message alone");
    }
}
