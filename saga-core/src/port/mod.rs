//! The ports: what the endpoint asks of a broker and of a database. Whoever writes another one implements
//! [`Transport`] or [`Store`] and runs the conformance suite of `tests/` over it.

mod inspect;
mod none;
mod rows;
mod store;
mod transport;

pub use inspect::*;
pub use none::NoStore;
pub use rows::*;
pub use store::*;
pub use transport::*;
