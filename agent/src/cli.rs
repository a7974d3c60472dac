//! The command line: what can be asked for. Parsing chooses no exit status; [`crate::exit`] does.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

mod agent;
mod argv;
mod backup;
mod check;
mod expire;
mod hooks;
mod init;
mod list;
mod plan;
mod resolve;
mod restore;
mod take_over;
mod target;
mod verify;

pub use agent::{AgentArgs, StatusArgs};
pub use argv::{Called, is_only_help};
pub use backup::BackupArgs;
pub use check::CheckArgs;
pub use expire::ExpireArgs;
pub use hooks::{GetArgs, PrefetchArgs, PushArgs};
pub use init::InitArgs;
pub use list::{ListArgs, WindowArgs};
pub use plan::PlanArgs;
pub use resolve::ResolveArgs;
pub use restore::{RestoreArgs, TargetAction};
pub use take_over::TakeOverArgs;
pub use target::TargetArgs;
pub use verify::VerifyArgs;

/// Keeps a PostgreSQL cluster recoverable to any moment.
#[derive(Debug, Parser)]
#[command(name = "walpoint", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Heading in the help, so that a command's own options stand together.
const COMMON: &str = "Options of every command";

/// Options that every command takes, before and after its name.
#[derive(Args, Clone, Debug, Default)]
pub struct GlobalArgs {
    /// Configuration file [default: $WALPOINT_CONFIG, then /etc/walpoint/walpoint.toml]
    #[arg(long, value_name = "FILE", global = true, help_heading = COMMON)]
    pub config: Option<PathBuf>,
    /// Print the result as one JSON object
    #[arg(long, global = true, help_heading = COMMON)]
    pub json: bool,
    /// Form of the log on standard error
    #[arg(long, value_name = "FORMAT", global = true, help_heading = COMMON, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What is logged [default: warn for the hooks, info for commands]
    #[arg(long, value_name = "LEVEL", global = true, help_heading = COMMON, value_enum)]
    pub log_level: Option<LogLevel>,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What failed
    Error,
    /// And what looks wrong
    Warn,
    /// And what is done
    Info,
    /// And how
    Debug,
    /// And every step of it
    Trace,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a configuration, try the archive, and show the lines for postgresql.conf
    Init(InitArgs),
    /// Store a finished WAL file in the archive; for archive_command
    ArchivePush(PushArgs),
    /// Bring a WAL file back from the archive; for restore_command
    ArchiveGet(GetArgs),
    /// Fetch ahead of a recovery; archive-get starts it
    #[command(hide = true)]
    Prefetch(PrefetchArgs),
    /// Take a base backup of the running cluster
    Backup(BackupArgs),
    /// List the backups, or the WAL, in the archive
    List(ListArgs),
    /// Show every moment that can be recovered to, and the gaps between
    Window(WindowArgs),
    /// Say how a recovery target would be reached, without writing anything
    Plan(PlanArgs),
    /// Restore the cluster as it was at a recovery target
    Restore(RestoreArgs),
    /// Make a restored cluster archive its WAL again
    TakeOver(TakeOverArgs),
    /// Read back what the archive holds, and say what of it is sound
    Verify(VerifyArgs),
    /// Say whether the cluster is protected, as a monitoring plugin
    Check(CheckArgs),
    /// Say what the retention policy lets go, and why the rest stays; let it go with --apply
    Expire(ExpireArgs),
    /// Stay beside PostgreSQL: ship WAL ahead of archive_command, and answer it
    Agent(AgentArgs),
    /// Say how the agent is
    Status(StatusArgs),
    /// Decide which of several contents of a WAL file recovery uses
    Resolve(ResolveArgs),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sound line of every command.
    const LINES: [&[&str]; 16] = [
        &["init"],
        &["archive-push", "pg_wal/x"],
        &["archive-get", "x", "pg_wal/y"],
        &["prefetch", "/data"],
        &["backup"],
        &["list"],
        &["window"],
        &["plan"],
        &["restore"],
        &["take-over"],
        &["verify"],
        &["check"],
        &["expire"],
        &["agent"],
        &["status"],
        &["resolve", "00000002.history"],
    ];

    /// Every global option, and how it is seen that it was taken.
    type Taken = fn(&GlobalArgs) -> bool;
    const OPTIONS: [(&[&str], Taken); 4] = [
        (&["--config", "file"], |it| it.config.as_deref() == Some(std::path::Path::new("file"))),
        (&["--json"], |it| it.json),
        (&["--log-format", "json"], |it| it.log_format == LogFormat::Json),
        (&["--log-level", "trace"], |it| it.log_level == Some(LogLevel::Trace)),
    ];

    #[test]
    fn every_global_option_is_taken_before_and_after_every_command() {
        use clap::CommandFactory;
        let commands = Cli::command();
        let mut named: Vec<&str> = commands.get_subcommands().map(clap::Command::get_name).collect();
        let mut tried = LINES.map(|line| line[0]);
        named.sort_unstable();
        tried.sort_unstable();
        assert_eq!(named, tried);
        assert_eq!(commands.get_arguments().filter(|option| option.is_global_set()).count(), OPTIONS.len());

        for line in LINES {
            for (option, taken) in OPTIONS {
                for words in [[option, line].concat(), [line, option].concat()] {
                    let cli = Cli::try_parse_from(["walpoint"].iter().chain(&words)).unwrap();
                    assert!(taken(&cli.global), "{words:?}");
                }
            }
        }
    }
}
