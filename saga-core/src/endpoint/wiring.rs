//! What endpoints say to each other, as far as their types tell.

use super::EndpointBuilder;
use crate::{Chart, ChartEffect, Message, MessageKind, Store, message::answers_to};
use std::collections::HashSet;

/// What an endpoint takes and sends, as far as it is known before it runs: for tests that several endpoints fit
/// together.
///
/// Sagas say what they send; so do handlers, as far as they answer. What else handlers and sessions send, and what
/// comes from or goes to programs that are not yours, the test says.
///
/// ```no_run
/// use sagabus::{Endpoint, endpoint::Wiring};
/// # use sagabus::{Event, port::{Store, Transport}};
/// # #[derive(Event, serde::Serialize, serde::Deserialize)] struct OrderPlaced { id: u64 }
/// # #[derive(Event, serde::Serialize, serde::Deserialize)] struct OrderShipped { id: u64 }
///
/// # fn example<Db: Store, Broker: Transport + Clone>(broker: Broker, store: Db) {
/// // each service has one function that assembles its endpoint
/// let ordering = Endpoint::builder("ordering", broker.clone(), store.clone()).wiring();
/// let payment = Endpoint::builder("payment", broker, store).wiring();
///
/// let ordering = ordering.sends::<OrderPlaced>(); // by its API, in a session
/// let mail = Wiring::stranger("mail").takes::<OrderShipped>();
/// assert_eq!(Wiring::verify([&ordering, &payment, &mail]), [] as [String; 0]);
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Wiring {
    /// The endpoint.
    pub endpoint: String,
    /// The charts of its sagas.
    pub charts: Vec<Chart>,
    /// What its handlers take, by logical name.
    pub handles: Vec<String>,
    /// The events among them.
    pub hears: Vec<String>,
    /// What its handlers may answer, by logical name.
    pub answers: Vec<String>,
    /// What else it sends.
    pub sends: Vec<ChartEffect>,
}

impl<Db: Store> EndpointBuilder<Db> {
    /// What the endpoint takes, and what it is known to send. See [`Wiring`].
    pub fn wiring(&self) -> Wiring {
        let handlers = || self.handlers.iter().map(|(kind, entry)| (*kind, &entry.description));
        let heard = handlers().filter(|(kind, _)| *kind == MessageKind::Event);
        Wiring {
            charts: self.sagas.iter().map(|saga| saga.chart.clone()).collect(),
            handles: handlers().map(|(_, it)| it.type_name.into()).collect(),
            hears: heard.map(|(_, it)| it.type_name.into()).collect(),
            answers: handlers().flat_map(|(_, it)| (it.answers)()).map(Into::into).collect(),
            ..Wiring::stranger(&self.name)
        }
    }
}

impl Wiring {
    /// A program that is not yours, or no endpoint.
    pub fn stranger(name: impl Into<String>) -> Self {
        let (endpoint, none) = (name.into(), Vec::new);
        Self { endpoint, charts: Vec::new(), handles: none(), hears: none(), answers: none(), sends: Vec::new() }
    }

    /// It sends such messages too: in a session, or in a handler.
    pub fn sends<M: Message>(mut self) -> Self {
        let kind = match M::KIND {
            MessageKind::Command => "send",
            MessageKind::Event => "publish",
            MessageKind::Reply | MessageKind::Timer => "reply",
        };
        self.sends.push(ChartEffect {
            kind: kind.into(),
            type_name: M::TYPE.into(),
            to: M::ENDPOINT.map(Into::into),
            outcome: answers_to::<M>().into_iter().map(Into::into).collect(),
        });
        self
    }

    /// It takes such messages too.
    pub fn takes<M: Message>(mut self) -> Self {
        self.handles.push(M::TYPE.into());
        self
    }

    /// What does not fit among these endpoints, each in one sentence: a command that the endpoint it goes to does not
    /// take; an event that nobody takes; a message that a saga takes, or an event that a handler does, and that nobody
    /// sends.
    pub fn verify<'a>(endpoints: impl IntoIterator<Item = &'a Self>) -> Vec<String> {
        let endpoints: Vec<&Self> = endpoints.into_iter().collect();
        let mut wrong = Vec::new();
        for (who, effect) in endpoints.iter().flat_map(|endpoint| endpoint.all_sent()) {
            let ChartEffect { kind, type_name, to, .. } = effect;
            let text = match (kind.as_str(), to) {
                ("send", Some(to)) => match endpoints.iter().find(|endpoint| endpoint.endpoint == *to) {
                    Some(endpoint) if endpoint.has(type_name) => continue,
                    Some(_) => format!("sends `{type_name}` to endpoint `{to}`, which has no handler for it"),
                    None => format!("sends `{type_name}` to endpoint `{to}`, which is not among these"),
                },
                ("publish", _) if endpoints.iter().any(|endpoint| endpoint.has(type_name)) => continue,
                ("publish", _) => format!("publishes `{type_name}`, which none of these endpoints takes"),
                _ => continue,
            };
            let text = format!("{who} {text}");
            if !wrong.contains(&text) {
                wrong.push(text);
            }
        }
        let said: HashSet<&str> = endpoints.iter().flat_map(|endpoint| endpoint.said()).collect();
        let unsaid = endpoints.iter().flat_map(|endpoint| endpoint.waits_for());
        wrong.extend(unsaid.filter(|(_, type_name)| !said.contains(type_name)).map(|(who, type_name)| {
            format!("{who} takes `{type_name}`, which none of these endpoints is known to send")
        }));
        wrong
    }

    /// What others must send it: what its sagas take, and the events of its handlers.
    fn waits_for(&self) -> impl Iterator<Item = (String, &str)> {
        let of_sagas = self.charts.iter().flat_map(|chart| {
            let taken = chart.messages.iter().filter(|message| message.kind != MessageKind::Timer);
            taken.map(move |message| (format!("saga `{}`", chart.saga), &*message.type_name))
        });
        of_sagas.chain(self.hears.iter().map(move |type_name| (format!("endpoint `{}`", self.endpoint), &**type_name)))
    }

    /// What it may say: what it sends, what may come back for that, and what it answers.
    fn said(&self) -> impl Iterator<Item = &str> {
        let sent = self.all_sent().filter(|(_, effect)| matches!(&*effect.kind, "send" | "publish" | "reply"));
        let sent = sent.flat_map(|(_, effect)| std::iter::once(&effect.type_name).chain(&effect.outcome));
        sent.chain(&self.answers).map(String::as_str)
    }

    fn all_sent(&self) -> impl Iterator<Item = (String, &ChartEffect)> {
        let of_sagas = self.sent().map(|(saga, effect)| (format!("saga `{saga}`"), effect));
        of_sagas.chain(self.sends.iter().map(move |effect| (format!("endpoint `{}`", self.endpoint), effect)))
    }

    /// The commands that its sagas send to this endpoint itself, and that it does not take.
    pub(super) fn unhandled(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.sent().filter(|(_, effect)| effect.kind == "send" && effect.to.as_ref() == Some(&self.endpoint));
        let unhandled = own.filter(|(_, effect)| !self.has(&effect.type_name));
        unhandled.map(|(saga, effect)| (saga, effect.type_name.as_str()))
    }

    fn sent(&self) -> impl Iterator<Item = (&str, &ChartEffect)> {
        let edges = self.charts.iter().flat_map(|chart| chart.edges.iter().map(move |edge| (&*chart.saga, edge)));
        edges.flat_map(|(saga, edge)| edge.effects.iter().map(move |effect| (saga, effect)))
    }

    /// Whether it takes messages of this type.
    fn has(&self, type_name: &str) -> bool {
        let by_saga = |chart: &Chart| chart.messages.iter().any(|message| message.type_name == type_name);
        self.handles.iter().any(|handled| handled == type_name) || self.charts.iter().any(by_saga)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Command, Event, Outcome, Reply,
        saga::{ChartEdge, ChartMessage},
    };
    use serde::{Deserialize, Serialize};

    fn wiring(endpoint: &str, handles: &[&str], sends: &[(&str, &str, Option<&str>)], takes: &[&str]) -> Wiring {
        let effects = sends.iter().map(|&(kind, type_name, to)| ChartEffect {
            kind: kind.into(),
            type_name: type_name.into(),
            to: to.map(Into::into),
            outcome: Vec::new(),
        });
        let messages = takes.iter().map(|type_name| ChartMessage {
            type_name: (*type_name).into(),
            kind: MessageKind::Event,
            starts: true,
            outcome: Vec::new(),
            rejects_repeats: false,
            returns_repeats: false,
            anyone: false,
            echo: false,
            can_wait: false,
            masked: Vec::new(),
        });
        let edges = vec![ChartEdge::new("", "Placed", "", "A", effects.collect())];
        let chart = Chart {
            saga: endpoint.into(),
            version: 1,
            id: String::new(),
            has_data: false,
            states: Vec::new(),
            messages: messages.collect(),
            edges,
        };
        let handles = handles.iter().map(|it| (*it).into()).collect();
        Wiring { charts: vec![chart], handles, ..Wiring::stranger(endpoint) }
    }

    #[derive(Event, Serialize, Deserialize)]
    struct Placed {}
    #[derive(Event, Serialize, Deserialize)]
    struct Done {}
    #[derive(Command, Serialize, Deserialize)]
    #[command(to = "bank", outcome = Payment, name = "Pay")]
    struct Pay {}
    #[derive(Outcome)]
    #[allow(dead_code)]
    enum Payment {
        Paid(Paid),
    }
    #[derive(Reply, Serialize, Deserialize)]
    struct Paid {}

    #[test]
    fn s_078_commands_without_a_handler_and_events_without_a_consumer_are_reported_once_with_their_names() {
        let pay = ("send", "Pay", Some("bank"));
        let order = wiring("order", &[], &[pay, pay, ("publish", "Done", None), ("reply", "Did", None)], &[]);
        let bank = |handles: &[&str]| wiring("bank", handles, &[], &[]);
        let unknown = "saga `order` sends `Pay` to endpoint `bank`, which is not among these";
        let unheard = "saga `order` publishes `Done`, which none of these endpoints takes";
        assert_eq!(Wiring::verify([&order]), [unknown, unheard]);
        let unhandled = "saga `order` sends `Pay` to endpoint `bank`, which has no handler for it";
        assert_eq!(Wiring::verify([&order, &bank(&["Done"])]), [unhandled]);
        assert_eq!(Wiring::verify([&order, &bank(&["Done", "Pay"])]), [] as [String; 0]);
        let saga = wiring("mail", &[], &[], &["Done"]);
        assert_eq!(Wiring::verify([&order, &bank(&["Pay"]), &saga]), [] as [String; 0], "a saga consumes as well");
        let stranger = Wiring::stranger("mail").takes::<Done>();
        assert_eq!(Wiring::verify([&order, &bank(&["Pay"]), &stranger]), [] as [String; 0], "so does a stranger");
        let sender = Wiring::stranger("shop").sends::<Pay>().sends::<Done>();
        let unknown = "endpoint `shop` sends `Pay` to endpoint `bank`, which is not among these";
        let unheard = "endpoint `shop` publishes `Done`, which none of these endpoints takes";
        assert_eq!(Wiring::verify([&sender]), [unknown, unheard], "what a test says is looked at as well");
    }

    #[test]
    fn s_078_what_is_taken_and_nobody_sends_is_reported_with_its_name() {
        let order = || wiring("order", &[], &[], &["Placed", "Paid"]);
        let mut mail = Wiring::stranger("mail").takes::<Done>();
        mail.hears.push("Done".into());
        let nobody =
            |who: &str, what: &str| format!("{who} takes `{what}`, which none of these endpoints is known to send");
        let [placed, paid] = ["Placed", "Paid"].map(|what| nobody("saga `order`", what));
        let done = nobody("endpoint `mail`", "Done");
        assert_eq!(Wiring::verify([&order(), &mail]), [placed.clone(), paid.clone(), done.clone()]);
        let shop = Wiring::stranger("shop").sends::<Placed>().sends::<Done>();
        assert_eq!(Wiring::verify([&order(), &mail, &shop]), std::slice::from_ref(&paid));
        let bank = || Wiring::stranger("bank").takes::<Pay>();
        let asking = Wiring::stranger("shop").sends::<Placed>().sends::<Done>().sends::<Pay>();
        assert_eq!(Wiring::verify([&order(), &mail, &asking, &bank()]), [] as [String; 0], "what may come back");
        let mut answering = bank();
        answering.answers.push("Paid".into());
        assert_eq!(Wiring::verify([&order(), &mail, &shop, &answering]), [] as [String; 0], "what a handler answers");
        let replying = wiring("bank", &[], &[("reply", "Paid", None)], &[]);
        assert_eq!(Wiring::verify([&order(), &mail, &shop, &replying]), [] as [String; 0], "what a saga answers");
        let setting = wiring("bank", &[], &[("after", "Paid", None)], &[]);
        assert_eq!(Wiring::verify([&order(), &mail, &shop, &setting]), [paid], "a timer is nobody else's");
        let mut timed = order();
        timed.charts[0].messages[1].kind = MessageKind::Timer;
        assert_eq!(Wiring::verify([&timed, &mail, &shop]), [] as [String; 0]);
    }

    #[test]
    fn what_an_endpoint_sends_to_itself_is_known_to_it_alone() {
        let own = wiring("order", &["Pack"], &[("send", "Pack", Some("order")), ("send", "Ship", Some("order"))], &[]);
        assert_eq!(own.unhandled().collect::<Vec<_>>(), [("order", "Ship")]);
    }
}
