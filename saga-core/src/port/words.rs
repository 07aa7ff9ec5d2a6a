//! The words that stand in the tables: each enum is a column's set of values.

use crate::ErrorCode;

/// Defines an enum whose variants have a name in the tables.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$about])* $variant,)+ }

        impl $name {
            /// All of them, in the order of their definition.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name in the tables.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Reads its name; `None` for a word that a newer binary wrote.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words!(
    /// What became of a message at one receiver: `inbox.result`.
    InboxResult {
        /// Handled.
        Handled = "handled",
        /// Nothing to do with it in this state.
        Ignored = "ignored",
        /// A timer of a state that was left.
        Stale = "stale",
        /// Given up by policy or by an operator.
        Discarded = "discarded",
        /// Waits in `held`.
        Held = "held",
        /// Waits for its delayed retry.
        Retrying = "retrying",
        /// Redelivered after a crash, and running alone.
        Suspect = "suspect",
    }
);

impl InboxResult {
    /// Whether the message is settled for good.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Held | Self::Retrying | Self::Suspect)
    }
}

words!(
    /// Why a message waits: `held.reason`.
    HeldReason {
        /// For a state that takes it, or for its instance to start.
        Early = "early",
        /// For another state, as the definition says.
        Deferred = "deferred",
        /// Behind a failed message of the same instance.
        Paused = "paused",
        /// For a process that knows its type, or the version that wrote the instance. Offered again by such a process.
        Version = "version",
        /// For a person: it failed.
        Failed = "failed",
        /// For a person: the definition rejects it, or its id was used before.
        Rejected = "rejected",
        /// For a person: it killed the process.
        Crashes = "crashes",
        /// For a person: it cannot be read.
        Undecodable = "undecodable",
        /// For a person: its first publish is so old that its receivers may have forgotten it.
        Stranded = "stranded",
    }
);

impl HeldReason {
    /// The code of what it means, which has a paragraph in the book.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Early => ErrorCode::HeldEarly,
            Self::Deferred => ErrorCode::HeldDeferred,
            Self::Paused => ErrorCode::HeldPaused,
            Self::Version => ErrorCode::HeldVersion,
            Self::Failed => ErrorCode::HeldFailed,
            Self::Rejected => ErrorCode::HeldRejected,
            Self::Crashes => ErrorCode::HeldCrashes,
            Self::Undecodable => ErrorCode::HeldUndecodable,
            Self::Stranded => ErrorCode::HeldStranded,
        }
    }

    /// Whether it goes on by itself, without a person.
    pub fn releases_itself(self) -> bool {
        matches!(self, Self::Early | Self::Deferred | Self::Paused | Self::Version)
    }

    /// Whether something ran before the message was held: what waits for its turn, or cannot be read, has not run.
    pub(crate) fn had_a_run(self) -> bool {
        !self.releases_itself() && self != Self::Undecodable
    }
}

words!(
    /// Why a row is in the outbox: `outbox.kind`.
    OutboxKind {
        /// A command.
        Command = "command",
        /// An event.
        Event = "event",
        /// An answer.
        Reply = "reply",
        /// A timer of a saga.
        Timer = "timer",
        /// A message put off, or released, to be handled again.
        Retry = "retry",
    }
);

impl OutboxKind {
    /// The destination that a row of this kind names.
    pub fn destination(self, name: String) -> super::Destination {
        use super::Destination;
        match self {
            Self::Event => Destination::Event(name),
            Self::Reply => Destination::ReplyTo(name),
            Self::Command | Self::Timer | Self::Retry => Destination::Endpoint(name),
        }
    }
}
