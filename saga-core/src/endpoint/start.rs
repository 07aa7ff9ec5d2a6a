//! Assembly of an endpoint: everything is checked at `start()`, and what is wrong is said in one list.

use super::{
    Endpoint, Tasks,
    core::{Core, HandlerEntry, SagaEntry, Settings, Target},
    dispatch::{self, Dispatcher},
    lane, relay,
    router::{self, Lanes},
};
use crate::{
    Command, Event, Faults, Handle, HandleBatch, LinkLimits, MessageKind, Project, Retries, Saga, Store, StoreError,
    Topology, Transport, TransportError,
    handler::{HandlerLogic, TypedBatchHandler, TypedHandler},
    project::{ProjectLogic, TypedProject},
    retry::backoff,
    saga::run::Typed,
};
use std::{collections::HashMap, marker::PhantomData, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// An endpoint with a name, not yet with a store.
pub struct Named {
    name: String,
    transport: Option<Arc<dyn Transport>>,
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Named").field("name", &self.name).finish()
    }
}

impl Named {
    pub(crate) fn new(name: String) -> Self {
        Self { name, transport: None }
    }

    /// The broker.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// The database.
    pub fn store<Db: Store>(self, store: Db) -> EndpointBuilder<Db> {
        EndpointBuilder {
            name: self.name,
            transport: self.transport,
            store,
            settings: Settings::default(),
            retries: Retries::default(),
            faults: Faults::default(),
            sagas: Vec::new(),
            handlers: Vec::new(),
            wrong: Vec::new(),
        }
    }
}

/// An endpoint being assembled.
pub struct EndpointBuilder<Db: Store> {
    name: String,
    transport: Option<Arc<dyn Transport>>,
    store: Db,
    settings: Settings,
    retries: Retries,
    faults: Faults,
    sagas: Vec<(crate::Chart, SagaEntry<Db>)>,
    handlers: Vec<(MessageKind, HandlerEntry<Db>)>,
    wrong: Vec<String>,
}

impl<Db: Store> std::fmt::Debug for EndpointBuilder<Db> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointBuilder").field("name", &self.name).field("settings", &self.settings).finish()
    }
}

impl<Db: Store> EndpointBuilder<Db> {
    /// The broker.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// Runs a saga.
    pub fn saga<S: Saga>(mut self) -> Self {
        let chart = S::chart();
        self.wrong.extend(chart.verify());
        self.sagas.push((chart, SagaEntry { logic: Arc::new(Typed::<S>::new()), projection: None }));
        self
    }

    /// Writes a read model of a saga that runs here.
    pub fn project<S: Saga + Sync>(mut self, project: impl Project<S, Db>) -> Self {
        let projection: Arc<dyn ProjectLogic<Db>> = Arc::new(TypedProject { project, saga: PhantomData::<fn() -> S> });
        match self.sagas.iter_mut().find(|(chart, _)| chart.saga == S::NAME) {
            None => self.wrong.push(format!("saga `{}` is projected before it is added with `.saga::<..>()`", S::NAME)),
            Some((_, entry)) if entry.projection.is_some() => {
                self.wrong.push(format!("saga `{}` has two projections: write both read models in one", S::NAME));
            }
            Some((_, entry)) => entry.projection = Some(projection),
        }
        self
    }

    /// Handles a command that is sent to this endpoint.
    pub fn handle<C: Command>(self, handler: impl Handle<C, Db>) -> Self {
        self.command::<C>(Arc::new(TypedHandler { handler, message: PhantomData::<fn() -> C> }))
    }

    /// Handles a command that is sent to this endpoint, all that came together in one call.
    pub fn handle_batch<C: Command>(self, handler: impl HandleBatch<C, Db>) -> Self {
        self.command::<C>(Arc::new(TypedBatchHandler { handler, message: PhantomData::<fn() -> C> }))
    }

    fn command<C: Command>(mut self, logic: Arc<dyn HandlerLogic<Db>>) -> Self {
        if C::TO != self.name {
            self.wrong.push(format!("`{}` is sent to `{}`, so endpoint `{}` never gets it", C::TYPE, C::TO, self.name));
        }
        let taken = self.handlers.iter().any(|(_, entry)| entry.about.type_name == C::TYPE);
        if taken {
            self.wrong.push(format!("`{}` has two handlers: a command has one", C::TYPE));
        }
        self.handlers.push((MessageKind::Command, HandlerEntry::new(logic)));
        self
    }

    /// Handles an event, whoever publishes it.
    pub fn subscribe<E: Event>(mut self, handler: impl Handle<E, Db>) -> Self {
        let logic = Arc::new(TypedHandler { handler, message: PhantomData::<fn() -> E> });
        self.handlers.push((MessageKind::Event, HandlerEntry::new(logic)));
        self
    }

    /// Handles an event, whoever publishes it, all that came together in one call.
    pub fn subscribe_batch<E: Event>(mut self, handler: impl HandleBatch<E, Db>) -> Self {
        let logic = Arc::new(TypedBatchHandler { handler, message: PhantomData::<fn() -> E> });
        self.handlers.push((MessageKind::Event, HandlerEntry::new(logic)));
        self
    }

    /// What happens to messages whose handler fails.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// A policy of the handler added last: it alone applies there.
    pub fn its_retries(mut self, retries: Retries) -> Self {
        match self.handlers.last_mut() {
            Some((_, entry)) => entry.retries = Some(retries),
            None => self.wrong.push("`its_retries` follows no handler".into()),
        }
        self
    }

    /// Changes settings.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Where the process is to die, for tests.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    fn check(&mut self) {
        let wrong = &mut self.wrong;
        if self.name.is_empty() || self.name.len() > 127 || self.name.contains(char::is_whitespace) {
            wrong.push(format!("endpoint name `{}`: 1 to 127 bytes without blanks, please", self.name));
        }
        if self.transport.is_none() {
            wrong.push("no transport: `.transport(RabbitMq::new(url))` or `.transport(InProcess::new())`".into());
        }
        let mut receivers = std::collections::HashSet::new();
        let sagas = self.sagas.iter().map(|(_, entry)| entry.logic.name());
        for name in sagas.chain(self.handlers.iter().map(|(_, entry)| entry.about.name)) {
            if !receivers.insert(name) {
                wrong.push(format!("two receivers are named `{name}`: give one another name (`Handle::name`)"));
            }
        }
        let settings = &self.settings;
        let numbers = [
            ("saga_lanes", settings.saga_lanes),
            ("handler_lanes", settings.handler_lanes),
            ("batch_messages_max", settings.batch_messages_max),
            ("prefetch", settings.prefetch.into()),
            ("window", settings.window),
        ];
        wrong.extend(numbers.iter().filter(|(_, n)| *n == 0).map(|(name, _)| format!("setting `{name}` is 0")));
        if settings.retention < settings.early {
            wrong.push(format!(
                "inbox retention {:?} is shorter than {:?}, the time that an early message may wait",
                settings.retention, settings.early
            ));
        }
        if settings.lease < Duration::from_secs(3) {
            wrong
                .push(format!("lease {:?} is shorter than 3 s: rows would be sent twice all the time", settings.lease));
        }
    }

    /// Checks everything, prepares the tables and the topology, and begins to work.
    ///
    /// # Errors
    /// [`StartError`]: what is wrong, all of it; or a broker or database that refuses, or is away longer than
    /// [`Settings::connect`].
    pub async fn start(mut self) -> Result<Endpoint<Db>, StartError> {
        self.check();
        let Self { name, transport, store, settings, retries, faults, sagas, handlers, wrong } = self;
        let (Some(transport), true) = (transport, wrong.is_empty()) else {
            return Err(StartError::Definition(wrong));
        };
        let (charts, sagas): (Vec<_>, Vec<_>) = sagas.into_iter().unzip();
        prepare(&store, &name, &charts, settings.connect).await?;

        let mut by_type: HashMap<String, Vec<Target>> = HashMap::new();
        let mut subscribes = Vec::new();
        for (i, chart) in charts.iter().enumerate() {
            for message in &chart.messages {
                by_type.entry(message.type_name.clone()).or_default().push(Target::Saga(i));
                if message.kind == MessageKind::Event {
                    subscribes.push(message.type_name.clone());
                }
            }
        }
        for (i, (kind, entry)) in handlers.iter().enumerate() {
            by_type.entry(entry.about.type_name.into()).or_default().push(Target::Handler(i));
            if *kind == MessageKind::Event {
                subscribes.push(entry.about.type_name.into());
            }
        }
        subscribes.sort_unstable();
        subscribes.dedup();

        let topology = Topology { endpoint: name.clone(), subscribes, passive: settings.passive };
        let limits = LinkLimits {
            prefetch: settings.prefetch,
            window: settings.window,
            confirm: settings.confirm,
            connect: settings.connect,
        };
        let link = transport.attach(topology, limits).await.map_err(StartError::Transport)?;

        let dispatcher = Dispatcher::new(settings.window, link.outgoing);
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let core = Arc::new(Core {
            owner: format!("{name}-{}-{}", std::process::id(), &unique[..8]),
            name,
            store,
            settings,
            retries,
            faults,
            dispatcher,
            sagas,
            handlers: handlers.into_iter().map(|(_, entry)| entry).collect(),
            by_type,
        });

        let (receiving, relaying) = (CancellationToken::new(), CancellationToken::new());
        let mut lanes = Vec::new();
        let mut open = |count: usize| -> Vec<mpsc::UnboundedSender<_>> {
            let open_one = |_| {
                let (sender, items) = mpsc::unbounded_channel();
                lanes.push(tokio::spawn(lane::run(core.clone(), items, receiving.clone())));
                sender
            };
            (0..count).map(open_one).collect()
        };
        let routes = Lanes { sagas: open(core.settings.saga_lanes), handlers: open(core.settings.handler_lanes) };
        let rest = vec![
            tokio::spawn(router::run(core.clone(), link.deliveries, routes, receiving.clone())),
            tokio::spawn(dispatch::account(core.clone(), link.reports)),
            tokio::spawn(dispatch::delete(core.clone())),
            tokio::spawn(relay::run(core.clone(), link.state.clone(), relaying.clone())),
            tokio::spawn(relay::sweep(core.clone(), relaying.clone())),
        ];
        tracing::info!(endpoint = core.name, owner = core.owner, "started");
        Ok(Endpoint { core, link: link.state, tasks: Some(Tasks { receiving, relaying, lanes, rest }) })
    }
}

/// Waits for the database within the limit, and prepares its tables.
async fn prepare<Db: Store>(
    store: &Db,
    name: &str,
    charts: &[crate::Chart],
    limit: Duration,
) -> Result<(), StartError> {
    let until = Instant::now() + limit;
    let mut tries = 0;
    loop {
        let prepared = match store.migrate().await {
            Ok(()) => store.register(name, charts).await,
            Err(error) => Err(error),
        };
        match prepared {
            Ok(()) => return Ok(()),
            Err(error) if error.is_transient() && Instant::now() < until => {
                tries += 1;
                tracing::warn!(endpoint = name, %error, "waiting for the database");
                tokio::time::sleep(backoff(tries, Duration::from_secs(2))).await;
            }
            Err(error) => return Err(StartError::Store(error)),
        }
    }
}

/// Why an endpoint does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The endpoint is put together wrongly: everything that is wrong.
    #[error("the endpoint cannot start:{}", list(.0))]
    Definition(Vec<String>),
    /// The broker.
    #[error(transparent)]
    Transport(TransportError),
    /// The database.
    #[error(transparent)]
    Store(StoreError),
}

fn list(wrong: &[String]) -> String {
    wrong.iter().map(|text| format!("\n  - {text}")).collect()
}
