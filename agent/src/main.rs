//! `walpoint` keeps a PostgreSQL cluster recoverable to any moment.

mod cli;
mod config;
mod data_directory;
mod exit;
mod logging;
mod output;
mod postgres_command;
mod progress_bar;
mod writer_id;

fn main() {}
