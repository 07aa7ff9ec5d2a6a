//! The work that all contestants do: an order of five messages, its tables when written by hand, and what the books
//! must say.

use saga_core::{Command, Event, Outcome, Reply};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Brings a body to about 450 bytes.
const NOTE_BYTES: usize = 300;

/// Message 1: the client to ordering.
#[derive(Debug, Clone, Event, Serialize, Deserialize)]
#[event(from = "ordering")]
pub(crate) struct OrderPlaced {
    pub(crate) order_id: Uuid,
    pub(crate) order: Order,
}

/// Message 2: ordering to payment.
#[derive(Debug, Clone, Command, Serialize, Deserialize)]
#[command(to = "payment", outcome = PaymentOutcome)]
pub(crate) struct MakePayment {
    pub(crate) order_id: Uuid,
    pub(crate) order: Order,
}

/// Message 3: payment to ordering.
#[derive(Debug, Clone, Reply, Serialize, Deserialize)]
#[reply(from = "payment")]
pub(crate) struct PaymentCompleted {
    pub(crate) order_id: Uuid,
    pub(crate) payment_id: Uuid,
    pub(crate) order: Order,
}

/// Message 4: ordering to warehouse.
#[derive(Debug, Clone, Command, Serialize, Deserialize)]
#[command(to = "warehouse", outcome = ShippingOutcome)]
pub(crate) struct CreateShippingLabel {
    pub(crate) order_id: Uuid,
    pub(crate) order: Order,
}

/// Message 5: warehouse to ordering.
#[derive(Debug, Clone, Reply, Serialize, Deserialize)]
#[reply(from = "warehouse")]
pub(crate) struct ShippingLabelCreated {
    pub(crate) order_id: Uuid,
    pub(crate) label_id: Uuid,
    pub(crate) order: Order,
}

#[derive(Debug, Outcome)]
pub(crate) enum PaymentOutcome {
    Completed(PaymentCompleted),
}

#[derive(Debug, Outcome)]
pub(crate) enum ShippingOutcome {
    Created(ShippingLabelCreated),
}

/// What an order is about.
#[derive(PartialEq, Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) customer: String,
    pub(crate) address: String,
    pub(crate) amount_cents: i64,
    pub(crate) note: String,
}

impl OrderPlaced {
    /// A new order.
    pub(crate) fn new() -> Self {
        let order = Order {
            customer: "Ada Lovelace".into(),
            address: "12 St James's Square, London".into(),
            amount_cents: 4200,
            note: "n".repeat(NOTE_BYTES),
        };
        Self { order_id: Uuid::now_v7(), order }
    }
}

/// The three services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Service {
    Ordering,
    Payment,
    Warehouse,
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Ordering, Self::Payment, Self::Warehouse];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ordering => "ordering",
            Self::Payment => "payment",
            Self::Warehouse => "warehouse",
        }
    }

    /// The service's own table: one row per order, without any constraint that would hide a double effect.
    pub(crate) fn own_table(self) -> Option<&'static str> {
        match self {
            Self::Ordering => None,
            Self::Payment => Some(
                "CREATE TABLE IF NOT EXISTS charge (order_id uuid NOT NULL, payment_id uuid NOT NULL,
                    amount_cents bigint NOT NULL)",
            ),
            Self::Warehouse => Some(
                "CREATE TABLE IF NOT EXISTS label (order_id uuid NOT NULL, label_id uuid NOT NULL,
                    address text NOT NULL)",
            ),
        }
    }
}

/// What the hand-written contestants keep in each service's database. The id comes first in the key of `saga`: with the
/// type first, a plan prepared on the young table reads all of it.
pub(crate) const BY_HAND: &str = "
CREATE TABLE saga (id uuid NOT NULL, saga text NOT NULL, state text NOT NULL, data jsonb NOT NULL,
    PRIMARY KEY (id, saga));
CREATE TABLE inbox (message_id uuid PRIMARY KEY, handled_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE outbox (id uuid PRIMARY KEY, type text NOT NULL, destination text NOT NULL, order_id uuid NOT NULL,
    conversation uuid NOT NULL, causation uuid NOT NULL, body bytea NOT NULL);";

/// The saga by hand, for the contestants that have no framework: what follows a message.
pub(crate) struct Step {
    pub(crate) order_id: Uuid,
    /// The state that the instance must be in; `None`: it starts.
    pub(crate) from: Option<&'static str>,
    pub(crate) to: &'static str,
    pub(crate) data: String,
    pub(crate) send: Option<Outgoing>,
}

/// A message to send, by hand.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) id: Uuid,
    pub(crate) kind: &'static str,
    pub(crate) to: Service,
    pub(crate) order_id: Uuid,
    pub(crate) came: Came,
    pub(crate) body: Vec<u8>,
}

/// The message being handled, which the messages that it causes name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came {
    pub(crate) id: Uuid,
    pub(crate) conversation: Uuid,
}

impl Outgoing {
    pub(crate) fn new(kind: &'static str, to: Service, order_id: Uuid, came: Came, message: &impl Serialize) -> Self {
        Self { id: Uuid::now_v7(), kind, to, order_id, came, body: serde_json::to_vec(message).unwrap_or_default() }
    }

    /// Which type and which service a stored row names.
    pub(crate) fn stored(kind: &str, to: &str) -> anyhow::Result<(&'static str, Service)> {
        use saga_core::Message;
        let kinds = [MakePayment::TYPE, PaymentCompleted::TYPE, CreateShippingLabel::TYPE, ShippingLabelCreated::TYPE];
        let kind = kinds.into_iter().find(|known| *known == kind);
        let to = Service::ALL.into_iter().find(|service| service.name() == to);
        kind.zip(to).ok_or_else(|| anyhow::anyhow!("an unknown row in the outbox"))
    }
}

/// The order process by hand.
pub(crate) fn step(kind: &str, body: &[u8], came: Came) -> anyhow::Result<Step> {
    use saga_core::Message;
    let text = |order: &Order| serde_json::to_string(order);
    Ok(match kind {
        OrderPlaced::TYPE => {
            let OrderPlaced { order_id, order } = serde_json::from_slice(body)?;
            let data = text(&order)?;
            let send =
                Outgoing::new(MakePayment::TYPE, Service::Payment, order_id, came, &MakePayment { order_id, order });
            Step { order_id, from: None, to: "AwaitingPayment", data, send: Some(send) }
        }
        PaymentCompleted::TYPE => {
            let PaymentCompleted { order_id, order, .. } = serde_json::from_slice(body)?;
            let data = text(&order)?;
            let send = CreateShippingLabel { order_id, order };
            let send = Outgoing::new(CreateShippingLabel::TYPE, Service::Warehouse, order_id, came, &send);
            Step { order_id, from: Some("AwaitingPayment"), to: "AwaitingShipment", data, send: Some(send) }
        }
        ShippingLabelCreated::TYPE => {
            let ShippingLabelCreated { order_id, order, .. } = serde_json::from_slice(body)?;
            Step { order_id, from: Some("AwaitingShipment"), to: "Shipped", data: text(&order)?, send: None }
        }
        other => anyhow::bail!("ordering does not know {other}"),
    })
}
