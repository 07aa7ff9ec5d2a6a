//! Assembly of an endpoint: `start()` checks everything and reports all mistakes in one list.

use super::{
    Bundles, Endpoint, Settings,
    breaker::Breaker,
    limit::{Limit, Limits, User},
    low,
    mistake::Mistake,
    options::HandlerOptions,
    router::Receiver,
    saga_unit::{ProjectLogic, TypedProject},
    shared::{HandlerEntry, SagaEntry},
    start,
};
use crate::{
    Command, Crashes, ErrorCode as Code, Event, Handle, HandleBatch, HandleLater, Handlers, Message, MessageKind,
    Project, Retries, Saga, Store, StoreError, TraceContext, Transport, TransportError,
    handler::logic::{HandlerLogic, TypedBatchHandler, TypedHandler, TypedLaterHandler},
    saga::logic::Typed,
};
use std::{
    any::{TypeId, type_name},
    collections::{BTreeMap, HashSet},
    fmt,
    marker::PhantomData,
    sync::{Arc, atomic::AtomicU32},
};

/// An endpoint being assembled. [`Endpoint::builder`] begins one.
pub struct EndpointBuilder<Db: Store> {
    pub(super) name: String,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) store: Db,
    pub(super) settings: Settings,
    pub(super) retries: Retries,
    pub(super) crashes: Crashes,
    pub(super) sagas: Vec<SagaEntry<Db>>,
    pub(super) handlers: Vec<(MessageKind, HandlerEntry<Db>)>,
    limits: Limits,
    /// The types of the blocks.
    blocks: Vec<TypeId>,
    /// Its name and version, for operators.
    pub(super) program: Option<String>,
    pub(super) trace: Option<Arc<dyn TraceContext>>,
    wrong: Vec<Mistake>,
}

impl<Db: Store> std::fmt::Debug for EndpointBuilder<Db> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointBuilder").field("name", &self.name).field("settings", &self.settings).finish()
    }
}

impl<Db: Store> EndpointBuilder<Db> {
    pub(super) fn new(name: String, transport: Arc<dyn Transport>, store: Db) -> Self {
        Self {
            name,
            transport,
            store,
            settings: Settings::default(),
            retries: Retries::default(),
            crashes: Crashes::default(),
            sagas: Vec::new(),
            handlers: Vec::new(),
            limits: Limits::default(),
            blocks: Vec::new(),
            program: None,
            trace: None,
            wrong: Vec::new(),
        }
    }

    /// Runs a saga.
    pub fn saga<S: Saga>(mut self) -> Self {
        let chart = S::chart();
        for advice in chart.advice() {
            tracing::warn!(endpoint = self.name, "{advice}");
        }
        self.wrong.extend(Mistake::all(Code::ChartUnsound, chart.errors()));
        let logic = Arc::new(Typed::<S>::new());
        let types = chart.messages.iter().map(|message| &message.type_name);
        let answers = types.filter(|type_name| chart.is_answer(type_name)).cloned().collect();
        self.sagas.push(SagaEntry { logic, chart, answers, projection: None, breaker: Breaker::default() });
        self
    }

    /// Writes a read model of a saga that was added before with [`EndpointBuilder::saga`].
    pub fn project<S: Saga + Sync>(mut self, project: impl Project<S, Db>) -> Self {
        let projection: Arc<dyn ProjectLogic<Db>> = Arc::new(TypedProject { project, saga: PhantomData::<fn() -> S> });
        match self.sagas.iter_mut().find(|entry| entry.chart.saga == S::NAME) {
            None => {
                let text = format!("saga `{}` is projected before it is added with `.saga::<..>()`", S::NAME);
                self.wrong.push(Mistake::new(Code::Projection, text));
            }
            Some(entry) if entry.projection.is_some() => {
                let text = format!("saga `{}` has two projections: write both read models in one", S::NAME);
                self.wrong.push(Mistake::new(Code::Projection, text));
            }
            Some(entry) => entry.projection = Some(projection),
        }
        self
    }

    /// Handles a command that is sent to this endpoint.
    pub fn handle<C: Command>(self, handler: impl Handle<C, Db>) -> Self {
        self.handle_with::<C>(handler, |options| options)
    }

    /// Handles a command that is sent to this endpoint, with options for this handler.
    pub fn handle_with<C: Command>(
        self,
        handler: impl Handle<C, Db>,
        options: impl FnOnce(HandlerOptions) -> HandlerOptions,
    ) -> Self {
        self.add::<C>(
            Arc::new(TypedHandler { handler, message: PhantomData::<fn() -> C> }),
            options(HandlerOptions::default()),
        )
    }

    /// Handles a command that is sent to this endpoint, a batch in one call.
    pub fn handle_batch<C: Command>(self, handler: impl HandleBatch<C, Db>) -> Self {
        self.handle_batch_with::<C>(handler, |options| options)
    }

    /// Handles a command that is sent to this endpoint, a batch in one call, with options.
    pub fn handle_batch_with<C: Command>(
        self,
        handler: impl HandleBatch<C, Db>,
        options: impl FnOnce(HandlerOptions) -> HandlerOptions,
    ) -> Self {
        self.add::<C>(
            Arc::new(TypedBatchHandler { handler, message: PhantomData::<fn() -> C> }),
            options(HandlerOptions::default()),
        )
    }

    /// Handles an event, whoever publishes it.
    pub fn subscribe<E: Event>(self, handler: impl Handle<E, Db>) -> Self {
        self.subscribe_with::<E>(handler, |options| options)
    }

    /// Handles an event, whoever publishes it, with options for this handler.
    pub fn subscribe_with<E: Event>(
        self,
        handler: impl Handle<E, Db>,
        options: impl FnOnce(HandlerOptions) -> HandlerOptions,
    ) -> Self {
        self.add::<E>(
            Arc::new(TypedHandler { handler, message: PhantomData::<fn() -> E> }),
            options(HandlerOptions::default()),
        )
    }

    /// Handles an event, whoever publishes it, a batch in one call.
    pub fn subscribe_batch<E: Event>(self, handler: impl HandleBatch<E, Db>) -> Self {
        self.subscribe_batch_with::<E>(handler, |options| options)
    }

    /// Handles an event, whoever publishes it, a batch in one call, with options.
    pub fn subscribe_batch_with<E: Event>(
        self,
        handler: impl HandleBatch<E, Db>,
        options: impl FnOnce(HandlerOptions) -> HandlerOptions,
    ) -> Self {
        self.add::<E>(
            Arc::new(TypedBatchHandler { handler, message: PhantomData::<fn() -> E> }),
            options(HandlerOptions::default()),
        )
    }

    /// Handles the messages of a [`#[handlers]`](macro@crate::handlers) block: commands that are sent to this endpoint,
    /// and events, whoever publishes them.
    pub fn handlers<H: Handlers<Db>>(mut self, handlers: H) -> Self {
        if self.blocks.contains(&TypeId::of::<H>()) {
            let fault = format!("the block of handlers `{}` is added twice: take one out", type_name::<H>());
            self.wrong.push(Mistake::new(Code::TwoHandlers, fault));
            return self;
        }
        self.blocks.push(TypeId::of::<H>());
        Arc::new(handlers).__add(self)
    }

    /// A handler of a block.
    #[doc(hidden)]
    pub fn __handler<M: Message>(self, handler: impl Handle<M, Db>, options: HandlerOptions) -> Self {
        self.add::<M>(Arc::new(TypedHandler { handler, message: PhantomData::<fn() -> M> }), options)
    }

    /// A handler of a block whose answer may come later.
    #[doc(hidden)]
    pub fn __later_handler<M: Message>(self, handler: impl HandleLater<M, Db>, options: HandlerOptions) -> Self {
        self.add::<M>(Arc::new(TypedLaterHandler { handler, message: PhantomData::<fn() -> M> }), options)
    }

    /// A handler of a block that takes batches.
    #[doc(hidden)]
    pub fn __batch_handler<M: Message>(self, handler: impl HandleBatch<M, Db>, options: HandlerOptions) -> Self {
        self.add::<M>(Arc::new(TypedBatchHandler { handler, message: PhantomData::<fn() -> M> }), options)
    }

    fn add<M: Message>(mut self, logic: Arc<dyn HandlerLogic<Db>>, options: HandlerOptions) -> Self {
        if let Some(to) = M::ENDPOINT {
            if to != self.name {
                let text = format!("`{}` is sent to `{to}`, so endpoint `{}` never gets it", M::TYPE, self.name);
                self.wrong.push(Mistake::new(Code::NeverComes, text));
            }
            if self.handlers.iter().any(|(_, entry)| entry.description.type_name == M::TYPE) {
                self.wrong.push(two_handlers(M::TYPE));
            }
        } else if M::KIND != MessageKind::Event {
            let text = format!("`{}` is neither a command nor an event: no handler gets it", M::TYPE);
            self.wrong.push(Mistake::new(Code::NeverComes, text));
        }
        if options.key.as_ref().is_some_and(|key| !key.reads::<M>()) {
            let text = format!("the key of the handler of `{}` is read from another message", M::TYPE);
            self.wrong.push(Mistake::new(Code::KeyUnfit, text));
        }
        self.handler(M::KIND, logic, options)
    }

    fn handler(mut self, kind: MessageKind, logic: Arc<dyn HandlerLogic<Db>>, options: HandlerOptions) -> Self {
        let HandlerOptions { retries, shares_transactions, limit, key } = options;
        let description = logic.description();
        let name = description.name;
        if let Some(limit) = limit {
            if shares_transactions {
                let text = format!(
                    "handler `{name}` has a limit and shares transactions: while one message waits for its turn, the \
                     others would keep their locks"
                );
                self.wrong.push(Mistake::new(Code::LimitUnfit, text));
            }
            let batches = description.takes_batches;
            self.limits.used(User { handler: name, limit, keyed: key.is_some(), batches });
        }
        let entry = HandlerEntry {
            description,
            logic,
            key,
            retries,
            shares_transactions,
            limit: None,
            breaker: Arc::default(),
            single_units: AtomicU32::new(0),
        };
        self.handlers.push((kind, entry));
        self
    }

    /// How much a service behind handlers may be asked, under a name that handlers give: `#[handler(limit = "bank")]`,
    /// [`HandlerOptions::limit`].
    pub fn limit(mut self, name: &'static str, limit: Limit) -> Self {
        let fault = self.limits.set(name, limit).err();
        self.wrong.extend(fault.map(|text| Mistake::new(Code::LimitUnfit, text)));
        self
    }

    /// What happens to messages whose handler or projection fails.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// The program's name and version, as operators see it in `sagabus processes`; without it, its file's name.
    ///
    /// ```no_run
    /// # fn of<Db: sagabus::port::Store>(builder: sagabus::endpoint::EndpointBuilder<Db>) {
    /// builder.program(concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")));
    /// # }
    /// ```
    pub fn program(mut self, name_and_version: impl Into<String>) -> Self {
        self.program = Some(name_and_version.into());
        self
    }

    /// Makes spans with `tracing` (target `sagabus::trace`) for what happens to each message, and carries their context
    /// in the messages' `traceparent` and `tracestate`. Without it there are no spans, and a context that came goes on
    /// as it is.
    pub fn trace(mut self, context: impl TraceContext) -> Self {
        self.trace = Some(Arc::new(context));
        self
    }

    /// Changes settings.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Where the process is to die, for tests.
    #[doc(hidden)]
    pub fn crashes(mut self, crashes: Crashes) -> Self {
        self.crashes = crashes;
        self
    }

    /// Checks everything, prepares the tables and the topology, and begins to work.
    ///
    /// It also installs a panic hook in front of the process's own, so that a message whose transition or handler
    /// panics is held with the place in the source. All other panics reach the hook that was there before.
    ///
    /// # Errors
    /// [`StartError`]: everything that is wrong with the endpoint; or a broker or database that refuses, or that is
    /// away longer than [`Settings::connect`].
    pub async fn start(mut self) -> Result<Endpoint<Db>, StartError> {
        self.settings.cap();
        let wrong = self.mistakes();
        if !wrong.is_empty() {
            return Err(StartError::Definition(wrong));
        }
        let limiters = self.limits.start();
        for (_, entry) in &mut self.handlers {
            if let Some(limiter) = limiters.get(entry.description.name) {
                (entry.limit, entry.breaker) = (Some(limiter.clone()), limiter.breaker.clone());
            }
        }
        for (saga, command) in self.wiring().unhandled() {
            tracing::warn!(endpoint = self.name, saga, command, "sent to this endpoint, which has no handler for it");
        }
        start::start(self).await
    }

    fn mistakes(&mut self) -> Vec<Mistake> {
        let mut wrong = std::mem::take(&mut self.wrong);
        if self.name.is_empty() || self.name.len() > 127 || self.name.contains(char::is_whitespace) {
            let text = format!("endpoint name `{}`: must be 1 to 127 bytes without whitespace", self.name);
            wrong.push(Mistake::new(Code::EndpointName, text));
        }
        if self.name.ends_with(low::SUFFIX) {
            let (name, end) = (&self.name, low::SUFFIX);
            let text =
                format!("endpoint name `{name}`: `{end}` is the end of the name of a queue for commands that wait");
            wrong.push(Mistake::new(Code::EndpointName, text));
        }
        let mut names = HashSet::new();
        for name in self.receiver_names().filter(|name| !names.insert(*name)) {
            // that a command has two handlers is said already, and a name does not help
            if wrong.iter().any(|other| *other == two_handlers(name)) {
                continue;
            }
            let how = "`#[handler(name = \"..\")]`, or `Handle::name`";
            let text = format!("two receivers are named `{name}`: give one another name, {how}");
            wrong.push(Mistake::new(Code::NameTaken, text));
        }
        // what waits for an alias is found by the name of the alias, where an instance has that of its saga
        let aliases: HashSet<String> = self.sagas.iter().flat_map(|entry| entry.logic.alias_names()).collect();
        for name in self.receiver_names().filter(|name| aliases.contains(*name)) {
            let text = format!("`{name}` is the name of an alias: call the saga or handler something else");
            wrong.push(Mistake::new(Code::NameTaken, text));
        }
        wrong.extend(Mistake::all(Code::LimitUnfit, self.limits.mistakes()));
        wrong.extend(Mistake::all(Code::Setting, self.settings.check()));
        wrong
    }

    /// The names of the sagas and handlers.
    pub(super) fn receiver_names(&self) -> impl Iterator<Item = &'static str> {
        let sagas = self.sagas.iter().map(|entry| entry.logic.name());
        sagas.chain(self.handlers.iter().map(|(_, entry)| entry.description.name))
    }

    /// Who gets which message, by its logical name.
    pub(super) fn routes(&self) -> BTreeMap<String, Vec<Receiver>> {
        let mut routes: BTreeMap<String, Vec<Receiver>> = BTreeMap::new();
        for (i, saga) in self.sagas.iter().enumerate() {
            for message in &saga.chart.messages {
                routes.entry(message.type_name.clone()).or_default().push(Receiver::Saga(i));
            }
        }
        for (i, (_, handler)) in self.handlers.iter().enumerate() {
            routes.entry(handler.description.type_name.into()).or_default().push(Receiver::Handler(i));
        }
        routes
    }

    /// Whether publishers may send bundles.
    pub(super) fn takes_bundles(&self) -> bool {
        match self.settings.bundles {
            Bundles::Auto => self.handlers.iter().all(|(_, entry)| entry.works_together()),
            Bundles::Always => true,
            Bundles::Never => false,
        }
    }

    /// How many messages may run at the same time.
    pub(super) fn parallel(&self) -> usize {
        let Settings { batch_messages_max, saga_lanes, handler_lanes, .. } = self.settings;
        let of_handler =
            |entry: &HandlerEntry<Db>| handler_lanes * if entry.works_together() { batch_messages_max } else { 1 };
        let sagas = if self.sagas.is_empty() { 0 } else { saga_lanes * batch_messages_max };
        self.handlers.iter().map(|(_, entry)| of_handler(entry)).sum::<usize>() + sagas
    }

    /// The events that the endpoint subscribes to: those that a handler handles, that a saga starts with, or that a
    /// saga waits for and that answer no command of its own.
    pub(super) fn subscribes(&self) -> Vec<String> {
        let sagas = self.sagas.iter().flat_map(|saga| saga.chart.subscribes());
        let handlers = self.handlers.iter().filter(|(kind, _)| *kind == MessageKind::Event);
        let mut events: Vec<String> =
            sagas.chain(handlers.map(|(_, entry)| entry.description.type_name)).map(str::to_owned).collect();
        events.sort_unstable();
        events.dedup();
        events
    }
}

/// Why an endpoint does not start. `Debug` says the same as `Display`: a `main` that returns it prints that.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The endpoint is assembled wrongly: a list of all mistakes.
    #[error("the endpoint cannot start:{}", list(.0))]
    Definition(Vec<Mistake>),
    /// The broker.
    #[error(transparent)]
    Transport(TransportError),
    /// The database.
    #[error(transparent)]
    Store(StoreError),
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn list(wrong: &[Mistake]) -> String {
    wrong.iter().map(|mistake| format!("\n  - {mistake}")).collect()
}

fn two_handlers(command: &str) -> Mistake {
    Mistake::new(Code::TwoHandlers, format!("`{command}` has two handlers: a command has one"))
}
