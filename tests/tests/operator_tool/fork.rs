//! Instances that stand again where a step left them, and what each step changed.

use outbox::Postgres;
use saga_core::{
    Command, Deadline, Endpoint, Event, HeldFilter, Inspect, InstanceFilter, InstanceKey, InstanceView, JournalView,
    Message, OperationFilter, OutboxFilter, OutboxView, Sends, Store, deadline, hours, saga, send, states,
};
use serde::{Deserialize, Serialize};
use tests::{
    Database, File, eventually,
    house::held,
    tool::{json, run},
};
use transports::InProcess;

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Ordered {
    id: u64,
    #[masked]
    card: String,
    reference: String,
}

/// Without cents the transition panics.
#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Priced {
    id: u64,
    cents: u64,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Checked {
    id: u64,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Shipped {
    id: u64,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Settled {
    reference: String,
}

/// Nobody handles it: it stays in the outbox.
#[derive(Debug, Command, Serialize, Deserialize)]
#[command(to = "nobank")]
struct Charge {
    id: u64,
    cents: u64,
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(name = "shop.Overdue")]
struct Overdue {}

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    id: u64,
    card: String,
    reference: String,
    cents: u64,
    lines: Vec<u64>,
}

#[states(data = Order, masked(card), fields(cents))]
enum Sale {
    Open,
    #[defers(Shipped)]
    Offered {
        floor: u64,
    },
    Ready,
    #[done]
    Sold,
    #[done]
    Lost,
}

#[saga(name = "sale", id = id: u64, alias(reference = Settled.reference))]
impl Sale {
    fn ordered(ordered: Ordered) -> (Order, Open, Deadline<Overdue>) {
        let Ordered { id, card, reference } = ordered;
        (Order { id, card, reference, cents: 0, lines: vec![1] }, Open, deadline(hours(1), Overdue {}))
    }

    fn priced(_: Open, it: Priced, order: &mut Order) -> (Offered, Sends<Charge>) {
        assert!(it.cents > 0, "nothing is free");
        order.cents = it.cents;
        order.lines.push(it.cents);
        (Offered { floor: 3 }, send(Charge { id: it.id, cents: it.cents }))
    }

    fn shipped(_: Open, _: Shipped) -> Sold {
        Sold
    }

    fn checked(_: Offered, _: Checked, order: &mut Order) -> Ready {
        order.card = "spent".into();
        Ready
    }

    fn settled(_: Ready, _: Settled) -> Sold {
        Sold
    }

    fn overdue(self, _: Overdue) -> Lost {
        Lost
    }
}

const CARD: &str = "4111-2222";

/// A shop at work, and what an operator reaches it by.
struct Shop<Db: Store> {
    endpoint: Endpoint<Db>,
    url: String,
}

impl<Db: Store + Inspect> Shop<Db> {
    async fn start(store: Db, url: String) -> Self {
        let builder = Endpoint::builder("shop", InProcess::new(), store).saga::<Sale>();
        let builder = builder.settings(|settings| settings.keep_messages = true);
        Self { endpoint: builder.start().await.expect("the shop starts"), url }
    }

    fn store(&self) -> &Db {
        self.endpoint.store()
    }

    async fn publish<E: Event>(&self, event: E) {
        let mut session = self.endpoint.session().await.expect("a session opens");
        session.publish(event);
        session.commit().await.expect("the session commits");
    }

    async fn order(&self, id: u64, reference: &str) {
        self.publish(Ordered { id, card: CARD.into(), reference: reference.into() }).await;
        self.reaches(id, "Open").await;
    }

    async fn instance(&self, id: u64) -> Option<InstanceView> {
        let found = self.store().instances(&InstanceFilter::default(), 100).await.ok()?;
        found.into_iter().find(|instance| instance.id == id.to_string())
    }

    async fn reaches(&self, id: u64, state: &str) -> InstanceView {
        eventually(&format!("sale {id} to be {state}"), || async {
            self.instance(id).await.filter(|instance| instance.state == state)
        })
        .await
    }

    async fn journal(&self, id: u64) -> Vec<JournalView> {
        let key = InstanceKey { saga: "sale".into(), id: id.to_string() };
        self.store().journal(&key, 100).await.expect("the journal is read")
    }

    async fn timers(&self) -> Vec<OutboxView> {
        let all = self.store().outbox(&OutboxFilter::default(), 100).await.expect("the outbox is read");
        all.into_iter().filter(|row| row.kind == "timer").collect()
    }

    fn tool(&self, arguments: &[&str]) -> (i32, String, String) {
        run(&[&self.url], arguments)
    }

    fn fork(&self, more: &[&str]) -> (i32, String, String) {
        self.tool(&[&["sagas", "fork", "sale"], more].concat())
    }

    /// Lets the timer of the only sale go off.
    async fn fire(&self) {
        let row = self.timers().await.pop().expect("a timer").id;
        assert_eq!(self.tool(&["timers", "fire", &row]).0, 0);
    }
}

/// The same on both databases.
macro_rules! on_both {
    ($($story:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $story() {
            let database = Database::create().await;
            let store = Postgres::new(&database.url()).expect("the address is a PostgreSQL URL");
            stories::$story(Shop::start(store, database.url()).await).await;
            let file = File::create();
            let url = format!("sqlite:{}", file.folder.join("shop.db").display());
            stories::$story(Shop::start(file.store("shop.db").await, url).await).await;
        }
    )* };
}

on_both! {
    a_done_instance_stands_again_at_a_middle_step_and_its_timer_goes_off_again
    a_paused_instance_goes_back_and_what_waits_for_it_is_offered
    a_step_that_is_not_kept_or_cannot_be_stood_at_is_refused
    each_step_tells_what_it_changed_and_what_is_masked_stays_so
    steps_are_kept_one_by_one_however_they_fall_into_batches
    a_timer_that_has_left_is_set_again
}

mod stories {
    use super::*;

    pub(super) async fn a_done_instance_stands_again_at_a_middle_step_and_its_timer_goes_off_again<
        Db: Store + Inspect,
    >(
        shop: Shop<Db>,
    ) {
        shop.order(1, "r-1").await;
        let due = shop.timers().await[0].due_at_us;
        shop.publish(Priced { id: 1, cents: 700 }).await;
        shop.reaches(1, "Offered").await;
        shop.publish(Checked { id: 1 }).await;
        shop.reaches(1, "Ready").await;
        shop.fire().await;
        let lost = shop.reaches(1, "Lost").await;
        assert_eq!((lost.seq, shop.timers().await.len()), (4, 0));

        let (code, out, err) = shop.fork(&["1", "--at", "2", "--dry-run"]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.starts_with("sale 1 would stand again where step 2 left it: Offered (seq 5)\n"), "{out}");
        assert!(out.contains("timers: 0 as they were, 1 set again, 0 deleted"), "{out}");
        assert_eq!(shop.instance(1).await.map(|it| (it.state, it.seq)), Some(("Lost".into(), 4)), "nothing was done");
        let (code, out, err) = shop.fork(&["1", "--at", "2", "--reason", "the check was wrong"]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.starts_with("sale 1 stands again where step 2 left it: Offered (seq 5)\n"), "{out}");
        assert!(!out.contains("stay sent"), "the command went with step 2: {out}");
        assert!(out.ends_with("give it what it needs: sagabus sagas send sale 1 TYPE …\n"), "{out}");
        let offered = shop.instance(1).await.expect("it is there");
        assert_eq!((offered.state.as_str(), offered.seq, offered.completed_at_us), ("Offered", 5, None));
        assert_eq!((&offered.data["data"]["card"], &offered.data["data"]["cents"]), (&CARD.into(), &700.into()));
        assert_eq!(offered.fields["cents"], "700");
        assert_eq!(offered.aliases["reference"], "r-1");
        let again = shop.timers().await;
        assert_eq!(again.len(), 1);
        assert!((again[0].due_at_us - due).abs() < 30_000_000, "due when it was: {} and {due}", again[0].due_at_us);
        let line = shop.journal(1).await.pop().expect("a line");
        assert_eq!((line.type_name.as_str(), line.seq, line.handled_by.as_str()), ("sagabus.Fork", Some(5), "ann"));
        assert_eq!((line.from_state.as_deref(), line.to_state.as_deref()), (Some("Lost"), Some("Offered")));
        assert_eq!(line.note.as_deref(), Some("forked to step 2 by ann: the check was wrong"));
        assert_eq!(line.after.expect("later forks go on from it").data, offered.data);

        // the running endpoint goes on with it, and the inbox knows the old timer's message, not the new one's
        let check = ["sagas", "send", "sale", "1", "shop.Checked", "--body", r#"{"id":1}"#];
        assert_eq!(shop.tool(&[&check[..], &["--reason", "checked again"]].concat()).0, 0);
        assert_eq!(shop.reaches(1, "Ready").await.seq, 6);
        shop.fire().await;
        assert_eq!(shop.reaches(1, "Lost").await.seq, 7);
        assert_eq!(shop.timers().await.len(), 0);

        // back to the fork itself, and on to another end by the alias
        let (code, out, _) = shop.tool(&["--json", "sagas", "fork", "SALE", "1", "--at", "5"]);
        let done = json(&out)["done"].clone();
        assert_eq!((code, &done["result"], &done["forked"]["seq"]), (0, &"forked".into(), &8.into()), "{out}");
        assert_eq!((&done["forked"]["timers_set"], &done["forked"]["state"]), (&1.into(), &"Offered".into()), "{out}");
        shop.publish(Checked { id: 1 }).await;
        shop.reaches(1, "Ready").await;
        shop.publish(Settled { reference: "r-1".into() }).await;
        assert_eq!(shop.reaches(1, "Sold").await.seq, 10);

        // back to the begin: what went out stays out, and the timer of then is there once
        let (code, out, _) = shop.fork(&["1", "--at", "1"]);
        assert!(code == 0 && out.contains("1 message that it sent after step 1 stays sent\n"), "{out}");
        let open = shop.instance(1).await.expect("it is there");
        assert_eq!((open.state.as_str(), open.fields["cents"].as_str()), ("Open", "0"));
        assert_eq!(shop.timers().await.len(), 1);
        let (code, out, _) = shop.fork(&["1", "--at", "4"]);
        assert!(code == 0 && out.contains("timers: 0 as they were, 0 set again, 1 deleted"), "{out}");
        let lost = shop.instance(1).await.expect("it is there");
        assert!(lost.state == "Lost" && lost.completed_at_us.is_some(), "done, as it was: {lost:?}");

        let operations = shop.store().operations(&OperationFilter::default(), 100).await.expect("they are read");
        let forks: Vec<_> = operations.iter().filter(|it| it.action == "saga fork").collect();
        let first = forks.last().expect("the first fork");
        assert_eq!((forks.len(), first.who.as_str(), first.reason.as_str()), (4, "ann", "the check was wrong"));
        let item = &first.items[0];
        assert_eq!((item.result.as_str(), item.saga_id.as_deref()), ("forked", Some("1")));
        shop.endpoint.stop().await.expect("an orderly end");
    }

    pub(super) async fn a_paused_instance_goes_back_and_what_waits_for_it_is_offered<Db: Store + Inspect>(
        shop: Shop<Db>,
    ) {
        shop.order(1, "r-1").await;
        shop.publish(Priced { id: 1, cents: 500 }).await;
        shop.reaches(1, "Offered").await;
        shop.publish(Shipped { id: 1 }).await; // deferred, and `Open` takes it
        eventually("it to be deferred", || async { held(shop.store()).await.pop() }).await;
        let timer = shop.timers().await[0].id.clone();
        let (code, out, err) = shop.fork(&["1", "--at", "1", "--reason", "the price was wrong"]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("timers: 1 as they were, 0 set again, 0 deleted"), "{out}");
        assert!(out.contains("1 waiting message: those that the state takes go on\n"), "{out}");
        assert!(out.contains("1 message that it sent after step 1 stays sent\n"), "{out}");
        let sold = shop.reaches(1, "Sold").await;
        assert_eq!((sold.seq, held(shop.store()).await.len()), (4, 0));
        assert!(shop.timers().await.iter().all(|row| row.id != timer), "its saga is done");

        shop.order(2, "r-2").await;
        shop.publish(Priced { id: 2, cents: 500 }).await;
        shop.reaches(2, "Offered").await;
        shop.publish(Checked { id: 2 }).await;
        shop.reaches(2, "Ready").await;
        assert_eq!(shop.fork(&["2", "--at", "1"]).0, 0);
        shop.publish(Priced { id: 2, cents: 0 }).await;
        eventually("it to be paused", || async { shop.instance(2).await?.paused_by }).await;
        shop.publish(Priced { id: 2, cents: 900 }).await;
        eventually("another to wait behind it", || async {
            held(shop.store()).await.iter().any(|held| held.reason == "paused").then_some(())
        })
        .await;
        // the failed message stays held, and what waits behind it goes on from where the instance stands now
        let (code, out, err) = shop.fork(&["2", "--at", "3"]);
        assert!(code == 0 && out.contains("Ready (seq 5)"), "{out}{err}");
        assert_eq!(shop.instance(2).await.and_then(|it| it.paused_by), None);
        eventually("what waited to be judged", || async {
            let held = shop.store().held(&HeldFilter::default(), 10).await.ok()?;
            (held.len() == 1 && held[0].reason == "failed").then_some(())
        })
        .await;
        shop.endpoint.stop().await.expect("an orderly end");
    }

    pub(super) async fn a_step_that_is_not_kept_or_cannot_be_stood_at_is_refused<Db: Store + Inspect>(shop: Shop<Db>) {
        shop.order(1, "r-1").await;
        shop.publish(Priced { id: 1, cents: 700 }).await;
        shop.reaches(1, "Offered").await;
        shop.publish(Checked { id: 1 }).await;
        shop.reaches(1, "Ready").await;
        let refused = |id: &str, at: &str, text: &str, code: &str| {
            for more in [&[][..], &["--dry-run"]] {
                let (exit, out, err) = shop.fork(&[&[id, "--at", at], more].concat());
                assert!(exit == 1 && out.is_empty() && err.contains(text) && err.contains(code), "{at}: {out}{err}");
            }
        };
        refused("1", "9", "sale 1 has no step 9: its steps are 1 to 3", "[SB0073]");
        refused("1", "0", "has no step 0", "[SB0073]");
        refused("1", "3", "sale 1 stands where step 3 left it", "[SB0080]");
        refused("7", "3", "there is no instance 7", "[SB0073]");
        assert_eq!(shop.fork(&["1"]).0, 2, "which step?");
        // another instance has its alias by now
        assert_eq!(shop.tool(&["sagas", "cancel", "sale", "1", "--reason", "by phone"]).0, 0);
        shop.order(2, "r-1").await;
        refused("1", "2", "sale 2 has the alias sale by reference `r-1` by now", "[SB0080]");
        refused("1", "4", "stands where step 4 left it", "[SB0080]");
        assert_eq!(shop.tool(&["sagas", "cancel", "sale", "2", "--reason", "by phone"]).0, 0);
        let (code, out, err) = shop.fork(&["1", "--at", "2"]);
        assert!(code == 0 && out.contains("1 set again"), "cancelled, it lives again: {out}{err}");
        refused("1", "4", "none of a cancellation", "[SB0080]");
        // the timer of the begin cannot be set again when the journal has lost it
        assert_eq!(shop.tool(&["sagas", "cancel", "sale", "1", "--reason", "by phone"]).0, 0);
        change(&shop.url, "inbox", "message = NULL WHERE saga_id = '1' AND seq = 1").await;
        refused("1", "2", "cannot be set again: the journal has no copy of step 1", "[SB0080]");
        refused("1", "1", "keep_messages", "[SB0080]");
        change(&shop.url, "inbox", "seq = NULL WHERE saga_id = '1' AND seq = 1").await;
        refused("1", "1", "the line of step 1 of sale 1 is gone", "[SB0080]");
        shop.endpoint.stop().await.expect("an orderly end");
    }

    pub(super) async fn each_step_tells_what_it_changed_and_what_is_masked_stays_so<Db: Store + Inspect>(
        shop: Shop<Db>,
    ) {
        shop.order(1, "r-1").await;
        shop.publish(Priced { id: 1, cents: 700 }).await;
        shop.reaches(1, "Offered").await;
        shop.publish(Checked { id: 1 }).await;
        shop.reaches(1, "Ready").await;
        let (code, page, err) = shop.tool(&["sagas", "show", "sale", "1"]);
        assert_eq!((code, err.as_str()), (0, ""), "{page}");
        assert!(page.contains("step 1; data.card: added \"•••\"; data.cents: added 0; data.id: added 1"), "{page}");
        assert!(page.contains("step 2; data.cents: 0 → 700; data.lines[1]: added 700; state.floor: added 3"), "{page}");
        assert!(page.contains("step 3") && !page.contains("spent"), "the card is masked: {page}");
        let (_, page, _) = shop.tool(&["--unmasked", "sagas", "show", "sale", "1"]);
        assert!(page.contains("data.card: \"4111-2222\" → \"spent\""), "{page}");
        let (_, out, _) = shop.tool(&["--json", "sagas", "show", "sale", "1"]);
        let journal = json(&out)["journal"].clone();
        assert_eq!(journal[1]["after"]["data"]["data"]["cents"], 700, "{journal}");
        assert_eq!(journal[1]["after"]["data"]["data"]["card"], "•••", "{journal}");
        assert_eq!((&journal[1]["after"]["done"], &journal[1]["after"]["version"]), (&false.into(), &1.into()));
        assert!(!out.contains(CARD) && !out.contains("progress") && journal[0]["message"]["timers"].is_null(), "{out}");
        let (_, out, _) = shop.tool(&["--unmasked", "export", "sale"]);
        assert!(out.contains("\"body\"") && !out.contains("\"after\""), "a replay needs the messages alone: {out}");
        shop.endpoint.stop().await.expect("an orderly end");
    }

    pub(super) async fn steps_are_kept_one_by_one_however_they_fall_into_batches<Db: Store + Inspect>(shop: Shop<Db>) {
        let mut session = shop.endpoint.session().await.expect("a session opens");
        for id in 0..20 {
            session.publish(Ordered { id, card: CARD.into(), reference: format!("r-{id}") });
            session.publish(Priced { id, cents: 100 + id });
            session.publish(Checked { id });
        }
        session.commit().await.expect("the session commits");
        for id in 0..20 {
            shop.reaches(id, "Ready").await;
            let journal = shop.journal(id).await;
            let cents: Vec<_> = journal
                .iter()
                .filter_map(|line| line.after.as_ref())
                .map(|after| after.data["data"]["cents"].as_u64().expect("a number"))
                .collect();
            assert_eq!(cents, [0, 100 + id, 100 + id], "sale {id}");
        }
        // a timer of the batch that is gone is known as well
        let key = shop.timers().await.into_iter().find(|row| row.saga_id.as_deref() == Some("7")).expect("its timer");
        assert_eq!(shop.tool(&["timers", "cancel", &key.id, "--reason", "by mistake"]).0, 0);
        let (code, out, err) = shop.fork(&["7", "--at", "2"]);
        assert!(code == 0 && out.contains("1 set again"), "{out}{err}");
        shop.endpoint.stop().await.expect("an orderly end");
    }

    /// Its row stands there until the confirmed ones are deleted, and the inbox knows its message: were it taken for
    /// one that will come, the instance would wait for ever.
    pub(super) async fn a_timer_that_has_left_is_set_again<Db: Store + Inspect>(shop: Shop<Db>) {
        shop.order(1, "r-1").await;
        let old = shop.timers().await.remove(0);
        shop.publish(Priced { id: 1, cents: 700 }).await;
        shop.reaches(1, "Offered").await;
        change(&shop.url, "outbox", "first_attempt_at = created_at WHERE kind = 'timer'").await;
        let (code, out, err) = shop.fork(&["1", "--at", "1"]);
        assert!(code == 0 && out.contains("timers: 0 as they were, 1 set again"), "{out}{err}");
        let timers = shop.timers().await;
        assert!(timers.len() == 1 && timers[0].id != old.id, "a new message was expected: {timers:?}");
        shop.endpoint.stop().await.expect("an orderly end");
    }

    async fn change(url: &str, table: &str, what: &str) {
        use sqlx::{Connection, Executor};
        let set = |prefix: &str| format!("UPDATE {prefix}{table} SET {what}");
        match url.strip_prefix("sqlite:") {
            Some(path) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let mut connection = sqlx::SqliteConnection::connect_with(&options).await.expect("the file opens");
                connection.execute(&*set("sagabus_")).await.expect("it is written");
            }
            None => {
                let mut connection = sqlx::PgConnection::connect(url).await.expect("the server answers");
                connection.execute(&*set("sagabus.")).await.expect("it is written");
            }
        }
    }
}
