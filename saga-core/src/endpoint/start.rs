//! The start of an endpoint: tables, topology, tasks.

use super::{
    Endpoint, EndpointBuilder, Mistake, StartError,
    dispatch::{self, Dispatcher, Load},
    guard::SetAside,
    handler_lane,
    held_log::HeldLog,
    housekeeping,
    inlet::Inlet,
    lane, low,
    metrics::Metrics,
    relay,
    requests::{self, Requests},
    router::{self, Lanes},
    shared::Shared,
    supervisor::{Links, Part, Supervisor},
    trace::Trace,
    trouble::Trouble,
};
use crate::{
    Envelope, ErrorCode, Store, ambient, panics,
    port::{Backoff, Link, LinkLimits, Process, Registered, Topology},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two tries to reach the database.
const PAUSE_MAX: Duration = Duration::from_secs(2);

pub(super) async fn start<Db: Store>(builder: EndpointBuilder<Db>) -> Result<Endpoint<Db>, StartError> {
    panics::install_hook();
    let until = Instant::now() + builder.settings.connect;
    let by_type = builder.routes();
    let subscribes = builder.subscribes();
    let (bundles, parallel) = (builder.takes_bundles(), builder.parallel());
    let process = Process {
        endpoint: builder.name.clone(),
        owner: format!("{}-{}", builder.name, ambient::process_name()),
        charts: builder.sagas.iter().map(|saga| saga.chart.clone()).collect(),
        subscribes: subscribes.clone(),
        types: by_type.keys().cloned().chain([Envelope::TAKE_BACK.into()]).collect(),
        receivers: builder.receiver_names().map(str::to_owned).collect(),
        report: serde_json::json!({ "link": "up", "breakers": [], "host": ambient::host(),
            "program": builder.program.clone().unwrap_or_else(ambient::program), "version": env!("CARGO_PKG_VERSION"),
            "lanes": { "sagas": builder.settings.saga_lanes, "handler": builder.settings.handler_lanes } }),
    };
    let registered = prepare(&builder.store, &process, until).await?;
    if !registered.taken.is_empty() {
        return Err(StartError::Definition(registered.taken.iter().map(taken).collect()));
    }

    let EndpointBuilder { name, transport, store, settings, retries, crashes, sagas, handlers, trace, .. } = builder;
    let topology = Topology {
        endpoint: name.clone(),
        subscribes: subscribes.clone(),
        dropped: registered.dropped.clone(),
        passive: settings.passive,
        temporary: false,
        bundles,
        generates_ids: settings.generate_ids,
    };
    let limits = LinkLimits {
        prefetch: settings.prefetch,
        prefetch_bytes: settings.prefetch_bytes,
        parallel,
        body_bytes_max: settings.body_bytes_max,
        window: settings.window,
        confirm: settings.confirm,
        connect: until.saturating_duration_since(Instant::now()),
    };
    let (requests, asks) = Requests::new(&name, &process.owner, &settings);
    let attached = async {
        let link = transport.attach(topology.clone(), limits).await?;
        let mut of_sagas = process.charts.iter().flat_map(|chart| &chart.messages);
        let can_wait = of_sagas.any(|message| message.can_wait);
        let limits = LinkLimits { connect: until.saturating_duration_since(Instant::now()), ..limits };
        let waiting = match can_wait || handlers.iter().any(|(_, entry)| entry.description.can_wait) {
            true => Some(low::attach(&*transport, topology, limits).await?),
            false => None,
        };
        Ok((link, waiting))
    };
    let (Link { deliveries, outgoing, reports, state: link, publishing }, waiting) = match attached.await {
        Ok(links) => links,
        Err(error) => {
            keep_dropped(&store, &process, &registered.dropped).await;
            return Err(StartError::Transport(error));
        }
    };

    let handlers: Vec<_> = handlers.into_iter().map(|(_, entry)| entry).collect();
    let shared = Arc::new(Shared {
        trace: Trace::new(trace, transport.system()),
        metrics: Metrics::new(&name, by_type.keys(), &sagas, &handlers),
        dispatcher: Dispatcher::new(&name, Load { messages: settings.window, bytes: settings.window_bytes }, outgoing),
        name,
        process,
        store,
        settings,
        retries,
        crashes,
        sagas,
        handlers,
        by_type,
        requests,
        channels: watch::Sender::new(0),
        database: Trouble::default(),
        polled: Trouble::default(),
        held_log: HeldLog::default(),
        set_aside: SetAside::default(),
    });

    let low = waiting.as_ref().map(|low| low.state.clone());
    let links = Links { link: link.clone(), publishing, low };
    let mut supervisor = Supervisor::new(shared.clone(), links.clone());
    let (receiving, relaying) = (supervisor.receiving(), supervisor.relaying());
    let channels = |lanes: usize| (0..lanes).map(|_| mpsc::unbounded_channel()).unzip::<_, _, Vec<_>, Vec<_>>();
    let (sagas, for_sagas) = channels(shared.settings.saga_lanes);
    let (handlers, for_handlers): (Vec<_>, Vec<_>) =
        shared.handlers.iter().map(|_| channels(shared.settings.handler_lanes)).unzip();
    let lanes = Arc::new(Lanes { sagas, handlers });
    for items in for_sagas {
        let (inlet, lanes) = (Inlet::new(&shared, items), Arc::downgrade(&lanes));
        supervisor.spawn(Part::Lane, lane::run(shared.clone(), inlet, lanes, receiving.clone()));
    }
    for (handler, items) in
        for_handlers.into_iter().enumerate().flat_map(|(n, all)| all.into_iter().map(move |it| (n, it)))
    {
        let inlet = Inlet::new(&shared, items);
        supervisor.spawn(Part::Lane, handler_lane::run(shared.clone(), handler, inlet, receiving.clone()));
    }
    if let Some(waiting) = waiting {
        supervisor.spawn(Part::Receiving, low::run(shared.clone(), waiting, lanes.clone(), receiving.clone()));
    }
    supervisor.spawn(Part::Receiving, router::run(shared.clone(), deliveries, lanes, receiving));
    supervisor.spawn(Part::Publishing, dispatch::keep_leases(shared.clone(), reports));
    supervisor.spawn(Part::Publishing, dispatch::delete_confirmed(shared.clone()));
    let requesting = requests::run(shared.requests.clone(), transport, shared.settings.clone(), asks, relaying.clone());
    supervisor.spawn(Part::Relaying, requesting);
    supervisor.spawn(Part::Relaying, relay::run(shared.clone(), links.clone(), relaying.clone()));
    supervisor.spawn(Part::Relaying, housekeeping::sweep(shared.clone(), relaying.clone()));
    supervisor.spawn(Part::Relaying, housekeeping::release(shared.clone(), relaying.clone()));
    if shared.metrics.is_on() {
        supervisor.spawn(Part::Relaying, housekeeping::count(shared.clone(), links.clone(), relaying.clone()));
    }
    supervisor.spawn(Part::Relaying, housekeeping::heartbeat(shared.clone(), links, relaying, supervisor.stopping()));
    tracing::info!(
        endpoint = shared.name,
        owner = shared.owner(),
        version = env!("CARGO_PKG_VERSION"),
        subscribes = subscribes.join(", "),
        dropped = registered.dropped.join(", "),
        "started"
    );
    Ok(supervisor.run())
}

fn taken((saga, endpoint): &(String, String)) -> Mistake {
    let text = format!(
        "saga `{saga}` belongs to endpoint `{endpoint}` in this database: give one of them another name; if that \
         endpoint is gone for good, delete its rows from the table `definition`"
    );
    Mistake::new(ErrorCode::SagaTaken, text)
}

/// The process does not run after all. Registers again the subscriptions that it should have unbound, so that the next
/// start unbinds them.
async fn keep_dropped<Db: Store>(store: &Db, process: &Process, dropped: &[String]) {
    let subscribes = process.subscribes.iter().chain(dropped).cloned().collect();
    let kept = match dropped {
        [] => Ok(()),
        _ => store.heartbeat(&Process { subscribes, ..process.clone() }).await.map(drop),
    };
    if let Err(error) = kept.and(store.sign_off(&process.owner).await) {
        tracing::warn!(endpoint = process.endpoint, %error, dropped = dropped.join(", "), "subscriptions stay bound");
    }
}

/// Waits for the database within the limit, prepares its tables, and enters this process.
async fn prepare<Db: Store>(store: &Db, process: &Process, until: Instant) -> Result<Registered, StartError> {
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let trouble = Trouble::default();
    loop {
        let prepared = match store.migrate().await {
            Ok(()) => store.register(process).await,
            Err(error) => Err(error),
        };
        match prepared {
            Ok(registered) => {
                if let Some(lasted) = trouble.ends() {
                    tracing::info!(endpoint = process.endpoint, ?lasted, "the database is there");
                }
                return Ok(registered);
            }
            Err(error) if error.is_transient() && Instant::now() < until => {
                if trouble.begins().is_some() {
                    tracing::warn!(endpoint = process.endpoint, %error, "waiting for the database");
                }
                let pause = backoff.next().min(until.saturating_duration_since(Instant::now()));
                tokio::time::sleep(pause).await;
            }
            Err(error) => return Err(StartError::Store(error)),
        }
    }
}
