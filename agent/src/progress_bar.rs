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
    Lines { name: String, started: Instant, moving: Option<Moving> },
}

/// When bytes were first seen to move, and how many had by then.
#[derive(Clone, Copy)]
struct Moving {
    since: Instant,
    from: u64,
}

impl Moving {
    /// Bytes in a second since then.
    fn rate(self, now: &ProgressNow) -> u64 {
        let millis = self.since.elapsed().as_millis().max(1);
        let rate = u128::from(now.done_bytes.saturating_sub(self.from)) * 1000 / millis;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

impl Display {
    fn new(name: &str) -> Self {
        let bar =
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_prefix(name.to_owned());
        // Hidden also on a terminal that is said to move no cursor (TERM=dumb).
        if std::io::stderr().is_terminal() && !bar.is_hidden() && !logging::speaks_json() {
            Self::Bar(bar.with_style(style(UNKNOWN_SIZE)))
        } else {
            Self::Lines { name: name.to_owned(), started: Instant::now(), moving: None }
        }
    }

    fn every(&self) -> Duration {
        match self {
            Self::Bar(_) => DRAWN_EVERY,
            Self::Lines { .. } => SAID_EVERY,
        }
    }

    fn show(&mut self, now: &ProgressNow) {
        match self {
            Self::Bar(bar) => draw(bar, now),
            // As said in the log: cron mails what is written.
            Self::Lines { name, started, moving } if tracing::enabled!(tracing::Level::INFO) => {
                if moving.is_none() && now.done_bytes > 0 {
                    *moving = Some(Moving { since: Instant::now(), from: now.done_bytes });
                }
                let rate = moving.map_or(0, |moving| moving.rate(now));
                logging::tell(&format!("{}\n", line(name, now, started.elapsed(), rate)));
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

/// One line: `restore: copying 12.0 MiB of 48.0 MiB (25 %), 10 of 900 files, 20 s, 614 KiB/s, 60 s left`. The rate is in
/// bytes a second; 0 is one that is not known.
fn line(name: &str, now: &ProgressNow, elapsed: Duration, rate: u64) -> String {
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
    text += &format!(", {} s", elapsed.as_secs());
    let left = now.total_bytes.saturating_sub(now.done_bytes);
    if let Some(seconds) = left.checked_div(rate).filter(|_| left > 0) {
        text += &format!(", {}/s, {seconds} s left", sizes::human(rate));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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
        let (elapsed, said) =
            (Duration::from_secs(20), "restore: copying 12.0 MiB of 48.0 MiB (25 %), 10 of 900 files, 20 s");
        assert_eq!(line("restore", &now, elapsed, 0), said);
        assert_eq!(line("restore", &now, elapsed, 614 << 10), format!("{said}, 614 KiB/s, 60 s left"));
        (now.total_bytes, now.done_bytes, now.total_files) = (0, 0, 0);
        now.phase = Phase::Preparing;
        assert_eq!(line("backup", &now, Duration::ZERO, 0), "backup: preparing, 0 s");
    }

    #[test]
    fn the_rate_is_that_of_what_moved_since_it_began_to() {
        let since = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let now = ProgressNow {
            phase: Phase::Copying,
            total_bytes: 0,
            done_bytes: 70 << 20,
            total_files: 0,
            done_files: 0,
        };
        let rate = Moving { since, from: 20 << 20 }.rate(&now);
        assert!((4 << 20..=5 << 20).contains(&rate), "{rate}");
    }
}
