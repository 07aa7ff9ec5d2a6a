//! What a simulation finds when the machine itself is broken.

use super::*;
use crate::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Placed {
    id: u64,
}
#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = Paid)]
struct Pay {
    id: u64,
}
#[derive(Reply, Serialize, Deserialize)]
struct Done {
    id: u64,
}
#[derive(Outcome)]
enum Paid {
    Done(Done),
}

#[states]
enum Order {
    #[waits]
    Waiting,
    #[done]
    Over,
}

#[saga(name = "order", id = id: u64)]
impl Order {
    fn placed(placed: Placed) -> (Waiting, Sends<Pay>) {
        (Waiting, send(Pay { id: placed.id }))
    }
    fn paid(_: Waiting, _: Done) -> Over {
        Over
    }
}

struct Bank;

#[handlers]
impl Bank {
    async fn pay(&self, pay: Pay, cx: &mut Context<'_, MemoryStore>) -> Result<Paid, HandlerError> {
        cx.tx().await?.insert("charges", pay.id)?;
        Ok(Done { id: pay.id }.into())
    }
}

fn orders(sabotage: Option<Sabotage>) -> Simulation {
    let mut orders = Simulation::of("shop", |it| it.saga::<Order>())
        .and("bank", |it| it.handlers(Bank))
        .story(|world| async move {
            for id in 0..3 {
                world.publish(Placed { id }).await;
            }
        })
        .in_the_end("all are paid", |world| world.instances("order").iter().filter(|it| it.row.done).count() == 3)
        .in_the_end("once", |world| world.rows::<u64>("bank", "charges").len() == 3)
        .seeds(300);
    orders.sabotage = sabotage;
    orders
}

#[test]
fn a_sound_machine_passes() {
    orders(None).seeds(200).run().expect_no_failure();
}

#[test]
fn an_inbox_that_forgets_is_found() {
    let simulated = orders(Some(Sabotage::InboxForgets)).run();
    let failure = simulated.failures().first().expect("no seed finds it");
    assert!(failure.wrong.contains(&"not so in the end: once".to_owned()), "{failure}");
}

#[test]
fn an_acknowledgement_before_the_commit_is_found() {
    let simulated = orders(Some(Sabotage::AcksFirst)).run();
    let failure = simulated.failures().first().expect("no seed finds it");
    assert!(failure.wrong.contains(&"not so in the end: all are paid".to_owned()), "{failure}");
    let told = ["dies at", "fails", "the outcome of a commit is unknown"];
    assert!(told.iter().any(|fault| failure.diagram.contains(fault)), "{failure}");
}

#[test]
fn what_cannot_start_is_a_failure_and_not_a_wait() {
    let simulated = Simulation::of("shop", |it| it.handlers(Bank)).seeds(1).run();
    let failure = simulated.failures().first().expect("`bank.Pay` goes elsewhere");
    assert!(failure.wrong[0].contains("endpoint `shop`: the endpoint cannot start"), "{failure}");
}

#[test]
fn an_endpoint_that_was_forgotten_is_named_and_not_waited_for() {
    let story = Simulation::of("shop", |it| it.saga::<Order>()).story(|world| async move {
        world.publish(Placed { id: 1 }).await;
    });
    let simulated = story.seeds(1).run();
    let failure = simulated.failures().first().expect("nobody handles `bank.Pay`");
    let expected = "`bank.Pay` goes to the endpoint `bank`, which is not here: add it with `.and(\"bank\", ..)`";
    assert!(failure.wrong.contains(&expected.to_owned()), "{failure}");
}

#[test]
fn a_story_that_panics_is_a_failure() {
    let simulated = Simulation::of("shop", |it| it).story(|_| async { panic!("as planted") }).seeds(1).run();
    assert_eq!(simulated.failures()[0].wrong, ["it panicked: as planted"]);
}
