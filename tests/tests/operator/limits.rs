//! Of more rows than are shown or counted, the right ones are.

use saga_core::{HeldFilter, InstanceFilter};
use tests::{
    many::numbered,
    tables::{Held, Tables},
};

suite! {
    a_list_shows_the_first_in_its_order_whatever_index_finds_them,
}

/// So many paused instances of a saga, each changed a minute after the one before.
async fn paused(tables: &Tables, saga: &str, rows: u64) {
    let sql = format!(
        "INSERT INTO {{s}}saga (saga, id, state, data, seq, entered, version, paused_by, created_at, updated_at)
         SELECT '{saga}', 'i' || (10000000 + n), 'Waiting', '{{}}', 1, 1, 1, 'm', {{now}} - 90000 * {{minute}},
            {{now}} - (80000 - n) * {{minute}}"
    );
    tables.sql(&numbered(&sql, rows)).await;
}

async fn a_list_shows_the_first_in_its_order_whatever_index_finds_them(tables: Tables) {
    paused(&tables, "order", 30).await;
    let filter = InstanceFilter { paused: true, ..InstanceFilter::default() };
    let found = tables.store.instances(&filter, 3).await.unwrap();
    let ids: Vec<&str> = found.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, ["i10000030", "i10000029", "i10000028"], "last changed first");
    for (n, reason) in ["rejected", "failed", "early", "crashes"].into_iter().enumerate() {
        tables.hold(&Held { message_id: &format!("m{n}"), reason, ..Held::default() }).await;
    }
    let filter = HeldFilter { saga_id: Some("7".into()), ..HeldFilter::default() };
    let found = tables.store.held(&filter, 2).await.unwrap();
    let ids: Vec<&str> = found.iter().map(|it| it.message_id.as_str()).collect();
    assert_eq!(ids, ["m0", "m1"], "in order of arrival");
}
