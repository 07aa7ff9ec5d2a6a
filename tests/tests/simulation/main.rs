//! `Simulation` of the process of samples/ordering, and of one whose commands are taken back and whose payments know
//! an alias alone.

#[path = "../../../samples/ordering/src/messages.rs"]
mod messages;
mod ordering;
mod parcels;
mod saga {
    include!(concat!(env!("OUT_DIR"), "/ordering_saga.rs"));
}

use ordering::{Bank, simulation};
use sagabus::testing::{Faults, Simulation};
use std::process::Command;

/// Runs the seeds, and says how fast. `SAGABUS_SEEDS` runs more, `cargo xtask simulate` as many as asked for.
fn no_failure(simulation: Simulation) {
    let simulated = simulation.run();
    let (runs, took) = (simulated.runs(), simulated.took());
    println!("{runs} seeds in {took:.1?}: {:.0} a second", runs as f64 / took.as_secs_f64());
    simulated.expect_no_failure();
}

#[test]
fn no_seed_loses_an_order_or_does_anything_twice() {
    no_failure(simulation(Bank::Sound).seeds(500));
}

#[test]
fn no_seed_handles_what_was_taken_back_or_loses_a_payment_that_knows_an_alias() {
    no_failure(parcels::simulation().seeds(1000));
}

/// Set in a second process of this test: it prints its trace and ends.
const CHILD: &str = "SAGABUS_TEST_CHILD";

#[test]
fn the_same_seed_is_the_same_run_in_every_process() {
    let traced = |seed| simulation(Bank::Sound).trace(seed) + &parcels::simulation().trace(seed);
    let traces: Vec<String> = (0..20).map(traced).collect();
    if std::env::var_os(CHILD).is_some() {
        println!("{}", traces.concat());
        return;
    }
    for (seed, trace) in (0..).zip(&traces) {
        let again = traced(seed);
        let differs = trace.lines().zip(again.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(*trace, again, "seed {seed}");
    }
    assert!(traces.windows(2).all(|two| two[0] != two[1]), "the seed decides nothing");
    let me = std::env::current_exe().expect("a test is a program");
    let test = "the_same_seed_is_the_same_run_in_every_process";
    let child = Command::new(me).args(["--exact", test, "--nocapture"]).env(CHILD, "1").output();
    let child = child.expect("the test runs once more");
    let printed = String::from_utf8(child.stdout).expect("a trace is text");
    assert!(printed.contains(&traces.concat()), "another process runs otherwise:\n{printed}");
}

#[test]
fn a_charge_outside_the_transaction_is_found_and_drawn() {
    let simulated = simulation(Bank::Outside).seeds(300).run();
    let failure = simulated.failures().first().expect("no seed finds the charge outside the transaction");
    assert_eq!(failure.wrong, ["not so in the end: the bank outside charges nobody twice"]);
    let text = failure.to_string();
    let seed = failure.seed;
    for expected in [
        format!("seed {seed}: not so in the end: the bank outside charges nobody twice"),
        "```mermaid\nsequenceDiagram\n    participant client\n    participant ordering\n".into(),
        "client->>ordering: OrderPlaced".into(),
        "ordering->>payment: MakePayment".into(),
        "Note over ordering: OrderPlaced [".into(),
        format!("again: SAGABUS_SEED={seed} cargo test a_charge_outside"),
    ] {
        assert!(text.contains(&expected), "{expected:?} was expected in:\n{text}");
    }
    assert_eq!(simulation(Bank::Outside).trace(seed), failure.trace, "the failing run can be repeated");
}

#[test]
fn without_faults_a_bank_outside_charges_once() {
    let simulated = simulation(Bank::Outside).faults(|faults| *faults = Faults::none()).seeds(20).run();
    simulated.expect_no_failure();
}
