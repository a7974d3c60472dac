//! WAL files on their way: into the archive and back, as PostgreSQL asks for it.

pub mod get;
pub mod push;

pub mod before;
mod cluster;
mod end_of_timeline;
mod examine;
pub mod histories;
mod source;
