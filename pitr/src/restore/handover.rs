//! The last files of a restored cluster: what tells PostgreSQL where to recover to,
//! and from where, and what of its former life must not go on.

use std::path::Path;

use walpoint_archive::{BackupSummary, WriterId};
use walpoint_wal::{
    BackupLabel, ControlFile, ControlFileError, Major, SystemIdentifier, Timestamp, tablespace_map,
};

use super::RestoreRequest;
use super::configuration::Configuration;
use super::error::RestoreError;
use super::inventory::{BACKUP_LABEL, TABLESPACE_MAP, WRITER_FILE};
use super::site::Site;
use super::tablespaces::Tablespace;
use crate::contract::{CONTRACT_FILE, CONTRACT_FORMAT, Contract, LeftOut};
use crate::data_dir::CONTROL_FILE;
use crate::plan::RecoveryPlan;
use crate::recovery_settings::{Archiving, Purpose, RecoverySettings, with_block};

const AUTO_CONF: &str = "postgresql.auto.conf";

/// Writes everything but `pg_control`'s name.
pub(super) fn hand_over(
    site: &Site,
    configuration: &Configuration,
    tablespaces: &[Tablespace],
    plan: &RecoveryPlan,
    request: &RestoreRequest,
    contract: &Contract,
) -> Result<(), RestoreError> {
    check_label(site, plan)?;
    check_control_file(site, plan)?;
    map_tablespaces(site, tablespaces)?;
    configuration.complete(site, Major::from_number(plan.backup.server.major))?;
    write_settings(site, configuration, plan, request)?;
    write(site, WRITER_FILE, format!("{}\n", contract.writer).as_bytes())?;
    if request.standby.is_none() {
        write(site, CONTRACT_FILE, contract.to_json().as_bytes())?;
    }
    write(site, purpose(plan, request).signal(), b"")
}

/// What the contract of this plan says, for a data directory of its own.
pub(super) fn contract(plan: &RecoveryPlan, left_out: &[LeftOut], now: Timestamp) -> Contract {
    Contract {
        format: CONTRACT_FORMAT,
        system_identifier: plan.system_identifier,
        segment_size: plan.segment_size,
        path: plan.path.clone(),
        first_segment: plan.segments.first,
        last_segment: plan.segments.last,
        last_record: plan.last_record,
        target: plan.target.to_string(),
        restored_at: now,
        writer: WriterId::random().to_string(),
        left_out: left_out.to_vec(),
    }
}

/// Without its label, or with another backup's, PostgreSQL would begin at the wrong
/// place and say nothing.
fn check_label(site: &Site, plan: &RecoveryPlan) -> Result<(), RestoreError> {
    let damaged = |what: String| RestoreError::damaged(&plan.backup.manifest.key, what);
    let bytes = site.read(Path::new(BACKUP_LABEL), u64::MAX)?.unwrap_or_default();
    let label =
        BackupLabel::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| damaged(error.to_string()))?;
    if label.start != plan.backup.redo {
        let what =
            format!("its backup_label begins at {}, and the backup at {}", label.start, plan.backup.redo);
        return Err(damaged(what));
    }
    if label.start_timeline.is_some_and(|timeline| timeline != plan.backup.timeline) {
        return Err(damaged("its backup_label is of another timeline".to_owned()));
    }
    if label.incremental_from.is_some() {
        return Err(damaged(
            "its backup_label is that of an incremental backup of PostgreSQL's own".to_owned(),
        ));
    }
    Ok(())
}

fn check_control_file(site: &Site, plan: &RecoveryPlan) -> Result<(), RestoreError> {
    let damaged = |what: String| RestoreError::damaged(&plan.backup.manifest.key, what);
    let bytes = site.read(Path::new(CONTROL_FILE), u64::MAX)?.unwrap_or_default();
    // The identifier comes first on every version.
    let found = bytes.first_chunk().map(|bytes| SystemIdentifier(u64::from_le_bytes(*bytes)));
    if found != Some(plan.system_identifier) {
        return Err(damaged("its pg_control is of another cluster".to_owned()));
    }
    match ControlFile::parse(&bytes) {
        Ok(_) | Err(ControlFileError::UnknownVersion(_)) => Ok(()),
        Err(error) => Err(damaged(format!("its pg_control is not sound: {error}"))),
    }
}

/// Writes the map from which PostgreSQL makes the tablespaces' links again at its start.
fn map_tablespaces(site: &Site, tablespaces: &[Tablespace]) -> Result<(), RestoreError> {
    if tablespaces.is_empty() {
        return Ok(());
    }
    let entry = |it: &Tablespace| (it.oid, it.directory.to_string_lossy().into_owned());
    let map: Vec<(u32, String)> = tablespaces.iter().map(entry).collect();
    write(site, TABLESPACE_MAP, &tablespace_map::render(&map))
}

fn write_settings(
    site: &Site,
    configuration: &Configuration,
    plan: &RecoveryPlan,
    request: &RestoreRequest,
) -> Result<(), RestoreError> {
    let settings = RecoverySettings {
        purpose: purpose(plan, request),
        restore_command: &request.restore_command,
        archiving: archiving(configuration, &plan.backup, request),
        major: Major::from_number(plan.backup.server.major),
    };
    let block = settings.block()?;
    match configuration.text_of(AUTO_CONF) {
        Some(text) => site.data().rewrite(Path::new(AUTO_CONF), &with_block(text, &block)),
        None => write(site, AUTO_CONF, block.as_bytes()),
    }
}

fn purpose<'a>(plan: &RecoveryPlan, request: &'a RestoreRequest) -> Purpose<'a> {
    match &request.standby {
        Some(standby) => Purpose::Standby { primary_conninfo: standby.primary_conninfo.as_deref() },
        None => {
            Purpose::Target { last_record: plan.last_record, timeline: plan.timeline, action: request.action }
        }
    }
}

/// What the server ran with may have come from its command line, and what a file says may
/// have waited for a restart: either is enough.
fn archiving(configuration: &Configuration, backup: &BackupSummary, request: &RestoreRequest) -> Archiving {
    let ran_with = backup.archive_mode.as_deref();
    let is_always = |value: &str| value.eq_ignore_ascii_case("always");
    match ran_with.is_some_and(is_always) || configuration.values("archive_mode").any(|it| is_always(&it)) {
        _ if !request.take_over => Archiving::Off,
        true => Archiving::NotAlways,
        false => Archiving::AsInBackup,
    }
}

fn write(site: &Site, name: &str, content: &[u8]) -> Result<(), RestoreError> {
    site.data().write_new(Path::new(name), site.group().file_mode(0o640), content)
}
