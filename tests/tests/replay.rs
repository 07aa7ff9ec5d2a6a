//! Journals that endpoints kept, exported and run through today's code.

use saga_core::{
    After, Command, Context, Endpoint, EndpointBuilder, Event, Handle, HandlerError, Inspect, InstanceFilter, Message,
    Outcome, Reply, Sends, Store, Transport, after, async_trait, hours, saga, send, states,
    testing::{Difference, replay},
};
use serde::{Deserialize, Serialize};
use std::{fs, path::PathBuf};
use tests::{endpoint_suite, eventually, model::Effects};

#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Placed {
    id: u64,
}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = PayOutcome)]
struct Pay {
    id: u64,
}

#[derive(Outcome)]
enum PayOutcome {
    Paid(Paid),
    Declined(Declined),
}

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "bank")]
struct Paid {
    id: u64,
}

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "bank")]
struct Declined {
    id: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.Overdue")]
struct Overdue {}

/// The code as it ran.
mod then {
    use super::*;

    #[states]
    pub(crate) enum Order {
        Waiting,
        #[done]
        Sold,
        #[done]
        Lost,
    }

    #[saga(name = "order", id = id: u64)]
    impl Order {
        fn placed(placed: Placed) -> (Waiting, Sends<Pay>, After<Overdue>) {
            (Waiting, send(Pay { id: placed.id }), after(hours(1), Overdue {}))
        }
        fn paid(_: Waiting, _: Paid) -> Sold {
            Sold
        }
        fn declined(_: Waiting, _: Declined) -> Lost {
            Lost
        }
        fn overdue(_: Waiting, _: Overdue) -> Lost {
            Lost
        }
    }
}

/// Today's code: one state has another name, and who has no money is asked once more.
mod today {
    use super::*;

    #[states]
    pub(crate) enum Order {
        #[was("Waiting")]
        AwaitingPayment,
        #[done]
        Sold,
        #[done]
        Lost,
    }

    #[saga(name = "order", id = id: u64)]
    impl Order {
        fn placed(placed: Placed) -> (AwaitingPayment, Sends<Pay>, After<Overdue>) {
            (AwaitingPayment, send(Pay { id: placed.id }), after(hours(1), Overdue {}))
        }
        fn paid(_: AwaitingPayment, _: Paid) -> Sold {
            Sold
        }
        fn declined(_: AwaitingPayment, declined: Declined) -> (AwaitingPayment, Sends<Pay>) {
            (AwaitingPayment, send(Pay { id: declined.id }))
        }
        fn overdue(_: AwaitingPayment, _: Overdue) -> Lost {
            Lost
        }
    }
}

/// Odd orders have no money.
struct Bank;

#[async_trait]
impl<Db: Store> Handle<Pay, Db> for Bank {
    async fn handle(&self, pay: Pay, _: &mut Context<'_, Db>) -> Result<PayOutcome, HandlerError> {
        let id = pay.id;
        Ok(if id % 2 == 1 { Declined { id }.into() } else { Paid { id }.into() })
    }
}

const ORDERS: u64 = 6;

fn shop<Db: Store>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    Endpoint::builder("shop", transport, store).saga::<then::Order>()
}

/// Runs orders to their end, and exports them to a file.
async fn exported<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    [orders, bank, _]: [Db; 3],
    keep: bool,
) -> PathBuf {
    let bank = Endpoint::builder("bank", transport.clone(), bank).handle::<Pay>(Bank).start().await.unwrap();
    let shop = shop(transport, orders).settings(|settings| settings.keep_messages = keep).start().await.unwrap();
    let mut session = shop.session().await.unwrap();
    for id in 0..ORDERS {
        session.publish(Placed { id });
    }
    session.commit().await.unwrap();
    let done = |open| InstanceFilter { saga: Some("order".into()), open, ..InstanceFilter::default() };
    eventually("all orders to be done", || async {
        let all = shop.store().instances_count(&done(false)).await.ok()?;
        let open = shop.store().instances_count(&done(true)).await.ok()?;
        (all == ORDERS && open == 0).then_some(())
    })
    .await;
    let mut lines = String::new();
    for instance in shop.store().instances(&done(false), 100).await.unwrap() {
        let exported = shop.store().export(instance, 100).await.unwrap();
        lines += &serde_json::to_string(&exported).unwrap();
        lines.push('\n');
    }
    shop.stop().await.unwrap();
    bank.stop().await.unwrap();
    let file = std::env::temp_dir().join(format!("sagabus-{}.jsonl", uuid::Uuid::now_v7()));
    fs::write(&file, lines).unwrap();
    file
}

async fn what_changed_goes_otherwise_and_the_rest_does_not<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let file = exported(transport, stores, true).await;
    let same = replay::<then::Order>(&file);
    same.expect_no_difference();
    assert_eq!((same.instances(), same.messages()), (6, 12));
    let changed = replay::<today::Order>(&file);
    let mut differences: Vec<Difference> = changed.differences().to_vec();
    differences.sort_by(|a, b| a.id.cmp(&b.id));
    let ids: Vec<&str> = differences.iter().map(|difference| difference.id.as_str()).collect();
    assert_eq!(ids, ["1", "3", "5"], "orders without money");
    let first = "instance 1, message 2, `bank.Declined`:\n  then:  AwaitingPayment -> Lost, sends nothing\n  today: \
                 AwaitingPayment -> AwaitingPayment, sends bank.Pay";
    assert_eq!(differences[0].to_string(), first);
    let panic = std::panic::catch_unwind(|| changed.expect_no_difference()).expect_err("it differs");
    assert!(panic.downcast_ref::<String>().is_some_and(|said| said.contains("today's code goes another way")));
    fs::remove_file(file).unwrap();
}

async fn without_messages_nothing_is_followed_and_the_reason_is_told<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let file = exported(transport, stores, false).await;
    let replayed = replay::<then::Order>(&file);
    assert_eq!((replayed.instances(), replayed.skipped().len()), (0, 6));
    assert!(replayed.skipped()[0].1.contains("set `keep_messages`"), "{replayed:?}");
    let panic = std::panic::catch_unwind(|| replayed.expect_no_difference()).expect_err("nothing was compared");
    assert!(panic.downcast_ref::<String>().is_some_and(|said| said.contains("no instance was followed")));
    fs::remove_file(file).unwrap();
}

endpoint_suite! {
    what_changed_goes_otherwise_and_the_rest_does_not
    without_messages_nothing_is_followed_and_the_reason_is_told
}

/// The program writes such files.
#[tokio::test(flavor = "multi_thread")]
async fn sagabus_export_writes_what_replay_reads() {
    let folder = std::env::temp_dir().join(format!("sagabus-{}", uuid::Uuid::now_v7()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("shop.db");
    let orders = outbox::Sqlite::open(&path).await.unwrap();
    let bank = outbox::Sqlite::open(folder.join("bank.db")).await.unwrap();
    let bus = transports::InProcess::new();
    let bank = Endpoint::builder("bank", bus.clone(), bank).handle::<Pay>(Bank).start().await.unwrap();
    let shop = shop(bus, orders).settings(|settings| settings.keep_messages = true).start().await.unwrap();
    let mut session = shop.session().await.unwrap();
    session.publish(Placed { id: 2 });
    session.commit().await.unwrap();
    eventually("the order to be sold", || async {
        let found = shop.store().instances(&InstanceFilter::default(), 10).await.ok()?;
        found.iter().any(|order| order.state == "Sold").then_some(())
    })
    .await;
    shop.stop().await.unwrap();
    bank.stop().await.unwrap();
    let url = format!("sqlite:{}", path.display());
    let file = folder.join("orders.jsonl");
    let export = || {
        let (code, out, err) = tests::tool::run(&[&url], &["export", "ORDER"]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        fs::write(&file, out).unwrap();
        replay::<then::Order>(&file)
    };
    let replayed = export();
    replayed.expect_no_difference();
    assert_eq!((replayed.instances(), replayed.messages()), (1, 2));
    // from a fork on a person has decided: it is followed up to there
    let (code, out, err) = tests::tool::run(&[&url], &["sagas", "fork", "order", "2", "--at", "1"]);
    assert!(code == 0 && out.contains("Waiting (seq 3)"), "{out}{err}");
    let replayed = export();
    replayed.expect_no_difference();
    assert_eq!((replayed.instances(), replayed.messages(), replayed.skipped().len()), (1, 2, 0));
    fs::remove_dir_all(folder).unwrap();
}
