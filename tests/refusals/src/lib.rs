//! What the macros of Sagabus accept, and what the compiler must refuse.
//!
//! A package of its own, with as few dependencies as there can be: trybuild compiles them once more.
