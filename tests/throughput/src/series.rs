//! Rounds of Sagabus alone under several conditions, in turn: their figures, medians and ratios.

use crate::{
    compare::{Figures, round},
    load::{Client, Entrance, Load},
    rig::Servers,
};
use anyhow::Result;
use lapin::Connection;
use serde::Serialize;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Sagas before the clock starts: connections are made and statements prepared.
pub(crate) const WARM_UP: usize = 500;

/// How long a round is, and how many there are.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Size {
    /// Sagas of one round
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub(crate) sagas: usize,
    /// Sagas under way at a time
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) in_flight: usize,
    /// Rounds, with the conditions in turn
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) rounds: u32,
}

impl Size {
    /// Sends one round's orders to services that run, after some to warm up.
    pub(crate) async fn measure(
        &self,
        servers: &Servers,
        connection: &Connection,
        ends: mpsc::UnboundedReceiver<Uuid>,
    ) -> Result<Figures> {
        let mut client = Client::new(connection, Entrance::event(servers), ends).await?;
        client.drive(Load { sagas: WARM_UP, in_flight: self.in_flight.min(WARM_UP), rate: None }).await?;
        let watch = servers.watch()?;
        let before = watch.now();
        let timed = client.drive(Load { sagas: self.sagas, in_flight: self.in_flight, rate: None }).await?;
        Ok(Figures::of(&timed, watch.now().since(before)))
    }
}

/// What was measured so far.
#[derive(Debug)]
pub(crate) struct Series {
    json: bool,
    /// In the order in which the conditions were first measured: the others are compared with the first.
    all: Vec<(String, Vec<Figures>)>,
}

#[derive(Debug, Serialize)]
struct Report<'a, S> {
    setting: S,
    median: BTreeMap<&'a str, Figures>,
    /// The ratio of sagas per second to the first condition.
    ratio: BTreeMap<&'a str, f64>,
}

impl Series {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, all: Vec::new() }
    }

    /// Notes a round under a condition.
    pub(crate) fn add(&mut self, condition: &str, figures: Figures) {
        if !self.json {
            println!("{condition:20}{}", figures.line());
        }
        match self.all.iter_mut().find(|(known, _)| known == condition) {
            Some((_, rounds)) => rounds.push(figures),
            None => self.all.push((condition.to_owned(), vec![figures])),
        }
    }

    /// Says something beside the figures.
    pub(crate) fn say(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }

    pub(crate) fn report(&self, setting: impl Serialize) -> Result<bool> {
        let medians: Vec<(&str, Figures)> =
            self.all.iter().map(|(name, rounds)| (name.as_str(), Figures::median(rounds))).collect();
        let first = medians.first().map_or(0.0, |(_, figures)| figures.sagas_per_s);
        let ratios: Vec<(&str, f64)> =
            medians.iter().skip(1).map(|(name, figures)| (*name, round(figures.sagas_per_s / first))).collect();
        if self.json {
            let (median, ratio) = (medians.into_iter().collect(), ratios.into_iter().collect());
            println!("{}", serde_json::to_string(&Report { setting, median, ratio })?);
            return Ok(true);
        }
        println!("\nmedians");
        for (name, figures) in &medians {
            println!("{name:20}{}", figures.line());
        }
        for (name, ratio) in &ratios {
            println!("{name}: {ratio} x {}", medians[0].0);
        }
        Ok(true)
    }
}
