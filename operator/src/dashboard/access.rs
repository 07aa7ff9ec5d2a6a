//! Who may come in, and what each may do.

use axum::http::{HeaderMap, HeaderName, header};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The name of the cookie that a login sets.
const COOKIE: &str = "sagabus-dashboard";
/// After this time a login is over.
pub(super) const SESSION: Duration = Duration::from_secs(12 * 3600);
/// The most people that are known at a time: who comes after that takes the place of who has been here longest.
const SESSIONS_MAX: usize = 1000;
/// The most characters of a user's name.
const NAME_CHARS_MAX: usize = 80;
/// So many wrong tokens within a minute, from whomever, then nobody may try for a while.
const WRONG_TOKENS_MAX: usize = 10;
const WRONG_TOKENS_WITHIN: Duration = Duration::from_secs(60);

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Viewer,
    Operator,
}

/// Somebody who has come in.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// Who acts, for the record.
    pub(super) name: String,
    pub(super) role: Role,
    /// What each form must bring: no other site can read it.
    pub(super) csrf: String,
    /// There is a login to end.
    pub(super) logged_in: bool,
}

impl Visitor {
    pub(super) fn may_act(&self) -> bool {
        self.role == Role::Operator
    }
}

/// How the dashboard learns who somebody is.
#[derive(Debug)]
pub(super) enum Way {
    /// Who reaches the loopback address is the user that started the dashboard.
    Local { name: String },
    /// Who knows a token says a name.
    Tokens { operator: Option<String>, viewer: Option<String> },
    /// A proxy names the user in a header.
    Header { header: HeaderName, secret: Option<String>, operators: Vec<String> },
}

/// Who may come in.
#[derive(Debug)]
pub(super) struct Access {
    way: Way,
    /// The names under which it is reached, beside those of loopback; `None`: whatever the name, because nobody comes
    /// in without a token.
    hosts: Option<Vec<String>>,
    read_only: bool,
    sessions: Mutex<HashMap<String, Session>>,
    wrong_tokens: Mutex<VecDeque<Instant>>,
}

#[derive(Debug)]
struct Session {
    name: String,
    role: Role,
    csrf: String,
    until: Instant,
}

/// What a login led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// The value of `Set-Cookie`, without a path.
    In(String),
    WrongToken,
    NoName,
    /// Too many wrong tokens came.
    Later,
}

impl Access {
    pub(super) fn new(way: Way, hosts: Option<Vec<String>>, read_only: bool) -> Self {
        Self { way, hosts, read_only, sessions: Mutex::default(), wrong_tokens: Mutex::default() }
    }

    /// What is told at the start.
    pub(super) fn told(&self) -> String {
        let who = match &self.way {
            Way::Local { name } => format!("for {name}, from this machine"),
            Way::Tokens { .. } => "for whoever has the token".into(),
            Way::Header { header, .. } => format!("for whom the proxy names in {header}"),
        };
        format!("{who}{}", if self.read_only { ", read-only" } else { "" })
    }

    /// Whether there is a page to log in.
    pub(super) fn has_login(&self) -> bool {
        matches!(self.way, Way::Tokens { .. })
    }

    /// Whether a request's `Host` may be answered. A page of another site whose name suddenly leads to 127.0.0.1 (DNS
    /// rebinding) comes with the name of that site.
    pub(super) fn knows_host(&self, headers: &HeaderMap) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let same = |known: &str| known.eq_ignore_ascii_case(name);
        ["localhost", "127.0.0.1", "[::1]"].into_iter().any(same)
            || hosts.iter().any(|known| same(known) || known.eq_ignore_ascii_case(host))
    }

    /// Who sent a request; `None` if nobody whom we know.
    pub(super) fn visitor(&self, headers: &HeaderMap) -> Option<Visitor> {
        match &self.way {
            Way::Local { name } => Some(self.named("local", name, Role::Operator)),
            Way::Tokens { .. } => self.of_cookie(cookie(headers)?),
            Way::Header { header, secret, operators } => {
                if !secret.as_ref().is_none_or(|secret| bearer(headers).is_some_and(|token| is_same(token, secret))) {
                    return None;
                }
                let mut values = headers.get_all(header).iter();
                // two of them: one is a client's
                let (Some(name), None) = (values.next(), values.next()) else { return None };
                let name = name_of(name.to_str().ok()?)?;
                let may_act = operators.is_empty() || operators.contains(&name);
                let role = if may_act { Role::Operator } else { Role::Viewer };
                Some(self.named(&format!("user {name}"), &name, role))
            }
        }
    }

    fn of_cookie(&self, cookie: &str) -> Option<Visitor> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(cookie).filter(|session| session.until > Instant::now())?;
        Some(self.visitor_of(session, true))
    }

    /// Somebody who is known without a login.
    fn named(&self, key: &str, name: &str, role: Role) -> Visitor {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if !sessions.contains_key(key) {
            make_room(&mut sessions);
        }
        let session = sessions.entry(key.into()).or_insert_with(|| Session::new(name, role));
        session.until = Instant::now() + SESSION;
        self.visitor_of(session, false)
    }

    fn visitor_of(&self, session: &Session, logged_in: bool) -> Visitor {
        let role = if self.read_only { Role::Viewer } else { session.role };
        Visitor { name: session.name.clone(), role, csrf: session.csrf.clone(), logged_in }
    }

    /// Lets somebody in who knows a token.
    pub(super) fn login(&self, token: &str, name: &str) -> Login {
        let Way::Tokens { operator, viewer } = &self.way else { return Login::WrongToken };
        let mut wrong = self.wrong_tokens.lock().unwrap_or_else(PoisonError::into_inner);
        while wrong.front().is_some_and(|at| at.elapsed() > WRONG_TOKENS_WITHIN) {
            wrong.pop_front();
        }
        if wrong.len() >= WRONG_TOKENS_MAX {
            return Login::Later;
        }
        let is = |secret: &Option<String>| secret.as_ref().is_some_and(|secret| is_same(token, secret));
        let role = match (is(operator), is(viewer)) {
            (true, _) => Role::Operator,
            (false, true) => Role::Viewer,
            (false, false) => {
                wrong.push_back(Instant::now());
                return Login::WrongToken;
            }
        };
        drop(wrong);
        let Some(name) = name_of(name) else { return Login::NoName };
        let id = secret();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut sessions);
        sessions.insert(id.clone(), Session::new(&name, role));
        Login::In(format!("{COOKIE}={id}; HttpOnly; SameSite=Strict; Max-Age={}", SESSION.as_secs()))
    }

    /// Ends a login. Returns the value of `Set-Cookie` that removes the cookie, without a path.
    pub(super) fn logout(&self, headers: &HeaderMap) -> String {
        if let Some(id) = cookie(headers) {
            self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
        format!("{COOKIE}=; HttpOnly; SameSite=Strict; Max-Age=0")
    }
}

impl Session {
    fn new(name: &str, role: Role) -> Self {
        Self { name: name.into(), role, csrf: secret(), until: Instant::now() + SESSION }
    }
}

fn make_room(sessions: &mut HashMap<String, Session>) {
    let now = Instant::now();
    sessions.retain(|_, session| session.until > now);
    while sessions.len() >= SESSIONS_MAX {
        let oldest = sessions.iter().min_by_key(|(_, session)| session.until).map(|(id, _)| id.clone());
        let Some(oldest) = oldest else { return };
        sessions.remove(&oldest);
    }
}

/// What nobody can guess: 244 bits of chance.
fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// A name as it may stand in the record.
fn name_of(text: &str) -> Option<String> {
    let name = text.trim();
    let fits = !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX && crate::text::plain(name) == name;
    fits.then(|| name.to_owned())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub(super) fn is_same(given: &str, secret: &str) -> bool {
    given.len() == secret.len() && given.bytes().zip(secret.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn of_a_header_that_came_twice_one_is_a_clients() {
        let header = HeaderName::from_static("x-user");
        let secret = Some("0123456789abcdef".to_owned());
        let way = Way::Header { header, secret, operators: vec!["ann".into()] };
        let access = Access::new(way, None, false);
        let bearer = ("authorization", "Bearer 0123456789abcdef");
        let ann = access.visitor(&headers(&[bearer, ("x-user", "ann")])).unwrap();
        assert_eq!((ann.name.as_str(), ann.role), ("ann", Role::Operator));
        assert_eq!(access.visitor(&headers(&[bearer, ("x-user", "bob")])).unwrap().role, Role::Viewer);
        assert!(access.visitor(&headers(&[bearer, ("x-user", "bob"), ("x-user", "ann")])).is_none());
        assert!(access.visitor(&headers(&[("x-user", "ann")])).is_none(), "not from the proxy");
        assert!(access.visitor(&headers(&[bearer])).is_none(), "nobody is named");
        assert_ne!(ann.csrf, access.visitor(&headers(&[bearer, ("x-user", "bob")])).unwrap().csrf);
    }

    #[test]
    fn who_has_been_here_longest_makes_room() {
        let tokens = Way::Tokens { operator: Some("0123456789abcdef".into()), viewer: None };
        let access = Access::new(tokens, None, false);
        let enter = || {
            let Login::In(cookie) = access.login("0123456789abcdef", "ann") else { panic!("she knows the token") };
            cookie.split(';').next().unwrap().to_owned()
        };
        let first = enter();
        for _ in 0..SESSIONS_MAX {
            enter();
        }
        assert_eq!(access.sessions.lock().unwrap().len(), SESSIONS_MAX);
        assert!(access.visitor(&headers(&[("cookie", &first)])).is_none());
        assert!(access.visitor(&headers(&[("cookie", &enter())])).is_some());
    }

    #[test]
    fn wrong_tokens_are_tried_ten_times_a_minute_and_no_more() {
        let tokens = Way::Tokens { operator: Some("0123456789abcdef".into()), viewer: None };
        let access = Access::new(tokens, None, false);
        for _ in 0..WRONG_TOKENS_MAX {
            assert_eq!(access.login("0123456789abcdee", "ann"), Login::WrongToken);
        }
        assert_eq!(access.login("0123456789abcdef", "ann"), Login::Later);
    }

    #[test]
    fn a_host_is_one_of_loopback_or_one_that_was_named() {
        let access = Access::new(Way::Local { name: "ann".into() }, Some(vec!["ops.example".into()]), false);
        for host in ["localhost", "LOCALHOST:8480", "127.0.0.1:8480", "[::1]:8480", "ops.example", "ops.example:443"] {
            assert!(access.knows_host(&headers(&[("host", host)])), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8480", "", "localhost:x"] {
            assert!(!access.knows_host(&headers(&[("host", host)])), "{host}");
        }
        assert!(!access.knows_host(&HeaderMap::new()));
    }
}
