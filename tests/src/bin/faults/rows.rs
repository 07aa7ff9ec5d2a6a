//! The faults: what is done, for how long, and what ends it.

use crate::{
    act::{
        Act::{self, *},
        Line::{Cut, Hold, Release},
        Power::{Freeze, Kill, Start as Up, Stop, Thaw},
        Signal as Of,
    },
    meddler::Meddler::{Doubles, Hoards, Locks, Shuffles},
};
use saga_core::CrashPoint;
use std::time::Duration;
use tests::dice::Dice;

/// The services of the ordering sample.
pub(crate) const SERVICES: [&str; 3] = ["ordering", "payment", "warehouse"];

/// Where a fault is. Faults of different groups can be there at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Process,
    Broker,
    Database,
    /// It needs the system for itself.
    Alone,
}

/// A fault.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) group: Group,
    /// It is part of a quick run.
    pub(crate) quick: bool,
    /// Processes of each service.
    pub(crate) processes: usize,
    /// What all services are told besides.
    pub(crate) arguments: &'static [&'static str],
    pub(crate) inject: &'static [Act],
    /// How long it lasts, from and to; chance decides.
    pub(crate) lasts_ms: (u64, u64),
    /// What ends it: recovery is timed from the end of this.
    pub(crate) heal: &'static [Act],
    /// How long recovery may take after that.
    pub(crate) resumes_within: Duration,
}

const RESUME_MAX: Duration = Duration::from_secs(5);

const fn row(
    group: Group,
    name: &'static str,
    inject: &'static [Act],
    lasts_ms: (u64, u64),
    heal: &'static [Act],
) -> Row {
    Row { name, group, quick: false, processes: 1, arguments: &[], inject, lasts_ms, heal, resumes_within: RESUME_MAX }
}

impl Row {
    const fn quick(self) -> Self {
        Self { quick: true, ..self }
    }

    /// Whether the broker may be killed.
    pub(crate) fn kills_broker(&self) -> bool {
        self.inject.iter().any(|act| matches!(act, Broker(Kill) | Mix))
    }

    const fn processes(self, processes: usize) -> Self {
        Self { processes, ..self }
    }

    /// For a fault after which the endpoint waits on purpose.
    const fn resumes_within(self, resumes_within: Duration) -> Self {
        Self { resumes_within, ..self }
    }

    const fn with(self, arguments: &'static [&'static str]) -> Self {
        Self { arguments, ..self }
    }
}

/// Bundles are in flight too wherever a process dies.
const BUNDLES: &[&str] = &["--bundles"];
const NOW: (u64, u64) = (0, 0);
const SHORT: (u64, u64) = (200, 1000);
const LONG: (u64, u64) = (1000, 3000);
/// Longer than the lease of the services, which is 3 seconds.
const PAST_THE_LEASE: (u64, u64) = (3500, 5000);

const KICK: Act = Sql(&["SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"]);
const fn crash(name: &'static str, inject: &'static [Act]) -> Row {
    row(Group::Alone, name, inject, NOW, &[StartAll]).with(BUNDLES)
}

/// A setting of the database server for all sessions.
macro_rules! setting {
    ($name:literal, $value:literal) => {
        (
            &[Sql(&[concat!("ALTER SYSTEM SET ", $name, " = '", $value, "'"), "SELECT pg_reload_conf()"])],
            &[Sql(&[concat!("ALTER SYSTEM RESET ", $name), "SELECT pg_reload_conf()"])],
        )
    };
}
const STATEMENTS: (&[Act], &[Act]) = setting!("statement_timeout", "2ms");
const LOCK_WAITS: (&[Act], &[Act]) = setting!("lock_timeout", "1ms");
const READ_ONLY: (&[Act], &[Act]) = setting!("default_transaction_read_only", "on");
const SERIALIZABLE: (&[Act], &[Act]) = setting!("default_transaction_isolation", "serializable");

const FULL: Act = InEach(
    "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
     CREATE TRIGGER full_disk BEFORE INSERT ON sagabus.inbox EXECUTE FUNCTION full_disk();
     CREATE TRIGGER full_disk BEFORE INSERT ON sagabus.outbox EXECUTE FUNCTION full_disk()",
);

/// All faults.
pub(crate) const ROWS: &[Row] = &[
    row(Group::Process, "ordering killed", &[Signal("ordering", Of::Kill)], SHORT, &[Start("ordering")]),
    row(Group::Process, "payment killed", &[Signal("payment", Of::Kill)], SHORT, &[Start("payment")]).quick(),
    row(Group::Process, "warehouse killed", &[Signal("warehouse", Of::Kill)], SHORT, &[Start("warehouse")]),
    row(Group::Process, "ordering terminated", &[Signal("ordering", Of::Term)], NOW, &[Start("ordering")]),
    row(Group::Process, "payment terminated", &[Signal("payment", Of::Term)], NOW, &[Start("payment")]),
    row(Group::Process, "warehouse terminated", &[Signal("warehouse", Of::Term)], NOW, &[Start("warehouse")]),
    row(Group::Alone, "rolling restart of two processes each", &[Roll], NOW, &[]).processes(2),
    row(Group::Alone, "scaled from one process to three and back", &[Scale(3)], LONG, &[Scale(1)]).quick(),
    row(
        Group::Process,
        "ordering frozen past its lease, another takes over",
        &[SignalOne("ordering", Of::Stop)],
        PAST_THE_LEASE,
        &[SignalOne("ordering", Of::Cont)],
    )
    .processes(2),
    row(
        Group::Process,
        "payment frozen past its lease, another takes over",
        &[SignalOne("payment", Of::Stop)],
        PAST_THE_LEASE,
        &[SignalOne("payment", Of::Cont)],
    )
    .processes(2)
    .quick(),
    row(
        Group::Process,
        "warehouse frozen past its lease, another takes over",
        &[SignalOne("warehouse", Of::Stop)],
        PAST_THE_LEASE,
        &[SignalOne("warehouse", Of::Cont)],
    )
    .processes(2),
    crash("a process dies: delivery received", &[Crash(CrashPoint::Receive)]),
    crash("a process dies: locks held", &[Crash(CrashPoint::Lock)]),
    crash("a process dies: written, not committed", &[Crash(CrashPoint::BeforeCommit)]),
    crash("a process dies: committed, not published", &[Crash(CrashPoint::Commit)]).quick(),
    crash("a process dies: handed over, not acknowledged", &[Crash(CrashPoint::BeforeAck)]),
    crash("a process dies: published, not confirmed", &[Crash(CrashPoint::BeforeConfirm)]).quick(),
    crash("a process dies: confirmed, not deleted", &[Crash(CrashPoint::BeforeDelete)]),
    row(Group::Alone, "every message twice", &[Begin(Doubles)], LONG, &[End(Doubles)]).quick(),
    row(Group::Alone, "deliveries shuffled", &[Begin(Shuffles)], LONG, &[End(Shuffles)]),
    row(Group::Broker, "broker stopped", &[Broker(Stop)], SHORT, &[Broker(Up)]),
    row(Group::Broker, "broker killed", &[Broker(Kill)], SHORT, &[Broker(Up)]).quick(),
    row(Group::Broker, "broker frozen", &[Broker(Freeze)], LONG, &[Broker(Thaw)]),
    row(Group::Broker, "broker unreachable", &[ToBroker(Hold)], LONG, &[ToBroker(Release)]).quick(),
    row(Group::Broker, "broker's connections cut", &[ToBroker(Cut)], NOW, &[]),
    row(Group::Broker, "broker closes all connections", &[CloseConnections], NOW, &[]),
    row(
        Group::Broker,
        "broker closes channels with open deliveries",
        &[Control(&["eval", "application:set_env(rabbit, consumer_timeout, 1)."])],
        LONG,
        &[Control(&["eval", "application:set_env(rabbit, consumer_timeout, 1800000)."])],
    ),
    row(
        Group::Broker,
        "broker out of memory",
        &[Control(&["set_vm_memory_high_watermark", "0.00001"])],
        LONG,
        &[Control(&["set_vm_memory_high_watermark", "absolute", "2GB"])],
    ),
    row(
        Group::Broker,
        "broker's disk full",
        &[Control(&["set_disk_free_limit", "1000000GB"])],
        LONG,
        &[Control(&["set_disk_free_limit", "50MB"])],
    ),
    row(Group::Alone, "queue of payment deleted while empty", &[Quiet, Remove("queues", "payment")], NOW, &[Loud]),
    // publishers wait 8 s, in which subscribers bind again: earlier, their events would be lost
    row(Group::Alone, "exchange of an event deleted", &[Remove("exchanges", "ordering.OrderPlaced")], NOW, &[])
        .resumes_within(Duration::from_secs(12)),
    row(
        Group::Broker,
        "broker's permissions taken",
        &[Permit(["^$"; 3]), CloseConnections],
        LONG,
        &[Permit([".*"; 3])],
    ),
    row(
        Group::Broker,
        "publishing forbidden",
        &[Permit([".*", "^$", ".*"]), CloseConnections],
        LONG,
        &[Permit([".*"; 3])],
    ),
    row(Group::Database, "database restarted (fast)", &[Database(Stop)], SHORT, &[Database(Up)]),
    row(Group::Database, "database restarted (immediate)", &[Database(Kill)], SHORT, &[Database(Up)]).quick(),
    row(Group::Database, "database frozen", &[Database(Freeze)], LONG, &[Database(Thaw)]),
    row(Group::Database, "database unreachable", &[ToDatabase(Hold)], LONG, &[ToDatabase(Release)]),
    row(Group::Database, "database's connections cut", &[ToDatabase(Cut)], NOW, &[]),
    row(Group::Database, "database's sessions killed", &[KICK], NOW, &[]).quick(),
    row(Group::Database, "answers to three commits lost", &[SwallowCommits(3)], NOW, &[]).quick(),
    row(Group::Database, "rows locked by somebody", &[Begin(Locks)], LONG, &[End(Locks)]),
    row(Group::Database, "locks time out after 1 ms", LOCK_WAITS.0, LONG, LOCK_WAITS.1),
    row(Group::Database, "statements time out after 2 ms", STATEMENTS.0, LONG, STATEMENTS.1),
    row(Group::Database, "database read-only", READ_ONLY.0, LONG, READ_ONLY.1),
    row(Group::Database, "connections exhausted by somebody", &[Begin(Hoards)], LONG, &[End(Hoards)]),
    row(Group::Database, "serializable by default", SERIALIZABLE.0, LONG, SERIALIZABLE.1),
    row(Group::Database, "database's disk full", &[FULL], LONG, &[InEach("DROP FUNCTION full_disk CASCADE")]).quick(),
    row(Group::Alone, "three at once, by chance", &[Mix], LONG, &[EndMix]).quick(),
];

/// A fault of each group, by chance.
pub(crate) fn one_of_each(dice: &mut Dice) -> Vec<&'static Row> {
    let of = |group| -> Vec<&'static Row> {
        ROWS.iter().filter(|row| row.group == group && row.processes == 1 && row.arguments.is_empty()).collect()
    };
    let mut chosen = [Group::Process, Group::Broker, Group::Database].map(of).map(|rows| rows[dice.below(rows.len())]);
    // first what needs commits: behind a broker that is away there are none
    chosen.sort_by_key(|row| !matches!(row.inject, [SwallowCommits(_)]));
    chosen.into()
}
