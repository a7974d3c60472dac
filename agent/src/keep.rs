//! What may go, and letting it go. What may go is decided by pure functions over a snapshot of the archive
//! ([`decide`]); letting it go takes two phases with a time of grace between them ([`expire`]).

pub mod calendar;
pub mod decide;
pub mod elapsed;
pub mod expire;
pub mod look;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod model;
pub mod policy;
pub mod snapshot;
mod spans;
