//! PostgreSQL: tables, connections, plans.

use crate::{on_postgres, through_pgbouncer};
use outbox::Postgres;
use saga_core::{HeldReason, HeldWanted, LeaseRequest, LeaseUpdate, Process, Store, StoreErrorKind, Unit};
use sqlx::{Connection, Executor, postgres::PgConnection};
use std::{collections::HashSet, time::Duration};
use tests::{
    Database, PgBouncer, eventually,
    proxy::Proxy,
    store_suite::{
        LEASE, LIMIT, WEEK, envelope, held_in, inbox_row, instance, key, keys, kind, lease, outbox_row, request, write,
        writes,
    },
};

/// O-056, rule 13: many processes start at once on an empty database.
#[tokio::test(flavor = "multi_thread")]
async fn o_056_twenty_migrations_at_once() {
    let database = Database::create().await;
    let stores: Vec<Postgres> = (0..20).map(|_| database.store()).collect();
    for migrated in futures_util::future::join_all(stores.iter().map(Store::migrate)).await {
        migrated.unwrap();
    }
}

/// B33: the role's default isolation takes its snapshot before the migrator's lock.
#[tokio::test(flavor = "multi_thread")]
async fn b33_migrations_at_once_whatever_the_default_isolation() {
    for level in ["repeatable read", "serializable"] {
        let database = Database::create().await;
        let sql = format!("ALTER DATABASE {} SET default_transaction_isolation = '{level}'", database.name);
        database.store().pool().execute(sql.as_str()).await.unwrap();
        let stores: Vec<Postgres> = (0..10).map(|_| database.store()).collect();
        for migrated in futures_util::future::join_all(stores.iter().map(Store::migrate)).await {
            migrated.unwrap();
        }
        let mut unit = stores[0].begin(&[1], LIMIT).await.unwrap();
        let shown: String = sqlx::query_scalar("SHOW transaction_isolation").fetch_one(unit.tx()).await.unwrap();
        assert_eq!(shown, "read committed", "X03: what another process wrote must be seen after its lock");
    }
}

/// B21: a database that cannot hold every text is refused before anything is consumed.
#[tokio::test(flavor = "multi_thread")]
async fn b21_an_encoding_without_all_letters_is_refused() {
    let database = Database::create_as("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0").await;
    let error = database.store().migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Invalid);
    assert!(error.to_string().contains("encoding is LATIN1"), "{error}");
}

/// O-057: a schema of another version is refused before anything is consumed.
#[tokio::test(flavor = "multi_thread")]
async fn o_057_a_newer_schema_is_refused() {
    let (store, _database) = on_postgres().await;
    store.pool().execute("INSERT INTO sagabus.schema_version (version) VALUES (99)").await.unwrap();
    let error = store.migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Schema);
    assert!(error.to_string().contains("version 99") && error.to_string().contains("expects 1"), "{error}");
}

/// M21: without tables the text says what to do, and no message is to blame.
#[tokio::test(flavor = "multi_thread")]
async fn m21_missing_tables_are_a_matter_of_the_deployment() {
    let database = Database::create().await;
    let error = database.store().lease(&request("me")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Schema);
    assert!(error.to_string().contains("`Postgres::schema()`"), "{error}");
}

async fn sessions(server: &mut PgConnection, of: &str) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
    sqlx::query_scalar(sql).bind(of).fetch_one(server).await.unwrap()
}

/// B23: sessions that a burst has opened are closed when they are no longer needed, except one of each kind.
#[tokio::test]
async fn b23_idle_sessions_are_given_up() {
    let (store, database) = on_postgres().await;
    let mut server = PgConnection::connect(&format!("{}/postgres", Database::server())).await.unwrap();
    let units = futures_util::future::join_all((0..8).map(|_| store.begin(&[], LIMIT))).await;
    for unit in units {
        unit.unwrap().commit().await.unwrap();
    }
    let before = sessions(&mut server, &database.name).await;
    assert!(before >= 8, "{before} sessions");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let server = tokio::sync::Mutex::new(server);
    eventually("idle sessions to end", || async {
        (sessions(&mut *server.lock().await, &database.name).await <= 2).then_some(())
    })
    .await;
    write(&store, tests::with!(writes(), claims = vec![inbox_row("m")])).await.unwrap();
}

/// M23: a unit that is dropped gives its connection back.
#[tokio::test(flavor = "multi_thread")]
async fn m23_dropped_units_do_not_cost_a_session_each() {
    let (store, _database) = on_postgres().await;
    let mut sessions = HashSet::new();
    for n in 0..200 {
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(unit.tx()).await.unwrap();
        sessions.insert(pid);
        unit.write(&tests::with!(writes(), claims = vec![inbox_row(&n.to_string())])).await.unwrap();
    }
    assert!(sessions.len() <= 8, "200 dropped units had {} sessions", sessions.len());
    eventually("everything to be rolled back", || async {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'",
        )
        .fetch_one(store.pool())
        .await
        .unwrap();
        (open == 0).then_some(())
    })
    .await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM sagabus.inbox").fetch_one(store.pool()).await.unwrap();
    assert_eq!(rows, 0);
}

/// A `BEGIN` that is cut off may have run: its connection must not come back with an open transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_begin_that_was_cut_off_leaves_nothing_open() {
    let database = Database::create().await;
    let store = Postgres::with_connections(&database.url(), 1).unwrap();
    store.migrate().await.unwrap();
    store.begin(&[], LIMIT).await.unwrap().commit().await.unwrap();
    for micros in (0..2000).step_by(50) {
        // each limit cuts at another place
        let _ = tokio::time::timeout(Duration::from_micros(micros), store.begin(&[9], LIMIT)).await;
        write(&store, tests::with!(writes(), claims = vec![inbox_row(&micros.to_string())])).await.unwrap();
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM sagabus.inbox").fetch_one(store.pool()).await.unwrap();
        assert_eq!(rows, micros as i64 / 50 + 1, "a commit was lost in another transaction");
    }
}

/// A unit of sagas costs four round trips: begin with locks, read, write, commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_costs_four_round_trips() {
    let (store, database) = on_postgres().await;
    let address = Database::server().rsplit('@').next().expect("a server has an address").to_owned();
    let proxy = Proxy::to(address.clone()).await;
    let url = database.url().replace(&address, &format!("127.0.0.1:{}", proxy.port));
    let proxied = Postgres::with_connections(&format!("{url}?sslmode=disable"), 1).unwrap();
    write(&store, tests::with!(writes(), held_in = vec![held_in("waits", HeldReason::Early)])).await.unwrap();
    let unit = async |n: i64| {
        let mut unit = proxied.begin(&[1, 2], LIMIT).await.unwrap();
        let found = unit.read(&keys(&["a", "b"])).await.unwrap();
        assert_eq!(found.waiting.len(), 1);
        let claims = vec![inbox_row(&format!("a{n}")), inbox_row(&format!("b{n}"))];
        let instances = vec![instance(n + 1, n)];
        let outbox = vec![outbox_row("o", None, true)];
        unit.write(&tests::with!(writes(), claims = claims, instances = instances, outbox = outbox)).await.unwrap();
        unit.commit().await.unwrap();
    };
    for n in 0..2 {
        unit(n).await; // prepares its statements
    }
    let before = proxy.unit_trips();
    unit(2).await;
    assert_eq!(proxy.unit_trips() - before, 4);
}

/// B08, B10: a row that cannot be read gets an error, and the others leave.
#[tokio::test(flavor = "multi_thread")]
async fn b08_an_unreadable_row_is_put_off_and_says_why() {
    let (store, _database) = on_postgres().await;
    write(&store, tests::with!(writes(), outbox = vec![outbox_row("bad", None, false)])).await.unwrap();
    store.pool().execute("UPDATE sagabus.outbox SET envelope = '[1, 2]'").await.unwrap();
    write(&store, tests::with!(writes(), outbox = vec![outbox_row("good", None, false)])).await.unwrap();
    let leased = lease(&store, "me").await.rows;
    assert_eq!(leased.iter().map(|row| row.envelope.message_id.as_str()).collect::<Vec<_>>(), ["good"]);
    let (error, free): (String, bool) = sqlx::query_as(
        "SELECT last_error, lease_owner IS NULL AND due_at > now() FROM sagabus.outbox WHERE message_id = 'bad'",
    )
    .fetch_one(store.pool())
    .await
    .unwrap();
    assert!(error.contains("`envelope` cannot be read") && free, "{error}");
    let kinds = store.pool().execute("UPDATE sagabus.outbox SET kind = 'Event'").await;
    assert!(kinds.is_err(), "a kind that nobody knows was taken");
}

/// B08: a held message that cannot be read waits for a person, and hides no other.
#[tokio::test(flavor = "multi_thread")]
async fn b08_an_unreadable_held_message_waits_for_a_person() {
    let (store, _database) = on_postgres().await;
    let held = ["bad", "good"].map(|id| held_in(id, HeldReason::Early));
    write(&store, tests::with!(writes(), held_in = held.into())).await.unwrap();
    store.pool().execute("UPDATE sagabus.held SET envelope = '7' WHERE message_id = 'bad'").await.unwrap();
    let mut unit = store.begin(&[1], LIMIT).await.unwrap();
    let waiting = unit.read(&keys(&[])).await.unwrap().waiting.pop().expect("two messages wait");
    let wanted = saga_core::HeldWanted::new(waiting.key, waiting.type_name, waiting.reason);
    let held = unit.held("e", &[wanted], 10, i64::MAX).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(held.iter().map(|row| &*row.envelope).collect::<Vec<_>>(), [&envelope("good")]);
    let reason: String = sqlx::query_scalar("SELECT reason FROM sagabus.held WHERE message_id = 'bad'")
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert_eq!(reason, "undecodable");
}

/// M24: statements that were prepared while the tables were empty look up by an index when they are not.
#[tokio::test(flavor = "multi_thread")]
async fn m24_plans_of_young_tables_do_not_scan_grown_ones() {
    let database = Database::create().await;
    let store = Postgres::with_connections(&database.url(), 1).unwrap();
    store.migrate().await.unwrap();
    // statistics as after a burst on empty tables; nothing may refresh them meanwhile
    store.pool().execute("VACUUM ANALYZE sagabus.inbox, sagabus.held, sagabus.saga, sagabus.outbox").await.unwrap();
    for table in ["inbox", "held", "saga", "outbox"] {
        let sql = format!("ALTER TABLE sagabus.{table} SET (autovacuum_enabled = false)");
        store.pool().execute(sql.as_str()).await.unwrap();
    }
    let many = |from: usize| {
        let ids: Vec<String> = (from..from + 5000).map(|n| format!("m{n}")).collect();
        let claims = ids.iter().map(|id| inbox_row(id)).collect();
        let held_in = ids.iter().map(|id| held_in(id, HeldReason::Failed)).collect();
        tests::with!(writes(), claims = claims, held_in = held_in)
    };
    let turn = async |n: usize, locks: &[i64]| {
        let id = format!("w{n}");
        let retrying = tests::with!(inbox_row(&id), result = saga_core::InboxResult::Retrying);
        let held_in = vec![held_in(&id, HeldReason::Failed)];
        write(&store, tests::with!(writes(), claims = vec![retrying], held_in = held_in)).await.unwrap();
        store.read(&tests::with!(keys(&[&id]), instances = Vec::new())).await.unwrap();
        let mut unit = store.begin(locks, LIMIT).await.unwrap();
        if !locks.is_empty() {
            unit.read(&keys(&[&id])).await.unwrap();
            let wanted = HeldWanted::new(key(), "test.Message", HeldReason::Early);
            unit.held("e", &[wanted], 10, i64::MAX).await.unwrap();
        }
        let out = saga_core::HeldKey::new("saga", id.clone());
        let completes = vec![(inbox_row(&id), 1)];
        unit.write(&tests::with!(writes(), completes = completes, held_out = vec![out])).await.unwrap();
        unit.commit().await.unwrap();
    };
    for n in 0..10 {
        // PostgreSQL settles on a plan at the sixth run of a prepared statement; a handler's unit has no lock
        turn(2 * n, &[]).await;
        turn(2 * n + 1, &[1]).await;
    }
    write(&store, many(0)).await.unwrap();
    let scanned = async || -> i64 {
        // a session's counts become visible when it has been idle for a while
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        unit.tx().execute("SELECT pg_stat_force_next_flush()").await.unwrap();
        unit.commit().await.unwrap();
        sqlx::query_scalar(
            "SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables
             WHERE schemaname = 'sagabus' AND relname IN ('inbox', 'held')",
        )
        .fetch_one(store.pool())
        .await
        .unwrap()
    };
    let before = scanned().await;
    for n in 100..120 {
        turn(2 * n, &[]).await;
        turn(2 * n + 1, &[1]).await;
    }
    let read = scanned().await - before;
    assert!(read < 5000, "40 messages read {read} rows of the tables in sequence");
}

/// Steps follow each other from where the last one was; a row further back, in a later page, goes with the next sweep.
#[tokio::test(flavor = "multi_thread")]
async fn old_rows_go_whatever_order_they_lie_in() {
    let (store, _database) = on_postgres().await;
    let rows = (0..3500).map(|n| inbox_row(&format!("m{n}"))).collect();
    write(&store, tests::with!(writes(), claims = rows)).await.unwrap();
    let age = "UPDATE sagabus.inbox SET handled_at = now() - interval '20 days'
        - abs(1500 - substr(message_id, 2)::int) * interval '1 minute' WHERE message_id <> 'm7'";
    store.pool().execute(age).await.unwrap();
    let mut deleted = Vec::new();
    while deleted.last() != Some(&0) {
        deleted.push(store.sweep("e", WEEK).await.unwrap().rows);
    }
    assert!(deleted.iter().sum::<u64>() == 3499 && deleted[0] > 1000, "{deleted:?}");
}

/// A look that goes back only so far finds what became due since.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_may_go_back_only_so_far() {
    let (store, _database) = on_postgres().await;
    let rows = ["old", "new"].map(|id| outbox_row(id, None, false)).to_vec();
    write(&store, tests::with!(writes(), outbox = rows)).await.unwrap();
    let age = "UPDATE sagabus.outbox SET due_at = due_at - interval '1 hour' WHERE message_id = 'old'";
    store.pool().execute(age).await.unwrap();
    let look = async |since: Option<Duration>| {
        let leased = store.lease(&tests::with!(request("me"), since = since)).await.unwrap();
        leased.rows.iter().map(|row| row.envelope.message_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(look(Some(Duration::from_secs(60))).await, ["new"]);
    assert_eq!(look(None).await, ["old"]);
}

/// Commands in the outbox of `e`, put there by another program.
async fn fill(store: &Postgres, rows: u32, due_at: &str, lease: &str) {
    let sql = format!(
        "INSERT INTO sagabus.outbox (id, endpoint, message_id, kind, type, destination, envelope, body, created_at,
             due_at, lease_until, lease_owner, first_attempt_at)
         SELECT gen_random_uuid(), 'e', 'm' || n, 'command', 'test.Message', 'there',
             json_build_object('message_id', 'm' || n, 'type', 'test.Message'), '{{}}', now(), {due_at}, {lease}
         FROM generate_series(1, {rows}) n"
    );
    store.pool().execute(sql.as_str()).await.unwrap();
}

/// O-032: relays that take over many rows together get each row once, and do not wait for each other.
#[tokio::test(flavor = "multi_thread")]
async fn o_032_five_relays_share_ten_thousand_expired_rows() {
    let (store, database) = on_postgres().await;
    fill(&store, 10_000, "now()", "now() - interval '1 second', 'dead', now() - interval '1 minute'").await;
    // a process that waited a second for a lock would get an error
    let url = format!("{}?options[lock_timeout]=1000", database.url());
    let relays = (0..5).map(|n| {
        let store = Postgres::with_connections(&url, 2).unwrap();
        tokio::spawn(async move {
            let (owner, mut all) = (format!("p{n}"), Vec::new());
            loop {
                let leased = store.lease(&LeaseRequest::new("e", &owner, 1000, LEASE, WEEK)).await.unwrap();
                assert!(leased.rows.iter().all(|row| row.expired == 1), "their owner died");
                let mut ids: Vec<_> = leased.rows.iter().map(|row| row.id).collect();
                if ids.is_empty() {
                    return all;
                }
                ids.sort_unstable();
                store.delete_confirmed(&ids).await.unwrap();
                all.extend(ids);
            }
        })
    });
    let mut all = Vec::new();
    for relay in relays.collect::<Vec<_>>() {
        all.extend(relay.await.expect("no relay fails"));
    }
    assert_eq!(all.len(), 10_000, "each row was expected once");
    assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 10_000);
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let deadlocks: i64 = sqlx::query_scalar(deadlocks).fetch_one(store.pool()).await.unwrap();
    assert_eq!(deadlocks, 0);
}

/// O-050: what is due far ahead costs nothing. (Of ten thousand rows PostgreSQL may rather read all, in milliseconds,
/// than look up a hundred.)
#[tokio::test(flavor = "multi_thread")]
async fn o_050_what_is_due_is_found_by_an_index() {
    let (store, _database) = on_postgres().await;
    fill(&store, 40_000, "now() + interval '1 year'", "NULL, NULL, NULL").await;
    fill(&store, 100, "now()", "NULL, NULL, NULL").await;
    store.pool().execute("VACUUM ANALYZE sagabus.outbox").await.unwrap();
    let read = async || -> (i64, i64) {
        let sql = "SELECT t.seq_tup_read, i.idx_scan FROM pg_stat_user_tables t JOIN pg_stat_user_indexes i
             USING (relid) WHERE i.indexrelname = 'outbox_due'";
        sqlx::query_as(sql).fetch_one(store.pool()).await.unwrap()
    };
    let (read_before, _) = read().await;
    assert_eq!(lease(&store, "me").await.rows.len(), 100);
    // a session's counts become visible together, when it has been idle for a while
    let rows = eventually("the lease to be counted", || async {
        let (rows, scans) = read().await;
        (scans > 0).then_some(rows - read_before)
    })
    .await;
    assert!(rows < 200, "a lease read {rows} rows of the outbox in sequence");
}

/// a unit waits for a connection within a limit; relay and housekeeping have their own.
#[tokio::test(flavor = "multi_thread")]
async fn r_038_while_slow_units_have_all_connections_the_relay_goes_on() {
    let database = Database::create().await;
    let store = Postgres::with_connections(&database.url(), 1).unwrap();
    store.migrate().await.unwrap();
    let slow = store.begin(&[1], LIMIT).await.unwrap();
    let other = store.clone();
    let waiting = tokio::spawn(async move { kind(other.begin(&[2], LIMIT).await) });
    assert_eq!(lease(&store, "me").await.rows.len(), 0);
    assert!(store.renew_and_fail(&LeaseUpdate::new("me", LEASE)).await.unwrap().is_empty());
    store.heartbeat(&Process::new("e", "me")).await.unwrap();
    store.sweep("e", WEEK).await.unwrap();
    assert!(!waiting.is_finished(), "they wait for no unit");
    assert_eq!(waiting.await.unwrap(), Some(StoreErrorKind::Unavailable));
    slow.commit().await.unwrap();
    store.begin(&[2], LIMIT).await.unwrap().commit().await.unwrap();
}

/// X15: a handler's statements need no setting of their own behind a pooler.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(pgbouncer), ignore = "pgbouncer is not installed")]
async fn x15_handlers_may_prepare_statements_behind_a_pooler() {
    let (store, _database) = through_pgbouncer().await;
    let work = async |n: i32| {
        let mut unit = store.begin(&[], LIMIT).await?;
        let tx: &mut PgConnection = unit.tx();
        for _ in 0..3 {
            let got: i32 = sqlx::query_scalar("SELECT $1::int").bind(n).fetch_one(&mut *tx).await.unwrap();
            assert_eq!(got, n);
        }
        unit.write(&writes()).await?;
        unit.commit().await
    };
    for round in 0..10 {
        for done in futures_util::future::join_all((0..8).map(|n| work(round * 8 + n))).await {
            assert_eq!(kind(done), None);
        }
    }
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 0);
}

/// X15: a pooler that the URL does not announce is detected before anything is consumed.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(pgbouncer), ignore = "pgbouncer is not installed")]
async fn x15_a_pooler_that_nobody_named_is_noticed() {
    let database = Database::create().await;
    let bouncer = PgBouncer::start(&database).await;
    let url = bouncer.server().replace("?statement-cache-capacity=0", &format!("/{}", database.name));
    let error = Postgres::with_connections(&url, 8).unwrap().migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("`?statement-cache-capacity=0`"), "{error}");
}
