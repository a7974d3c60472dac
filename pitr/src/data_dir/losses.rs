//! What is nowhere else of a cluster that is to become what a backup of it was: WAL that was never archived, and
//! databases that are not to be restored.

use std::path::Path;

use walpoint_wal::{ControlFile, DbState};

use super::{CONTROL_FILE, Refusal, UNFINISHED_MARKER};

/// Segments that are named one by one.
const NAMED: usize = 3;

/// Whether a restore began in this directory and did not end: what is there is its own.
///
/// One that was stopped before it took `pg_control` away has changed nothing: the cluster is the old one, and its server
/// may have run since.
pub fn is_unfinished(directory: &Path) -> bool {
    let has = |name: &str| directory.join(name).symlink_metadata().is_ok();
    has(UNFINISHED_MARKER) && !has(CONTROL_FILE)
}

/// Why `pg_wal` may hold what no archive has: segments that wait to be archived, or the end of the WAL of a server that
/// was not shut down, which archives what it has.
pub fn wal_that_would_be_lost(directory: &Path) -> Option<Refusal> {
    if is_unfinished(directory) {
        return None;
    }
    let waiting = waiting(directory);
    if let Some(first) = waiting.first() {
        let named = waiting.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if waiting.len() > NAMED {
            format!(" and {} more", waiting.len() - NAMED)
        } else {
            String::new()
        };
        return Some(Refusal {
            why: format!("\"{}\" holds WAL that was never archived: {named}{more}", directory.display()),
            hint: format!(
                "archive it first, in that directory: walpoint archive-push pg_wal/{first}, and so on; or give it up with \
                 --discard-wal"
            ),
        });
    }
    (has_segments(directory) && !was_shut_down(directory)).then(|| Refusal {
        why: format!(
            "\"{}\" holds a cluster that was not shut down: the end of its WAL may be nowhere else",
            directory.display()
        ),
        hint: "start the server and stop it, which archives its WAL to the end; or give that up with --discard-wal"
            .to_owned(),
    })
}

/// Why what `--include-database` leaves out may be lost with a cluster that is there.
pub fn others_that_would_be_lost(directory: &Path) -> Option<Refusal> {
    let has_cluster = directory.join("PG_VERSION").symlink_metadata().is_ok();
    (has_cluster && !is_unfinished(directory)).then(|| Refusal {
        why: format!(
            "\"{}\" holds a cluster, and of its databases those that are not named would be lost",
            directory.display()
        ),
        hint: "restore the database to an empty directory, and copy it from there with pg_dump".to_owned(),
    })
}

/// Names of the files in `pg_wal` that wait to be archived, oldest first.
fn waiting(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory.join("pg_wal/archive_status")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut waiting: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned)).collect();
    waiting.sort();
    waiting
}

fn has_segments(directory: &Path) -> bool {
    let mut entries = std::fs::read_dir(directory.join("pg_wal")).into_iter().flatten().flatten();
    let is_segment = |name: &str| name.len() == 24 && name.bytes().all(|it| it.is_ascii_hexdigit());
    entries.any(|entry| entry.file_name().to_str().is_some_and(is_segment))
}

/// What cannot be read says nothing good.
fn was_shut_down(directory: &Path) -> bool {
    let control = std::fs::read(directory.join(CONTROL_FILE)).ok();
    let control = control.and_then(|bytes| ControlFile::parse(&bytes).ok());
    control.is_some_and(|it| matches!(it.state, DbState::ShutDown | DbState::ShutDownInRecovery))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cluster() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("pg_wal/archive_status")).unwrap();
        std::fs::write(directory.path().join("PG_VERSION"), "15\n").unwrap();
        directory
    }

    fn why(directory: &tempfile::TempDir) -> Option<String> {
        wal_that_would_be_lost(directory.path()).map(|refusal| refusal.why)
    }

    #[test]
    fn wal_that_waits_to_be_archived_is_not_given_up_unasked() {
        let cluster = cluster();
        assert_eq!(why(&cluster), None);
        let status = cluster.path().join("pg_wal/archive_status");
        std::fs::write(status.join("000000010000000000000004.done"), "").unwrap();
        assert_eq!(why(&cluster), None);
        std::fs::write(status.join("000000010000000000000005.ready"), "").unwrap();
        assert!(why(&cluster).unwrap().contains("000000010000000000000005"));
        std::fs::write(cluster.path().join(UNFINISHED_MARKER), "").unwrap();
        assert_eq!(why(&cluster), None, "a restore that did not end has no WAL of its own");
    }

    #[test]
    fn a_restore_that_was_stopped_before_it_changed_anything_gives_nothing_up() {
        let cluster = cluster();
        std::fs::write(cluster.path().join(UNFINISHED_MARKER), "").unwrap();
        std::fs::create_dir(cluster.path().join("global")).unwrap();
        std::fs::write(cluster.path().join(CONTROL_FILE), "").unwrap();
        std::fs::write(cluster.path().join("pg_wal/archive_status/000000010000000000000005.ready"), "")
            .unwrap();
        assert!(why(&cluster).unwrap().contains("000000010000000000000005"));
        assert!(others_that_would_be_lost(cluster.path()).is_some());
    }

    #[test]
    fn a_cluster_that_was_not_shut_down_may_have_wal_that_nobody_has() {
        let cluster = cluster();
        std::fs::write(cluster.path().join("pg_wal/000000010000000000000005"), "").unwrap();
        assert!(why(&cluster).unwrap().contains("not shut down"));
    }

    #[test]
    fn other_databases_are_not_given_up_for_one() {
        let cluster = cluster();
        assert!(others_that_would_be_lost(cluster.path()).is_some());
        std::fs::write(cluster.path().join(UNFINISHED_MARKER), "").unwrap();
        assert!(others_that_would_be_lost(cluster.path()).is_none());
        assert!(others_that_would_be_lost(tempfile::tempdir().unwrap().path()).is_none());
    }
}
