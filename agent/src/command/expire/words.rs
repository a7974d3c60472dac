//! The reasons, in words.

use crate::config::durations;
use crate::keep::decide::{Why, WhyWal};
use crate::keep::policy::Policy;
use std::collections::BTreeSet;

/// Why a backup stays.
pub fn of_backup(stays: &BTreeSet<Why>, policy: &Policy) -> Vec<String> {
    stays.iter().map(|why| backup(*why, policy)).collect()
}

/// Why WAL stays.
pub fn of_wal(stays: &BTreeSet<WhyWal>, policy: &Policy) -> Vec<String> {
    stays.iter().map(|why| wal(*why, policy)).collect()
}

fn backup(why: Why, policy: &Policy) -> String {
    match why {
        Why::Last => format!("one of the last {}", policy.last),
        Why::Window => {
            format!("serves the last {}", policy.window.map(durations::render).unwrap_or_default())
        }
        Why::Stretch(unit) => format!("last of its {}", unit.word()),
        Why::Newest => "newest on the way to a timeline in use".to_owned(),
        Why::Only => "the last there is".to_owned(),
        Why::Verified => format!("one of {} verified", policy.min_verified),
        Why::TooFewVerified => format!("fewer than {} are verified", policy.min_verified),
        Why::Future => "its time has not come: a clock was wrong".to_owned(),
        Why::NoPolicy => "no policy for backups".to_owned(),
    }
}

fn wal(why: WhyWal, policy: &Policy) -> String {
    match why {
        WhyWal::Backup => "a backup needs it".to_owned(),
        WhyWal::Last => format!("leads on from the last {} backups", policy.last),
        WhyWal::Window => {
            format!("leads to the last {}", policy.window.map(durations::render).unwrap_or_default())
        }
        WhyWal::Present => "leads to the present".to_owned(),
        WhyWal::Age => format!("of the last {}", policy.wal.map(durations::render).unwrap_or_default()),
        WhyWal::NoBackup => "no backup leads there yet".to_owned(),
    }
}
