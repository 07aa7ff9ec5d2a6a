//! `/metrics`: what the process's endpoints measure, as Prometheus reads it.

use anyhow::{Context, Result};
use axum::{Router, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpListener;

/// From a commit to a timer that is ten minutes late.
const SECONDS: [f64; 12] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 600.0];
const MESSAGES: [f64; 7] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0];
/// How often what nobody has asked for is put together.
const UPKEEP: Duration = Duration::from_secs(5);

/// Where Prometheus asks.
pub(crate) struct Metrics {
    listener: TcpListener,
    prometheus: PrometheusHandle,
}

impl Metrics {
    /// Listens, if there is an address, and has the process's endpoints record from now on.
    pub(crate) async fn listen(address: Option<SocketAddr>) -> Result<Option<Self>> {
        let Some(address) = address else { return Ok(None) };
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        let prometheus = builder()?.install_recorder().context("metrics cannot be recorded")?;
        Ok(Some(Self { listener, prometheus }))
    }

    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Answers until the process ends.
    pub(crate) async fn serve(self) {
        let Self { listener, prometheus } = self;
        let keep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                prometheus.run_upkeep();
            }
        };
        let rendered = prometheus.clone();
        let router = Router::new().route("/metrics", get(move || async move { rendered.render() }));
        tokio::select! {
            served = async { axum::serve(listener, router).await } => {
                if let Err(error) = served {
                    tracing::warn!(%error, "Prometheus gets no more answers");
                }
            }
            () = keep => {}
        }
    }
}

fn builder() -> Result<PrometheusBuilder> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_messages".into()), &MESSAGES)?;
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{create_tables, ledger::Service, services, sqlite_of};
    use sagabus::InProcess;

    #[tokio::test]
    async fn a_service_shows_what_it_measures() {
        let folder = std::env::temp_dir().join(format!("ordering-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
        let store = sqlite_of(&folder, Service::Ordering).await.expect("a new file opens");
        create_tables(&store, Service::Ordering).await.expect("the tables are created");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let metrics = Metrics::listen(Some(any)).await.expect("nobody else records").expect("there is an address");
        let url = format!("http://{}/metrics", metrics.address().expect("it is bound"));
        tokio::spawn(metrics.serve());
        let ordering = services::ordering(InProcess::of(&["ordering"]), store, None).start().await.expect("it starts");
        let shown = async {
            loop {
                let text = reqwest::get(&url).await.expect("it answers").text().await.expect("it is a text");
                if text.contains("sagabus_link_up{endpoint=\"ordering\"} 1") {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let text = tokio::time::timeout(Duration::from_secs(60), shown).await.expect("the link is up");
        for line in [
            "# HELP sagabus_instances Instances by saga and state",
            "sagabus_instances{endpoint=\"ordering\",saga=\"order-fulfilment\",state=\"AwaitingPayment\"} 0",
        ] {
            assert!(text.contains(line), "`{line}` is not in {text}");
        }
        ordering.stop().await.expect("an orderly end");
        let _ = std::fs::remove_dir_all(folder);
    }
}
