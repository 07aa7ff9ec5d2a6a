//! The client: places orders straight at the broker, alike for every contestant, and times them to their end.

use crate::{
    amqp::{self, Publish},
    work::{Came, OrderPlaced, Outgoing, Service},
};
use anyhow::{Result, bail};
use lapin::{Connection, types::ShortString};
use saga_core::Message;
use std::{collections::HashMap, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use uuid::Uuid;

/// The run has failed when no order reaches its end for this long.
const STALLED: Duration = Duration::from_secs(60);

/// How much, and how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) sagas: usize,
    /// Closed loop: orders under way at a time.
    pub(crate) in_flight: usize,
    /// Open loop: orders per second, whatever is under way.
    pub(crate) rate: Option<f64>,
}

/// Where orders enter.
#[derive(Debug, Clone)]
pub(crate) struct Entrance {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Timed {
    pub(crate) elapsed: Duration,
    /// From the intended start to the end, sorted.
    pub(crate) latencies: Vec<Duration>,
}

impl Timed {
    pub(crate) fn sagas_per_s(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the orders did not exceed, in ms.
    pub(crate) fn ms(&self, share: f64) -> f64 {
        let rank = (self.latencies.len() as f64 * share).ceil() as usize;
        let at = rank.clamp(1, self.latencies.len().max(1)) - 1;
        self.latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// The client's side of a run.
pub(crate) struct Client {
    publish: mpsc::UnboundedSender<Publish>,
    entrance: Entrance,
    ended: mpsc::UnboundedReceiver<Uuid>,
    _confirmed: mpsc::UnboundedReceiver<Uuid>,
}

impl Client {
    pub(crate) async fn new(
        connection: &Connection,
        entrance: Entrance,
        ended: mpsc::UnboundedReceiver<Uuid>,
    ) -> Result<Self> {
        let (confirmed, _confirmed) = mpsc::unbounded_channel();
        let publish = amqp::publisher(connection, confirmed, true).await?;
        Ok(Self { publish, entrance, ended, _confirmed })
    }

    fn place(&self) -> Result<Uuid> {
        let order = OrderPlaced::new();
        let id = Uuid::now_v7();
        let came = Came { id, conversation: id };
        let publish = Publish {
            exchange: self.entrance.exchange.clone(),
            routing_key: self.entrance.routing_key.clone(),
            messages: vec![Outgoing {
                id,
                ..Outgoing::new(OrderPlaced::TYPE, Service::Ordering, order.order_id, came, &order)
            }],
            from: None,
        };
        self.publish.send(publish)?;
        Ok(order.order_id)
    }

    /// Places the orders and waits until each has ended.
    pub(crate) async fn drive(&mut self, load: Load) -> Result<Timed> {
        let began = Instant::now();
        let mut under_way: HashMap<Uuid, Instant> = HashMap::new();
        let mut latencies = Vec::with_capacity(load.sagas);
        let mut placed = 0;
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut ends = Vec::new();
        while latencies.len() < load.sagas {
            let now = Instant::now();
            match load.rate {
                None => {
                    while placed < load.sagas && under_way.len() < load.in_flight {
                        under_way.insert(self.place()?, now);
                        placed += 1;
                    }
                }
                Some(rate) => {
                    // from the intended start: a client that is late must not make the latency look short
                    let intended = |n: usize| began + Duration::from_secs_f64(n as f64 / rate);
                    while placed < load.sagas && intended(placed) <= now {
                        under_way.insert(self.place()?, intended(placed));
                        placed += 1;
                    }
                }
            }
            tokio::select! {
                n = self.ended.recv_many(&mut ends, 1000) => {
                    if n == 0 {
                        bail!("the contestant is gone");
                    }
                    let now = Instant::now();
                    let known = ends.drain(..).filter_map(|id| under_way.remove(&id));
                    latencies.extend(known.map(|start| now.duration_since(start)));
                }
                _ = tick.tick(), if load.rate.is_some() && placed < load.sagas => {}
                () = tokio::time::sleep(STALLED) => {
                    bail!("no order ended for {STALLED:?}: {} are under way", under_way.len())
                }
            }
        }
        let elapsed = began.elapsed();
        latencies.sort_unstable();
        Ok(Timed { elapsed, latencies })
    }
}
