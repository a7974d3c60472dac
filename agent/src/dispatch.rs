//! From a parsed command line to the code that carries it out, on the runtime that fits.

use crate::cli::{Cli, Command, GlobalArgs, InitArgs};
use crate::config::Settings;
use crate::exit::{Ending, Failure, Role};
use crate::{command, daemon, ship};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use walpoint_archive::fault_point::panic_for_a_test;

/// How long work that was given up may go on before the process leaves.
const LEAVE_AFTER: Duration = Duration::from_millis(200);

/// Carries out a command. `started` is when the process began, for deadlines of the whole run.
pub fn run(role: Role, settings: &Settings, cli: &Cli, started: Instant) -> Result<Ending, Failure> {
    panic_for_a_test(name_of(role));
    let runtime = Running::new(role, settings.workers().get())?;
    runtime.block_on(carry_out(settings, cli, started))
}

/// Carries out `init`, the one command that runs without a configuration.
pub fn init(global: &GlobalArgs, args: &InitArgs) -> Result<Ending, Failure> {
    let runtime = Running::new(Role::Command, 1)?;
    runtime.block_on(command::init::run(global, args))
}

async fn carry_out(settings: &Settings, cli: &Cli, started: Instant) -> Result<Ending, Failure> {
    let json = cli.global.json;
    match &cli.command {
        Command::Init(args) => command::init::run(&cli.global, args).await,
        Command::ArchivePush(args) => ship::hook::run(settings, args, started).await,
        Command::ArchiveGet(args) => ship::get::run(settings, args, started).await,
        Command::Prefetch(args) => ship::prefetch::run(settings, args).await,
        Command::List(args) => command::list::run(settings, args, json).await,
        Command::Window(args) => command::window::run(settings, args, json).await,
        Command::Expire(args) => command::expire::run(settings, args, json).await,
        Command::Plan(args) => command::plan::run(settings, args, json).await,
        Command::Restore(args) => command::restore::run(settings, args, json).await,
        Command::Resolve(args) => command::resolve::run(settings, args, json).await,
        Command::Backup(args) => command::backup::run(settings, args, json).await,
        Command::TakeOver(args) => command::take_over::run(settings, args, json).await,
        Command::Agent(_) => daemon::run(settings, cli.global.config.clone()).await,
        Command::Status(args) => command::status::run(settings, args, json).await,
        Command::Verify(args) => command::verify::run(settings, args, json).await,
        Command::Check(args) => command::check::run(settings, args, json).await,
    }
}

/// What a test asks for that wants a panic at the start of a command.
fn name_of(role: Role) -> &'static str {
    match role {
        Role::Push => "archive-push",
        Role::Get => "archive-get",
        Role::Check => "check",
        Role::Command => "command",
    }
}

/// A runtime that is left within a bounded time, also by a panic: a read that hangs on a dead file system
/// must not keep a hook past its deadline.
struct Running(Option<Runtime>);

impl Running {
    fn new(role: Role, workers: usize) -> Result<Self, Failure> {
        // A hook handles one file: threads would cost more than they bring.
        let mut builder =
            if role.is_hook() { Builder::new_current_thread() } else { Builder::new_multi_thread() };
        if !role.is_hook() {
            builder.worker_threads(workers);
        }
        let runtime = builder.enable_all().build();
        runtime.map(|runtime| Self(Some(runtime))).map_err(|error| {
            Failure::failed(format!("could not start the threads that do the work: {error}"))
        })
    }

    fn block_on(&self, work: impl Future<Output = Result<Ending, Failure>>) -> Result<Ending, Failure> {
        match &self.0 {
            Some(runtime) => runtime.block_on(work),
            None => Err(Failure::failed("could not work without threads")),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(LEAVE_AFTER);
        }
    }
}
