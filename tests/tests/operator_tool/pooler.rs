//! `sagabus doctor` through PgBouncer.

use crate::{json, run};
use saga_core::Store;
use tests::{Database, PgBouncer};

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(pgbouncer), ignore = "pgbouncer is not installed")]
async fn a_doctor_tells_a_pooler_that_the_address_does_not_name() {
    let database = Database::create().await;
    database.store().migrate().await.unwrap();
    let bouncer = PgBouncer::start(&database).await;
    let named = bouncer.server().replace('?', &format!("/{}?", database.name));
    let unnamed = named.split('?').next().unwrap();
    let advice = |url: &str| {
        let (code, out, err) = run(&[url], &["--json", "doctor"]);
        let advice = json(&out)[0]["advice"].clone();
        assert_eq!(code == 0, advice.as_array().is_some_and(Vec::is_empty), "{out}{err}");
        advice.to_string()
    };
    let told = advice(unnamed);
    assert!(told.contains("does not start") && told.contains("[SB0030]"), "{told}");
    assert!(told.contains("?statement-cache-capacity=0"), "what to do is told: {told}");
    for well in [&named, &database.url()] {
        assert!(!advice(well).contains("SB0030"), "{well}");
    }
}

/// Who looks creates nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_creates_no_tables() {
    let database = Database::create().await;
    let doctor = || run(&[&database.url()], &["doctor"]).1;
    assert!(doctor().contains("the tables cannot be read"), "{}", doctor());
    assert!(doctor().contains("the tables cannot be read"), "they are not there yet: {}", doctor());
}
