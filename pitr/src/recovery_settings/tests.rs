#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;
use crate::postgresql_conf::value_of;

fn to_target() -> RecoverySettings<'static> {
    RecoverySettings {
        purpose: Purpose::Target {
            last_record: Lsn(0x1_0300_0028),
            timeline: TimelineId::new(17).unwrap(),
            action: TargetAction::Promote,
        },
        restore_command: "/usr/bin/walpoint archive-get --contract 'it''s' %f %p",
        archiving: Archiving::Off,
        major: Some(Major::V18),
    }
}

#[test]
fn the_block_of_a_target_says_everything_that_could_interfere() {
    let expected = "\
# walpoint restore: begin
restore_command = '/usr/bin/walpoint archive-get --contract ''it''''s'' %f %p'
recovery_target = ''
recovery_target_time = ''
recovery_target_xid = ''
recovery_target_name = ''
recovery_target_lsn = '1/3000028'
recovery_target_inclusive = 'true'
recovery_target_timeline = '17'
recovery_target_action = 'promote'
archive_cleanup_command = ''
recovery_end_command = ''
recovery_min_apply_delay = '0'
primary_conninfo = ''
primary_slot_name = ''
synchronous_standby_names = ''
synchronized_standby_slots = ''
sync_replication_slots = 'off'
# No subscription runs here: this copy would take from the publisher what the original
# is to get. walpoint take-over lets them run again.
max_logical_replication_workers = '0'
# Off, so that this copy cannot archive into the history it came from. When it is
# to be the primary from now on: walpoint take-over.
archive_mode = 'off'
# walpoint restore: end
";
    assert_eq!(to_target().block().unwrap(), expected);
}

#[test]
fn a_standby_has_no_target_and_follows_the_latest_timeline() {
    let purpose = Purpose::Standby { primary_conninfo: Some("host=a password='x'") };
    let block = RecoverySettings { purpose, ..to_target() }.block().unwrap();
    let value = |name| value_of(block.as_bytes(), name).unwrap();
    assert_eq!(value("recovery_target_lsn"), "");
    assert_eq!(value("recovery_target_timeline"), "latest");
    assert_eq!(value("primary_conninfo"), "host=a password='x'");
    assert_eq!(purpose.signal(), "standby.signal");
}

#[test]
fn an_old_trigger_file_is_passed_over_where_the_server_knows_of_one() {
    let named = |major| {
        let block = RecoverySettings { major, ..to_target() }.block().unwrap();
        value_of(block.as_bytes(), "promote_trigger_file")
    };
    for major in [Major::V13, Major::V14, Major::V15] {
        assert_eq!(named(Some(major)).as_deref(), Some(""), "{major}");
    }
    for major in [Some(Major::V16), Some(Major::V18), None] {
        assert_eq!(named(major), None);
    }
    assert!(overridden().any(|name| name == "promote_trigger_file"));
}

#[test]
fn slots_of_other_servers_are_neither_waited_for_nor_copied_where_the_server_knows_of_that() {
    let named = |major, name| {
        let block = RecoverySettings { major, ..to_target() }.block().unwrap();
        value_of(block.as_bytes(), name)
    };
    for major in [Some(Major::V17), Some(Major::V18)] {
        assert_eq!(named(major, "synchronized_standby_slots").as_deref(), Some(""));
        assert_eq!(named(major, "sync_replication_slots").as_deref(), Some("off"));
    }
    for major in [Some(Major::V13), Some(Major::V16), None] {
        assert_eq!(named(major, "synchronized_standby_slots"), None);
        assert_eq!(named(major, "sync_replication_slots"), None);
    }
    for (name, value) in [("synchronized_standby_slots", "s1"), ("sync_replication_slots", "on")] {
        assert!(overridden().any(|it| it == name) && interferes(name, value), "{name}");
    }
    assert!(!interferes("sync_replication_slots", "off") && !interferes("sync_replication_slots", ""));
}

#[test]
fn taking_over_leaves_archiving_alone_unless_it_was_always() {
    let block = |archiving| RecoverySettings { archiving, ..to_target() }.block().unwrap();
    assert_eq!(value_of(block(Archiving::AsInBackup).as_bytes(), "archive_mode"), None);
    assert_eq!(value_of(block(Archiving::NotAlways).as_bytes(), "archive_mode").unwrap(), "on");
}

#[test]
fn the_block_comes_last_and_only_once() {
    let block = to_target().block().unwrap();
    let once = with_block(b"work_mem = '1MB'\nrecovery_target_time = '2001-01-01'", &block);
    assert_eq!(once, format!("work_mem = '1MB'\nrecovery_target_time = '2001-01-01'\n{block}").into_bytes());
    assert_eq!(value_of(&once, "recovery_target_time").unwrap(), "");
    assert_eq!(with_block(&once, &block), once);
    assert_eq!(without_block(&once), b"work_mem = '1MB'\nrecovery_target_time = '2001-01-01'\n");
}

#[test]
fn a_block_in_the_middle_is_taken_out_and_what_follows_stays() {
    let block = to_target().block().unwrap();
    let text = format!("a = '1'\n{block}b = '2'\n");
    assert_eq!(without_block(text.as_bytes()), b"a = '1'\nb = '2'\n");
}

/// As `ALTER SYSTEM` leaves the file: no comments (`write_auto_conf_file`, utils/misc/guc.c).
fn rewritten(auto_conf: &[u8]) -> String {
    let text = String::from_utf8(auto_conf.to_vec()).unwrap();
    text.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn recovery_is_taken_out_with_and_without_the_marks() {
    let restored = with_block(b"work_mem = '1MB'\n", &to_target().block().unwrap());
    for text in [String::from_utf8(restored.clone()).unwrap(), rewritten(&restored)] {
        let left = without_recovery(&text);
        for gone in ["restore_command", "recovery_target_lsn", "recovery_target_action", SUBSCRIPTION_WORKERS]
        {
            assert_eq!(value_of(left.as_bytes(), gone), None, "{gone} in {left}");
        }
        for (kept, value) in [("work_mem", "1MB"), ("synchronous_standby_names", ""), ("archive_mode", "off")]
        {
            assert_eq!(value_of(left.as_bytes(), kept).as_deref(), Some(value), "{kept} in {left}");
        }
        assert!(!left.contains("No subscription runs here"), "{left}");
        assert_eq!(without_recovery(&left), left);
    }
}

#[test]
fn what_the_operator_set_about_subscriptions_stays() {
    let own = "max_logical_replication_workers = '0'\nrestore_command = 'cp /x/%f %p'\n";
    assert_eq!(without_recovery(own), own);
    let restored = rewritten(&with_block(own.as_bytes(), &to_target().block().unwrap()));
    let left = without_recovery(&restored);
    assert_eq!(value_of(left.as_bytes(), SUBSCRIPTION_WORKERS).as_deref(), Some("0"));
    assert_eq!(value_of(left.as_bytes(), "restore_command").as_deref(), Some("cp /x/%f %p"));
    let changed = format!("{restored}max_logical_replication_workers = '8'\n");
    assert_eq!(value_of(without_recovery(&changed).as_bytes(), SUBSCRIPTION_WORKERS).as_deref(), Some("8"));
}

#[test]
fn a_command_with_a_line_break_is_refused() {
    let settings = RecoverySettings { restore_command: "a\narchive_mode = on", ..to_target() };
    assert_eq!(settings.block().unwrap_err().name, "restore_command");
}

fn debian() -> RestoredConfiguration<'static> {
    RestoredConfiguration {
        data_directory: Path::new("/srv/it's"),
        major: Some(Major::V14),
        config_file: Some("walpoint-config/postgresql.conf"),
        hba_file: Some("walpoint-config/pg_hba.conf"),
        ident_file: Some("walpoint-config/pg_ident.conf"),
        external_pid_file: true,
        names_data_directory: true,
    }
}

#[test]
fn a_cluster_without_its_own_configuration_gets_one_that_names_the_copies() {
    let expected = "\
# This cluster's configuration lay outside its data directory. walpoint restore
# put the copy from the backup here and overrides the paths that it names.
include 'walpoint-config/postgresql.conf'
data_directory = '/srv/it''s'
hba_file = '/srv/it''s/walpoint-config/pg_hba.conf'
ident_file = '/srv/it''s/walpoint-config/pg_ident.conf'
external_pid_file = 'walpoint-config/server.pid'
stats_temp_directory = 'pg_stat_tmp'
";
    assert_eq!(debian().lines().unwrap(), expected);
}

#[test]
fn a_setting_that_the_version_does_not_know_is_not_written() {
    let lines = RestoredConfiguration { major: Some(Major::V15), ..debian() }.lines().unwrap();
    assert!(!lines.contains("stats_temp_directory"), "{lines}");
}

#[test]
fn a_bare_cluster_needs_no_lines() {
    let bare = RestoredConfiguration {
        config_file: None,
        hba_file: None,
        ident_file: None,
        external_pid_file: false,
        names_data_directory: false,
        ..debian()
    };
    assert_eq!(bare.lines().unwrap(), "");
    // The old directory may still hold the old cluster: pg_ctl -D would start that one.
    let elsewhere = RestoredConfiguration { names_data_directory: true, ..bare };
    assert_eq!(elsewhere.lines().unwrap(), "data_directory = '/srv/it''s'\n");
}
