//! The process. Each function is a transition: a state and a message come in, the next state and what is sent go out.

use crate::messages::*;
use sagabus::prelude::*;
use uuid::Uuid;

#[states]
pub enum Order {
    AwaitingPayment { order_id: Uuid },
    #[done]
    Paid,
    #[done]
    #[ignores(PaymentDeclined)]
    #[rejects(PaymentMade)] // money for a cancelled order: a person decides
    Cancelled,
}

#[saga(name = "order", id = order_id: Uuid)]
impl Order {
    fn placed(placed: OrderPlaced) -> (AwaitingPayment, Sends<MakePayment>, After<PaymentOverdue>) {
        let OrderPlaced { order_id, cents } = placed;
        (AwaitingPayment { order_id }, send(MakePayment { order_id, cents }), after(minutes(10), PaymentOverdue {}))
    }

    fn paid(order: AwaitingPayment, _: PaymentMade) -> (Paid, Publishes<OrderEnded>) {
        (Paid, ended(&order, "paid"))
    }

    fn declined(order: AwaitingPayment, it: PaymentDeclined) -> (Cancelled, Publishes<OrderEnded>) {
        (Cancelled, ended(&order, &it.reason))
    }

    fn overdue(order: AwaitingPayment, _: PaymentOverdue) -> (Cancelled, Publishes<OrderEnded>) {
        (Cancelled, ended(&order, "the payment took too long"))
    }
}

fn ended(order: &AwaitingPayment, how: &str) -> Publishes<OrderEnded> {
    publish(OrderEnded { order_id: order.order_id, how: how.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus::testing::Harness;

    #[test]
    fn an_order_without_a_payment_ends_after_ten_minutes() {
        let order = Harness::<Order>::begin(OrderPlaced { order_id: Uuid::nil(), cents: 900 });
        order.expect_sent::<MakePayment>(1).advance(minutes(10)).expect_state("Cancelled").expect_sent::<OrderEnded>(1);
    }

    #[test]
    fn the_chart_has_no_dead_end() {
        assert_eq!(Order::chart().verify(), [] as [String; 0]);
    }
}
