//! Sagas for Rust services.

pub use saga_core::Answer;
pub use saga_core::Command;
pub use saga_core::Event;
pub use saga_core::Message;
pub use saga_core::MessageKind;
pub use saga_core::Outcome;
pub use saga_core::Reply;
pub use saga_core::Saga;
pub use saga_core::async_trait;

#[doc(hidden)]
pub use saga_core::__private;
pub use saga_core::port;

/// What a saga is written with.
pub mod saga {
    pub use saga_core::{Accepts, AcceptsAll, Chart, ChartEdge, ChartEffect, ChartMessage, ChartState, Effect, State};
}

/// Everything that a service's own code names.
pub mod prelude {
    pub use saga_core::{
        After, Answer, Command, Deadline, Either, Event, Keep, Message, Moment, On, Outcome, Publishes, Replies, Reply,
        Saga, SagaId, Sends, Starts, Stay, Then, after, async_trait, days, deadline, hours, minutes, publish, reply,
        seconds, send,
    };
}
