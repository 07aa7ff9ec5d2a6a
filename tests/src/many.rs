//! Tables with many rows, and every listing of an operator on them: how long each takes, and how it is read.

use crate::tables::Tables;
use saga_core::{
    AgeFilter, FieldIs, HeldFilter, HeldReason, Inspect, InstanceFilter, InstanceKey, Listing, OperationFilter,
    OutboxFilter, OutboxKind, StoreError, Wanted, explain,
};
use std::time::Duration;

/// The rows that a list shows.
const ROWS: i64 = 50;

/// Fills instances, their fields, inbox, outbox and held messages with so many rows each, and operations with a tenth.
/// One instance in ten is not
/// done; of the outbox more than half are timers, and one row in fifty has failed; held messages have all reasons and
/// thousands of errors. Sixty instances have one customer, and nearly all have one region. Some things are rare: 1
/// instance in 5,000 is paused, and 50 messages are of a type and an endpoint of their own.
pub async fn fill(tables: &Tables, rows: u64) {
    let hex = if tables.is_postgres() { "lpad(to_hex(n), 12, '0')" } else { "printf('%012x', n)" };
    let of = |sql: &str| {
        let series = format!(
            "(WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows})
            SELECT n FROM c) c"
        );
        let id = format!("'01997a10-0000-7000-8000-' || {hex}");
        let key = if tables.is_postgres() { format!("CAST({id} AS uuid)") } else { id.clone() };
        let json = if tables.is_postgres() { "json" } else { "text" };
        sql.replace("{series}", &series)
            .replace("{json}", json)
            .replace("{id}", &format!("({id})"))
            .replace("{key}", &key)
    };
    let instance = "INSERT INTO {s}saga (saga, id, state, data, seq, entered, version, progress, paused_by, created_at,
            updated_at, completed_at)
        SELECT CASE n % 3 WHEN 0 THEN 'order' WHEN 1 THEN 'parcel' ELSE 'refund' END, {id},
            CASE WHEN n % 10 > 0 THEN CASE WHEN n % 5000 = 1 THEN 'Lost' ELSE 'Done' END
                WHEN n % 1000 = 0 THEN 'Rare' WHEN n % 20 = 0 THEN 'Charging' ELSE 'Waiting' END,
            CAST('{\"customer\":' || n || ',\"address\":\"a street with a long name\",\"cents\":4200}' AS {json}), 3, 3,
            1 + n / 500000, '{\"timers\":[1],\"visited\":[\"Waiting\",\"Charging\"],\"sent\":[]}',
            CASE WHEN n % 5000 = 0 THEN 'm' || n END, {now} - ({rows} - n) * {minute} / 100 - {minute},
            {now} - ({rows} - n) * {minute} / 100, CASE WHEN n % 10 > 0 THEN {now} - ({rows} - n) * {minute} / 100 END
        FROM {series}";
    let field = "INSERT INTO {s}field (name, value, saga, id)
        SELECT s.saga || ' by customer', CAST(n / 60 AS text), s.saga, s.id FROM {series}, {s}saga s WHERE s.id = {id}
        UNION ALL SELECT saga || ' by region', CASE WHEN state = 'Rare' THEN 'us' ELSE 'eu' END, saga, id FROM {s}saga";
    let inbox = "INSERT INTO {s}inbox (endpoint, receiver, message_id, body_hash, type, result, conversation_id, saga,
            saga_id, seq, from_state, to_state, effects, claimed_at, handled_at, handled_by, attempts)
        SELECT 'ordering', 'order', {id}, n, 'payment.Paid', 'handled', 'c' || n, 'order', {id}, 2, 'Waiting',
            'Charging',
            CAST('[{\"id\":\"' || {id} || '\",\"type\":\"payment.MakePayment\",\"to\":\"payment\"}]' AS {json}),
            {now} - ({rows} - n) * {minute} / 100, {now} - ({rows} - n) * {minute} / 100, 'p', 1
        FROM {series}";
    let outbox = "INSERT INTO {s}outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, envelope,
            body, created_at, due_at, attempts, waits_for, last_error)
        SELECT {key}, CASE WHEN n % 20000 = 0 THEN 'billing' WHEN n % 2 = 0 THEN 'ordering' ELSE 'payment' END,
            CASE WHEN n % 50 = 1 THEN 'x' || n ELSE {id} END,
            CASE WHEN n % 50 = 1 THEN 'retry' WHEN n % 10 < 6 THEN 'timer' ELSE 'command' END,
            CASE WHEN n % 20000 = 0 THEN 'billing.Rare' WHEN n % 3 = 0 THEN 'order.Overdue'
                ELSE 'payment.MakePayment' END,
            'payment', 'order', {id}, '{\"attempt\":2}', {body}, {now} - {minute},
            {now} + (n - {rows} / 2) * {minute} / 1000, CASE WHEN n % 50 = 3 THEN 2 ELSE 0 END,
            CASE WHEN n % 50 = 7 THEN 'warehouse' END, CASE WHEN n % 50 = 1 THEN 'no table ' || n END
        FROM {series}";
    let held = "INSERT INTO {s}held (endpoint, receiver, message_id, reason, saga, saga_id, error, attempts, held_at,
            type, envelope, body)
        SELECT CASE WHEN n % 20000 = 0 THEN 'billing' WHEN n % 2 = 0 THEN 'ordering' ELSE 'payment' END,
            CASE WHEN n % 20000 = 0 THEN 'bills' WHEN n % 3 = 0 THEN 'order' ELSE 'charge' END, {id},
            CASE n % 9 WHEN 0 THEN 'failed' WHEN 1 THEN 'rejected' WHEN 2 THEN 'crashes' WHEN 3 THEN 'undecodable'
                WHEN 4 THEN 'early' WHEN 5 THEN 'deferred' WHEN 6 THEN 'paused' WHEN 7 THEN 'version'
                ELSE 'stranded' END,
            CASE WHEN n % 3 = 0 THEN 'order' END, CASE WHEN n % 3 = 0 THEN {id} END,
            'error returned from database: relation \"charge_' || (n % 5000) || '\" does not exist (code 42P01)', 16,
            {now} - ({rows} - n) * {minute} / 100,
            CASE WHEN n % 20000 = 0 THEN 'billing.Rare' ELSE 'shop.Message' || n % 7 END,
            '{\"conversation_id\":\"c\",\"sender\":\"payment\"}', {body}
        FROM {series}";
    let operation = "INSERT INTO {s}operation (id, at, who, action, reason, items)
        SELECT {key}, {now} - ({rows} - n) * {minute} / 100, 'ann',
            CASE WHEN n % 1000 = 0 THEN 'held note' ELSE 'held retry' END, 'why',
            CAST('[{\"endpoint\":\"ordering\",\"receiver\":\"order\",\"message_id\":\"' || {id}
                || '\",\"saga\":\"order\",\"saga_id\":\"' || {id} || '\",\"result\":\"retried\"}]' AS {json})
        FROM {series} WHERE n % 10 = 0";
    // memory, and no disk, for this connection alone
    let fast = if tables.is_postgres() { "" } else { "PRAGMA cache_size = -400000; PRAGMA synchronous = OFF; " };
    for sql in [instance, field, inbox, outbox, held, operation] {
        let sql = of(sql).replace("{rows}", &rows.to_string());
        tables.sql(&format!("{fast}{sql}")).await;
    }
    if tables.is_postgres() {
        for table in ["saga", "field", "inbox", "outbox", "held", "operation"] {
            tables.sql(&format!("VACUUM ANALYZE {{s}}{table}")).await; // as a server does by itself after a while
        }
    }
}

/// A statement with the numbers from 1 to this as `n`.
pub fn numbered(sql: &str, rows: u64) -> String {
    let recursive = format!("WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows})");
    sql.replace("{rows}", &rows.to_string()) + &format!(" FROM ({recursive} SELECT n FROM c) c")
}

/// What an operator asks for.
pub struct Question {
    /// The command.
    pub command: &'static str,
    /// What it reads.
    pub reads: Reads,
}

/// What a command reads.
#[derive(Clone)]
#[expect(missing_docs, reason = "named as the filters are")]
pub enum Reads {
    Status,
    Outbox(OutboxFilter),
    Instances(InstanceFilter),
    Held(HeldFilter),
    Groups(HeldFilter),
    Explain(String),
    Operations(OperationFilter),
    Instance(InstanceKey),
    Processes,
    Versions,
}

/// Every listing, with each of its filters.
pub fn questions(rows: u64) -> Vec<Question> {
    let text = |text: &str| Some(text.to_owned());
    let id = |n: u64| format!("01997a10-0000-7000-8000-{n:012x}");
    let middle = id(rows / 2 / 30 * 30);
    let begins = text(&middle[..middle.len() - 1]);
    let sent = OutboxFilter::default;
    let instance = InstanceFilter::default;
    let held = HeldFilter::default;
    let age = |older: u64, newer: u64| {
        let [older, newer] = [older, newer].map(|seconds| Some(Duration::from_secs(seconds)));
        AgeFilter { older_than: older, newer_than: newer }
    };
    let fields = |all: &[&str]| -> Vec<FieldIs> {
        let field = |(name, value): (&str, &str)| FieldIs { name: name.into(), value: value.into() };
        all.iter().filter_map(|text| text.split_once('=').map(field)).collect()
    };
    let order = |key: &str| InstanceKey { saga: "order".into(), id: key.into() };
    let of_order = OutboxFilter { saga: text("order"), saga_id: text(&middle), ..sent() };
    let all = [
        ("status", Reads::Status),
        ("outbox list", Reads::Outbox(sent())),
        ("outbox list --endpoint billing", Reads::Outbox(OutboxFilter { endpoint: text("billing"), ..sent() })),
        ("outbox list --failing", Reads::Outbox(OutboxFilter { failing: true, ..sent() })),
        ("outbox list --due", Reads::Outbox(OutboxFilter { due: true, ..sent() })),
        ("outbox list --kind retry", Reads::Outbox(OutboxFilter { kind: Some(OutboxKind::Retry), ..sent() })),
        ("outbox list --type billing.Rare", Reads::Outbox(OutboxFilter { type_name: text("billing.Rare"), ..sent() })),
        ("outbox list --to nowhere", Reads::Outbox(OutboxFilter { destination: text("nowhere"), ..sent() })),
        ("outbox list --saga order", Reads::Outbox(OutboxFilter { saga: text("order"), ..sent() })),
        ("outbox list --saga order --id ID", Reads::Outbox(of_order)),
        ("outbox list --error 'table 4101'", Reads::Outbox(OutboxFilter { error: text("table 4101"), ..sent() })),
        ("outbox show BEGINNING", Reads::Outbox(OutboxFilter { id: begins.clone(), ..sent() })),
        ("timers list", Reads::Outbox(OutboxFilter { kind: Some(OutboxKind::Timer), ..sent() })),
        ("timers list --due", Reads::Outbox(OutboxFilter { kind: Some(OutboxKind::Timer), due: true, ..sent() })),
        ("sagas list", Reads::Instances(instance())),
        ("sagas list --saga parcel", Reads::Instances(InstanceFilter { saga: text("parcel"), ..instance() })),
        ("sagas list --state Rare", Reads::Instances(InstanceFilter { state: text("Rare"), ..instance() })),
        (
            "sagas list --state Lost --saga refund",
            Reads::Instances(InstanceFilter { state: text("Lost"), saga: text("refund"), ..instance() }),
        ),
        ("sagas list --open", Reads::Instances(InstanceFilter { open: true, ..instance() })),
        (
            "sagas list --open --older-than 3h",
            Reads::Instances(InstanceFilter {
                open: true,
                unchanged_for: Some(Duration::from_secs(10_800)),
                ..instance()
            }),
        ),
        (
            "sagas list --older-than 3h",
            Reads::Instances(InstanceFilter { unchanged_for: Some(Duration::from_secs(10_800)), ..instance() }),
        ),
        ("sagas list --paused", Reads::Instances(InstanceFilter { paused: true, ..instance() })),
        ("sagas list --id BEGINNING", Reads::Instances(InstanceFilter { id: begins.clone(), ..instance() })),
        (
            "sagas list --where customer=700",
            Reads::Instances(InstanceFilter { fields: fields(&["customer=700"]), ..instance() }),
        ),
        (
            "sagas list --where region=eu",
            Reads::Instances(InstanceFilter { fields: fields(&["region=eu"]), ..instance() }),
        ),
        (
            "sagas list --where region=eu --open",
            Reads::Instances(InstanceFilter { fields: fields(&["region=eu"]), open: true, ..instance() }),
        ),
        (
            "sagas list --saga order --where region=eu --where customer=700",
            Reads::Instances(InstanceFilter {
                saga: text("order"),
                fields: fields(&["region=eu", "customer=700"]),
                ..instance()
            }),
        ),
        ("held list", Reads::Held(held())),
        ("held list --endpoint billing", Reads::Held(HeldFilter { endpoint: text("billing"), ..held() })),
        ("held list --reason-is failed", Reads::Held(HeldFilter { reason: Some(HeldReason::Failed), ..held() })),
        ("held list --receiver bills", Reads::Held(HeldFilter { receiver: text("bills"), ..held() })),
        ("held list --saga order", Reads::Held(HeldFilter { saga: text("order"), ..held() })),
        (
            "held list --saga order --id ID",
            Reads::Held(HeldFilter { saga: text("order"), saga_id: text(&middle), ..held() }),
        ),
        ("held list --type billing.Rare", Reads::Held(HeldFilter { type_name: text("billing.Rare"), ..held() })),
        ("held list --error charge_11", Reads::Held(HeldFilter { error: text("charge_11"), ..held() })),
        ("held list --needs-person", Reads::Held(HeldFilter { needs_person: true, ..held() })),
        (
            "held list --older-than 3h --newer-than 60d",
            Reads::Held(HeldFilter { age: age(10_800, 5_184_000), ..held() }),
        ),
        ("outbox list --newer-than 3h --older-than 1s", Reads::Outbox(OutboxFilter { age: age(1, 10_800), ..sent() })),
        ("held groups", Reads::Groups(held())),
        ("held show BEGINNING", Reads::Held(HeldFilter { message_id: begins, ..held() })),
        ("explain MESSAGE", Reads::Explain(middle.clone())),
        ("explain RETRY", Reads::Explain(format!("x{}", rows / 100 * 50 + 1))),
        ("explain CONVERSATION", Reads::Explain(format!("c{rows}"))),
        ("sagas show order ID", Reads::Instance(order(&middle))),
        (
            "operations of a message",
            Reads::Operations(OperationFilter { message_id: Some(id(rows)), ..OperationFilter::default() }),
        ),
        ("notes", Reads::Operations(OperationFilter { action: text("held note"), ..OperationFilter::default() })),
        ("processes", Reads::Processes),
        ("versions", Reads::Versions),
    ];
    all.into_iter().map(|(command, reads)| Question { command, reads }).collect()
}

impl Reads {
    /// Reads what the command reads. Returns how many rows there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ask(&self, store: &dyn Inspect) -> Result<usize, StoreError> {
        match self {
            Self::Status => Ok(store.status().await?.instances.len()),
            Self::Outbox(filter) => {
                store.outbox_counted(filter).await?;
                Ok(store.outbox(filter, ROWS).await?.len())
            }
            Self::Instances(filter) => {
                store.instances_counted(filter).await?;
                Ok(store.instances(filter, ROWS).await?.len())
            }
            Self::Held(filter) => {
                store.held_counted(filter).await?;
                Ok(store.held(filter, ROWS).await?.len())
            }
            Self::Groups(filter) => Ok(store.held_groups(filter).await?.len()),
            Self::Explain(id) => match explain(&[store], id, 1000).await.answer {
                saga_core::Explanation::Story(story) => Ok(story.messages.len()),
                _ => Ok(0),
            },
            Self::Operations(filter) => {
                store.operations_beyond(filter).await?;
                Ok(store.operations(filter, ROWS).await?.len())
            }
            Self::Instance(key) => {
                let (saga, saga_id) = (Some(key.saga.clone()), Some(key.id.clone()));
                let sent = OutboxFilter { saga: saga.clone(), saga_id: saga_id.clone(), ..OutboxFilter::default() };
                let waiting = HeldFilter { saga: saga.clone(), saga_id: saga_id.clone(), ..HeldFilter::default() };
                let found = InstanceFilter { saga: saga.clone(), id: saga_id.clone(), ..InstanceFilter::default() };
                let done = OperationFilter { saga, saga_id, ..OperationFilter::default() };
                let rows = store.instances(&found, ROWS).await?.len() + store.outbox(&sent, ROWS).await?.len();
                let rows = rows + store.held(&waiting, ROWS).await?.len() + store.operations(&done, ROWS).await?.len();
                Ok(rows + store.journal(key, ROWS).await?.len() + store.journal_count(key).await? as usize)
            }
            Self::Processes => Ok(store.processes().await?.len()),
            Self::Versions => Ok(store.definitions().await?.len() + store.forms().await?.len()),
        }
    }

    /// How the database reads it: the plans of its statements.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn plans(&self, url: &str) -> Result<Vec<String>, StoreError> {
        let key;
        let ids;
        let (rows, count) = (Wanted::Rows(ROWS), Wanted::CountUpTo(10_000));
        let listings = match self {
            Self::Status => vec![Listing::Status],
            Self::Outbox(filter) => vec![Listing::Outbox(filter, rows), Listing::Outbox(filter, count)],
            Self::Instances(filter) => vec![Listing::Instances(filter, rows), Listing::Instances(filter, count)],
            Self::Held(filter) => vec![Listing::Held(filter, rows), Listing::Held(filter, count)],
            Self::Groups(filter) => vec![Listing::HeldGroups(filter)],
            Self::Explain(id) => {
                ids = [id.clone()];
                let [of_it, beyond] = [rows, Wanted::Beyond].map(|wanted| Listing::Conversation(id, wanted));
                vec![Listing::Beginning(id), Listing::Traces(&ids), of_it, beyond]
            }
            Self::Operations(filter) => {
                vec![Listing::Operations(filter, rows), Listing::Operations(filter, Wanted::Beyond)]
            }
            Self::Instance(of) => {
                key = of.clone();
                vec![Listing::Journal(&key, rows), Listing::Journal(&key, Wanted::Count)]
            }
            Self::Processes => vec![Listing::Processes],
            Self::Versions => vec![Listing::Definitions, Listing::Forms],
        };
        let mut all = Vec::new();
        for listing in &listings {
            all.extend(outbox::plans(url, listing).await?);
        }
        Ok(all)
    }
}

/// The lines of a plan that read a whole table, of those that grow with the messages, or a whole index of the inbox.
/// What is read in the order of an index ends at a limit.
pub fn scans(plan: &str) -> Vec<&str> {
    let grows = |line: &str| {
        ["saga", "field", "inbox", "outbox", "held", "operation"].iter().any(|table| {
            // PostgreSQL: `Seq Scan on outbox`; SQLite: `SCAN sagabus_outbox`
            let (seq, scan) = (format!("Seq Scan on {table}"), format!("SCAN sagabus_{table}"));
            line.contains(&seq) || line.ends_with(&scan)
        })
    };
    let lines: Vec<&str> = plan.lines().map(str::trim).collect();
    let walks = |n: &usize| grows(lines[*n]) || walks_inbox(&lines[*n..]);
    (0..lines.len()).filter(walks).map(|n| lines[n]).collect()
}

/// Whether the first of these lines reads an index of the inbox without a value for its first column. Each statement on
/// the inbox has one: a walk over all endpoints or times does not end at a limit.
fn walks_inbox(lines: &[&str]) -> bool {
    // SQLite: `SCAN sagabus_inbox USING COVERING INDEX …`, or `SCAN i USING …` by its name in the statement
    let (line, below) = (lines[0], &lines[1..]);
    if line.starts_with("SCAN ") && line.contains(" INDEX sagabus_inbox_") {
        return true;
    }
    // PostgreSQL: the condition is a line below
    let index = ["inbox_pkey", "inbox_journal", "inbox_handled"].into_iter().find(|index| {
        line.contains(&format!(" using {index} on inbox")) || line.contains(&format!("Index Scan on {index} "))
    });
    let first = match index {
        Some("inbox_pkey") => "message_id",
        Some("inbox_journal") => "saga_id",
        Some(_) => "endpoint",
        None => return false,
    };
    let own = below.iter().take_while(|line| !line.starts_with("->"));
    !own.clone().any(|line| line.starts_with("Index Cond:") && line.contains(first))
}
