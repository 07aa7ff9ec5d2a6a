//! What the databases' errors mean: who is to blame, and what follows.

use crate::{on_postgres, on_sqlite};
use outbox::Postgres;
use saga_core::{Store, StoreErrorKind, Unit};
use sqlx::Executor;
use std::{error::Error, time::Duration};
use tests::{
    Database,
    store_suite::{LIMIT, inbox_row, instance, keys, kind, request, write, writes},
};

/// R-039: what PostgreSQL refuses for ever is told from what passes by itself.
#[tokio::test(flavor = "multi_thread")]
async fn r_039_data_that_is_refused_for_ever_is_no_outage() {
    let (store, _database) = on_postgres().await;
    let mut nul = instance(1, 0);
    nul.row.state = "a\0b".into(); // no text of PostgreSQL holds it
    let refused = write(&store, tests::with!(writes(), instances = vec![nul])).await;
    assert_eq!(kind(refused), Some(StoreErrorKind::Rejected));
    let mut escaped = instance(1, 0);
    escaped.row.data = r#"{"text":"\u0000"}"#.into(); // `jsonb` would refuse it
    write(&store, tests::with!(writes(), instances = vec![escaped.clone()])).await.unwrap();
    let mut unit = store.begin(&[1], LIMIT).await.unwrap();
    assert_eq!(unit.read(&keys(&[])).await.unwrap().instances[0].data, escaped.row.data);
}

/// Newcomer 8e: a text repeats the database's words once; and the driver's error is the cause.
#[tokio::test(flavor = "multi_thread")]
async fn the_databases_words_stand_in_a_text_once() {
    let (store, _database) = on_postgres().await;
    let refused = store.pool().execute("SELECT * FROM charge").await.unwrap_err();
    let known = store.recognise(&refused).expect("an error of sqlx is known").to_string();
    assert_eq!(known.matches("does not exist").count(), 1, "{known}");
    store.pool().execute("DROP TABLE sagabus.outbox CASCADE").await.unwrap();
    let error = store.lease(&request("me")).await.unwrap_err();
    assert_eq!(error.to_string().matches("does not exist").count(), 1, "{error}");
    let source = error.source().and_then(|source| source.downcast_ref::<sqlx::Error>());
    let code = source.and_then(|source| Some(source.as_database_error()?.code()?.into_owned()));
    assert_eq!(code.as_deref(), Some("42P01"));
}

/// B18: a missing grant is a fault of the deployment, whatever statement meets it.
#[tokio::test(flavor = "multi_thread")]
async fn b18_a_missing_grant_is_nobodys_fault() {
    let (store, database) = on_postgres().await;
    let role = format!("role_{}", database.name);
    let setup = format!("CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA sagabus TO {role}");
    store.pool().execute(setup.as_str()).await.unwrap();
    let url = database.url().replacen("postgres@", &format!("{role}@"), 1);
    let poor = Postgres::with_connections(&url, 2).unwrap();
    let claim = || tests::with!(writes(), claims = vec![inbox_row("m")]);
    let errors = [
        write(&poor, claim()).await.unwrap_err(),
        poor.read(&keys(&["m"])).await.unwrap_err(),
        poor.lease(&request("me")).await.map(drop).unwrap_err(),
        poor.sweep("e", LIMIT).await.map(drop).unwrap_err(),
        poor.heartbeat(&saga_core::Process::default()).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::Schema, "{error}");
        assert!(error.to_string().contains("permission denied") && error.to_string().contains("grant it"), "{error}");
    }
    let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sagabus TO {role}");
    store.pool().execute(grant.as_str()).await.unwrap();
    write(&poor, claim()).await.unwrap();
    let revoke =
        format!("REVOKE ALL ON ALL TABLES IN SCHEMA sagabus FROM {role}; REVOKE ALL ON SCHEMA sagabus FROM {role}");
    store.pool().execute(revoke.as_str()).await.unwrap();
    drop(poor);
    // its sessions may live on for a moment, but the role can be dropped
    store.pool().execute(format!("DROP ROLE {role}").as_str()).await.unwrap();
}

/// B17: a column that is added under a running `SELECT *` costs one repetition, even when it is the handler's own
/// statement.
#[tokio::test(flavor = "multi_thread")]
async fn b17_a_stale_plan_is_prepared_anew() {
    let database = Database::create().await;
    let store = Postgres::with_connections(&database.url(), 3).unwrap();
    store.migrate().await.unwrap();
    store.pool().execute("CREATE TABLE thing (id int); INSERT INTO thing VALUES (1)").await.unwrap();
    let mut units = Vec::new();
    for _ in 0..3 {
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        unit.tx().fetch_all("SELECT * FROM thing").await.unwrap();
        sqlx::query("SELECT * FROM thing").fetch_all(unit.tx()).await.unwrap();
        units.push(unit);
    }
    for unit in units {
        unit.commit().await.unwrap();
    }
    store.pool().execute("ALTER TABLE thing ADD COLUMN extra text").await.unwrap();
    let mut failed = 0;
    for _ in 0..6 {
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        match sqlx::query("SELECT * FROM thing").fetch_all(unit.tx()).await {
            Ok(_) => unit.commit().await.unwrap(),
            Err(error) => {
                failed += 1;
                let known = store.recognise(&error).expect("an error of sqlx is known");
                assert_eq!(known.kind(), StoreErrorKind::StalePlan, "{known}");
                assert!(known.is_transient());
                unit.rollback().await.unwrap();
            }
        }
    }
    assert_eq!(failed, 1, "all connections have the plan: the first failure retires them all");
    // a table of our own: the store notices by itself
    let warm = async || store.read(&keys(&["m"])).await;
    warm().await.unwrap();
    store
        .pool()
        .execute("DROP VIEW sagabus.v_journal; ALTER TABLE sagabus.inbox ALTER COLUMN type TYPE varchar")
        .await
        .unwrap();
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.extend(kind(warm().await));
    }
    assert!(kinds.len() <= 1 && kinds.iter().all(|kind| *kind == StoreErrorKind::StalePlan), "{kinds:?}");
}

/// Makes each insert into the inbox raise an error.
async fn raise(store: &Postgres, code: &str) {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'raised' USING ERRCODE = '{code}'; END $$;
         CREATE OR REPLACE TRIGGER raise BEFORE INSERT ON sagabus.inbox FOR EACH ROW EXECUTE FUNCTION raise()"
    );
    store.pool().execute(sql.as_str()).await.unwrap();
}

/// B19 and its kind: the classes of SQLSTATE.
#[tokio::test(flavor = "multi_thread")]
async fn b19_what_an_sqlstate_means() {
    use StoreErrorKind::{Conflict, Invalid, Rejected, Schema, Unable, Unavailable};
    let (store, _database) = on_postgres().await;
    for (code, expected) in [
        ("25P04", Unavailable), // transaction_timeout of PostgreSQL 17
        ("25P03", Unavailable),
        ("57014", Unavailable),
        ("08006", Unavailable),
        ("53100", Unable),
        ("53200", Unable),
        ("53300", Unable),
        ("57P01", Unable),
        ("58030", Unable),
        ("25006", Unable),
        ("40001", Conflict),
        ("40P01", Conflict),
        ("55P03", Conflict),
        ("0A000", Schema),
        ("42804", Schema),
        ("42703", Schema),
        ("26000", Invalid),
        ("22012", Rejected),
        ("23514", Rejected),
    ] {
        raise(&store, code).await;
        let error = write(&store, tests::with!(writes(), claims = vec![inbox_row("m")])).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{code}: {error}");
    }
}

/// R-036: what a handler's own statement meets: nobody's fault, or its own.
#[tokio::test(flavor = "multi_thread")]
async fn r_036_what_an_sqlstate_means_for_a_handlers_own_statement() {
    use StoreErrorKind::{Conflict, Rejected, Schema, Unable};
    let (store, _database) = on_postgres().await;
    let codes = [
        (Conflict, &["40001", "40P01"][..]),
        (Unable, &["53000", "53100", "53200", "53300", "57P01", "57P03", "58030", "25006"]),
        (Schema, &["42P01", "42501"]),
        // time limits, locks, a foreign server, a file, a limit on temporary files, a page; and plain mistakes
        (Rejected, &["57014", "25P04", "55P03", "08001", "08006", "58P01", "53400", "XX001", "42601", "23505"]),
    ];
    for (expected, code) in codes.iter().flat_map(|(kind, codes)| codes.iter().map(move |code| (*kind, *code))) {
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        let sql = format!("DO $$ BEGIN RAISE EXCEPTION 'raised' USING ERRCODE = '{code}'; END $$");
        let error = unit.tx().execute(sql.as_str()).await.unwrap_err();
        assert_eq!(store.recognise(&error).map(|known| known.kind()), Some(expected), "{code}: {error}");
        unit.rollback().await.unwrap();
    }
}

/// B4: a time limit that stops a handler's own statement is the handler's failure, and so are its own mistakes.
#[tokio::test(flavor = "multi_thread")]
async fn b4_a_users_own_statement_fails_for_itself() {
    let (store, _database) = on_postgres().await;
    let fails = async |sql: &str| {
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        let mut error = None;
        for statement in sql.split("; ") {
            error = unit.tx().execute(statement).await.err();
        }
        let known = store.recognise(&error.expect(sql)).expect("an error of sqlx is known");
        assert!(!known.is_transient(), "{sql}: {known}");
    };
    fails("SET LOCAL statement_timeout = 20; SELECT pg_sleep(10)").await;
    fails("SELECT * FROM nowhere").await;
    fails("INSERT INTO nowhere VALUES (1)").await;
    store.pool().execute("CREATE TABLE row (n int); INSERT INTO row VALUES (1)").await.unwrap_or_default();
    let mut locked = store.begin(&[], LIMIT).await.unwrap();
    locked.tx().execute("CREATE TABLE hot (n int)").await.unwrap();
    locked.tx().execute("LOCK TABLE sagabus.definition").await.unwrap();
    fails("SET LOCAL lock_timeout = 20; SELECT * FROM sagabus.definition").await;
    locked.rollback().await.unwrap();

    let mut unit = store.begin(&[], Duration::from_millis(50)).await.unwrap();
    let error = loop {
        // until the server has ended the session
        if let Err(error) = unit.tx().execute("SELECT pg_sleep(0)").await {
            break error;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let _ = store.recognise(&error).expect("an error of sqlx is known");

    let many = "SELECT 1 WHERE 1 IN (".to_owned() + &vec!["$1"; 70_000].join(",") + ")";
    let mut query = sqlx::query(&many);
    for n in 0..70_000 {
        query = query.bind(n);
    }
    let mut unit = store.begin(&[], LIMIT).await.unwrap();
    let error = query.execute(unit.tx()).await.unwrap_err();
    assert_eq!(store.recognise(&error).map(|known| known.kind()), Some(StoreErrorKind::Rejected), "{error}");
    assert!(store.recognise(&std::io::Error::other("something else")).is_none());
}

/// M4: a word that a newer binary wrote is not taken for another one.
#[tokio::test(flavor = "multi_thread")]
async fn m4_an_unknown_word_waits_for_a_newer_binary() {
    let claim = || tests::with!(writes(), claims = vec![inbox_row("m")]);
    let expect = |error: saga_core::StoreError| {
        assert_eq!(error.kind(), StoreErrorKind::Schema);
        assert!(error.to_string().contains("`parked`, which this binary does not know"), "{error}");
    };
    let (store, _database) = on_postgres().await;
    write(&store, claim()).await.unwrap();
    let newer =
        "ALTER TABLE sagabus.inbox DROP CONSTRAINT inbox_result_check; UPDATE sagabus.inbox SET result = 'parked'";
    store.pool().execute(newer).await.unwrap();
    expect(store.read(&keys(&["m"])).await.unwrap_err());

    let (store, _file) = on_sqlite().await;
    write(&store, claim()).await.unwrap();
    let newer = "PRAGMA ignore_check_constraints = on; UPDATE sagabus_inbox SET result = 'parked'";
    store.writer().execute(newer).await.unwrap();
    expect(store.read(&keys(&["m"])).await.unwrap_err());
}

/// The true cause is reported at once, not a time-out of the pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told_as_what_it_is() {
    let store = outbox::open("postgres://u:s3cret@127.0.0.1:1/x").await.unwrap();
    let error = store.status().await.unwrap_err().to_string();
    assert!(error.contains("refused") && !error.contains("s3cret"), "{error}");
}
