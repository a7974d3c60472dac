//! What hands a restored data directory over to PostgreSQL, as text: the block at
//! the end of `postgresql.auto.conf` and the small `postgresql.conf` of a cluster
//! whose configuration lay elsewhere. Pure.
//!
//! The block sets every setting that could interfere, not only those that recovery
//! wants: a leftover `recovery_target_time` beside our target is FATAL,
//! `archive_cleanup_command` may delete from a directory archive,
//! `recovery_min_apply_delay` delays, `synchronous_standby_names` makes the first
//! commit wait for ever. All names but a few are known to PostgreSQL 13–18, and
//! `postgresql.auto.conf` wins over `postgresql.conf`.

use walpoint_wal::{Lsn, Major, TimelineId};

use crate::postgresql_conf::{UnwritableValue, assignment};

mod over;
mod restored_configuration;
#[cfg(test)]
mod tests;

pub use over::without_recovery;
pub use restored_configuration::RestoredConfiguration;

/// Where restored configuration from outside the data directory is put.
pub const CONFIGURATION_DIRECTORY: &str = "walpoint-config";

/// Makes PostgreSQL recover from the archive to a target.
pub const RECOVERY_SIGNAL: &str = "recovery.signal";

/// Makes PostgreSQL a standby; it wins when both signals are there.
pub const STANDBY_SIGNAL: &str = "standby.signal";

/// What stands above `archive_mode = 'off'`.
pub const ARCHIVING_OFF_COMMENT: [&str; 2] = [
    "# Off, so that this copy cannot archive into the history it came from. When it is",
    "# to be the primary from now on: walpoint take-over.",
];

/// What stands above the setting that keeps subscriptions from running.
pub const SUBSCRIPTIONS_OFF_COMMENT: [&str; 2] = [
    "# No subscription runs here: this copy would take from the publisher what the original",
    "# is to get. walpoint take-over lets them run again.",
];

/// With 0 of these no subscription connects to its publisher (`ApplyLauncherRegister`,
/// replication/logical/launcher.c).
pub const SUBSCRIPTION_WORKERS: &str = "max_logical_replication_workers";

const BEGIN: &str = "# walpoint restore: begin";
const END: &str = "# walpoint restore: end";

/// Settings that are emptied whatever the recovery is.
const EMPTIED: [&str; 6] = [
    "archive_cleanup_command",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "primary_conninfo",
    "primary_slot_name",
    "synchronous_standby_names",
];

/// Until 15, a file that ends a standby's recovery, or the pause at a target, as soon as it
/// is there. Later versions do not know it and would not start with it.
const TRIGGER: &str = "promote_trigger_file";

/// From 17 on: standbys' slots that logical decoding waits for, and a standby's copying of its
/// primary's slots. Earlier versions do not know them.
const SLOTS_OF_STANDBYS: &str = "synchronized_standby_slots";
const SLOTS_OF_PRIMARY: &str = "sync_replication_slots";

/// Settings of a target; only one may be set.
const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_name",
    "recovery_target_lsn",
];

/// Settings whose former value, when they had one, does not hold in the copy.
pub fn overridden() -> impl Iterator<Item = &'static str> {
    TARGETS.into_iter().chain(EMPTIED).chain([TRIGGER, SLOTS_OF_STANDBYS, SLOTS_OF_PRIMARY])
}

/// Whether a setting's former value would have done something.
pub fn interferes(name: &str, value: &str) -> bool {
    match name {
        "recovery_min_apply_delay" => !matches!(value, "" | "0"),
        SUBSCRIPTION_WORKERS => value != "0",
        "archive_mode" => !is_off(value),
        SLOTS_OF_PRIMARY => !value.is_empty() && !is_off(value),
        _ => !value.is_empty(),
    }
}

fn is_off(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "off" | "false" | "no" | "0")
}

/// What PostgreSQL does when it has reached the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetAction {
    /// Open for writing on a new timeline.
    Promote,
    /// Stay read-only until told to go on.
    Pause,
    /// Shut down.
    Shutdown,
}

impl TargetAction {
    /// PostgreSQL's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            TargetAction::Promote => "promote",
            TargetAction::Pause => "pause",
            TargetAction::Shutdown => "shutdown",
        }
    }
}

/// What the restored cluster is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// Recover to this record and stop.
    Target {
        /// Start of the last record to replay.
        last_record: Lsn,
        /// The timeline to recover along.
        timeline: TimelineId,
        /// What to do then.
        action: TargetAction,
    },
    /// Follow a primary, or the archive alone.
    Standby {
        /// How to reach the primary.
        primary_conninfo: Option<&'a str>,
    },
}

impl Purpose<'_> {
    /// The file that tells PostgreSQL so.
    pub fn signal(&self) -> &'static str {
        match self {
            Purpose::Target { .. } => RECOVERY_SIGNAL,
            Purpose::Standby { .. } => STANDBY_SIGNAL,
        }
    }
}

/// Whether the restored cluster archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archiving {
    /// It does not, until `walpoint take-over`.
    Off,
    /// As the backup had it.
    AsInBackup,
    /// The backup had `always`; until recovery is over that would archive restored
    /// segments as if they were this cluster's own.
    NotAlways,
}

/// All that the block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoverySettings<'a> {
    /// What the cluster is to become.
    pub purpose: Purpose<'a>,
    /// The command that fetches a WAL file, as PostgreSQL will run it.
    pub restore_command: &'a str,
    /// Whether it archives.
    pub archiving: Archiving,
    /// The server's version.
    pub major: Option<Major>,
}

impl RecoverySettings<'_> {
    /// The block, markers included.
    pub fn block(&self) -> Result<String, UnwritableValue> {
        let mut block = format!("{BEGIN}\n");
        for (name, value) in self.settings() {
            block.push_str(&assignment(name, &value)?);
        }
        block.push_str(&self.archiving_lines()?);
        block.push_str(END);
        block.push('\n');
        Ok(block)
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![("restore_command", self.restore_command.to_owned())];
        for name in ["recovery_target", "recovery_target_time", "recovery_target_xid", "recovery_target_name"]
        {
            settings.push((name, String::new()));
        }
        settings.extend(self.target());
        for name in EMPTIED {
            settings.push((name, self.emptied(name).to_owned()));
        }
        if matches!(self.major, Some(Major::V13 | Major::V14 | Major::V15)) {
            settings.push((TRIGGER, String::new()));
        }
        if matches!(self.major, Some(Major::V17 | Major::V18)) {
            settings.push((SLOTS_OF_STANDBYS, String::new()));
            settings.push((SLOTS_OF_PRIMARY, "off".to_owned()));
        }
        settings
    }

    fn target(&self) -> [(&'static str, String); 4] {
        let (lsn, timeline, action) = match &self.purpose {
            Purpose::Target { last_record, timeline, action } => {
                (last_record.to_string(), timeline.to_string(), *action)
            }
            Purpose::Standby { .. } => (String::new(), "latest".to_owned(), TargetAction::Promote),
        };
        [
            ("recovery_target_lsn", lsn),
            ("recovery_target_inclusive", "true".to_owned()),
            ("recovery_target_timeline", timeline),
            ("recovery_target_action", action.as_str().to_owned()),
        ]
    }

    fn emptied(&self, name: &str) -> &str {
        match (name, &self.purpose) {
            ("recovery_min_apply_delay", _) => "0",
            ("primary_conninfo", Purpose::Standby { primary_conninfo: Some(conninfo) }) => conninfo,
            _ => "",
        }
    }

    fn archiving_lines(&self) -> Result<String, UnwritableValue> {
        match self.archiving {
            Archiving::Off => Ok(format!(
                "{}\n{}{}\n{}",
                SUBSCRIPTIONS_OFF_COMMENT.join("\n"),
                assignment(SUBSCRIPTION_WORKERS, "0")?,
                ARCHIVING_OFF_COMMENT.join("\n"),
                assignment("archive_mode", "off")?
            )),
            Archiving::NotAlways => assignment("archive_mode", "on"),
            Archiving::AsInBackup => Ok(String::new()),
        }
    }
}

/// `postgresql.auto.conf` with this block last and any older one of ours gone.
pub fn with_block(auto_conf: &[u8], block: &str) -> Vec<u8> {
    let mut text = without_block(auto_conf);
    if text.last().is_some_and(|&last| last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(block.as_bytes());
    text
}

/// `postgresql.auto.conf` without a block of ours. A block whose end is missing
/// ends with the file. `ALTER SYSTEM` drops all comments, the markers too: what it
/// has rewritten has no block any more, only its settings.
pub fn without_block(auto_conf: &[u8]) -> Vec<u8> {
    let mut inside = false;
    let mut kept = Vec::with_capacity(auto_conf.len());
    for line in auto_conf.split_inclusive(|&byte| byte == b'\n') {
        let text = line.trim_ascii();
        if text == BEGIN.as_bytes() {
            inside = true;
        }
        if !inside {
            kept.extend_from_slice(line);
        }
        if text == END.as_bytes() {
            inside = false;
        }
    }
    kept
}
