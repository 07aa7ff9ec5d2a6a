//! What must hold between the attributes, and the list of messages that follows from them.

use super::parse::{By, Definition, Listed, State, Taken};
use proc_macro2::Span;
use quote::{ToTokens, format_ident};
use syn::{Ident, Token, Type, punctuated::Punctuated, spanned::Spanned};

/// A message of the saga, once, with the way to its key.
pub(super) struct Message {
    pub(super) ty: Type,
    /// Its variant of the enum of all messages.
    pub(super) variant: Ident,
    pub(super) key: Key,
    pub(super) starts: bool,
    pub(super) anyone: bool,
    pub(super) timer: bool,
}

/// Where the instance's id stands.
pub(super) enum Key {
    /// In the field that the saga names. Its span is the message, so that a missing field is reported there.
    IdField(Ident),
    Path(Punctuated<Ident, Token![.]>),
    Envelope,
}

/// Every message of the saga once, in the order in which they are listed.
///
/// # Errors
/// When a list contradicts another one, at the message in question.
pub(super) fn messages(definition: &Definition<'_>) -> syn::Result<Vec<Message>> {
    at_most_once(definition.starts.iter().map(|listed| (&listed.message, "starts")), "the saga")?;
    at_most_once(taken(&definition.anywhere), "the saga")?;
    for state in &definition.states {
        at_most_once(all_of(state), &format!("state `{}`", state.ident))?;
    }

    let mut found = Messages { all: Vec::new(), said: Vec::new() };
    for listed in &definition.starts {
        found.add(listed)?.starts = true;
    }
    for state in &definition.states {
        found.add_taken(&state.takes)?;
        for listed in state.ignores.iter().chain(&state.defers).chain(&state.rejects) {
            found.add(listed)?;
        }
    }
    found.add_taken(&definition.anywhere)?;
    Ok(found.with_id(&definition.id))
}

fn taken(taken: &Taken) -> impl Iterator<Item = (&Type, &'static str)> {
    let on = taken.on.iter().map(|listed| (&listed.message, "on"));
    on.chain(taken.timers.iter().map(|timer| (timer, "timer")))
}

fn all_of<'a>(state: &'a State<'_>) -> impl Iterator<Item = (&'a Type, &'static str)> {
    let named = |list: &'a [Listed], name| list.iter().map(move |listed| (&listed.message, name));
    let others = named(&state.ignores, "ignores").chain(named(&state.defers, "defers"));
    taken(&state.takes).chain(others).chain(named(&state.rejects, "rejects"))
}

fn at_most_once<'a>(lists: impl Iterator<Item = (&'a Type, &'static str)>, place: &str) -> syn::Result<()> {
    let mut seen: Vec<(&Type, &str)> = Vec::new();
    for (ty, list) in lists {
        if let Some((_, other)) = seen.iter().find(|(known, _)| *known == ty) {
            let name = text(ty);
            let fault = if list == *other {
                format!("{place} lists `{name}` twice in `#[{list}(..)]`")
            } else {
                format!("{place} lists `{name}` in `#[{other}(..)]` and in `#[{list}(..)]`: take it out of one")
            };
            return Err(syn::Error::new_spanned(ty, fault));
        }
        seen.push((ty, list));
    }
    Ok(())
}

struct Messages {
    all: Vec<Message>,
    /// The key that each message in `all` was listed with.
    said: Vec<Option<By>>,
}

impl Messages {
    fn add(&mut self, listed: &Listed) -> syn::Result<&mut Message> {
        let n = self.position(&listed.message);
        match (&self.said[n], &listed.by) {
            (_, None) => {}
            (None, Some(by)) => self.said[n] = Some(by.clone()),
            (Some(known), Some(by)) if known == by => {}
            (Some(_), Some(_)) => {
                let name = text(&listed.message);
                let fault =
                    format!("`{name}` is listed with another `by` before: a message finds its instance one way");
                return Err(syn::Error::new_spanned(&listed.message, fault));
            }
        }
        let message = &mut self.all[n];
        message.anyone |= listed.anyone;
        Ok(message)
    }

    fn add_taken(&mut self, taken: &Taken) -> syn::Result<()> {
        for listed in &taken.on {
            self.add(listed)?;
        }
        for timer in &taken.timers {
            let n = self.position(timer);
            self.all[n].timer = true;
        }
        Ok(())
    }

    fn position(&mut self, ty: &Type) -> usize {
        self.all.iter().position(|message| message.ty == *ty).unwrap_or_else(|| {
            let variant = format_ident!("M{}", self.all.len());
            let (ty, key) = (ty.clone(), Key::Envelope);
            self.all.push(Message { ty, variant, key, starts: false, anyone: false, timer: false });
            self.said.push(None);
            self.all.len() - 1
        })
    }

    /// Fills in the keys: as listed, else the saga's own field.
    fn with_id(mut self, id: &Ident) -> Vec<Message> {
        for (message, said) in self.all.iter_mut().zip(self.said) {
            message.key = match said {
                Some(By::Path(path)) => Key::Path(path),
                Some(By::Echo) => Key::Envelope,
                None if message.timer => Key::Envelope,
                None => {
                    let mut field = id.clone();
                    field.set_span(span(&message.ty));
                    Key::IdField(field)
                }
            };
        }
        self.all
    }
}

/// Where the message stands, with the names in scope there.
fn span(ty: &Type) -> Span {
    ty.span().resolved_at(Span::call_site())
}

/// A type as a person writes it.
pub(super) fn text(ty: &Type) -> String {
    ty.to_token_stream().to_string().replace(' ', "")
}
