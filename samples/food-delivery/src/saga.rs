//! The process of a food order. The restaurant is asked a number of times, at intervals, and not for ever; then comes
//! the payment; then preparation and courier side by side. It can be cancelled until the courier rides; money and
//! courier go back.

use crate::messages::*;
use sagabus::prelude::*;
use uuid::Uuid;

/// Every state knows the order as it was placed.
#[rustfmt::skip] // a state a line
#[states(data = OrderPlaced)]
pub(crate) enum FoodOrder {
    AskingRestaurant { asks: u32 },
    AwaitingPayment,
    #[waits] // for kitchen and courier, which always answer
    Preparing { payment_id: Uuid, food_ready: bool, courier: bool },
    #[waits] Delivering,
    #[waits]
    #[ignores(FoodReady, NoCourierFree)]
    Refunding { reason: String, payment_id: Uuid, freed: bool },
    #[done] Delivered,
    // the refunded payment, and whether the courier is free again: what is said of them once more changes nothing
    #[done]
    #[ignores(PaymentDeclined, FoodReady, NoCourierFree)] // what was under way
    Cancelled { reason: String, refunded: Option<Uuid>, freed: bool },
}

type Asks = (AskingRestaurant, Sends<AskRestaurant>, After<Again>);
type Pays = (AwaitingPayment, Sends<MakePayment>, After<PaymentOverdue>);
type Prepares = (Preparing, Sends<PrepareFood>, Sends<FindCourier>);
type Join = Either<Preparing, (Delivering, Sends<Deliver>)>;
type Refunds = (Refunding, Sends<RefundPayment>, Option<Sends<ReleaseCourier>>);

#[saga(name = "food-order", id = order_id: Uuid)]
impl FoodOrder {
    fn placed(
        order: OrderPlaced,
    ) -> (OrderPlaced, AskingRestaurant, Sends<AskRestaurant>, After<Again>, After<Silent>) {
        let (asking, question, again) = ask(&order, 1);
        let silent = after(order.patience.in_all, Silent {});
        (order, asking, question, again, silent)
    }
    fn ask_again(asking: AskingRestaurant, _: Again, order: &OrderPlaced) -> Either<Asks, Cancelled> {
        match asking.asks {
            asks if asks < order.patience.asks_max => Either::A(ask(order, asks + 1)), // `Silent` keeps running
            _ => Either::B(cancelled("the restaurant does not answer")),
        }
    }
    fn silent(_: AskingRestaurant, _: Silent) -> Cancelled {
        cancelled("the restaurant was asked long enough")
    }
    fn declined(_: AskingRestaurant, declined: RestaurantDeclined) -> Cancelled {
        cancelled(&declined.reason)
    }

    fn agreed(_: AskingRestaurant, _: RestaurantAgreed, order: &OrderPlaced) -> Pays {
        let pay = send(MakePayment { order_id: order.order_id, cents: order.cents });
        (AwaitingPayment, pay, after(order.patience.payment, PaymentOverdue {}))
    }
    fn not_paid(_: AwaitingPayment, _: PaymentDeclined) -> Cancelled {
        cancelled("the payment was declined")
    }
    fn overdue(_: AwaitingPayment, _: PaymentOverdue) -> Cancelled {
        cancelled("the payment took too long")
    }

    fn paid(_: AwaitingPayment, paid: PaymentMade, order: &OrderPlaced) -> Prepares {
        let PaymentMade { order_id, payment_id } = paid;
        let preparing = Preparing { payment_id, food_ready: false, courier: false };
        (preparing, send(PrepareFood { order_id, dish: order.dish.clone() }), send(FindCourier { order_id }))
    }
    fn food_ready(preparing: Preparing, _: FoodReady, order: &OrderPlaced) -> Join {
        join(order, Preparing { food_ready: true, ..preparing })
    }
    fn courier_found(preparing: Preparing, _: CourierAssigned, order: &OrderPlaced) -> Join {
        join(order, Preparing { courier: true, ..preparing })
    }
    fn no_courier(preparing: Preparing, _: NoCourierFree, order: &OrderPlaced) -> Refunds {
        refund(order, &preparing, "no courier is free")
    }
    fn delivered(_: Delivering, _: FoodDelivered) -> Delivered {
        Delivered
    }

    fn cancel_asking(_: AskingRestaurant, _: CancelRequested) -> Cancelled {
        cancelled("as requested")
    }
    fn cancel_unpaid(_: AwaitingPayment, _: CancelRequested) -> Cancelled {
        cancelled("as requested")
    }
    fn cancel_preparing(preparing: Preparing, _: CancelRequested, order: &OrderPlaced) -> Refunds {
        refund(order, &preparing, "as requested")
    }
    fn refunded(it: Refunding, _: PaymentRefunded) -> Cancelled {
        Cancelled { reason: it.reason, refunded: Some(it.payment_id), freed: it.freed }
    }
    // what was under way when it was cancelled goes back, once
    fn paid_late(it: Cancelled, paid: PaymentMade) -> Either<Cancelled, (Refunding, Sends<RefundPayment>)> {
        let PaymentMade { order_id, payment_id } = paid;
        if it.refunded == Some(payment_id) {
            return Either::A(it);
        }
        let refunding = Refunding { reason: it.reason, payment_id, freed: it.freed };
        Either::B((refunding, send(RefundPayment { order_id, payment_id })))
    }
    fn found_late(it: Refunding, found: CourierAssigned) -> (Refunding, Option<Sends<ReleaseCourier>>) {
        let release = (!it.freed).then(|| send(ReleaseCourier { order_id: found.order_id }));
        (Refunding { freed: true, ..it }, release)
    }
    fn found_later(it: Cancelled, found: CourierAssigned) -> (Cancelled, Option<Sends<ReleaseCourier>>) {
        let release = (!it.freed).then(|| send(ReleaseCourier { order_id: found.order_id }));
        (Cancelled { freed: true, ..it }, release)
    }
}

fn ask(order: &OrderPlaced, asks: u32) -> Asks {
    let ask = send(AskRestaurant { order_id: order.order_id, dish: order.dish.clone() });
    (AskingRestaurant { asks }, ask, after(order.patience.interval, Again {}))
}
fn join(order: &OrderPlaced, preparing: Preparing) -> Join {
    if !(preparing.food_ready && preparing.courier) {
        return Either::A(preparing);
    }
    let deliver = Deliver { order_id: order.order_id, address: order.address.clone() };
    Either::B((Delivering, send(deliver)))
}
fn refund(order: &OrderPlaced, preparing: &Preparing, reason: &str) -> Refunds {
    let (order_id, payment_id, freed) = (order.order_id, preparing.payment_id, preparing.courier);
    let courier = freed.then(|| send(ReleaseCourier { order_id }));
    (Refunding { reason: reason.into(), payment_id, freed }, send(RefundPayment { order_id, payment_id }), courier)
}
fn cancelled(reason: &str) -> Cancelled {
    Cancelled { reason: reason.into(), refunded: None, freed: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus::testing::{Explore, Harness};

    const ID: Uuid = Uuid::from_u128(7);

    fn placed() -> OrderPlaced {
        let patience = Patience { asks_max: 3, interval: minutes(1), in_all: minutes(10), payment: hours(2) };
        OrderPlaced {
            order_id: ID,
            dish: "pizza".into(),
            address: "here".into(),
            cents: 900,
            patience,
            priority: false,
        }
    }

    #[test]
    fn a_silent_restaurant_is_asked_three_times() {
        let order = Harness::<FoodOrder>::begin(placed()).advance(minutes(10));
        order.expect_sent::<AskRestaurant>(3).expect_state("Cancelled").expect_timers(0);
    }

    #[test]
    fn food_and_courier_come_in_any_order() {
        let paid = || PaymentMade { order_id: ID, payment_id: Uuid::from_u128(1) };
        let courier = || CourierAssigned { order_id: ID, courier: "Kim".into() };
        let preparing = Harness::<FoodOrder>::begin(placed()).give(RestaurantAgreed { order_id: ID }).give(paid());
        let food_first = preparing.clone().give(FoodReady { order_id: ID }).give(courier());
        let courier_first = preparing.give(courier()).give(FoodReady { order_id: ID });
        for order in [food_first, courier_first] {
            order.expect_sent::<Deliver>(1).give(FoodDelivered { order_id: ID }).expect_state("Delivered");
        }
    }

    #[test]
    fn a_payment_system_that_is_down_for_two_hours_ends_a_pizza() {
        let order = Harness::<FoodOrder>::begin(placed()).give(RestaurantAgreed { order_id: ID }).advance(hours(2));
        let late = order.expect_state("Cancelled").give(PaymentMade { order_id: ID, payment_id: Uuid::from_u128(1) });
        late.expect_sent::<RefundPayment>(1).give(PaymentRefunded { order_id: ID }).expect_state("Cancelled");
    }

    /// Every order of answers, timers and cancellation, each said once or twice: money and courier go back, once.
    #[test]
    fn nothing_is_lost_in_any_story() {
        let patience = Patience { asks_max: 1, ..placed().patience }; // the stories with more are the same, longer
        let explored = Explore::<FoodOrder>::from(OrderPlaced { patience, ..placed() })
            .answers(|pay: MakePayment| {
                let made = PaymentMade { order_id: pay.order_id, payment_id: Uuid::from_u128(1) };
                vec![made.into(), PaymentDeclined { order_id: pay.order_id }.into()]
            })
            .answers(|refund: RefundPayment| vec![PaymentRefunded { order_id: refund.order_id }.into()])
            .answers(|food: PrepareFood| vec![FoodReady { order_id: food.order_id }.into()])
            .answers(|find: FindCourier| {
                let assigned = CourierAssigned { order_id: find.order_id, courier: "Kim".into() };
                vec![assigned.into(), NoCourierFree { order_id: find.order_id }.into()]
            })
            .answers(|deliver: Deliver| vec![FoodDelivered { order_id: deliver.order_id }.into()])
            .event(RestaurantAgreed { order_id: ID })
            .event(CancelRequested { order_id: ID })
            .at_most_once::<RefundPayment>()
            .at_most_once::<ReleaseCourier>()
            .in_the_end("money is kept for a delivery alone", |end| {
                end.came::<PaymentMade>() == end.sent::<Deliver>() + end.sent::<RefundPayment>()
            })
            .in_the_end("a courier rides or is released", |end| {
                end.came::<CourierAssigned>() == end.sent::<Deliver>() + end.sent::<ReleaseCourier>()
            })
            .duplicates()
            .run();
        explored.expect_no_breach();
        assert_eq!(explored.states_reached().len(), 7, "{:?}", explored.states_reached());
    }

    #[test]
    fn the_chart_is_as_agreed() {
        let chart = FoodOrder::chart();
        assert_eq!(chart.verify(), [] as [String; 0]);
        for extension in ["json", "mmd", "svg"] {
            sagabus::testing::snapshot(&chart, format!("food-order.{extension}"));
        }
    }
}
