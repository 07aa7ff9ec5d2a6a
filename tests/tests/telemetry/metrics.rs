//! What endpoints measure, as a recorder gets it.

use crate::services::{POISON, Pay, Services};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use saga_core::{Envelope, Inspect, Store, Transport};
use std::path::Path;
use tests::{endpoint_suite, eventually, house::one_held, link};

/// The lines of a metric with these labels.
fn lines<'a>(text: &'a str, name: &str, labels: &[&str]) -> Vec<&'a str> {
    let is_of =
        |line: &&str| line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label));
    text.lines().filter(is_of).collect()
}

/// Waits until a metric has a value.
async fn measured(prometheus: &PrometheusHandle, name: &str, labels: &[&str], value: f64) {
    let what = format!("{name} {labels:?} to be {value}");
    eventually(&what, || async {
        prometheus.run_upkeep();
        let text = prometheus.render();
        let values =
            lines(&text, name, labels).into_iter().filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        (values.sum::<f64>() == value).then_some(())
    })
    .await;
}

/// Every metric of docs/book/telemetry.md is recorded, by the labels that the page names.
async fn metrics_say_what_endpoints_do<Db: Store + Inspect, T: Transport + Clone>(transport: T, stores: [Db; 3]) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let prometheus = recorder.handle();
    let listening = metrics::set_default_local_recorder(&recorder);
    let services = Services::start(transport.clone(), stores, |builder| {
        builder.settings(|settings| settings.bundles = saga_core::Bundles::Always)
    })
    .await;
    drop(listening); // the handles are made at the start
    services.place(1).await;
    services.shipped(1).await;
    let handled = |endpoint| [endpoint, "outcome=\"handled\""];
    measured(&prometheus, "sagabus_messages_total", &handled("endpoint=\"shop\""), 3.0).await; // event, timer, answer
    measured(&prometheus, "sagabus_messages_total", &["type=\"bank.Pay\"", "outcome=\"retrying\""], 1.0).await;
    measured(&prometheus, "sagabus_messages_total", &["type=\"bank.Pay\"", "outcome=\"handled\""], 1.0).await;
    measured(&prometheus, "sagabus_timer_late_seconds_count", &["endpoint=\"shop\""], 1.0).await;
    measured(&prometheus, "sagabus_critical_seconds_count", &["endpoint=\"shop\""], 2.0).await; // without the timer
    measured(&prometheus, "sagabus_instances", &["saga=\"order\"", "state=\"Done\""], 1.0).await;
    measured(&prometheus, "sagabus_link_up", &[], 3.0).await;
    measured(&prometheus, "sagabus_breaker_open", &["endpoint=\"bank\""], 0.0).await;

    let mut stranger = link::attach(&transport, "stranger", &[]).await;
    let unknown = Envelope::new("u", "who.Knows", "{}");
    let twice = Envelope::new("d", "bank.Pay", serde_json::to_vec(&Pay { id: 7 }).unwrap());
    for (n, envelope) in [unknown, twice.clone(), twice].into_iter().enumerate() {
        let message = link::with_envelope(link::outgoing(n as u128, link::to("bank")), envelope);
        stranger.outgoing.send(message).expect("the link is open");
        link::report(&mut stranger).await;
    }
    measured(&prometheus, "sagabus_messages_total", &["type=\"other\"", "outcome=\"held\""], 1.0).await;
    measured(&prometheus, "sagabus_messages_total", &["type=\"bank.Pay\"", "outcome=\"duplicate\""], 1.0).await;
    measured(&prometheus, "sagabus_held_total", &["endpoint=\"bank\"", "reason=\"version\""], 1.0).await;
    services.place(POISON).await;
    assert!(one_held(services.bank.store()).await.error.is_some());
    measured(&prometheus, "sagabus_held_total", &["endpoint=\"bank\"", "reason=\"failed\""], 1.0).await;
    measured(&prometheus, "sagabus_held_messages", &["endpoint=\"bank\"", "reason=\"failed\""], 1.0).await;

    if std::any::type_name::<T>().contains("RabbitMq") {
        let mut session = services.shop.session().await.unwrap();
        for id in 100..150 {
            session.send(Pay { id });
        }
        session.commit().await.unwrap();
        eventually("a bundle", || async {
            let text = prometheus.render();
            (!lines(&text, "sagabus_bundle_messages_count", &["endpoint=\"shop\""]).is_empty()).then_some(())
        })
        .await;
    }
    link::close(stranger).await;
    services.stop().await;
    let text = prometheus.render();
    for name in documented() {
        // none of these services meets another one, and not all transports bundle
        let is_there = text.lines().any(|line| line.starts_with(&name));
        assert!(is_there || name == "sagabus_bundle_messages", "`{name}` is documented and not recorded: {text}");
    }
    for line in text.lines().filter(|line| line.starts_with("sagabus_")) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let known =
            |it: &String| name.strip_prefix(it.as_str()).is_some_and(|end| ["", "_sum", "_count"].contains(&end));
        assert!(documented().iter().any(known), "`{name}` is recorded and not documented");
    }
}

/// The names in the page's table.
pub(crate) fn documented() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/book/telemetry.md");
    let page = std::fs::read_to_string(page).expect("there is a page");
    let names =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name.to_owned());
    names.filter(|name| name.starts_with("sagabus_")).collect()
}

endpoint_suite! {
    metrics_say_what_endpoints_do
}
