//! WAL files on their way: into the archive and back, as PostgreSQL asks for it.

pub mod ask;
pub mod before;
pub mod cluster;
pub mod get;
pub mod ground;
pub mod histories;
pub mod hook;
pub mod live_tail;
pub mod look_ahead;
mod look_once;
pub mod pace;
pub mod prefetch;
pub mod protocol;
pub mod push;
pub mod shipped;
pub mod socket;

mod end_of_timeline;
mod examine;
mod recent;
mod source;
