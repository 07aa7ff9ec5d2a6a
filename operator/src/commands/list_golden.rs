//! The lists of outbox rows, timers, instances and held messages, as they look on terminals of 80, 100 and 200 columns
//! and without one.

use super::{held_list, outbox_act, outbox_list, sagas_list};
use crate::table::{Cell, Table};
use serde_json::{Value, json};

const US: i64 = 1_790_000_000_000_000;
const ID: &str = "01997a10-0000-7000-8000-000000000001";

fn golden<T: serde::de::DeserializeOwned>(
    name: &str,
    header: &[&'static str],
    rows: Vec<Value>,
    row: impl Fn(&T) -> (Vec<Cell>, Option<String>),
) {
    let rows: Vec<T> = rows.into_iter().map(|row| serde_json::from_value(row).unwrap()).collect();
    let mut table = Table::new(header);
    rows.iter().map(&row).for_each(|(cells, below)| table.row(cells, below));
    super::golden_table(name, US, &table);
}

fn sent(kind: &str, type_name: &str, due_us: i64) -> Value {
    json!({ "id": ID, "endpoint": "ordering", "message_id": ID, "kind": kind, "type": type_name,
        "destination": "payment", "saga": "order-fulfilment", "saga_id": "4711", "created_at_us": US - 60_000_000,
        "due_at_us": US + due_us, "first_attempt_at_us": null, "lease_until_us": null, "lease_owner": null,
        "attempts": 0, "expired": 0, "waits_for": null, "last_error": null, "envelope": { "attempt": 8 } })
}

#[test]
fn rows_of_the_outbox() {
    let mut unroutable = sent("command", "warehouse.PrintShippingLabel", -300_000_000);
    unroutable["destination"] = "warehouse".into();
    unroutable["waits_for"] = "warehouse".into();
    let mut retry = sent("retry", "payment.MakePayment", 6_000_000);
    retry["last_error"] = "error returned from database: relation \"charge\" does not exist (code 42P01)".into();
    let mut leased = sent("event", "ordering.OrderPlaced", -20_000);
    leased["lease_owner"] = "ordering-4711-1f".into();
    let rows = vec![unroutable, leased, retry];
    golden("outbox-list", &outbox_list::HEADER, rows, |row| (outbox_list::cells(row), outbox_list::note(row)));
}

#[test]
fn timers() {
    let rows =
        vec![sent("timer", "ordering.PaymentOverdue", -1_000_000), sent("timer", "ordering.Reminder", 7_200_000_000)];
    golden("timers-list", &outbox_act::TIMERS, rows, |row| (outbox_act::timer_cells(row), outbox_list::note(row)));
}

#[test]
fn instances() {
    let instance = |id: &str, state: &str, paused_by: Option<&str>| {
        json!({ "saga": "order-fulfilment", "id": id, "state": state, "data": {}, "seq": 3, "version": 1,
            "paused_by": paused_by, "created_at_us": US, "updated_at_us": US - 11_520_000_000_i64,
            "completed_at_us": null })
    };
    let rows = vec![instance(ID, "AwaitingPayment", None), instance("4711", "AwaitingShipment", Some(ID))];
    golden("sagas-list", &sagas_list::HEADER, rows, |row| (sagas_list::cells(row), None));
}

#[test]
fn held_messages() {
    let held = |id: &str, reason: &str, error: Option<&str>| {
        json!({ "endpoint": "payment", "receiver": "charge", "message_id": id, "type": "payment.MakePayment",
            "arrival": 1, "reason": reason, "saga": null, "saga_id": null, "error": error, "attempts": 16,
            "held_at_us": US - 11_520_000_000_i64, "expires_at_us": null, "kind": null, "destination": null,
            "envelope": {} })
    };
    let error =
        "error returned from database: relation \"charge\" does not exist, after which nothing works (code 42P01)";
    golden(
        "held-list",
        &held_list::HEADER,
        vec![held(ID, "failed", Some(error)), held("m", "early", None)],
        held_list::row,
    );
}
