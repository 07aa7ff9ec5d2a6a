//! The codes of what a user or an operator can meet: one for each kind of cause, not one for each sentence.
//!
//! The documentation of a code is its paragraph: rustdoc, `sagabus errors` and the book's page all show it.

use std::fmt;

/// Defines the codes. A code never changes its meaning, and none is used twice.
macro_rules! codes {
    ($($(#[doc = $line:literal])+ $variant:ident = $code:literal $name:literal,)+) => {
        /// The code of an error, as it stands in square brackets at the end of the error's text: `… [SB0011]`.
        ///
        /// ```
        /// use sagabus::port::ErrorCode;
        ///
        /// let code = ErrorCode::parse("sb0011").unwrap();
        /// assert_eq!((code.to_string(), code.name()), ("SB0011".to_owned(), "broker-unreachable"));
        /// println!("{}", code.paragraph());
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[doc = $line])+ $variant,)+ }

        impl ErrorCode {
            /// All of them, by number.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The code itself: `SB0011`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// A short name: `broker-unreachable`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it looks like, why it happens, and what to do about it.
            pub fn paragraph(self) -> String {
                let lines: &[&str] = match self { $(Self::$variant => &[$($line),+],)+ };
                lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
            }
        }
    };
}

codes!(
    /// `start()` refuses the endpoint's name. The name is also that of its queue, so it has 1 to 127 bytes, no
    /// whitespace, and another end than `.low`, which is for the queue of commands that can wait. Choose another name.
    EndpointName = "SB0001" "endpoint-name",
    /// `start()` finds a handler that would never get its message: the message is sent to another endpoint, or it is
    /// neither a command nor an event. Compare the endpoint's name with `to = ".."` at the command, or take the handler
    /// out.
    NeverComes = "SB0002" "never-comes",
    /// `start()` finds two handlers of one command, or a block of handlers that is added twice. A command has one
    /// handler, because it has one outcome. Take one out; what shall happen in two places is an event.
    TwoHandlers = "SB0003" "two-handlers",
    /// `start()` finds one name at two sagas, handlers or aliases of the endpoint. The inbox, the tables and the
    /// operator's commands tell them apart by that name. Give one another name: `#[handler(name = "..")]`, `#[saga(name
    /// = "..")]`.
    NameTaken = "SB0004" "name-taken",
    /// `start()` finds a projection of a saga that is not added before it, or a second one of the same saga. Add the
    /// saga first with `.saga::<..>()`, and write both read models in one projection.
    Projection = "SB0005" "projection",
    /// `start()` finds a limit that cannot work: it is not set, nobody has it, it allows nothing, or its handler has no
    /// key, takes batches or shares transactions. The text names the handler and the limit; set `.limit(name, ..)` and
    /// `#[handler(limit = "..", key = ..)]` accordingly.
    LimitUnfit = "SB0006" "limit",
    /// `start()` finds a handler whose key is read from another message than its own. Give `HandlerOptions::key` a
    /// function of the handler's message.
    KeyUnfit = "SB0007" "key",
    /// `start()` finds a setting that makes no sense: one that is 0, a `retention` shorter than `early`, a `lease`
    /// below three seconds. Change it in `.settings(..)`, or leave the default.
    Setting = "SB0008" "setting",
    /// `start()` finds a saga whose chart is unsound: a state that cannot be reached or left, a command that is not
    /// answered in each state that is done. The text names the state. `chart().verify()` says the same in a test.
    ChartUnsound = "SB0009" "chart",
    /// `start()` finds that another endpoint of this database has a saga of the same name. Their instances would be
    /// read by both. Give one another name; if the other endpoint is gone for good, delete its rows from the table
    /// `definition`.
    SagaTaken = "SB0010" "saga-taken",
    /// The broker cannot be reached, or does not answer in time. `start()` fails with it after `Settings::connect`; a
    /// running endpoint says it in its log and waits: messages stay in the outbox and leave when the broker is back.
    /// Start the broker, or mend the network or the address.
    BrokerUnreachable = "SB0011" "broker-unreachable",
    /// The broker refuses user, password or virtual host. Waiting does not help, so `start()` fails at once. Compare
    /// the URL with `rabbitmqctl list_users`, `list_vhosts` and `list_permissions`; a `/` in the name of a virtual host
    /// is written `%2f`.
    BrokerDenied = "SB0012" "broker-denied",
    /// A queue or an exchange exists and was declared otherwise, is missing while the endpoint is `passive`, or is used
    /// by another connection alone. Delete what is there when it is empty, declare what is missing, or give the
    /// endpoint another name.
    TopologyDiffers = "SB0013" "topology-differs",
    /// The broker's user may not declare, write to or read a queue or an exchange. Grant it configure, write and read
    /// on the endpoint's queue and the exchanges of its events (`rabbitmqctl set_permissions`), or provision them by
    /// hand and set `passive`: the queue durable, with `x-queue-type=quorum` and `x-delivery-limit=100000` (or a policy
    /// with `delivery-limit` -1; else RabbitMQ 4.0 and later drop what came back 20 times), the exchanges durable
    /// fanouts.
    BrokerPermission = "SB0014" "broker-permission",
    /// The broker's URL, or the name of a queue in it, is wrong: it cannot be read, has an unknown option, or a file
    /// that it names cannot be read. It looks like `amqp://user:password@host:5672/vhost`; the text says which part.
    BrokerAddress = "SB0015" "broker-address",
    /// A limit of the broker is reached: queues of a virtual host, or fewer channels a connection than Sagabus needs.
    /// Raise it, or delete what nobody uses. A limit of connections is waited for.
    BrokerLimit = "SB0016" "broker-limit",
    /// The TLS handshake with the broker fails: one side does not trust the other's certificate, or it has expired or
    /// is for another host. Name the authority by `cacertfile=..` in the URL, a certificate of ours by `certfile=..`
    /// and `keyfile=..`; see SECURITY.md.
    BrokerTls = "SB0017" "broker-tls",
    /// The broker refuses something for another reason, in its own words. Nothing else is affected. Read its text and
    /// its log.
    BrokerRefuses = "SB0018" "broker-refuses",
    /// An endpoint of this name runs in this process already, on the in-process transport. Stop the other one first, or
    /// give this one another name.
    AlreadyRuns = "SB0019" "already-runs",
    /// The database cannot be reached, or does not answer in time. `start()` fails with it after `Settings::connect`; a
    /// running endpoint waits, counts no run and goes on by itself. Start the database, or mend the network, the
    /// address or the file.
    DatabaseUnreachable = "SB0020" "database-unreachable",
    /// The database answers and can do nothing now: it is full, read-only, starting or stopping, or has no memory or no
    /// connections left. Messages wait and no run is counted. Give it room or connections; the endpoint goes on by
    /// itself.
    DatabaseUnable = "SB0021" "database-unable",
    /// The database refuses a statement: a constraint, a value that a column cannot hold, a time limit, or SQL that is
    /// wrong. It is the failure of the handler or projection whose statement it is, and is retried, then held. Read the
    /// database's own code in the text, and mend the statement, the data or the table.
    StatementRefused = "SB0022" "statement-refused",
    /// Tables, columns or permissions are not those that this program needs. No message is to blame: they wait, and no
    /// run is counted. Run `sagabus migrate`, grant what is missing, or deploy the program that fits the tables.
    Tables = "SB0023" "tables",
    /// Another transaction changed the same rows, or both waited for each other. The work runs again at once, by
    /// itself; a session's `commit` leaves that to you: run the request again. If one statement meets it again and
    /// again, look at the order in which it takes its rows.
    Conflict = "SB0024" "conflict",
    /// A statement was prepared before its table changed. It is prepared anew and runs again, by itself. There is
    /// nothing to do.
    StalePlan = "SB0025" "stale-plan",
    /// The database's address, user or password is wrong, or there is no such database or file. Waiting does not help.
    /// It looks like `postgres://user:password@host:5432/database` or `sqlite:PATH`; the text says which part.
    DatabaseAddress = "SB0026" "database-address",
    /// The TLS handshake with the database fails: one side does not trust the other's certificate, or has no TLS. Name
    /// the authority by `sslrootcert=..` in the URL, a certificate of ours by `sslcert=..` and `sslkey=..`; see
    /// SECURITY.md.
    DatabaseTls = "SB0027" "database-tls",
    /// The tables have another version than this program knows, or hold a word that a newer program wrote. Nothing was
    /// changed. Deploy a program that knows the version.
    OtherVersion = "SB0028" "other-version",
    /// The server is no PostgreSQL that Sagabus can run on: CockroachDB, YugabyteDB, Citus, or a database whose
    /// encoding is not UTF-8. They differ where Sagabus relies on locks and plans. Use PostgreSQL itself.
    DatabaseUnfit = "SB0029" "database-unfit",
    /// A pooler gives each transaction another session of the server, so prepared statements are not found. Add
    /// `?statement-cache-capacity=0` to the URL, and `.persistent(false)` to queries of your own pool.
    Pooler = "SB0030" "pooler",
    /// A handler ended the transaction that Sagabus began, or went on in it after an error of the database. Leave
    /// COMMIT and ROLLBACK to Sagabus; run a statement that may fail in a nested transaction
    /// (`sqlx::Connection::begin(cx.tx().await?)`).
    TransactionEnded = "SB0031" "transaction-ended",
    /// A message must not leave: it is too large, has a header whose name is reserved, a value that JSON does not have,
    /// or answers what was not asked. Nothing is committed. The text says which; change the code that makes it.
    MessageRefused = "SB0032" "message-refused",
    /// No queue takes the messages for an endpoint: it never ran on this broker, has another name, or its queue was
    /// deleted. They wait in the outbox behind one probe, up to five minutes apart. Start the endpoint; `sagabus outbox
    /// send-now --failing` does not wait for the probe, `outbox reroute` sends them to a new name.
    Unroutable = "SB0033" "unroutable",
    /// More requests are open than `Settings::requests` and `request_bytes` allow. This one was not sent. Answer 503,
    /// or ask with a shorter limit; if the asked endpoint is slow, look there.
    RequestsBusy = "SB0034" "requests-busy",
    /// The broker did not confirm a request, so it may be handled or not. Ask the endpoint that handles it, by the
    /// command's id, or repeat a command that is safe to repeat.
    RequestUnconfirmed = "SB0035" "request-unconfirmed",
    /// The endpoint has stopped while a request was open, so it may be handled or not. Its answer is in the journal of
    /// the endpoint that was asked.
    EndpointStopped = "SB0036" "endpoint-stopped",
    /// An answer came whose type or body this program does not know. The command was handled. Deploy both sides with
    /// the same outcome.
    AnswerUnreadable = "SB0037" "answer-unreadable",
    /// The endpoint was stopped, and `Settings::stop` was not enough for what was running. Nothing is lost: the next
    /// process runs it again. Give it more time, or make the handler that is named shorter.
    CutOff = "SB0038" "cut-off",
    /// A task of the endpoint ended by itself, which is a fault in Sagabus, a transport or a store. Nothing is lost.
    /// Restart the process, and report the text.
    EndpointFailed = "SB0039" "endpoint-failed",
    /// A message is held because every retry of its handler or projection failed; if it was for a saga's instance, the
    /// instance is paused. The error is beside it. Mend the cause, then `sagabus held retry --reason-is failed`.
    HeldFailed = "SB0040" "held-failed",
    /// A message is held because the saga's definition rejects it in this state. Read the saga: usually it is
    /// discarded, `sagabus held discard`.
    HeldRejected = "SB0041" "held-rejected",
    /// A message is held because its id was used before for another message. A producer makes the same id twice. It is
    /// held under an id of its own; have the producer mended, then retry or discard it.
    IdUsedBefore = "SB0042" "id-used-before",
    /// A message is held because the process died three times while it was handled. Look into the log of the process
    /// that the text names, for memory above all. Retry it when that is mended.
    HeldCrashes = "SB0043" "held-crashes",
    /// A message is held because it cannot be read: its body is not what its type says, its type is unknown, or it has
    /// no id. `sagabus held edit` opens the body and has it handled; or mend the producer and discard it.
    HeldUndecodable = "SB0044" "held-undecodable",
    /// A message is held because its first publish is so old that its receivers may have forgotten it, and would handle
    /// it twice. Ask the receiver (`sagabus explain ID`), then retry or discard it.
    HeldStranded = "SB0045" "held-stranded",
    /// A message waits for its instance to start, or for a state that takes it. It goes on by itself. After
    /// `Settings::early` an event is given up, and a command or answer waits for a person.
    HeldEarly = "SB0046" "held-early",
    /// A message waits for another state, as the definition says (`#[defers]`). It goes on by itself.
    HeldDeferred = "SB0047" "held-deferred",
    /// A message waits behind a held one of the same instance. It goes on when that one is settled.
    HeldPaused = "SB0048" "held-paused",
    /// A message waits for a process that knows its type, or the version that wrote its instance. Deploy that version,
    /// or add the handler that was forgotten. After a day it waits for a person.
    HeldVersion = "SB0049" "held-version",
    /// An instance is paused: a message for it failed and is held, and later ones wait behind it, in order. `sagabus
    /// sagas show` names the message. Retry or discard that, or `sagabus sagas resume` to go on without it.
    InstancePaused = "SB0050" "instance-paused",
    /// An instance has not changed for more than a day. It may wait for a customer, or for a message that never comes;
    /// only who knows the saga can tell. `sagabus sagas show` says what it waits for; give it that, or cancel it.
    InstanceLingers = "SB0051" "instance-lingers",
    /// Messages could not be published: the broker refuses them, or an exchange is missing. They are tried again, later
    /// each time. The broker's words stand beside the count; when the cause is gone, `sagabus outbox send-now
    /// --failing`.
    PublishFailed = "SB0052" "publish-failed",
    /// Messages have been due for a minute and are not confirmed: no process of the endpoint runs, or none reaches the
    /// broker. Start one, or mend its link: `sagabus processes`.
    NotSent = "SB0053" "not-sent",
    /// A process has written no heartbeat for 90 seconds: it died, hangs, or is cut off from the database. Others take
    /// over its work. Look whether it still runs; its row goes after a day.
    ProcessSilent = "SB0054" "process-silent",
    /// A process is cut off from its broker; the reason is beside it. It tries again by itself, and its messages wait.
    /// Mend the broker or the network.
    LinkDown = "SB0055" "link-down",
    /// A handler has failed ten messages in a row: its breaker is open, and it runs one at a time, with pauses, until
    /// one succeeds. What it calls is probably away. `sagabus outbox list --kind retry` has the errors; when it is
    /// back, `outbox send-now --kind retry` does not wait.
    BreakerOpen = "SB0056" "breaker-open",
    /// The program has no saga of the name that a stored instance has. Messages for it wait, held as `version`. Keep
    /// the saga until its instances are done and deleted (`sagabus versions`).
    NoSuchSaga = "SB0057" "no-such-saga",
    /// A newer version of the saga wrote the instance. This program leaves it alone, and its messages wait for a newer
    /// one. During a rolling deployment that is as it should be; else deploy the newer program.
    NewerInstance = "SB0058" "newer-instance",
    /// The saga has no state of the name that is stored: the instance's next message would pause it. Say `#[was("..")]`
    /// if it was renamed, else keep it with `#[legacy]`.
    NoSuchState = "SB0059" "no-such-state",
    /// What is stored does not fit the fields of the state, or of the data: the instance's next message would pause it.
    /// Give a new field `#[serde(default)]`, or raise the version and write an `Upcast`.
    DataUnfit = "SB0060" "data-unfit",
    /// An instance has set a timer that the saga no longer takes: it would be held as `version` when its time has come.
    /// Keep the function that takes it until such instances are done.
    TimerUnfit = "SB0061" "timer-unfit",
    /// The clocks of this machine and the database differ. Leases and timers go by the database's, but times in
    /// messages and logs mislead. Set the clock (NTP).
    Clock = "SB0062" "clock",
    /// The database does not keep what it commits: `fsync` or `synchronous_commit` is off. A crash of the machine can
    /// undo what was sent already. Switch it on.
    NotDurable = "SB0063" "not-durable",
    /// Rows that are gone are not removed from the tables: autovacuum is off or too slow, or a transaction has been
    /// open for long. The outbox grows and slows down. Switch it on, run VACUUM, end the transaction
    /// (`pg_stat_activity`).
    NotVacuumed = "SB0064" "not-vacuumed",
    /// The lock table of PostgreSQL can become full under load, because many processes run. Set
    /// `max_locks_per_transaction` to 256, and restart the server.
    LocksFew = "SB0065" "locks-few",
    /// Rows of the outbox have a lease that ran out, and no process takes them over, because none of their endpoint
    /// runs. Start one.
    LeasesDead = "SB0066" "leases-dead",
    /// An endpoint has no queue at the broker. Messages to it cannot be delivered, and wait in their senders' outboxes.
    /// Start the endpoint, which declares it; if it was renamed, `sagabus outbox reroute`.
    QueueMissing = "SB0067" "queue-missing",
    /// The queue of an endpoint is no durable quorum queue. It, and what is in it, may be lost with one node or one
    /// restart. Empty it, delete it, and let the endpoint declare it anew.
    QueueUnsafe = "SB0068" "queue-unsafe",
    /// Messages wait in a queue that nobody consumes. Start the endpoint. If nobody needs it any more, look what is in
    /// it, then delete it.
    QueueUnread = "SB0069" "queue-unread",
    /// An event that an endpoint subscribes to has no exchange at the broker, so nobody has published it there, and the
    /// endpoint has not declared it. Start the endpoint, which declares and binds it; if it runs, its log says why not.
    EventUnbound = "SB0070" "event-unbound",
    /// A queue beside that of an endpoint is left over: of another library, or of an older topology. Nothing of Sagabus
    /// reads it. Look what is in it, move what is needed, and delete it.
    QueueLeftOver = "SB0071" "queue-left-over",
    /// The operator's program was not told which database or broker, or was told something that fits no other option.
    /// Nothing was done. The text says what to give.
    Usage = "SB0072" "usage",
    /// Nothing has this id or name, or nothing matches the filter: it was dealt with meanwhile, is forgotten after its
    /// retention, or is in another database. Nothing was done. The text lists what there is, if that is short.
    NotFound = "SB0073" "not-found",
    /// Several ids begin with what was given, several rows have the id, or several databases the instance. Nothing was
    /// done. The text lists them, each with what leads to it: more of the id, `--receiver`, `--endpoint`, or one
    /// `--database`.
    Ambiguous = "SB0074" "ambiguous",
    /// An action ended before its end: it was interrupted, a database failed, or more rows match than one action takes.
    /// What was done stays done and is recorded. Run the same command again for the rest.
    StoppedHalfway = "SB0075" "stopped-halfway",
    /// A new body, a chart or a file that was given cannot be read, or is not JSON. Nothing was done. Correct it; the
    /// text says where.
    InputUnfit = "SB0076" "input-unfit",
    /// The dashboard does not start, because everyone could come in, or because its options contradict each other. Set
    /// a token of at least 16 characters in `SAGABUS_DASHBOARD_TOKEN`, or listen on loopback.
    DashboardOpen = "SB0077" "dashboard-open",
    /// What was asked needs the role of an operator, and the visitor is a viewer, or nobody knows who they are. Log in
    /// with the operator's token, or ask one who may.
    NotAllowed = "SB0078" "not-allowed",
    /// The webhook does not take what is posted to it. Troubles wait, up to 1,000, and are posted again. Mend the
    /// address or the service behind it.
    WebhookAway = "SB0079" "webhook-away",
    /// An instance cannot stand again where a step left it. It stands there now; or the journal has no copy of it,
    /// because its endpoint did not keep messages when the step was made, or because retention has deleted the step;
    /// or a timer of then cannot be set again, or another instance has an alias of then. Nothing was done. Set
    /// `Settings::keep_messages` for the steps to come, and choose another step: `sagabus sagas show` lists them.
    StepUnfit = "SB0080" "step-unfit",
);

impl ErrorCode {
    /// Reads a code, whatever its case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str().eq_ignore_ascii_case(text))
    }

    /// A text with the code at its end, unless the text has a code already: that one is nearer to the cause.
    pub fn told(self, text: impl fmt::Display) -> String {
        let text = text.to_string();
        if text.contains(MARK) { text } else { format!("{text} [{self}]") }
    }
}

/// How a code begins in a text.
const MARK: &str = "[SB";

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_numbered_without_a_gap_and_names_are_unique() {
        let numbers: Vec<String> = (1..=ErrorCode::ALL.len()).map(|n| format!("SB{n:04}")).collect();
        assert_eq!(ErrorCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>(), numbers);
        let names: HashSet<&str> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len(), "two codes have one name");
    }

    #[test]
    fn a_text_has_one_code_and_the_inner_one_stays() {
        let inner = ErrorCode::Tables.told("no column `x`");
        assert_eq!(inner, "no column `x` [SB0023]");
        assert_eq!(ErrorCode::HeldFailed.told(&inner), inner);
        assert_eq!(ErrorCode::parse("sb0023"), Some(ErrorCode::Tables));
        assert_eq!(ErrorCode::parse("SB9999"), None);
    }
}
