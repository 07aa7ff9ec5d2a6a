//! Fields by which operators find instances.

use super::*;
use crate::*;
use serde::{Deserialize, Serialize};

/// One whose text cannot be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Odd(bool);

impl SagaId for Odd {
    fn to_text(&self) -> String {
        assert!(!self.0, "an odd one has no text");
        "even".into()
    }

    fn parse(_: &str) -> Result<Self, ReadError> {
        Ok(Self(false))
    }
}

#[derive(Event, Serialize, Deserialize)]
struct Ordered {
    id: u64,
    customer: String,
    odd: bool,
}

#[derive(Event, Serialize, Deserialize)]
struct Packed {
    id: u64,
    parcel: u32,
    express: Option<bool>,
}

#[derive(Event, Serialize, Deserialize)]
struct Arrived {
    id: u64,
}

#[derive(Serialize, Deserialize)]
struct Customer {
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Order {
    customer: Customer,
    odd: Odd,
}

#[states(data = Order, fields(customer.name, odd))]
enum Shipping {
    Packing,
    Underway {
        #[field]
        parcel: u32,
        #[field]
        express: Option<bool>,
    },
    #[done]
    Over,
}

#[saga(name = "shipping", id = id: u64)]
impl Shipping {
    fn ordered(it: Ordered) -> (Order, Packing) {
        (Order { customer: Customer { name: it.customer }, odd: Odd(it.odd) }, Packing)
    }

    fn packed(_: Packing, it: Packed) -> Underway {
        Underway { parcel: it.parcel, express: it.express }
    }

    fn packed_again(_: Underway, it: Packed, order: &mut Order) -> Underway {
        order.odd = Odd(it.parcel % 2 == 1);
        Underway { parcel: it.parcel, express: it.express }
    }

    fn arrived(_: Underway, _: Arrived) -> Over {
        Over
    }
}

fn ordered(id: u64, customer: &str, odd: bool) -> Envelope {
    message(format!("ordered-{id}"), &Ordered { id, customer: customer.into(), odd })
}

fn packed(id: u64, parcel: u32, express: Option<bool>) -> Envelope {
    message(format!("packed-{id}-{parcel}"), &Packed { id, parcel, express })
}

impl Rig {
    /// The fields of an instance.
    fn fields(&self, id: u64) -> String {
        let own = self.store.fields().into_iter().filter(|row| row.instance.id == id.to_string());
        let texts = own.map(|row| format!("{} {}", row.field.saga.trim_start_matches("shipping by "), row.field.id));
        texts.collect::<Vec<_>>().join(", ")
    }
}

#[tokio::test(start_paused = true)]
async fn s_086_an_instance_is_found_by_its_fields_as_they_are_in_its_state() {
    let rig = Rig::start(|builder| builder.saga::<Shipping>()).await;
    let each = async |envelope: Envelope| {
        rig.broker.deliver(envelope);
        rig.all_acked().await;
    };
    each(ordered(1, "Ann", false)).await;
    each(ordered(2, "Ann", false)).await;
    assert_eq!([rig.fields(1), rig.fields(2)], ["customer.name Ann, odd even", "customer.name Ann, odd even"]);
    each(packed(1, 4, Some(true))).await;
    assert_eq!(rig.fields(1), "customer.name Ann, express true, odd even, parcel 4", "those of the state too");
    each(packed(1, 6, None)).await;
    assert_eq!(rig.fields(1), "customer.name Ann, odd even, parcel 6", "one that is not known is none");
    each(message("arrived-1", &Arrived { id: 1 })).await;
    assert_eq!(rig.fields(1), "customer.name Ann, odd even", "one that is over keeps those of the data");
    assert_eq!(rig.fields(2), "customer.name Ann, odd even");
    // what a batch does is written once
    rig.broker.deliver_all([ordered(3, "Bob", false), packed(3, 2, None), message("arrived-3", &Arrived { id: 3 })]);
    rig.all_acked().await;
    assert_eq!((rig.fields(3), rig.held()), ("customer.name Bob, odd even".into(), vec![]));
}

#[tokio::test(start_paused = true)]
async fn s_086_an_instance_never_fails_because_of_a_field() {
    let rig = Rig::start(|builder| builder.saga::<Shipping>()).await;
    let (longest, longer) = ("ä".repeat(64), "ä".repeat(64) + "x");
    rig.broker.deliver_all([
        ordered(1, &longest, false),
        ordered(2, &longer, false),
        ordered(3, "", false),
        ordered(4, "a\0b", false),
        ordered(5, "Ann", true),
    ]);
    rig.all_acked().await;
    assert_eq!((rig.store.instances().len(), rig.held()), (5, vec![]));
    assert_eq!(rig.fields(1), format!("customer.name {longest}, odd even"));
    for id in [2, 3, 4] {
        assert_eq!(rig.fields(id), "odd even", "{id}: what does not fit is left out, whole");
    }
    assert_eq!(rig.fields(5), "", "what panics");
    rig.broker.deliver_all([packed(5, 1, None), packed(5, 2, None)]);
    rig.all_acked().await;
    assert_eq!((rig.fields(5), rig.held()), ("customer.name Ann, odd even, parcel 2".into(), vec![]));
}
