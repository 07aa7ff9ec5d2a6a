//! Restaurant, payment and courier, simulated: what they do depends on the order's id, so that every run is alike.

use crate::{messages::*, tables::Tables};
use sagabus::{endpoint::EndpointBuilder, port::Transport, prelude::*};
use std::time::Duration;
use uuid::Uuid;

/// A die for each order and question, from 0 to 99.
fn die(order_id: Uuid, question: u8) -> u8 {
    let sum = order_id.as_bytes().iter().fold(u64::from(question), |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
    (sum % 100) as u8
}

fn endpoint<Db: Tables>(name: &str, transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    // how long messages of a process that was killed wait for the next one
    Endpoint::builder(name, transport, store).settings(|settings| settings.lease = Duration::from_secs(3))
}

/// Orders: the saga, in the version that `S` is.
pub(crate) fn food<S: Saga, Db: Tables>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    endpoint("food", transport, store).saga::<S>()
}

pub(crate) fn restaurant<Db: Tables>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    endpoint("restaurant", transport, store).handlers(Restaurant)
}

struct Restaurant;

#[handlers]
impl Restaurant {
    /// Some look at the second question only, some never.
    async fn ask<Db: Tables>(&self, ask: AskRestaurant, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        let order_id = ask.order_id;
        let asked = Db::ask(cx.tx().await?, order_id).await?;
        match die(order_id, 1) {
            0..5 => {}
            5..10 => drop(cx.publish(RestaurantDeclined { order_id, reason: "the oven is broken".into() })),
            10..30 if asked < 2 => {}
            _ => drop(cx.publish(RestaurantAgreed { order_id })),
        }
        Ok(())
    }

    async fn prepare<Db: Tables>(
        &self,
        food: PrepareFood,
        _: &mut Context<'_, Db>,
    ) -> Result<PreparationOutcome, HandlerError> {
        Ok(FoodReady { order_id: food.order_id }.into())
    }
}

pub(crate) fn payment<Db: Tables>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    endpoint("payment", transport, store).handlers(Payment)
}

struct Payment;

#[handlers]
impl Payment {
    async fn pay<Db: Tables>(
        &self,
        pay: MakePayment,
        cx: &mut Context<'_, Db>,
    ) -> Result<PaymentOutcome, HandlerError> {
        let order_id = pay.order_id;
        if die(order_id, 2) < 5 {
            return Ok(PaymentDeclined { order_id }.into());
        }
        let payment_id = Uuid::now_v7();
        Db::charge(cx.tx().await?, order_id, pay.cents).await?;
        Ok(PaymentMade { order_id, payment_id }.into())
    }

    async fn refund<Db: Tables>(
        &self,
        refund: RefundPayment,
        cx: &mut Context<'_, Db>,
    ) -> Result<RefundOutcome, HandlerError> {
        Db::refund(cx.tx().await?, refund.order_id).await?;
        Ok(PaymentRefunded { order_id: refund.order_id }.into())
    }
}

pub(crate) fn courier<Db: Tables>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    endpoint("courier", transport, store).handlers(Courier)
}

struct Courier;

#[handlers]
impl Courier {
    async fn find<Db: Tables>(
        &self,
        find: FindCourier,
        cx: &mut Context<'_, Db>,
    ) -> Result<CourierOutcome, HandlerError> {
        let order_id = find.order_id;
        if die(order_id, 3) < 5 {
            return Ok(NoCourierFree { order_id }.into());
        }
        Db::assign(cx.tx().await?, order_id).await?;
        Ok(CourierAssigned { order_id, courier: "Kim".into() }.into())
    }

    async fn release<Db: Tables>(&self, it: ReleaseCourier, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        Ok(Db::free(cx.tx().await?, it.order_id).await?)
    }

    async fn deliver<Db: Tables>(
        &self,
        deliver: Deliver,
        cx: &mut Context<'_, Db>,
    ) -> Result<DeliveryOutcome, HandlerError> {
        Db::deliver(cx.tx().await?, deliver.order_id).await?;
        Ok(FoodDelivered { order_id: deliver.order_id }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{saga, saga_v2};
    use sagabus::{InProcess, Postgres, endpoint::Wiring};

    /// Orders and cancellations come from the shop, in a session; the restaurant answers by events.
    #[tokio::test]
    async fn everything_that_is_sent_is_taken_and_the_other_way_round() {
        let store = || Postgres::new("postgres://nobody@nowhere/nothing").expect("nobody is asked yet");
        let bus = InProcess::new;
        let one = food::<saga::FoodOrder, _>(bus(), store()).wiring();
        let two = food::<saga_v2::FoodOrder, _>(bus(), store()).wiring();
        let restaurant = restaurant(bus(), store()).wiring();
        let restaurant = restaurant.sends::<RestaurantAgreed>().sends::<RestaurantDeclined>();
        let (payment, courier) = (payment(bus(), store()).wiring(), courier(bus(), store()).wiring());
        for food in [one, two] {
            let food = food.sends::<OrderPlaced>().sends::<CancelRequested>();
            assert_eq!(Wiring::verify([&food, &restaurant, &payment, &courier]), [] as [String; 0]);
        }
    }
}
