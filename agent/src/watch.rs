//! How are we? A snapshot of cluster and archive, and its judgement.

mod archive_view;
pub mod check;
pub mod health;
mod missing;
mod server_directory;
mod unarchived;
mod way;
