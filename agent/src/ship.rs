//! WAL files on their way: into the archive and back, as PostgreSQL asks for it.

pub mod get;
#[expect(dead_code, reason = "the agent begins it")]
pub mod live_tail;
pub mod push;

pub mod before;
mod cluster;
mod examine;
mod histories;
mod source;
