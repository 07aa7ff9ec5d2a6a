//! What has effects: your tables, other services. Rows, answers and messages of a handler commit together.

use crate::messages::*;
use sagabus::{prelude::*, sqlx};
use tokio::sync::mpsc;
use uuid::Uuid;

pub struct Payments;

#[handlers]
impl Payments {
    async fn pay(&self, pay: MakePayment, cx: &mut Context<'_, Sqlite>) -> Result<PaymentOutcome, HandlerError> {
        let order_id = pay.order_id;
        if pay.cents > 100_000 {
            return Ok(PaymentDeclined { order_id, reason: "too expensive".into() }.into());
        }
        let insert = sqlx::query("INSERT INTO charge (order_id, cents) VALUES (?, ?)").bind(order_id).bind(pay.cents);
        insert.execute(cx.tx().await?).await?;
        Ok(PaymentMade { order_id }.into())
    }
}

/// Tells how orders end.
pub struct Printer(pub mpsc::UnboundedSender<Uuid>);

#[handlers]
impl Printer {
    async fn print(&self, order: OrderEnded, _: &mut Context<'_, Sqlite>) -> Result<(), HandlerError> {
        println!("order {}: {}", order.order_id, order.how);
        let _ = self.0.send(order.order_id); // nobody waits any more
        Ok(())
    }
}
