//! SQLite: one writer, whose transactions may end by themselves.

use crate::on_sqlite;
use outbox::Sqlite;
use saga_core::{HeldReason, HeldWanted, Store, StoreErrorKind, Unit, Write};
use sqlx::{Connection, Executor, Row};
use std::time::Duration;
use tests::{
    File, eventually,
    store_suite::{
        LIMIT, Lab, envelope, held_in, inbox_row, instance, keys, kind, lease, outbox_row, request, write, writes,
    },
};
use uuid::Uuid;

/// O-056: many migrations at once of an empty file.
#[tokio::test(flavor = "multi_thread")]
async fn o_056_twenty_migrations_at_once() {
    let file = File::create();
    let store = file.store("store.db").await;
    for migrated in futures_util::future::join_all((0..20).map(|_| store.migrate())).await {
        migrated.unwrap();
    }
}

/// F14: our tables have a prefix, because yours may have the same names.
#[tokio::test(flavor = "multi_thread")]
async fn f14_tables_have_a_prefix() {
    let (store, _file) = on_sqlite().await;
    let names = sqlx::query("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'");
    for row in names.fetch_all(store.pool()).await.unwrap() {
        let name: &str = row.get(0);
        assert!(name.starts_with("sagabus_"), "{name}");
    }
}

/// What stands behind a long value is read through all of its pages: nothing that is looked for does.
#[tokio::test(flavor = "multi_thread")]
async fn long_values_are_the_last_columns() {
    let (store, _file) = on_sqlite().await;
    for table in ["outbox", "held"] {
        let sql = format!("SELECT name FROM pragma_table_info('sagabus_{table}') ORDER BY cid DESC LIMIT 2");
        let last: Vec<String> = sqlx::query_scalar(&sql).fetch_all(store.pool()).await.unwrap();
        assert_eq!(last, ["body", "envelope"], "{table}");
    }
}

/// M21: without tables the text says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn m21_missing_tables_are_a_matter_of_the_deployment() {
    let file = File::create();
    let error = file.store("store.db").await.lease(&request("me")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Schema);
    assert!(error.to_string().contains("`Sqlite::schema()`"), "{error}");
}

/// Lets the file grow by this many pages.
async fn room(store: &Sqlite, pages: i64) {
    let now: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(store.writer()).await.unwrap();
    store.writer().execute(format!("PRAGMA max_page_count = {}", now + pages).as_str()).await.unwrap();
}

/// A write of this many megabytes.
fn large(id: &str, megabytes: usize) -> Write {
    let mut row = outbox_row(id, None, false);
    let mut envelope = envelope(id);
    envelope.body = vec![b' '; megabytes << 20].into();
    row.envelope = envelope.into();
    tests::with!(writes(), claims = vec![inbox_row(id)], outbox = vec![row])
}

/// X09: after "disk full" everything goes on as soon as there is room, and no message is to blame.
#[tokio::test(flavor = "multi_thread")]
async fn x09_a_full_disk_is_waited_for() {
    let (store, _file) = on_sqlite().await;
    for drop_it in [false, true] {
        room(&store, 2).await;
        let mut unit = store.begin(&[1], LIMIT).await.unwrap();
        let error = unit.write(&large("m", 4)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unable, "{error}");
        if drop_it {
            drop(unit)
        } else {
            unit.rollback().await.unwrap()
        }
        room(&store, 1_000_000).await;
        assert!(store.read(&keys(&["m"])).await.unwrap().inbox.is_empty());
        write(&store, large(if drop_it { "a" } else { "b" }, 1)).await.unwrap();
        assert_eq!(lease(&store, "me").await.rows.len(), 1);
        assert_eq!(store.sweep("e", LIMIT).await.unwrap().rows, 0);
    }
}

/// X09: a handler's own statement that fills the disk ends the transaction. Later statements are not written outside
/// one, and the writer is usable afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn x09_a_handler_that_fills_the_disk_leaves_a_usable_writer() {
    let (store, _file) = on_sqlite().await;
    store.writer().execute("CREATE TABLE big (text BLOB)").await.unwrap();
    for how in ["rollback", "drop", "write", "commit"] {
        room(&store, 2).await;
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        let full = unit.tx().execute("INSERT INTO big VALUES (zeroblob(4000000))").await.unwrap_err();
        let known = store.recognise(&full).expect("an error of sqlx is known");
        assert_eq!(known.kind(), StoreErrorKind::Unable, "{known}");
        match how {
            "rollback" => unit.rollback().await.unwrap(),
            "drop" => drop(unit),
            "write" => {
                // SQLite has rolled back only the statement, or everything; in autocommit nothing may be written
                let _ = unit.write(&tests::with!(writes(), claims = vec![inbox_row("m")])).await;
                drop(unit);
            }
            _ => drop(unit.commit().await),
        }
        room(&store, 1_000_000).await;
        assert!(store.read(&keys(&["m"])).await.unwrap().inbox.is_empty(), "{how}");
        write(&store, tests::with!(writes(), claims = vec![inbox_row(how)])).await.expect(how);
    }
}

/// B16: a handler that ends the transaction fails, and nothing of the unit is written outside one.
#[tokio::test(flavor = "multi_thread")]
async fn b16_a_handler_that_ends_the_transaction_is_told_so() {
    let (store, _file) = on_sqlite().await;
    for ends in [&["ROLLBACK"][..], &["COMMIT"], &["ROLLBACK", "BEGIN"], &["COMMIT", "BEGIN IMMEDIATE"]] {
        for empty in [false, true] {
            let mut unit = store.begin(&[], LIMIT).await.unwrap();
            for statement in ends {
                unit.tx().execute(*statement).await.unwrap();
            }
            let write =
                if empty { writes() } else { tests::with!(writes(), outbox = vec![outbox_row("o", None, false)]) };
            let error = unit.write(&write).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Rejected, "{ends:?}: {error}");
            assert!(error.to_string().contains("the handler ended the transaction itself"), "{error}");
            unit.rollback().await.unwrap();
        }
    }
    assert_eq!(store.count("outbox").await, 0);
    write(&store, tests::with!(writes(), claims = vec![inbox_row("m")])).await.unwrap();
}

/// B16: such a handler takes nothing back outside its transaction: its message will run again.
#[tokio::test(flavor = "multi_thread")]
async fn b16_a_handler_that_ended_the_transaction_takes_nothing_back() {
    let (store, _file) = on_sqlite().await;
    let row = outbox_row("o", None, false);
    write(&store, tests::with!(writes(), outbox = vec![row.clone()])).await.unwrap();
    for ends in ["ROLLBACK", "COMMIT"] {
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        unit.tx().execute(ends).await.unwrap();
        unit.take_back(&[row.id]).await.expect_err("the transaction is not the unit's any more");
        unit.rollback().await.unwrap();
        assert_eq!(store.count("outbox").await, 1, "{ends}");
    }
}

/// A handler may nest a transaction and roll it back: that does not end the unit's transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_nested_transaction_does_not_end_the_unit() {
    let (store, _file) = on_sqlite().await;
    store.writer().execute("CREATE TABLE seat (n INTEGER UNIQUE)").await.unwrap();
    let mut unit = store.begin(&[], LIMIT).await.unwrap();
    unit.tx().execute("INSERT INTO seat VALUES (1)").await.unwrap();
    let mut nested = unit.tx().begin().await.unwrap();
    nested.execute("INSERT INTO seat VALUES (1)").await.unwrap_err();
    nested.rollback().await.unwrap();
    unit.write(&tests::with!(writes(), claims = vec![inbox_row("m")], instances = vec![instance(1, 0)])).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(store.read(&keys(&["m"])).await.unwrap().inbox.len(), 1);
}

/// Units that are cut off anywhere leave a usable writer without an open transaction.
#[tokio::test(flavor = "multi_thread")]
async fn units_that_were_cut_off_leave_nothing_open() {
    let (store, _file) = on_sqlite().await;
    for micros in (0..3000).step_by(50) {
        let cut = tests::with!(writes(), claims = vec![inbox_row("cut")]);
        let unit = async {
            let mut unit = store.begin(&[], LIMIT).await?;
            unit.write(&cut).await?;
            unit.rollback().await
        };
        let _ = tokio::time::timeout(Duration::from_micros(micros), unit).await;
        write(&store, tests::with!(writes(), claims = vec![inbox_row(&micros.to_string())])).await.unwrap();
    }
    assert_eq!(store.count("inbox").await, 60);
}

/// M19: rows of another program, with ids spelled in its own way, are sent once and deleted.
#[tokio::test(flavor = "multi_thread")]
async fn m19_an_id_of_any_spelling_is_deleted() {
    let (store, _file) = on_sqlite().await;
    let id = Uuid::now_v7();
    let spelled = [id.simple().to_string(), Uuid::now_v7().to_string().to_uppercase(), "no uuid".into()];
    for id in &spelled {
        write(&store, tests::with!(writes(), outbox = vec![outbox_row(id, None, false)])).await.unwrap();
        let foreign = sqlx::query("UPDATE sagabus_outbox SET id = $1 WHERE message_id = $1").bind(id);
        foreign.execute(store.writer()).await.unwrap();
    }
    let leased = lease(&store, "me").await.rows;
    assert_eq!(leased.len(), 2);
    assert!(leased.iter().any(|row| row.id == id));
    let ids: Vec<Uuid> = leased.iter().map(|row| row.id).collect();
    let update = tests::with!(saga_core::LeaseUpdate::new("me", LIMIT), renew = &ids, failed = &[]);
    assert!(store.renew_and_fail(&update).await.unwrap().is_empty());
    store.delete_confirmed(&ids).await.unwrap();
    assert_eq!(store.count("outbox").await, 1);
    let error = store.column("outbox", "last_error", "no uuid").await.pop().flatten().unwrap_or_default();
    assert!(error.contains("not a uuid"), "{error}");
}

/// B08, B10: rows that cannot be read get an error, whatever types another program gave their columns; the others
/// leave.
#[tokio::test(flavor = "multi_thread")]
async fn b08_an_unreadable_row_is_put_off_and_says_why() {
    let (store, _file) = on_sqlite().await;
    let broken = [("envelope", "'[1, 2]'"), ("envelope", "x'ff00'"), ("destination", "x'ff'"), ("attempts", "'many'")];
    for (n, (column, value)) in broken.iter().enumerate() {
        let id = format!("bad{n}");
        write(&store, tests::with!(writes(), outbox = vec![outbox_row(&id, None, false)])).await.unwrap();
        let sql = format!("UPDATE sagabus_outbox SET {column} = {value} WHERE message_id = '{id}'");
        store.writer().execute(sql.as_str()).await.unwrap();
    }
    write(&store, tests::with!(writes(), outbox = vec![outbox_row("good", None, false)])).await.unwrap();
    let leased = lease(&store, "me").await.rows;
    assert_eq!(leased.iter().map(|row| row.envelope.message_id.as_str()).collect::<Vec<_>>(), ["good"]);
    for (n, value) in broken.iter().enumerate() {
        let error = store.column("outbox", "last_error", &format!("bad{n}")).await.pop().flatten();
        assert!(error.is_some(), "{value:?} was swallowed");
    }
    let kinds = store.writer().execute("UPDATE sagabus_outbox SET kind = 'Event'").await;
    assert!(kinds.is_err(), "a kind that nobody knows was taken");

    let held = ["bad", "good"].map(|id| held_in(id, HeldReason::Early));
    write(&store, tests::with!(writes(), held_in = held.into())).await.unwrap();
    store.writer().execute("UPDATE sagabus_held SET envelope = '7' WHERE message_id = 'bad'").await.unwrap();
    let mut unit = store.begin(&[1], LIMIT).await.unwrap();
    let key = tests::store_suite::key();
    let wanted = HeldWanted::new(key, "test.Message", HeldReason::Early);
    let held = unit.held("e", &[wanted], 10, i64::MAX).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(held.iter().map(|row| &*row.envelope).collect::<Vec<_>>(), [&envelope("good")]);
    assert_eq!(store.column("held", "reason", "bad").await, [Some("undecodable".into())]);
}

/// One row whose id or envelope another program spelled as nobody reads it stops neither the relay, nor the sweep, nor
/// what waits for a newer version.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_another_type_stops_nobody_else() {
    let (store, _file) = on_sqlite().await;
    let rows = ["blob", "null", "good"].map(|id| outbox_row(id, None, false));
    write(&store, tests::with!(writes(), outbox = rows.into())).await.unwrap();
    for (id, value) in [("blob", "x'00112233445566778899aabbccddeeff'"), ("null", "NULL")] {
        let sql = format!("UPDATE sagabus_outbox SET id = {value} WHERE message_id = '{id}'");
        store.writer().execute(sql.as_str()).await.unwrap();
    }
    let leased = lease(&store, "me").await.rows;
    assert_eq!(leased.iter().map(|row| row.envelope.message_id.as_str()).collect::<Vec<_>>(), ["good"]);
    store.delete_confirmed(&[leased[0].id]).await.unwrap();
    for id in ["blob", "null"] {
        assert!(store.column("outbox", "last_error", id).await[0].is_some(), "{id} was swallowed");
    }
    for column in ["due_at", "first_attempt_at"] {
        store.age("outbox", column, 2 * tests::store_suite::WEEK).await;
    }
    assert_eq!(store.sweep("e", tests::store_suite::WEEK).await.unwrap().stranded, 2);

    let unknown = |id| tests::with!(held_in(id, HeldReason::Version), receiver = String::new(), saga_id = None);
    let held = ["text", "number", "bytes", "good"].map(unknown);
    write(&store, tests::with!(writes(), held_in = held.into())).await.unwrap();
    for (id, value) in [("text", "'{'"), ("number", "'7'"), ("bytes", "x'ff00'")] {
        let sql = format!("UPDATE sagabus_held SET envelope = {value} WHERE message_id = '{id}'");
        store.writer().execute(sql.as_str()).await.unwrap();
    }
    let process = tests::with!(saga_core::Process::new("e", "p"), types = vec!["test.Message".into()]);
    assert_eq!(store.release(&process).await.unwrap(), 1);
    assert_eq!(lease(&store, "me").await.rows[0].envelope.message_id, "good");
    for id in ["text", "number", "bytes"] {
        assert_eq!(store.column("held", "reason", id).await, [Some("undecodable".into())], "{id}");
    }
}

/// An instance whose columns another program gave other types is unreadable by itself: no other waits for it, and
/// nothing of it is lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_of_other_types_concerns_itself_alone() {
    let (store, _file) = on_sqlite().await;
    write(&store, tests::with!(writes(), instances = vec![instance(1, 0)])).await.unwrap();
    let read = async |column: &str, value: &str| {
        let sql = format!("UPDATE sagabus_saga SET {column} = {value}");
        store.writer().execute(sql.as_str()).await.unwrap();
        store.begin(&[], LIMIT).await.unwrap().read(&keys(&[])).await.unwrap().instances.remove(0)
    };
    assert_eq!(read("data", r#"CAST('{"n":1}' AS BLOB)"#).await.data, r#"{"n":1}"#, "bytes may be a text");
    let bytes = read("data", "x'7bff'").await;
    assert_eq!((bytes.data.as_str(), bytes.version), ("x'7bff'", 1), "no state, and as it is");
    assert_eq!(read("state", "x'ff'").await.state, "x'ff'");
    assert_eq!(read("seq", "'many'").await.version, i32::MAX, "a row that cannot be written is left alone");
}

/// The writer waits for another program that keeps the file locked.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_locked_is_waited_for() {
    let (store, file) = on_sqlite().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file.folder.join("store.db"));
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let begun = store.begin(&[], LIMIT).await;
    assert_eq!(kind(begun.map(drop)), Some(StoreErrorKind::Unavailable));
    other.execute("ROLLBACK").await.unwrap();
    eventually("the file to be free", || async {
        write(&store, tests::with!(writes(), claims = vec![inbox_row("m")])).await.ok()
    })
    .await;
}
