//! Version 2: a courier with priority is looked for while the customer pays.
//! The process of a food order. The restaurant is asked a number of times, at intervals, and not for ever; then comes
//! the payment; then preparation and courier side by side. It can be cancelled until the courier rides; money and
//! courier go back.

use crate::messages::*;
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Every state knows the order as it was placed.
#[rustfmt::skip] // a state a line
#[states(data = OrderPlaced)]
pub(crate) enum FoodOrder {
    AskingRestaurant { asks: u32 },
    AwaitingPayment { courier: Courier },
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

/// What is known of the courier before the payment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Courier {
    NotAsked,
    Asked,
    Found,
}

/// Version 1 asked no courier before the payment, not even for an order with priority.
impl Upcast<1> for AwaitingPayment {
    type Old = ();
    fn upcast(_: ()) -> Result<Self, String> {
        Ok(Self { courier: Courier::NotAsked })
    }
}

type Asks = (AskingRestaurant, Sends<AskRestaurant>, After<Again>);
type Pays = (AwaitingPayment, Sends<MakePayment>, After<PaymentOverdue>, Option<Sends<FindCourier>>);
type Prepares = (Preparing, Sends<PrepareFood>, Option<Sends<FindCourier>>);
type Frees = (Cancelled, Option<Sends<ReleaseCourier>>);
type Join = Either<Preparing, (Delivering, Sends<Deliver>)>;
type Refunds = (Refunding, Sends<RefundPayment>, Option<Sends<ReleaseCourier>>);

#[saga(name = "food-order", id = order_id: Uuid, version = 2)]
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
        let find = order.priority.then(|| send(FindCourier { order_id: order.order_id }));
        let courier = if order.priority { Courier::Asked } else { Courier::NotAsked };
        (AwaitingPayment { courier }, pay, after(order.patience.payment, PaymentOverdue {}), find)
    }
    fn courier_waits(_: AwaitingPayment, _: CourierAssigned) -> AwaitingPayment {
        AwaitingPayment { courier: Courier::Found }
    }
    fn no_courier_waits(_: AwaitingPayment, _: NoCourierFree) -> Cancelled {
        cancelled("no courier is free")
    }
    fn not_paid(it: AwaitingPayment, _: PaymentDeclined, order: &OrderPlaced) -> Frees {
        free(order, &it, "the payment was declined")
    }
    fn overdue(it: AwaitingPayment, _: PaymentOverdue, order: &OrderPlaced) -> Frees {
        free(order, &it, "the payment took too long")
    }

    fn paid(it: AwaitingPayment, paid: PaymentMade, order: &OrderPlaced) -> Prepares {
        let PaymentMade { order_id, payment_id } = paid;
        let preparing = Preparing { payment_id, food_ready: false, courier: it.courier == Courier::Found };
        let find = (it.courier == Courier::NotAsked).then(|| send(FindCourier { order_id }));
        (preparing, send(PrepareFood { order_id, dish: order.dish.clone() }), find)
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
    fn cancel_unpaid(it: AwaitingPayment, _: CancelRequested, order: &OrderPlaced) -> Frees {
        free(order, &it, "as requested")
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
fn free(order: &OrderPlaced, it: &AwaitingPayment, reason: &str) -> Frees {
    let (order_id, freed) = (order.order_id, it.courier == Courier::Found);
    (Cancelled { freed, ..cancelled(reason) }, freed.then(|| send(ReleaseCourier { order_id })))
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

    fn placed(priority: bool) -> OrderPlaced {
        let patience = Patience { asks_max: 3, interval: minutes(1), in_all: minutes(10), payment: hours(2) };
        OrderPlaced { order_id: ID, dish: "pizza".into(), address: "here".into(), cents: 900, patience, priority }
    }

    #[test]
    fn a_courier_with_priority_is_looked_for_while_the_customer_pays() {
        let agreed = |priority| Harness::<FoodOrder>::begin(placed(priority)).give(RestaurantAgreed { order_id: ID });
        agreed(false).expect_sent::<FindCourier>(0);
        let found =
            agreed(true).expect_sent::<FindCourier>(1).give(CourierAssigned { order_id: ID, courier: "Kim".into() });
        found.clone().give(PaymentDeclined { order_id: ID }).expect_state("Cancelled").expect_sent::<ReleaseCourier>(1);
        let paid = found.give(PaymentMade { order_id: ID, payment_id: Uuid::from_u128(1) });
        paid.expect_sent::<FindCourier>(1).give(FoodReady { order_id: ID }).expect_state("Delivering");
    }

    /// The trap: the order has priority, but version 1 has not asked for a courier.
    #[test]
    fn an_order_of_version_1_that_awaits_its_payment_gets_its_courier() {
        let waiting = AwaitingPayment::upcast(()).unwrap();
        let paid = PaymentMade { order_id: ID, payment_id: Uuid::from_u128(1) };
        let (_, _, find) = FoodOrder::paid(waiting, paid, &placed(true));
        assert_eq!(find, Some(send(FindCourier { order_id: ID })));
    }

    /// Every order of answers, timers and cancellation, each said once or twice: money and courier go back, once.
    #[test]
    fn nothing_is_lost_in_any_story() {
        let placed = placed(true);
        let patience = Patience { asks_max: 1, ..placed.patience }; // the stories with more are the same, longer
        let explored = Explore::<FoodOrder>::from(OrderPlaced { patience, ..placed })
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
        let (shown, readme) = (chart.to_mermaid(), include_str!("../README.md"));
        assert!(readme.contains(&shown), "README.md is to show:\n{shown}");
    }

    #[test]
    fn the_readme_shows_what_is_new() {
        let process = |file: &'static str| file.split("#[cfg(test)]").next().unwrap_or_default().lines();
        let (old, new) = (process(include_str!("saga.rs")), process(include_str!("saga_v2.rs")));
        let (old, new): (Vec<&str>, Vec<&str>) = (old.collect(), new.collect());
        let diff = include_str!("../README.md").split("```diff\n").nth(1).expect("it shows a diff");
        let diff: Vec<&str> = diff.split("```").next().unwrap_or_default().lines().collect();
        for (sign, these, others) in [("-", &old, &new), ("+", &new, &old)] {
            let shown: Vec<&str> = diff.iter().filter_map(|line| line.strip_prefix(sign)).collect();
            let unknown = shown.iter().find(|line| !these.contains(line));
            assert_eq!(unknown, None, "README.md shows `{sign}` and a line that is not there");
            let missing = these.iter().find(|line| !others.contains(line) && !shown.contains(line));
            assert_eq!(missing, None, "README.md does not show `{sign}` and this line");
        }
    }
}
