//! A bad night: much is wrong at once, and an operator knows nothing but what `sagabus status`, or the dashboard's
//! first page, says. Each trouble is found, explained and mended from there, and then the books agree.

mod browser;
mod driver;
mod house;
mod terminal;
