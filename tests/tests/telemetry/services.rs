//! Three services: a shop with a saga and a timer, a bank that fails first, a mail that listens.

use async_trait::async_trait;
use saga_core::{
    After, Command, Context, Endpoint, EndpointBuilder, Event, Handle, HandlerError, Inspect, Message, Outcome,
    Publishes, Reply, Retries, Sends, Store, Transport, after, publish, saga, send, states,
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::eventually;

#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
pub(crate) struct Placed {
    pub(crate) id: u64,
}

#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Reminder {}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = PayOutcome)]
pub(crate) struct Pay {
    pub(crate) id: u64,
}

#[derive(Outcome)]
pub(crate) enum PayOutcome {
    Paid(Paid),
}

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "bank")]
pub(crate) struct Paid {
    id: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
pub(crate) struct Shipped {
    id: u64,
}

#[states]
pub(crate) enum Order {
    Pausing {
        id: u64,
    },
    #[waits]
    Paying {
        id: u64,
    },
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Order {
    fn placed(placed: Placed) -> (Pausing, After<Reminder>) {
        (Pausing { id: placed.id }, after(Duration::from_millis(50), Reminder {}))
    }

    fn reminded(order: Pausing, _: Reminder) -> (Paying, Sends<Pay>) {
        (Paying { id: order.id }, send(Pay { id: order.id }))
    }

    fn paid(order: Paying, _: Paid) -> (Done, Publishes<Shipped>) {
        (Done, publish(Shipped { id: order.id }))
    }
}

/// Fails each command once, and the `POISON` until it is repaired.
#[derive(Clone, Default)]
pub(crate) struct Bank {
    runs: Arc<AtomicUsize>,
    pub(crate) repaired: Arc<AtomicBool>,
}

/// A command that fails for good.
pub(crate) const POISON: u64 = 13;

#[async_trait]
impl<Db: Store> Handle<Pay, Db> for Bank {
    async fn handle(&self, pay: Pay, cx: &mut Context<'_, Db>) -> Result<PayOutcome, HandlerError> {
        cx.tx().await?;
        if pay.id == POISON && !self.repaired.load(Ordering::SeqCst) {
            return Err(HandlerError::permanent("no such account"));
        }
        if pay.id != POISON && self.runs.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(HandlerError::transient("the line is busy"));
        }
        Ok(Paid { id: pay.id }.into())
    }
}

#[derive(Clone, Default)]
pub(crate) struct Mail(Arc<Mutex<Vec<u64>>>);

#[async_trait]
impl<Db: Store> Handle<Shipped, Db> for Mail {
    async fn handle(&self, shipped: Shipped, _: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        self.0.lock().expect("nobody panics with this lock").push(shipped.id);
        Ok(())
    }
}

pub(crate) struct Services<Db: Store> {
    pub(crate) shop: Endpoint<Db>,
    pub(crate) bank: Endpoint<Db>,
    pub(crate) mail: Endpoint<Db>,
    pub(crate) banking: Bank,
    mailed: Mail,
}

impl<Db: Store + Inspect> Services<Db> {
    pub(crate) async fn start<T: Transport + Clone>(
        transport: T,
        [shop, bank, mail]: [Db; 3],
        change: impl Fn(EndpointBuilder<Db>) -> EndpointBuilder<Db>,
    ) -> Self {
        let (banking, mailed) = (Bank::default(), Mail::default());
        let builder = |name: &str, store| change(Endpoint::builder(name, transport.clone(), store));
        let mail = builder("mail", mail).subscribe::<Shipped>(mailed.clone()).start().await.expect("mail starts");
        let retries = Retries::none().delayed([Duration::from_millis(50)]);
        let bank = builder("bank", bank).handle::<Pay>(banking.clone()).retries(retries);
        let bank = bank.start().await.expect("the bank starts");
        let shop = builder("shop", shop).saga::<Order>().start().await.expect("the shop starts");
        Self { shop, bank, mail, banking, mailed }
    }

    pub(crate) async fn place(&self, id: u64) {
        let mut session = self.shop.session().await.expect("a session opens");
        session.publish(Placed { id });
        session.commit().await.expect("the session commits");
    }

    /// Waits until the mail says that an order is shipped.
    pub(crate) async fn shipped(&self, id: u64) {
        let shipped = || self.mailed.0.lock().expect("nobody panics with this lock").contains(&id);
        eventually("the order to be shipped", || async { shipped().then_some(()) }).await;
    }

    pub(crate) async fn stop(self) {
        for endpoint in [self.shop, self.bank, self.mail] {
            endpoint.stop().await.expect("an orderly end");
        }
    }
}
