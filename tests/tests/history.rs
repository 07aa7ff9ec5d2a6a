//! Clients append to ten lists of each kind while processes die, sessions are killed and lines are cut; what they saw
//! is explained by a model. docs/faults.md says what that proves, and how to run it longer.

use outbox::Postgres;
use saga_core::{CrashPoint, Endpoint, HeldFilter, Inspect, InstanceKey, RequestErrorKind, Requested, StoreErrorKind};
use sqlx::{Connection as _, PgConnection};
use std::{process::Stdio, sync::Arc, time::Duration};
use tests::{
    Database, PATIENCE, Vhost,
    dice::Dice,
    eventually,
    history::{History, Operation, explain},
    lists::{Append, AppendOutcome, Noted, create, read},
    process::program,
    proxy::Proxy,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    task::JoinSet,
    time::{Instant, sleep},
};
use transports::RabbitMq;

/// Lists of each kind.
const KEYS: usize = 10;
const CLIENTS: usize = 6;
const PROCESSES: usize = 2;
/// How long a client waits for an answer before it does something else.
const ANSWER: Duration = Duration::from_secs(3);

/// A number from the environment, for runs of another size.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// What all clients and all faults share.
struct World {
    history: History,
    vhost: Vhost,
    database: Database,
    to_broker: Proxy,
    to_database: Proxy,
}

impl World {
    async fn create() -> Self {
        let (vhost, database) = (Vhost::create().await, Database::create().await);
        let address = |url: &str| url.split(['@', '/']).nth(3).expect("the address names a server").to_owned();
        let (to_broker, to_database) =
            (Proxy::to(address(&vhost.url())).await, Proxy::to(address(&database.url())).await);
        create(&mut PgConnection::connect(&database.url()).await.expect("the server answers")).await.expect("a table");
        Self { history: History::default(), vhost, database, to_broker, to_database }
    }

    fn broker_url(&self) -> String {
        self.to_broker.instead_of(&self.vhost.url())
    }

    fn database_url(&self) -> String {
        self.to_database.instead_of(&self.database.url())
    }

    async fn client(&self) -> Endpoint<Postgres> {
        let broker = RabbitMq::new(&self.broker_url()).expect("it is an AMQP URL");
        let store = Postgres::with_connections(&self.database_url(), 8).expect("it is a PostgreSQL URL");
        let client = Endpoint::builder("client", broker, store);
        let client = client.settings(|settings| settings.poll = Duration::from_millis(100));
        client.start().await.expect("the client starts")
    }

    /// Starts a process of the service, which may have to die at a step.
    fn process(&self, dies_at: Option<String>) -> Child {
        let mut process = Command::new(program("lists"));
        process.args([self.broker_url(), self.database_url()]).args(dies_at);
        process.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        process.spawn().expect("the process starts")
    }

    /// Starts one and waits for it: what is published before its queue is bound reaches nobody.
    async fn started(&self) -> Child {
        let mut process = self.process(None);
        let mut said = BufReader::new(process.stdout.take().expect("its output is piped")).lines();
        assert_eq!(said.next_line().await.expect("it is text").as_deref(), Some("started"));
        process
    }

    /// Starts those again that died at their step.
    fn start_again(&self, processes: &mut [Child]) {
        for process in processes {
            if process.try_wait().expect("it is our child").is_some() {
                *process = self.process(None);
            }
        }
    }

    /// One fault, by chance.
    async fn disturb(&self, processes: &mut [Child], dice: &mut Dice) -> &'static str {
        match dice.below(7) {
            0 | 1 => {
                let process = &mut processes[dice.below(PROCESSES)];
                let _ = process.start_kill(); // it may have died by itself
                process.wait().await.expect("a dead process can be waited for");
                let step = CrashPoint::ALL[dice.below(CrashPoint::ALL.len())];
                let dies = dice.below(2) == 0;
                *process = self.process(dies.then(|| format!("{step:?}:{}", 1 + dice.below(10))));
                if dies { "a process killed, and again at a step" } else { "a process killed" }
            }
            2 => {
                let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()";
                let mut connection = PgConnection::connect(&self.database.url()).await.expect("the server answers");
                sqlx::query(kill).execute(&mut connection).await.expect("the owner may kill sessions");
                "all sessions killed"
            }
            3 => {
                self.to_database.swallow_commits(1 + dice.below(3) as u64);
                "answers to commits lost"
            }
            4 => {
                self.to_database.cut();
                "the database's connections cut"
            }
            5 => {
                self.to_broker.cut();
                "the broker's connections cut"
            }
            _ => {
                self.vhost.close_connections().await;
                "all connections closed by the broker"
            }
        }
    }
}

/// Appends and reads, one after the other. Clients have numbers of their own to append.
struct Client {
    world: Arc<World>,
    endpoint: Arc<Endpoint<Postgres>>,
    /// A connection that no fault is meant for; but all sessions are killed now and then.
    database: Option<PgConnection>,
    dice: Dice,
    numbers: std::ops::Range<u32>,
}

impl Client {
    async fn run(mut self) {
        while let Some(number) = self.numbers.next() {
            let (key, begins) = (self.dice.below(KEYS) as u32, self.world.history.now());
            match self.dice.below(6) {
                0 => self.look(false, key).await,
                1 => self.look(true, key).await,
                2 | 3 => self.request(key, number, begins).await,
                _ => self.publish(key, number, begins).await,
            }
        }
    }

    fn record(&self, of_saga: bool, key: u32, appends: Option<u32>, saw: Option<Vec<u32>>, [began, ended]: [u64; 2]) {
        let list = format!("{} {key}", if of_saga { "saga" } else { "table" });
        let ended = (ended < u64::MAX).then_some(ended);
        self.world.history.record(Operation { list, appends, saw, began, ended });
    }

    /// Reads a list in the database. A look without an answer is none.
    async fn look(&mut self, of_saga: bool, key: u32) {
        let began = self.world.history.now();
        if let Some(saw) = self.read(of_saga, key).await {
            self.record(of_saga, key, None, Some(saw), [began, self.world.history.now()]);
        }
    }

    async fn read(&mut self, of_saga: bool, key: u32) -> Option<Vec<u32>> {
        let mut database = match self.database.take() {
            Some(database) => database,
            None => PgConnection::connect(&self.world.database.url()).await.ok()?,
        };
        let saw = read(&mut database, of_saga, key).await.ok()?;
        self.database = Some(database);
        Some(saw)
    }

    /// Asks for an append, and waits for the answer, which has the list in it.
    async fn request(&mut self, key: u32, number: u32, began: u64) {
        use RequestErrorKind::{Stopped, Unconfirmed};
        let (saw, ended) = match self.endpoint.request(Append { key, number }).within(ANSWER).await {
            Ok(Requested::Answered(AppendOutcome::Appended(it))) => (Some(it.numbers), self.world.history.now()),
            Ok(Requested::Pending(_)) => (None, u64::MAX),
            Err(error) if matches!(error.kind(), Unconfirmed | Stopped) => (None, u64::MAX),
            // "it is not handled": the checker does not know the number, should it appear all the same
            Err(_) => return sleep(Duration::from_millis(20)).await,
        };
        self.record(false, key, Some(number), saw, [began, ended]);
        if self.dice.below(3) == 0 {
            self.look(false, key).await;
        }
    }

    /// Sends an append through the outbox. If the commit is acknowledged, it takes effect; some clients wait for it.
    async fn publish(&mut self, key: u32, number: u32, began: u64) {
        let Ok(mut session) = self.endpoint.session().await else {
            return sleep(Duration::from_millis(20)).await; // nothing happened
        };
        session.publish(Noted { key, number });
        match session.commit().await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), StoreErrorKind::Conflict | StoreErrorKind::Rejected) => return,
            Err(_) => return self.record(true, key, Some(number), None, [began, u64::MAX]),
        }
        let until = Instant::now() + if self.dice.below(2) == 0 { ANSWER } else { Duration::ZERO };
        let mut ended = PROMISED;
        while Instant::now() < until && ended == PROMISED {
            match self.read(true, key).await {
                Some(saw) if saw.contains(&number) => ended = self.world.history.now(),
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
        self.record(true, key, Some(number), None, [began, ended]);
    }
}

/// The end of an operation that takes effect some time, before the last looks.
const PROMISED: u64 = u64::MAX - 1;

/// SAGABUS_TEST_SEED chooses other faults at other moments, SAGABUS_TEST_OPERATIONS how long it runs.
#[tokio::test(flavor = "multi_thread")]
async fn every_history_under_faults_is_explained_by_the_model() {
    let (seed, operations) = (setting("SAGABUS_TEST_SEED", 7), setting("SAGABUS_TEST_OPERATIONS", 600) as usize);
    println!("SAGABUS_TEST_SEED={seed} SAGABUS_TEST_OPERATIONS={operations}");
    let world = Arc::new(World::create().await);
    let endpoint = Arc::new(world.client().await);
    let mut processes = Vec::new();
    for _ in 0..PROCESSES {
        processes.push(world.started().await);
    }
    let each = (operations / CLIENTS) as u32;
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS as u32 {
        let client = Client {
            world: world.clone(),
            endpoint: endpoint.clone(),
            database: None,
            dice: Dice::for_the(seed, &format!("client {n}")),
            numbers: n * each..(n + 1) * each,
        };
        clients.spawn(client.run());
    }
    // moments are chosen by progress
    let mut dice = Dice::for_the(seed, "faults");
    let (mut next, mut faults) = (20, Vec::new());
    while !clients.is_empty() {
        if let Ok(Some(ended)) = tokio::time::timeout(Duration::from_millis(20), clients.join_next()).await {
            ended.expect("no client panics");
        }
        world.start_again(&mut processes);
        if world.history.len() >= next {
            next += 15 + dice.below(30);
            faults.push(world.disturb(&mut processes, &mut dice).await);
        }
    }
    let settled = settle(&world, &endpoint, &mut processes).await;
    println!("{} operations, faults: {faults:?}", world.history.len());
    stop(processes).await;
    let quiet = world.history.now();
    let mut history = world.history.operations();
    for operation in &mut history {
        operation.ended = operation.ended.map(|ended| ended.min(quiet));
    }
    let mut last = PgConnection::connect(&world.database.url()).await.expect("the server answers");
    for (of_saga, key) in [false, true].into_iter().flat_map(|of_saga| (0..KEYS as u32).map(move |key| (of_saga, key)))
    {
        let began = world.history.now();
        let saw = read(&mut last, of_saga, key).await.expect("the server answers");
        if of_saga {
            assert_eq!(
                chain(endpoint.store(), key).await,
                saw.len(),
                "the journal of {key} was expected to be a chain"
            );
        }
        let list = format!("{} {key}", if of_saga { "saga" } else { "table" });
        let ended = Some(world.history.now());
        history.push(Operation { list, appends: None, saw: Some(saw), began, ended });
    }
    assert!(faults.len() >= operations / 200, "more faults were expected: {faults:?}");
    explain(&history).unwrap_or_else(|wrong| panic!("SAGABUS_TEST_SEED={seed}: {wrong}"));
    assert!(settled, "every message was expected to be handled within {PATIENCE:?}");
    assert_eq!(endpoint.store().held_count(&HeldFilter::default()).await.expect("the server answers"), 0);
}

/// Waits until all that was promised is there; what is missing after that the checker finds.
async fn settle(world: &World, endpoint: &Endpoint<Postgres>, processes: &mut [Child]) -> bool {
    let mut database = PgConnection::connect(&world.database.url()).await.expect("the server answers");
    let until = Instant::now() + PATIENCE;
    let promised: Vec<(u32, u32)> = (world.history.operations().iter())
        .filter(|operation| operation.ended == Some(PROMISED))
        .filter_map(|operation| Some((operation.list.split_once(' ')?.1.parse().ok()?, operation.appends?)))
        .collect();
    while Instant::now() < until {
        world.start_again(processes);
        // what has failed often waits for up to a minute
        let now =
            "UPDATE sagabus.outbox SET due_at = clock_timestamp() WHERE due_at > clock_timestamp() AND kind <> 'timer'";
        sqlx::query(now).execute(&mut database).await.expect("nobody kills sessions any more");
        let mut missing = endpoint.store().outbox_count(&Default::default()).await.unwrap_or(1);
        for (key, number) in &promised {
            let there = read(&mut database, true, *key).await.expect("nobody kills sessions any more");
            missing += u64::from(!there.contains(number));
        }
        if missing == 0 {
            return true;
        }
        sleep(Duration::from_millis(50)).await;
    }
    false
}

async fn stop(processes: Vec<Child>) {
    for mut process in processes {
        let pid = process.id().map_or_else(String::new, |pid| pid.to_string());
        let _ = Command::new("kill").args(["-TERM", &pid]).status().await; // it may have died at a step
        process.wait().await.expect("it ends");
    }
}

/// The lines of an instance's journal that moved it: each begins where the one before ended.
async fn chain(store: &Postgres, key: u32) -> usize {
    let key = InstanceKey { saga: "notes".into(), id: key.to_string() };
    let mut lines = eventually("the journal", || async { store.journal(&key, 100_000).await.ok() }).await;
    lines.retain(|line| line.result == "handled");
    lines.sort_unstable_by_key(|line| line.seq);
    let mut before = None;
    for (n, line) in lines.iter().enumerate() {
        assert_eq!((&line.from_state, line.seq), (&before, Some(n as i64 + 1)), "{key:?}: {line:?}");
        before.clone_from(&line.to_state);
    }
    lines.len()
}
