//! What endpoints say to each other, as far as their types tell.

use super::EndpointBuilder;
use crate::{Chart, ChartEffect, Store};

/// What an endpoint takes, and what its sagas send: for tests that several endpoints fit together.
///
/// ```no_run
/// use sagabus::{Endpoint, endpoint::Wiring};
///
/// # fn example<Db: sagabus::port::Store, Broker: sagabus::port::Transport + Clone>(broker: Broker, store: Db) {
/// // each service has one function that assembles its endpoint
/// let ordering = Endpoint::builder("ordering", broker.clone(), store.clone()).wiring();
/// let payment = Endpoint::builder("payment", broker, store).wiring();
/// assert_eq!(Wiring::verify([&ordering, &payment]), [] as [String; 0]);
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
}

impl<Db: Store> EndpointBuilder<Db> {
    /// What the endpoint takes, and what its sagas send. See [`Wiring`].
    pub fn wiring(&self) -> Wiring {
        Wiring {
            endpoint: self.name.clone(),
            charts: self.sagas.iter().map(|saga| saga.chart.clone()).collect(),
            handles: self.handlers.iter().map(|(_, entry)| entry.description.type_name.into()).collect(),
        }
    }
}

impl Wiring {
    /// What does not fit among these endpoints, each in one sentence: a command of a saga that the endpoint it goes to
    /// does not take, and an event of a saga that nobody takes. What handlers send is not known before they run.
    pub fn verify<'a>(endpoints: impl IntoIterator<Item = &'a Self>) -> Vec<String> {
        let endpoints: Vec<&Self> = endpoints.into_iter().collect();
        let mut wrong = Vec::new();
        for (saga, effect) in endpoints.iter().flat_map(|endpoint| endpoint.sent()) {
            let ChartEffect { kind, type_name, to, .. } = effect;
            let text = match (kind.as_str(), to) {
                ("send", Some(to)) => match endpoints.iter().find(|endpoint| endpoint.endpoint == *to) {
                    Some(endpoint) if endpoint.takes(type_name) => continue,
                    Some(_) => format!("sends `{type_name}` to endpoint `{to}`, which has no handler for it"),
                    None => format!("sends `{type_name}` to endpoint `{to}`, which is not among these"),
                },
                ("publish", _) if endpoints.iter().any(|endpoint| endpoint.takes(type_name)) => continue,
                ("publish", _) => format!("publishes `{type_name}`, which none of these endpoints takes"),
                _ => continue,
            };
            let text = format!("saga `{saga}` {text}");
            if !wrong.contains(&text) {
                wrong.push(text);
            }
        }
        wrong
    }

    /// The commands that its sagas send to this endpoint itself, and that it does not take.
    pub(super) fn unhandled(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.sent().filter(|(_, effect)| effect.kind == "send" && effect.to.as_ref() == Some(&self.endpoint));
        let unhandled = own.filter(|(_, effect)| !self.takes(&effect.type_name));
        unhandled.map(|(saga, effect)| (saga, effect.type_name.as_str()))
    }

    fn sent(&self) -> impl Iterator<Item = (&str, &ChartEffect)> {
        let edges = self.charts.iter().flat_map(|chart| chart.edges.iter().map(move |edge| (&*chart.saga, edge)));
        edges.flat_map(|(saga, edge)| edge.effects.iter().map(move |effect| (saga, effect)))
    }

    fn takes(&self, type_name: &str) -> bool {
        let by_saga = |chart: &Chart| chart.messages.iter().any(|message| message.type_name == type_name);
        self.handles.iter().any(|handled| handled == type_name) || self.charts.iter().any(by_saga)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MessageKind;
    use crate::saga::{ChartEdge, ChartMessage};

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
        });
        let edges = vec![ChartEdge::new("", "Placed", "", "A", effects.collect())];
        let chart =
            Chart { saga: endpoint.into(), version: 1, states: Vec::new(), messages: messages.collect(), edges };
        let handles = handles.iter().map(|it| (*it).into()).collect();
        Wiring { endpoint: endpoint.into(), charts: vec![chart], handles }
    }

    #[test]
    fn s_078_commands_without_a_handler_and_events_without_a_consumer_are_reported_once_with_their_names() {
        let pay = ("send", "Pay", Some("bank"));
        let order = wiring("order", &[], &[pay, pay, ("publish", "Done", None), ("reply", "Did", None)], &["Placed"]);
        let bank = |handles: &[&str]| wiring("bank", handles, &[], &[]);
        let unknown = "saga `order` sends `Pay` to endpoint `bank`, which is not among these";
        let unheard = "saga `order` publishes `Done`, which none of these endpoints takes";
        assert_eq!(Wiring::verify([&order]), [unknown, unheard]);
        let unhandled = "saga `order` sends `Pay` to endpoint `bank`, which has no handler for it";
        assert_eq!(Wiring::verify([&order, &bank(&["Done"])]), [unhandled]);
        assert_eq!(Wiring::verify([&order, &bank(&["Done", "Pay"])]), [] as [String; 0]);
        let saga = wiring("mail", &[], &[], &["Done"]);
        assert_eq!(Wiring::verify([&order, &bank(&["Pay"]), &saga]), [] as [String; 0], "a saga consumes as well");
    }

    #[test]
    fn what_an_endpoint_sends_to_itself_is_known_to_it_alone() {
        let own = wiring("order", &["Pack"], &[("send", "Pack", Some("order")), ("send", "Ship", Some("order"))], &[]);
        assert_eq!(own.unhandled().collect::<Vec<_>>(), [("order", "Ship")]);
    }
}
