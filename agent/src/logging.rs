//! The log: tracing to standard error, as text or as JSON lines. A line that cannot be written is lost and
//! nothing else happens: a full disk under the log must not change an exit status.

use crate::cli::{LogFormat, LogLevel};
use crate::exit::Role;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Whether standard error takes JSON lines and nothing else. Known before the log is started: a panic may
/// come first.
static JSON_LINES: AtomicBool = AtomicBool::new(false);

/// Makes standard error take JSON lines, also where no log is involved.
pub fn speak_json() {
    JSON_LINES.store(true, Ordering::Relaxed);
}

/// True when standard error takes JSON lines and nothing else.
pub fn speaks_json() -> bool {
    JSON_LINES.load(Ordering::Relaxed)
}

/// Says what people read as it is, and what is one line of a log in JSON.
pub fn tell(text: &str) {
    if speaks_json() {
        tracing::info!("{}", text.trim_end());
    } else {
        crate::output::to_stderr(text);
    }
}

/// Says that the program itself is wrong. Past the log, which may be what panicked.
pub fn tell_panic(text: &str) {
    let line = if speaks_json() {
        serde_json::json!({ "level": "ERROR", "message": text, "target": "walpoint" }).to_string()
    } else {
        format!("walpoint: {text}")
    };
    crate::output::to_stderr(&(line + "\n"));
}

/// Starts the log. `level` is the operator's choice; without one hooks log at `warn`, commands at `info`.
pub fn start(role: Role, format: LogFormat, level: Option<LogLevel>) {
    let level = level.map_or_else(|| default_level(role), level_filter);
    let others = of_others(level);
    // It warns of every profile file that a server's user cannot read, also where none is needed.
    let profiles = if level >= LevelFilter::DEBUG { others } else { LevelFilter::ERROR };
    let filter = Targets::new()
        .with_default(others)
        .with_target("aws_config", profiles)
        .with_target("walpoint", level);
    let layer = tracing_subscriber::fmt::layer().with_writer(lossy_stderr).log_internal_errors(false);
    let layer = match format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Text => layer.with_target(false).with_ansi(io::stderr().is_terminal()).boxed(),
    };
    // Started twice only in tests of this program; the first one stays.
    let _already = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}

fn default_level(role: Role) -> LevelFilter {
    if role.is_hook() { LevelFilter::WARN } else { LevelFilter::INFO }
}

/// Other crates speak of their own affairs: only at the operator's own wish below `warn`, and never at
/// `trace`, where the SDK shows requests and answers whole, session tokens and passing credentials included.
fn of_others(level: LevelFilter) -> LevelFilter {
    if level >= LevelFilter::DEBUG { LevelFilter::DEBUG } else { level.min(LevelFilter::WARN) }
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn lossy_stderr() -> LossyStderr {
    LossyStderr
}

/// Standard error that takes every write and says that all went well.
struct LossyStderr;

impl io::Write for LossyStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        crate::output::to_stderr(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_log_at_warn_and_commands_at_info() {
        for role in [Role::Push, Role::Get] {
            assert_eq!(default_level(role), LevelFilter::WARN);
        }
        for role in [Role::Check, Role::Command] {
            assert_eq!(default_level(role), LevelFilter::INFO);
        }
    }

    #[test]
    fn other_crates_are_quiet_and_never_trace() {
        for (level, others) in [
            (LevelFilter::ERROR, LevelFilter::ERROR),
            (LevelFilter::INFO, LevelFilter::WARN),
            (LevelFilter::DEBUG, LevelFilter::DEBUG),
            (LevelFilter::TRACE, LevelFilter::DEBUG),
        ] {
            assert_eq!(of_others(level), others);
        }
    }
}
