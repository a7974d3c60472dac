//! Shows how far a long piece of work is: a bar on a terminal, otherwise a plain line now and then.

use crate::config::sizes;
use crate::logging;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::future::Future;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use walpoint_pitr::progress::{Phase, Progress, ProgressNow};

/// How often the bar is drawn.
const DRAWN_EVERY: Duration = Duration::from_millis(200);
/// How often a line is written where there is no terminal.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Runs `work`, showing `progress` on standard error until it is done. What cannot be shown is lost; it
/// never ends the work.
pub async fn shown<T>(name: &str, progress: &Progress, work: impl Future<Output = T>) -> T {
    let mut display = Display::new(name);
    let mut ticks = tokio::time::interval(display.every());
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            _ = ticks.tick() => display.show(&progress.now()),
        }
    };
    display.end(&progress.now());
    result
}

enum Display {
    Bar(ProgressBar),
    Lines { name: String, started: Instant },
}

impl Display {
    fn new(name: &str) -> Self {
        let bar =
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_prefix(name.to_owned());
        // Hidden also on a terminal that is said to move no cursor (TERM=dumb).
        if std::io::stderr().is_terminal() && !bar.is_hidden() && !logging::speaks_json() {
            Self::Bar(bar.with_style(style(UNKNOWN_SIZE)))
        } else {
            Self::Lines { name: name.to_owned(), started: Instant::now() }
        }
    }

    fn every(&self) -> Duration {
        match self {
            Self::Bar(_) => DRAWN_EVERY,
            Self::Lines { .. } => SAID_EVERY,
        }
    }

    fn show(&self, now: &ProgressNow) {
        match self {
            Self::Bar(bar) => draw(bar, now),
            // As said in the log: cron mails what is written.
            Self::Lines { name, started } if tracing::enabled!(tracing::Level::INFO) => {
                logging::tell(&format!("{}\n", line(name, now, started.elapsed())));
            }
            Self::Lines { .. } => {}
        }
    }

    fn end(&mut self, now: &ProgressNow) {
        self.show(now);
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn draw(bar: &ProgressBar, now: &ProgressNow) {
    if now.total_bytes > 0 {
        bar.set_style(style(KNOWN_SIZE));
        bar.set_length(now.total_bytes);
    }
    bar.set_message(word(now.phase));
    bar.set_position(now.done_bytes);
}

const KNOWN_SIZE: &str = "{prefix}: {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const UNKNOWN_SIZE: &str = "{prefix}: {msg} {spinner} {bytes}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Preparing => "preparing",
        Phase::Copying => "copying",
        Phase::Reading => "reading back",
        Phase::Comparing => "comparing",
        Phase::Syncing => "making it durable",
        Phase::Waiting => "waiting for WAL",
        Phase::Finishing => "finishing",
    }
}

/// One line: `restore: copying 12.0 MiB of 48.0 MiB (25 %), 10 of 900 files, 20 s`.
fn line(name: &str, now: &ProgressNow, elapsed: Duration) -> String {
    let mut text = format!("{name}: {}", word(now.phase));
    if now.total_bytes > 0 {
        let percent = u128::from(now.done_bytes) * 100 / u128::from(now.total_bytes);
        let (done, total) = (sizes::human(now.done_bytes), sizes::human(now.total_bytes));
        text += &format!(" {done} of {total} ({percent} %)");
    } else if now.done_bytes > 0 {
        text += &format!(" {}", sizes::human(now.done_bytes));
    }
    if now.total_files > 0 {
        text += &format!(", {} of {} files", now.done_files, now.total_files);
    }
    format!("{text}, {} s", elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let mut now = ProgressNow {
            phase: Phase::Copying,
            total_bytes: 48 << 20,
            done_bytes: 12 << 20,
            total_files: 900,
            done_files: 10,
        };
        assert_eq!(
            line("restore", &now, Duration::from_secs(20)),
            "restore: copying 12.0 MiB of 48.0 MiB (25 %), 10 of 900 files, 20 s"
        );
        (now.total_bytes, now.done_bytes, now.total_files) = (0, 0, 0);
        now.phase = Phase::Preparing;
        assert_eq!(line("backup", &now, Duration::ZERO), "backup: preparing, 0 s");
    }
}
