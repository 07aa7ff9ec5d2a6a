//! Barcodes that are taken back, and payments that know a parcel by its reference alone.
//!
//! The saga `delivery` runs at `shop`. `depot` makes barcodes and registers parcels at a payment provider:
//!
//! - clients → shop: `Packed`, `Repacked`, `Kept` and some `Paid`, in any order
//! - shop → depot: `MakeBarcode`, which a parcel that is packed anew or kept takes back; `Register`
//! - depot → shop: `BarcodeMade`; `Registered` with the reference, and the first `Paid`, which comes before it

use sagabus::{
    prelude::*,
    testing::{InboxRecord, MemoryStore, Simulation, World},
};
use serde::{Deserialize, Serialize};
use std::{cell::RefCell, collections::BTreeSet, time::Duration};

const PARCELS: u64 = 2;

/// What depot meets when it makes a barcode.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Printer {
    Ready,
    /// It works for a while, so that the command is taken back in the middle.
    Slow,
    /// There is no paper at first.
    Empty,
    /// There never is any: the command is held until it is taken back.
    Broken,
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct Packed {
    parcel: u64,
    printer: Printer,
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct Repacked {
    parcel: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct KeptBack {
    parcel: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "provider")]
struct Paid {
    reference: String,
    payment: u64,
}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "depot", outcome = BarcodeOutcome)]
struct MakeBarcode {
    parcel: u64,
    attempt: u32,
    printer: Printer,
}

#[derive(Outcome)]
enum BarcodeOutcome {
    Made(BarcodeMade),
}

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "depot")]
struct BarcodeMade {
    parcel: u64,
    attempt: u32,
}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "depot", outcome = RegisterOutcome)]
struct Register {
    parcel: u64,
}

#[derive(Outcome)]
enum RegisterOutcome {
    Registered(Registered),
}

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "depot")]
struct Registered {
    parcel: u64,
    reference: String,
}

#[derive(Clone, Serialize, Deserialize)]
struct Parcel {
    parcel: u64,
    printer: Printer,
    /// The barcode that counts; those before were taken back.
    attempt: u32,
    made: Vec<u32>,
    reference: Option<String>,
    payments: Vec<u64>,
}

impl Parcel {
    fn barcode(&self) -> Sends<MakeBarcode> {
        send(MakeBarcode { parcel: self.parcel, attempt: self.attempt, printer: self.printer })
    }
}

#[states(data = Parcel)]
enum Delivery {
    #[waits]
    AwaitingBarcode,
    #[waits]
    Labelled,
    #[done]
    Kept,
}

#[saga(name = "delivery", id = parcel: u64, alias(reference = Paid.reference))]
impl Delivery {
    fn packed(it: Packed) -> (Parcel, AwaitingBarcode, Sends<MakeBarcode>, Sends<Register>) {
        let Packed { parcel, printer } = it;
        let data = Parcel { parcel, printer, attempt: 1, made: Vec::new(), reference: None, payments: Vec::new() };
        let barcode = data.barcode();
        (data, AwaitingBarcode, barcode, send(Register { parcel }))
    }

    fn repacked(
        _: AwaitingBarcode,
        _: Repacked,
        it: &mut Parcel,
    ) -> (AwaitingBarcode, Cancels<MakeBarcode>, Sends<MakeBarcode>) {
        it.attempt += 1;
        (AwaitingBarcode, cancel(), it.barcode())
    }

    fn made(_: AwaitingBarcode, made: BarcodeMade, it: &mut Parcel) -> Either<Labelled, AwaitingBarcode> {
        it.made.push(made.attempt);
        if made.attempt == it.attempt { Either::A(Labelled) } else { Either::B(AwaitingBarcode) }
    }

    fn made_again(_: Labelled, made: BarcodeMade, it: &mut Parcel) -> Labelled {
        it.made.push(made.attempt);
        Labelled
    }

    fn made_in_vain(_: Kept, made: BarcodeMade, it: &mut Parcel) -> Kept {
        it.made.push(made.attempt);
        Kept
    }

    fn kept(_: AwaitingBarcode, _: KeptBack) -> (Kept, Cancels<MakeBarcode>) {
        (Kept, cancel())
    }

    fn kept_late(_: Labelled, _: KeptBack) -> (Kept, Cancels<MakeBarcode>) {
        (Kept, cancel())
    }

    fn registered(_: AwaitingBarcode, registered: Registered, it: &mut Parcel) -> AwaitingBarcode {
        it.reference = Some(registered.reference);
        AwaitingBarcode
    }

    fn registered_late(_: Labelled, registered: Registered, it: &mut Parcel) -> Labelled {
        it.reference = Some(registered.reference);
        Labelled
    }

    fn registered_in_vain(_: Kept, registered: Registered, it: &mut Parcel) -> Kept {
        it.reference = Some(registered.reference);
        Kept
    }

    fn paid(_: AwaitingBarcode, paid: Paid, it: &mut Parcel) -> AwaitingBarcode {
        it.payments.push(paid.payment);
        AwaitingBarcode
    }

    fn paid_late(_: Labelled, paid: Paid, it: &mut Parcel) -> Labelled {
        it.payments.push(paid.payment);
        Labelled
    }

    fn paid_in_vain(_: Kept, paid: Paid, it: &mut Parcel) -> Kept {
        it.payments.push(paid.payment);
        Kept
    }
}

fn reference(parcel: u64) -> String {
    format!("reference-{parcel}")
}

struct Depot;

#[handlers]
impl Depot {
    async fn make(&self, it: MakeBarcode, cx: &mut Context<'_, MemoryStore>) -> Result<BarcodeOutcome, HandlerError> {
        let MakeBarcode { parcel, attempt, printer } = it;
        match printer {
            Printer::Slow => tokio::time::sleep(Duration::from_millis(200)).await,
            Printer::Empty if cx.runs_before() == 0 => {
                return Err(HandlerError::retry_after("no paper", Duration::from_secs(20)));
            }
            Printer::Broken => return Err(HandlerError::permanent("no printer")),
            Printer::Ready | Printer::Empty => {}
        }
        let command = cx.message_id().to_owned();
        cx.tx().await?.insert("barcodes", Barcode { parcel, attempt, command })?;
        Ok(BarcodeMade { parcel, attempt }.into())
    }

    async fn register(&self, it: Register, cx: &mut Context<'_, MemoryStore>) -> Result<RegisterOutcome, HandlerError> {
        let reference = reference(it.parcel);
        cx.publish(Paid { reference: reference.clone(), payment: 0 });
        Ok(Registered { parcel: it.parcel, reference }.into())
    }
}

/// A barcode that depot has made, and the command that asked for it.
#[derive(Serialize, Deserialize)]
struct Barcode {
    parcel: u64,
    attempt: u32,
    command: String,
}

/// What the story does with a parcel.
struct Plan {
    printer: Printer,
    is_kept: bool,
    payments: u64,
}

thread_local! {
    /// By parcel: a run stays on its thread.
    static PLANS: RefCell<Vec<Plan>> = const { RefCell::new(Vec::new()) };
}

async fn clients(world: World) {
    PLANS.take();
    for parcel in 0..PARCELS {
        let printer = [Printer::Ready, Printer::Slow, Printer::Empty, Printer::Broken][world.random(4) as usize];
        let is_kept = printer == Printer::Broken || world.random(2) == 0;
        let (repacked, paid) = (world.random(3), world.random(3));
        PLANS.with_borrow_mut(|plans| plans.push(Plan { printer, is_kept, payments: 1 + paid }));
        // what happens to the parcel, in an order of its own
        let mut acts = vec![Act::Pack(printer)];
        acts.extend((0..repacked).map(|_| Act::Repack));
        acts.extend(is_kept.then_some(Act::Keep));
        acts.extend((1..=paid).map(Act::Pay));
        while !acts.is_empty() {
            let act = acts.swap_remove(world.random(acts.len() as u64) as usize);
            act.happens(&world, parcel).await;
            tokio::time::sleep(Duration::from_millis(world.random(5) * world.random(100))).await;
        }
    }
}

enum Act {
    Pack(Printer),
    Repack,
    Keep,
    Pay(u64),
}

impl Act {
    async fn happens(self, world: &World, parcel: u64) {
        match self {
            Act::Pack(printer) => world.publish(Packed { parcel, printer }).await,
            Act::Repack => world.publish(Repacked { parcel }).await,
            Act::Keep => world.publish(KeptBack { parcel }).await,
            Act::Pay(payment) => world.publish(Paid { reference: reference(parcel), payment }).await,
        }
    }
}

/// What all states know, as an instance's row has it.
#[derive(Deserialize)]
struct Stored {
    data: Parcel,
}

/// The parcels as shop has them in the end: state and data.
fn parcels(world: &World) -> Vec<(String, Parcel)> {
    let rows = world.instances("delivery").into_iter().map(|instance| instance.row);
    let read = |data: &str| serde_json::from_str::<Stored>(data).expect("its data is there").data;
    rows.map(|row| (row.state, read(&row.data))).collect()
}

fn barcodes(world: &World) -> Vec<Barcode> {
    world.rows("depot", "barcodes")
}

/// What depot's inbox says of a type of message.
fn inbox(world: &World, type_name: &str) -> Vec<InboxRecord> {
    world.store("depot").inbox().into_iter().filter(|row| row.type_name == type_name).collect()
}

fn commands(world: &World, result: &str) -> BTreeSet<String> {
    let rows = inbox(world, MakeBarcode::TYPE).into_iter();
    rows.filter(|row| row.result.as_str() == result).map(|row| row.message_id).collect()
}

fn nobody_is_left_behind(world: &World) -> bool {
    let parcels = parcels(world);
    let barcodes = barcodes(world);
    let is_over = |(plan, (state, it)): (&Plan, &(String, Parcel))| {
        let has_barcode = barcodes.iter().any(|made| (made.parcel, made.attempt) == (it.parcel, it.attempt));
        match state.as_str() {
            "Kept" => plan.is_kept,
            "Labelled" => !plan.is_kept && plan.printer != Printer::Broken && has_barcode,
            _ => false,
        }
    };
    parcels.len() == PARCELS as usize && PLANS.with_borrow(|plans| plans.iter().zip(&parcels).all(is_over))
}

/// A command is handled once or, if it was taken back in time, never; nothing else becomes of one.
fn what_is_taken_back_is_not_handled(world: &World) -> bool {
    let (handled, taken_back) = (commands(world, "handled"), commands(world, "discarded"));
    let barcodes = barcodes(world);
    let made: BTreeSet<String> = barcodes.iter().map(|made| made.command.clone()).collect();
    // depot said so of each, when it handled what went after the command
    let said = inbox(world, "sagabus.TakeBack").into_iter().filter_map(|row| {
        let note = row.note?;
        let (command, what) = note.split_once(": ")?;
        let (_, id) = command.split_once(' ')?;
        what.starts_with("taken back ").then(|| id.to_owned())
    });
    made == handled
        && made.len() == barcodes.len()
        && said.collect::<BTreeSet<_>>() == taken_back
        && inbox(world, MakeBarcode::TYPE).len() == handled.len() + taken_back.len()
}

fn each_barcode_is_known_to_its_parcel(world: &World) -> bool {
    let barcodes = barcodes(world);
    parcels(world).into_iter().all(|(_, mut it)| {
        let mut made: Vec<u32> =
            barcodes.iter().filter(|made| made.parcel == it.parcel).map(|made| made.attempt).collect();
        made.sort_unstable();
        it.made.sort_unstable();
        made == it.made
    })
}

fn each_payment_finds_its_parcel(world: &World) -> bool {
    let found = |(plan, (_, mut it)): (&Plan, (String, Parcel))| {
        it.payments.sort_unstable();
        it.payments.into_iter().eq(0..plan.payments)
    };
    PLANS.with_borrow(|plans| plans.iter().zip(parcels(world)).all(found))
}

fn each_parcel_has_its_reference(world: &World) -> bool {
    let aliases = world.store("shop").aliases();
    let is_right = |parcel: u64| {
        let mut own = aliases.iter().filter(|row| row.instance.id == parcel.to_string());
        own.next().is_some_and(|row| row.field.id == reference(parcel)) && own.next().is_none()
    };
    aliases.len() == PARCELS as usize && (0..PARCELS).all(is_right)
}

/// Parcels that are packed, packed anew, kept and paid for, while everything goes wrong.
pub(crate) fn simulation() -> Simulation {
    // no jump of a clock ends the wait for a parcel or its reference
    Simulation::of("shop", |it| it.saga::<Delivery>().settings(|it| it.early = Duration::from_secs(7 * 86_400)))
        .and("depot", |it| it.handlers(Depot))
        .story(clients)
        .in_the_end("nobody is left behind", nobody_is_left_behind)
        .in_the_end("what was taken back is not handled, and all else once", what_is_taken_back_is_not_handled)
        .in_the_end("each barcode is known to its parcel, once", each_barcode_is_known_to_its_parcel)
        .in_the_end("each payment reaches its parcel, once", each_payment_finds_its_parcel)
        .in_the_end("each parcel has its reference", each_parcel_has_its_reference)
}
