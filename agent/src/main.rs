// `walpoint` keeps a PostgreSQL cluster recoverable to any moment.

mod backup;
mod cli;
mod cluster_choice;
mod command;
mod config;
mod daemon;
mod data_directory;
mod dispatch;
mod edge;
mod exit;
mod keep;
mod logging;
mod open;
mod output;
mod postgres_command;
mod progress_bar;
mod session;
mod ship;
mod watch;
mod writer_id;

fn main() {
    let words: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    #[expect(clippy::disallowed_methods, reason = "the only place where the process ends")]
    std::process::exit(i32::from(edge::run(&words)));
}
