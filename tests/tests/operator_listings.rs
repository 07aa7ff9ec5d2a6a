//! No listing of an operator reads a whole table. With a million rows `cargo run --release -p tests --bin listings`
//! measures how long each takes.

use saga_core::{HeldFilter, InstanceFilter, OutboxFilter};
use tests::{
    many::{fill, questions, scans},
    tables::Tables,
};

const ROWS: u64 = 100_000;

async fn no_listing_reads_a_whole_table(tables: Tables) {
    fill(&tables, ROWS).await;
    for question in questions(ROWS) {
        let found = question.reads.ask(&*tables.store).await.unwrap();
        // there are no processes and no definitions, and nothing goes to nowhere
        let is_empty = ["processes", "outbox list --to nowhere"].contains(&question.command);
        assert_eq!(found == 0, is_empty, "{}: {found}", question.command);
        for plan in question.reads.plans(&tables.url).await.unwrap() {
            assert_eq!(scans(&plan), [""; 0], "{}: {plan}", question.command);
        }
    }
    // what is rare is found wherever it is, and counts end where nobody reads them any more
    let rare = HeldFilter { type_name: Some("billing.Rare".into()), ..HeldFilter::default() };
    let counted = tables.store.held_counted(&rare).await.unwrap();
    assert_eq!((counted.rows, counted.more), (ROWS / 20_000, false));
    let counted = tables.store.outbox_counted(&OutboxFilter::default()).await.unwrap();
    assert_eq!(counted.to_string(), "10000+");
    let paused = InstanceFilter { paused: true, ..InstanceFilter::default() };
    assert_eq!(tables.store.instances_counted(&paused).await.unwrap().to_string(), (ROWS / 5000).to_string());
    assert_eq!(tables.store.held_count(&HeldFilter::default()).await.unwrap(), ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_no_listing_reads_a_whole_table() {
    no_listing_reads_a_whole_table(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_no_listing_reads_a_whole_table() {
    no_listing_reads_a_whole_table(Tables::sqlite().await).await;
}
