//! What is to be kept: `[retention]`, and the `--keep-…` flags that take the place of its keys.
//!
//! Policies combine: what any of them asks for stays. None takes away what another one keeps.

use crate::cli::ExpireArgs;
use crate::config::{RetentionSettings, durations};
use crate::exit::Failure;
use jiff::tz::TimeZone;
use std::time::Duration;

/// How long marked things stay at least, unless somebody says otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(2 * 24 * 3600);

/// No backup is given up before nothing came of it for so long, however short the grace is: it may be reading through
/// what has not changed, or waiting for WAL.
const LONGEST_PAUSE_OF_A_BACKUP: Duration = Duration::from_secs(24 * 3600);

/// A grace that is shorter is no time in which anything ends.
const SHORT_GRACE: Duration = Duration::from_secs(3600);

/// What is to be kept.
#[derive(Clone, Debug)]
pub struct Policy {
    /// So many of the newest backups, and all WAL from the first of them on.
    pub last: u32,
    /// Every moment of this time back from now, and the backups in it.
    pub window: Option<Duration>,
    /// The last backup of each of so many days, weeks, months and years that have one.
    pub calendar: Calendar,
    /// WAL of this time back from now.
    pub wal: Option<Duration>,
    /// Never fewer than so many backups that were verified.
    pub min_verified: u32,
    /// How long between the mark and the deletion: longer than any backup and any restore takes.
    pub grace: Duration,
}

/// One backup for each of so many days, weeks, months, years.
#[derive(Clone, Debug)]
pub struct Calendar {
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
    /// Whose days they are.
    pub zone: TimeZone,
}

impl Policy {
    /// What is configured, with what the command line says instead.
    ///
    /// # Errors
    /// Status 2 for a time zone that nobody knows.
    pub fn of(settings: &RetentionSettings, args: &ExpireArgs) -> Result<Self, Failure> {
        let number = |flag: Option<u32>, key: Option<u32>| flag.or(key).unwrap_or(0);
        let zone = args.keep_timezone.as_ref().or(settings.timezone.as_ref());
        Ok(Self {
            last: number(args.keep_last, settings.last),
            window: args.keep_window.or(settings.window),
            calendar: Calendar {
                daily: number(args.keep_daily, settings.daily),
                weekly: number(args.keep_weekly, settings.weekly),
                monthly: number(args.keep_monthly, settings.monthly),
                yearly: number(args.keep_yearly, settings.yearly),
                zone: zone.map_or(Ok(TimeZone::UTC), |name| time_zone(name))?,
            },
            wal: args.keep_wal.or(settings.wal),
            min_verified: number(args.keep_min_verified, settings.min_verified),
            grace: args.grace.or(settings.grace).unwrap_or(DEFAULT_GRACE),
        })
    }

    /// Whether it asks for nothing at all. Then nothing expires: an empty policy is one that was forgotten.
    pub fn is_empty(&self) -> bool {
        !self.is_of_backups() && self.wal.is_none()
    }

    /// Whether it says which backups to keep. One of WAL alone lets no backup go.
    pub fn is_of_backups(&self) -> bool {
        self.last > 0 || self.window.is_some() || self.calendar.asks_for_any()
    }

    /// When nothing came of an unfinished backup for so long, it was given up.
    pub fn given_up_after(&self) -> Duration {
        self.grace.max(LONGEST_PAUSE_OF_A_BACKUP)
    }

    /// Whether hardly any backup or restore is over when the grace is.
    pub fn has_short_grace(&self) -> bool {
        self.grace < SHORT_GRACE
    }

    /// In words.
    pub fn words(&self) -> String {
        let mut words = Vec::new();
        let mut say = |asked: bool, text: String| asked.then(|| words.push(text));
        say(self.last > 0, format!("the last {} backups and the WAL from them on", self.last));
        let window = self.window.map(durations::render).unwrap_or_default();
        say(self.window.is_some(), format!("every moment of the last {window}"));
        for (count, unit) in self.calendar.asked() {
            say(count > 0, format!("one backup for each of {count} {}", unit.plural()));
        }
        let wal = self.wal.map(durations::render).unwrap_or_default();
        say(self.wal.is_some(), format!("WAL of the last {wal}"));
        say(self.min_verified > 0, format!("at least {} verified backups", self.min_verified));
        words.join("; ")
    }
}

/// A stretch of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    /// The word for one of them.
    pub fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    fn plural(self) -> String {
        format!("{}s", self.word())
    }
}

impl Calendar {
    /// How many of each unit.
    pub fn asked(&self) -> [(u32, Unit); 4] {
        [
            (self.daily, Unit::Day),
            (self.weekly, Unit::Week),
            (self.monthly, Unit::Month),
            (self.yearly, Unit::Year),
        ]
    }

    fn asks_for_any(&self) -> bool {
        self.asked().iter().any(|(count, _)| *count > 0)
    }
}

fn time_zone(name: &str) -> Result<TimeZone, Failure> {
    TimeZone::get(name).map_err(|error| {
        Failure::usage(format!("could not find the time zone \"{name}\": {error}"))
            .with_hint("write a name of the IANA time zone database, like \"Europe/Berlin\" or \"UTC\"")
    })
}
