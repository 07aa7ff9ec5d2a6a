//! What the database answers to a handler's own statement. A conflict and a database that is full or read-only are no
//! message's fault; a wrong statement is.

use super::*;
use async_trait::async_trait;
use saga_core::{Context, DatabaseState, Handle, HandlerError, Retries, Store};
use sqlx::{Connection, Executor};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};
use tests::{
    eventually,
    house::{held, one_held},
    model::{Arrived, Work, WorkOutcome, Worked},
    works::works,
};
use tokio::sync::Barrier;

/// What a person would call at once.
const SOON: Duration = Duration::from_secs(5);

/// Writes a row for each message. An error of the database is wrapped as repositories wrap it.
#[derive(Clone, Default)]
struct Clerk {
    runs: Arc<AtomicUsize>,
}

impl Clerk {
    async fn runs_again(&self, times: usize) {
        let until = self.runs.load(Ordering::SeqCst) + times;
        eventually("more runs", || async { (self.runs.load(Ordering::SeqCst) >= until).then_some(()) }).await;
    }
}

#[async_trait]
impl<Db: Effects> Handle<Work, Db> for Clerk {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Db>) -> Result<WorkOutcome, HandlerError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = Db::effect(cx.tx().await?, work.id).await {
            return Err(match work.id % 4 {
                0 => error.into(),
                1 => HandlerError::transient(anyhow::Error::from(error)),
                2 => HandlerError::transient(anyhow::Error::from(error).context("the clerk cannot write")),
                _ => HandlerError::permanent(std::io::Error::other(error)),
            });
        }
        Ok(Worked { id: work.id }.into())
    }
}

async fn start<Db: Effects + Base, T: Transport + Clone>(two: &Two<Db, T>, clerk: &Clerk) -> Endpoint<Db> {
    two.db().migrate().await.expect("the tables are created");
    two.db().create_effects().await;
    let builder = two.endpoint(0, "worker").retries(Retries::none()).handle::<Work>(clerk.clone());
    builder.start().await.expect("the worker starts")
}

async fn down<Db: Effects>(endpoint: &Endpoint<Db>, why: &str) {
    eventually(&format!("the endpoint to say `{why}`"), || async {
        matches!(endpoint.database(), DatabaseState::Down(said) if said.contains(why)).then_some(())
    })
    .await;
}

/// Waits until all of so many messages are handled, each once and in one counted run, soon after `mended`.
async fn all_handled<Db: Effects + Base, T: Transport + Clone>(two: &Two<Db, T>, messages: usize, mended: Instant) {
    let handled = "{s}inbox WHERE result = 'handled' AND attempts = 1";
    eventually("all to be handled", || async { (two.count(handled).await == messages).then_some(()) }).await;
    assert!(mended.elapsed() < SOON, "it took {:?}", mended.elapsed());
    assert_eq!(two.db().effects().await, (0..messages as i64).collect::<Vec<_>>());
    assert!(held(two.db()).await.is_empty());
}

/// Lets each insert into the table of effects raise the error that the table `trouble` names.
const TROUBLE: &str = "
CREATE TABLE trouble (code text);
CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE found text;
BEGIN
    SELECT code INTO found FROM trouble;
    IF found IS NOT NULL THEN RAISE EXCEPTION 'raised' USING ERRCODE = found; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER raise BEFORE INSERT ON effect FOR EACH ROW EXECUTE FUNCTION raise()";

async fn trouble(store: &Postgres, code: &str) {
    sqlx::query("INSERT INTO trouble VALUES ($1)").bind(code).execute(store.pool()).await.unwrap();
}

/// R-036, R-037, PostgreSQL: whatever the database says about itself, the message waits where it is.
#[tokio::test(flavor = "multi_thread")]
async fn r_037_what_the_database_says_about_itself_to_a_handler_costs_no_attempt() {
    on_postgres(async |two| {
        let clerk = Clerk::default();
        let worker = start(&two, &clerk).await;
        two.db().pool().execute(TROUBLE).await.unwrap();
        let mut stranger = two.stranger(0).await;
        let codes = ["40001", "53100", "53300", "25006", "57P01"];
        for (n, code) in codes.into_iter().enumerate() {
            trouble(two.db(), code).await;
            stranger.send("worker", &works([n as u64])).await;
            clerk.runs_again(4).await;
            if code.starts_with("40") {
                assert_eq!(worker.database(), DatabaseState::Up, "{code}: a conflict is no outage");
            } else {
                down(&worker, "raised").await;
            }
            assert_eq!(two.count("{s}inbox").await, n, "{code}: nothing is written about what waits");
            two.db().pool().execute("DELETE FROM trouble").await.unwrap();
            all_handled(&two, n + 1, Instant::now()).await;
        }
        assert_eq!(worker.database(), DatabaseState::Up);
        stop([worker]).await;
    })
    .await;
}

/// PostgreSQL: a time limit, a lock, another server, a mistake: the statement's own, and so its message's failure.
#[tokio::test(flavor = "multi_thread")]
async fn r_036_what_a_handlers_statement_does_wrong_is_counted() {
    on_postgres(async |two| {
        let worker = start(&two, &Clerk::default()).await;
        two.db().pool().execute(TROUBLE).await.unwrap();
        let mut stranger = two.stranger(0).await;
        for (n, code) in ["57014", "55P03", "08006", "42601", "23505", "22012"].into_iter().enumerate() {
            trouble(two.db(), code).await;
            stranger.send("worker", &works([n as u64])).await;
            let held = one_held(two.db()).await;
            assert_eq!((held.reason.as_str(), held.attempts), ("failed", 1), "{code}");
            two.db().pool().execute("DELETE FROM trouble; DELETE FROM sagabus.held").await.unwrap();
        }
        assert_eq!(worker.database(), DatabaseState::Up);
        stop([worker]).await;
    })
    .await;
}

/// R-037, PostgreSQL: after a failover the sessions lead to a server that is read-only. New ones do not, and nobody has
/// to end the old ones.
#[tokio::test(flavor = "multi_thread")]
async fn r_037_a_handler_that_meets_a_read_only_server_waits_for_another() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let two = Two { stores: [database.store(), database.store()], transports: [vhost.transport(), vhost.transport()] };
    let clerk = Clerk::default();
    let worker = start(&two, &clerk).await;
    let server = async |sql: &str| {
        let mut server = sqlx::PgConnection::connect(&format!("{}/postgres", Database::server())).await.unwrap();
        server.execute(sql).await.unwrap();
    };
    server(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name)).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname";
    server(&format!("{end} = '{}'", database.name)).await;
    two.stranger(0).await.send("worker", &works(0..4)).await;
    down(&worker, "read-only").await; // a handler has run in vain, once
    server(&format!("ALTER DATABASE {} RESET default_transaction_read_only", database.name)).await;
    let mended = Instant::now();
    let two = Two { stores: [database.store(), database.store()], ..two }; // sessions of the test's own
    all_handled(&two, 4, mended).await;
    stop([worker]).await;
}

/// Moves money between two accounts. Two that go opposite ways meet in the middle, once.
#[derive(Clone)]
struct Transfer {
    from: i64,
    to: i64,
    meet: Arc<Barrier>,
    runs: Arc<AtomicUsize>,
}

impl Transfer {
    async fn run(&self, cx: &mut Context<'_, Postgres>) -> Result<(), HandlerError> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        let tx = cx.tx().await?;
        let change = "UPDATE account SET cents = cents + $1 WHERE id = $2";
        sqlx::query(change).bind(-100_i64).bind(self.from).execute(&mut *tx).await?;
        if run == 0 {
            self.meet.wait().await;
        }
        sqlx::query(change).bind(100_i64).bind(self.to).execute(tx).await?;
        Ok(())
    }
}

#[async_trait]
impl Handle<Work, Postgres> for Transfer {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Postgres>) -> Result<WorkOutcome, HandlerError> {
        self.run(cx).await?;
        Ok(Worked { id: work.id }.into())
    }
}

#[async_trait]
impl Handle<Arrived, Postgres> for Transfer {
    async fn handle(&self, _: Arrived, cx: &mut Context<'_, Postgres>) -> Result<(), HandlerError> {
        self.run(cx).await
    }

    fn name(&self) -> &'static str {
        "the way back"
    }
}

/// R-036, PostgreSQL: two handlers deadlock. The one that PostgreSQL chose runs again, and nobody is to blame.
#[tokio::test(flavor = "multi_thread")]
async fn r_036_two_handlers_that_deadlock_cost_no_attempt() {
    on_postgres(async |two| {
        two.db().pool().execute("CREATE TABLE account (id bigint, cents bigint)").await.unwrap();
        two.db().pool().execute("INSERT INTO account VALUES (1, 1000), (2, 1000)").await.unwrap();
        let meet = Arc::new(Barrier::new(2));
        let there = Transfer { from: 1, to: 2, meet, runs: Arc::default() };
        let back = Transfer { from: 2, to: 1, runs: Arc::default(), ..there.clone() };
        let builder = two.endpoint(0, "worker").retries(Retries::none());
        let builder = builder.handle::<Work>(there.clone()).subscribe::<Arrived>(back.clone());
        let worker = builder.start().await.unwrap();
        let arrived = Envelope::new("back", "journeys.Arrived", r#"{"id":1}"#);
        two.stranger(0).await.send("worker", &[works([1]).remove(0), arrived]).await;
        let handled = "{s}inbox WHERE result = 'handled' AND attempts = 1";
        eventually("both to be handled", || async { (two.count(handled).await == 2).then_some(()) }).await;
        let runs = [&there, &back].map(|transfer| transfer.runs.load(Ordering::SeqCst));
        // its next run may take the row before the survivor wakes up, and then they deadlock once more
        assert!(runs.iter().sum::<usize>() >= 3, "one was the victim: {runs:?}");
        assert_eq!(two.count("account WHERE cents = 1000").await, 2);
        assert!(held(two.db()).await.is_empty());
        stop([worker]).await;
    })
    .await;
}

/// Lets the file grow by this many pages.
async fn room(store: &Sqlite, pages: i64) {
    let now: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(store.writer()).await.unwrap();
    store.writer().execute(format!("PRAGMA max_page_count = {}", now + pages).as_str()).await.unwrap();
}

/// R-037, SQLite: a handler fills the disk. The next ones wait until there is room, and nobody is to blame.
#[tokio::test(flavor = "multi_thread")]
async fn r_037_a_handler_that_meets_a_full_disk_waits_for_room() {
    on_sqlite(async |two| {
        let clerk = Clerk::default();
        let worker = start(&two, &clerk).await;
        let store = worker.store();
        // each row takes pages of its own
        let large = "CREATE TABLE large (blob BLOB);
            CREATE TRIGGER large AFTER INSERT ON effect BEGIN INSERT INTO large VALUES (zeroblob(1000000)); END";
        store.writer().execute(large).await.unwrap();
        room(store, 10).await;
        let mut stranger = two.stranger(0).await;
        let messages = works(0..4);
        let sent = stranger.send("worker", &messages); // in-process it ends when they are settled
        let meanwhile = async {
            clerk.runs_again(4).await;
            down(&worker, "full").await;
            assert_eq!(two.count("{s}inbox").await, 0);
            room(store, 100_000).await;
            Instant::now()
        };
        let ((), mended) = tokio::join!(sent, meanwhile);
        all_handled(&two, 4, mended).await;
        assert_eq!(worker.database(), DatabaseState::Up);
        stop([worker]).await;
    })
    .await;
}

/// Meets a lock that somebody else has on the file, on its first run.
#[derive(Clone)]
struct Impatient {
    file: String,
    runs: Arc<AtomicUsize>,
}

#[async_trait]
impl Handle<Work, Sqlite> for Impatient {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Sqlite>) -> Result<WorkOutcome, HandlerError> {
        Sqlite::effect(cx.tx().await?, work.id).await?;
        if self.runs.fetch_add(1, Ordering::SeqCst) < 3 {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&self.file);
            let mut other = sqlx::SqliteConnection::connect_with(&options.busy_timeout(Duration::ZERO)).await?;
            other.execute("BEGIN IMMEDIATE").await?; // it is locked by the handler's own transaction
        }
        Ok(Worked { id: work.id }.into())
    }
}

/// R-036, SQLite: a file that is locked costs no attempt.
#[tokio::test(flavor = "multi_thread")]
async fn r_036_a_handler_that_meets_a_locked_file_runs_again() {
    let file = File::create();
    let stores = [file.store("one.db").await, file.store("one.db").await];
    let two = Two { stores, transports: [InProcess::new(), InProcess::new()] };
    two.db().migrate().await.unwrap();
    two.db().create_effects().await;
    let handler = Impatient { file: file.folder.join("one.db").display().to_string(), runs: Arc::default() };
    let builder = two.endpoint(0, "worker").retries(Retries::none()).handle::<Work>(handler.clone());
    let worker = builder.start().await.unwrap();
    two.stranger(0).await.send("worker", &works(0..1)).await;
    all_handled(&two, 1, Instant::now()).await;
    assert_eq!(handler.runs.load(Ordering::SeqCst), 4);
    stop([worker]).await;
}
