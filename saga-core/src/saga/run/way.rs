//! What a transition changes of what its instance knows about its way: timers, commands that it may take back, aliases.

use super::Run;
use crate::{
    envelope::hash_of,
    panics::caught,
    saga::{
        Aliases, Emit, Emits, Progress, Route, Saga, SentCommand, SetTimer, alias::value_fault, alias_key, kept_fields,
        progress::TIMERS_MAX,
    },
};

/// The most living timers of an instance: they are part of its row.
const ALIVE_MAX: usize = 1000;

impl<S: Saga> Run<'_, S> {
    /// A state was entered: the timers of the one before are gone, and messages that only it takes had their chance.
    pub(super) fn enter(&mut self, from: Option<&String>) {
        self.entered += 1;
        self.progress.timers.retain(|timer| timer.deadline);
        if let Some(from) = from.filter(|from| self.rules.is_cyclic(from) && !self.progress.visited.contains(from)) {
            self.progress.visited.push(from.clone());
        }
    }

    /// Takes back timers and commands; returns those commands that a unit before this one has sent.
    pub(super) fn cancel(&mut self, out: &Emits) -> Vec<SentCommand> {
        let mut cancels = Vec::new();
        for (type_name, key) in &out.cancels {
            self.progress.cancel(type_name, key);
            let (sent, unsent): (Vec<_>, Vec<_>) =
                self.progress.take_back(type_name).into_iter().partition(|command| command.id.is_some());
            cancels.extend(sent);
            self.unsent.extend(unsent.iter().map(|command| command.number));
        }
        cancels
    }

    /// Remembers a command that some transition takes back. Returns its number among those of the unit.
    fn send(&mut self, to: &str, Emit { message, .. }: &Emit) -> Option<i64> {
        if !self.rules.cancels(message.type_name) {
            return None;
        }
        self.commands += 1;
        self.progress.send(SentCommand {
            type_name: message.type_name.into(),
            to: to.into(),
            id: None,
            hash: hash_of([message.type_name.as_bytes(), &message.body]),
            number: self.commands,
        });
        Some(self.commands)
    }

    /// Numbers the timers that a transition sets, and the commands that may be taken back; `None` for all else.
    pub(super) fn number(&mut self, to: &str, out: &Emits) -> Result<Vec<Option<i64>>, String> {
        let mut numbers = Vec::with_capacity(out.emits.len());
        let mut set = 0;
        for emit in &out.emits {
            let (key, deadline) = match &emit.route {
                Route::Timer { key, deadline, .. } => (key, deadline),
                Route::Command { to } => {
                    numbers.push(self.send(to, emit));
                    continue;
                }
                Route::Event | Route::Reply => {
                    numbers.push(None);
                    continue;
                }
            };
            if set == TIMERS_MAX {
                return Err(format!("the transition sets more than {TIMERS_MAX} timers"));
            }
            let number = self.seq * TIMERS_MAX + set;
            set += 1;
            let type_name = emit.message.type_name.to_owned();
            self.progress.set(SetTimer { type_name, key: key.clone(), number, deadline: *deadline });
            numbers.push(Some(number));
        }
        if self.rules.is_done(to) {
            // nothing waits there, not even a timer set on the way; a transition out of it may still take commands back
            let Progress { replied, aliases, fields, sent, .. } = std::mem::take(&mut self.progress);
            self.progress = Progress { replied, aliases, fields, sent, ..Progress::default() };
        }
        if self.progress.timers.len() > ALIVE_MAX {
            return Err(format!("the instance would have more than {ALIVE_MAX} timers: keys of timers must not grow"));
        }
        Ok(numbers)
    }

    /// The aliases in the data are the instance's, unless another instance has one of them.
    pub(super) fn take_aliases(&mut self, data: &S::Data) -> Result<(), String> {
        let mut aliases = Aliases::new();
        for (name, value) in caught(|| S::__aliases(data))? {
            let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
            if let Some(fault) = value_fault(&value) {
                return Err(format!("the alias `{name}` {fault}"));
            }
            if self.progress.aliases.get(name) != Some(&value) {
                let (key, own) = (alias_key(S::NAME, name, value.clone()), self.offers.key);
                if let Some(other) = self.offers.aliases.taken.get(&key).filter(|other| *other != own) {
                    let (own, other) = (format!("{}/{}", own.saga, own.id), format!("{}/{}", other.saga, other.id));
                    return Err(format!(
                        "instance {own} takes the {name} `{value}`, which instance {other} has: \
                         an alias is one instance's"
                    ));
                }
                self.stops |= self.offers.aliases.awaited.contains(&key);
                self.aliases_taken.push(key);
            }
            aliases.insert(name.into(), value);
        }
        self.progress.aliases = aliases;
        Ok(())
    }

    /// The fields by which operators find the instance. Nothing about them is a reason to fail.
    pub(super) fn keep_fields(&mut self, state: &S, data: &S::Data) {
        self.progress.fields = kept_fields(caught(|| state.__fields(data)).unwrap_or_default());
    }
}
