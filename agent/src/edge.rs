//! One run of the program, from its words to its exit status. Nothing in here may leave another way: a
//! panic, a parser's own exit or a log that cannot be written would choose a status that PostgreSQL takes
//! for an answer.

use crate::cli::{Called, Cli, Command, LogFormat, is_only_help};
use crate::config::Settings;
use crate::exit::{Ending, Failure, Role};
use crate::output::{self, Manner};
use crate::{dispatch, logging, ship};
use clap::Parser;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Runs the program on the words after its name, and returns its exit status.
pub fn run(words: &[OsString]) -> u8 {
    say_panics_without_panicking();
    let called = Called::by(words);
    if called.json_log {
        logging::speak_json();
    }
    let started = Instant::now();
    match catch_unwind(AssertUnwindSafe(|| run_as(&called, words, started))) {
        Ok(code) => code,
        Err(payload) => {
            // Its destructor is somebody's code too.
            std::mem::forget(payload);
            let code = called.role.default_code();
            let failure = Failure::failed("an internal error ended the command");
            say(&called, &failure, code);
            code
        }
    }
}

/// The standard panic hook prints with a macro that panics when standard error is full, which aborts.
fn say_panics_without_panicking() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text =
            payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message");
        let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
        logging::tell_panic(&format!("internal error{}: {text}", place.unwrap_or_default()));
    }));
}

fn run_as(called: &Called, words: &[OsString], started: Instant) -> u8 {
    let ended = match parse(called, words) {
        Ok(Parsed::Run(cli)) => carry_out(called.role, &cli, started),
        Ok(Parsed::Text(text)) => {
            output::result_of_work(&text);
            Ok(Ending::DONE)
        }
        Err(failure) => Err(failure),
    };
    let code = called.role.code(&ended);
    if let Err(failure) = &ended {
        say(called, failure, code);
    }
    code
}

fn say(called: &Called, failure: &Failure, code: u8) {
    if called.json_log {
        // A line that did not parse has not started the log.
        logging::start(called.role, LogFormat::Json, None);
    }
    let manner = Manner { json: called.json, json_log: called.json_log };
    output::failure(called.role, &called.name, failure, code, manner);
}

enum Parsed {
    Run(Box<Cli>),
    /// Help or version, asked for.
    Text(String),
}

fn parse(called: &Called, words: &[OsString]) -> Result<Parsed, Failure> {
    let program = OsString::from("walpoint");
    let error = match Cli::try_parse_from(std::iter::once(&program).chain(words)) {
        Ok(cli) => return Ok(Parsed::Run(Box::new(cli))),
        Err(error) => error,
    };
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let text = error.render().to_string();
    // PostgreSQL would take the 0 of a help text for a file that it was given.
    if asked && (!called.role.is_hook() || is_only_help(words)) {
        return Ok(Parsed::Text(text));
    }
    if asked {
        return Err(Failure::usage("--help stands beside other arguments"));
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Err(Failure::usage("no command is given").with_hint("walpoint --help shows the commands"));
    }
    Err(usage_failure(&text))
}

/// The parser's message as ours: its first line is the error, what follows says how it is done.
fn usage_failure(text: &str) -> Failure {
    let text = text.trim();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let rest: Vec<&str> = rest.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Failure::usage(first.trim_end_matches('.')).with_hint_of((!rest.is_empty()).then(|| rest.join("; ")))
}

fn carry_out(role: Role, cli: &Cli, started: Instant) -> Result<Ending, Failure> {
    logging::start(role, cli.global.log_format, cli.global.log_level);
    match &cli.command {
        // The one command that makes the configuration which all others read.
        Command::Init(args) => dispatch::init(&cli.global, args),
        Command::ArchiveGet(args) => {
            let settings = Settings::load(cli.global.config.as_deref());
            let ended =
                unpanicked(|| dispatch::run(role, settings.as_ref().map_err(Clone::clone)?, cli, started));
            ship::get::told(args, settings.as_ref().ok(), ended)
        }
        _ => {
            let settings = Settings::load(cli.global.config.as_deref())?;
            dispatch::run(role, &settings, cli, started)
        }
    }
}

/// A panic as a failure, for the one hook whose answer depends on who asked.
fn unpanicked(work: impl FnOnce() -> Result<Ending, Failure>) -> Result<Ending, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        std::mem::forget(payload);
        Err(Failure::failed("an internal error ended the work"))
    })
}
