//! A rolling deployment: two versions of a service as processes on RabbitMQ and PostgreSQL, one after the other, side
//! by side, forward and back. Nothing is lost, nothing is done twice, and what only the newer version can read waits
//! for it.

use async_trait::async_trait;
use outbox::Postgres;
use saga_core::{
    Context, Endpoint, Event, Handle, HandlerError, HeldFilter, Inspect, InstanceFilter, InstanceView, Store,
};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};
use tests::{
    Database, Vhost, eventually,
    process::program,
    rolling::{Charge, ChargeOutcome, Charged, Deliver, SeatChosen, TicketCollected, TicketOrdered},
};

/// The till keeps the books: a line for each thing that it did.
struct Till;

async fn enter(cx: &mut Context<'_, Postgres>, what: &str, ticket: u64, cents: i64) -> Result<(), HandlerError> {
    let line = sqlx::query("INSERT INTO book (what, ticket, cents) VALUES ($1, $2, $3)");
    line.bind(what).bind(ticket as i64).bind(cents).execute(cx.tx().await?).await?;
    Ok(())
}

#[async_trait]
impl Handle<Charge, Postgres> for Till {
    async fn handle(&self, charge: Charge, cx: &mut Context<'_, Postgres>) -> Result<ChargeOutcome, HandlerError> {
        enter(cx, "charge", charge.ticket, charge.cents).await?;
        Ok(ChargeOutcome::Charged(Charged { ticket: charge.ticket }))
    }
}

#[async_trait]
impl Handle<Deliver, Postgres> for Till {
    async fn handle(&self, deliver: Deliver, cx: &mut Context<'_, Postgres>) -> Result<(), HandlerError> {
        enter(cx, "delivery", deliver.ticket, deliver.cents).await
    }
}

/// A process of one version; it is stopped in an orderly way.
struct Running(Child);

impl Running {
    fn stop(mut self) {
        let told = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().expect("kill runs");
        assert!(told.success());
        let ended = self.0.wait().expect("it ends");
        assert!(ended.success(), "it stopped in an orderly way: {ended}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

struct Town {
    broker: String,
    database: Database,
    store: Postgres,
    till: Endpoint<Postgres>,
}

impl Town {
    fn program(&self, version: &str) -> Command {
        let mut command = Command::new(program("rolling"));
        command.args([version, &self.broker, &self.database.url()]).stdin(Stdio::null());
        command
    }

    /// Starts a process of a version, and waits until so many live.
    async fn start(&self, version: &str, living: usize) -> Running {
        let mut process = Running(self.program(version).stdout(Stdio::piped()).spawn().expect("the service starts"));
        let said = process.0.stdout.take().expect("its output is piped");
        // its row is there before its queue is bound, and what is published before that reaches nobody
        let line = tokio::task::spawn_blocking(move || BufReader::new(said).lines().next()).await;
        assert_eq!(line.expect("it is read").expect("it says something").expect("it is text"), "started");
        self.live(living).await;
        process
    }

    async fn live(&self, living: usize) {
        eventually(&format!("{living} processes"), || async {
            let status = self.store.status().await.ok()?;
            let desk = status.endpoints.into_iter().find(|it| it.endpoint == "desk");
            (desk.map_or(0, |desk| desk.processes.len()) == living).then_some(())
        })
        .await;
    }

    /// What the program says before it is deployed: whether all can be read, and what it printed.
    fn check(&self, version: &str) -> (bool, String) {
        let output = self.program(version).arg("--check").output().expect("the check runs");
        let text = String::from_utf8(output.stdout).expect("it is text");
        (output.status.success(), text)
    }

    async fn publish<E: Event>(&self, events: impl IntoIterator<Item = E>) {
        for event in events {
            let mut session = self.till.session().await.expect("a session opens");
            session.publish(event);
            session.commit().await.expect("it commits"); // one by one: they are shared between the processes
        }
    }

    async fn order(&self, tickets: impl IntoIterator<Item = u64>) {
        self.publish(tickets.into_iter().map(|ticket| TicketOrdered { ticket, cents: 1_000 + ticket as i64 })).await;
    }

    async fn collect(&self, tickets: impl IntoIterator<Item = u64>) {
        self.publish(tickets.into_iter().map(|ticket| TicketCollected { ticket })).await;
    }

    async fn tickets(&self) -> Vec<InstanceView> {
        self.store.instances(&InstanceFilter::default(), 1000).await.expect("the database answers")
    }

    /// Waits until all these tickets satisfy a condition.
    async fn all(&self, what: &str, wanted: impl IntoIterator<Item = u64>, is: impl Fn(&InstanceView) -> bool) {
        let wanted: Vec<String> = wanted.into_iter().map(|ticket| ticket.to_string()).collect();
        eventually(what, || async {
            let tickets = self.tickets().await;
            let found = tickets.iter().filter(|it| wanted.contains(&it.id) && is(it)).count();
            (found == wanted.len()).then_some(())
        })
        .await;
    }

    async fn held(&self) -> Vec<String> {
        let held = self.store.held(&HeldFilter::default(), 1000).await.expect("the database answers");
        held.into_iter().map(|held| held.reason).collect()
    }
}

fn is_paid(ticket: &InstanceView) -> bool {
    ["Printed", "Ready"].contains(&ticket.state.as_str())
}

fn is_collected(ticket: &InstanceView) -> bool {
    ticket.state == "Collected"
}

#[tokio::test(flavor = "multi_thread")]
async fn two_versions_run_side_by_side_and_forward_and_back_and_the_books_are_clean() {
    let (vhost, database, books) = (Vhost::create().await, Database::create().await, Database::create().await);
    let (store, till) = (database.store(), books.store());
    store.migrate().await.expect("the tables are created");
    sqlx::query("CREATE TABLE book (what text, ticket bigint, cents bigint)").execute(till.pool()).await.unwrap();
    let till = Endpoint::builder("till", vhost.transport(), till).handle::<Charge>(Till).handle::<Deliver>(Till);
    let till = till.start().await.expect("the till starts");
    let town = Town { broker: vhost.url(), database, store, till };

    // version 1 alone
    let one = town.start("1", 1).await;
    town.order(1..=20).await;
    town.all("paid tickets of version 1", 1..=20, |it| it.version == 1 && it.state == "Printed").await;

    // side by side: either begins tickets, and works on what the other began as far as it can
    assert_eq!(town.check("2"), (true, "all 20 instances can be read\n".into()));
    let two = town.start("2", 2).await;
    town.order(21..=60).await;
    town.all("paid tickets of either version", 21..=60, is_paid).await;
    let seats = (1..=10).chain(21..=30).map(|ticket| SeatChosen { ticket, seat: format!("{ticket}A") });
    town.publish(seats).await;
    let seated = |it: &InstanceView| it.version == 2 && it.data["seat"] == format!("{}A", it.id);
    town.all("seats, whoever got the message", (1..=10).chain(21..=30), seated).await;

    // forward: version 2 alone
    one.stop();
    town.live(1).await;
    town.order(61..=80).await;
    town.all("paid tickets of version 2", 61..=80, |it| it.version == 2 && is_paid(it)).await;
    town.collect((1..=15).chain(21..=40)).await;
    town.all("collected tickets of both versions", (1..=15).chain(21..=40), is_collected).await;

    // back: version 1 alone. What version 2 wrote stands still, untouched; all else goes on
    let one = town.start("1", 2).await;
    two.stop();
    town.live(1).await;
    let (readable, told) = town.check("1");
    assert!(!readable && told.contains("it leaves the instance alone"), "{told}");
    let newer = |all: &[InstanceView]| all.iter().filter(|it| it.version == 2).cloned().collect::<Vec<_>>();
    let before = newer(&town.tickets().await);
    assert_eq!(told.lines().count(), before.len() + 1, "each of them, and the sum: {told}");
    town.order(81..=100).await;
    town.all("paid tickets of version 1 again", 81..=100, |it| it.version == 1 && is_paid(it)).await;
    town.collect((16..=17).chain(81..=85)).await;
    town.all("what version 1 can read goes on", (16..=17).chain(81..=85), is_collected).await;
    town.collect(61..=70).await;
    eventually("messages for the newer tickets to wait", || async { (town.held().await.len() == 10).then_some(()) })
        .await;
    assert!(town.held().await.iter().all(|reason| reason == "version"));
    let unchanged = |it: &InstanceView| (it.id.clone(), it.seq, it.updated_at_us, it.paused_by.clone());
    let after = newer(&town.tickets().await);
    let list = |all: &[InstanceView]| {
        let mut all: Vec<_> = all.iter().map(unchanged).collect();
        all.sort();
        all
    };
    assert_eq!(list(&after), list(&before), "version 1 touches nothing that version 2 wrote");

    // forward again: what waited goes on without anybody's doing
    let two = town.start("2", 2).await;
    one.stop();
    town.all("the tickets that waited", 61..=70, is_collected).await;
    town.collect((18..=20).chain(41..=60).chain(71..=80).chain(86..=100)).await;
    town.all("all tickets", 1..=100, is_collected).await;

    let books = town.till.store().pool().clone();
    let entered = |what: &'static str| {
        let books = books.clone();
        async move {
            let sql =
                "SELECT count(*), count(DISTINCT ticket), coalesce(sum(cents), 0)::bigint FROM book WHERE what = $1";
            sqlx::query_as::<_, (i64, i64, i64)>(sql).bind(what).fetch_one(&books).await.expect("the books are read")
        }
    };
    let money: i64 = (1..=100).map(|ticket| 1_000 + ticket).sum();
    eventually("every delivery in the books", || async { (entered("delivery").await.0 >= 100).then_some(()) }).await;
    assert_eq!(entered("charge").await, (100, 100, money), "each ticket was charged once");
    assert_eq!(entered("delivery").await, (100, 100, money), "and delivered once, for what was paid");
    assert_eq!(town.held().await, [""; 0]);
    assert!(town.tickets().await.iter().all(|it| it.paused_by.is_none()));
    assert_eq!(town.check("2"), (true, "all 100 instances can be read\n".into()));
    two.stop();
    town.till.stop().await.expect("the till stops");
}
