//! May a base backup of this server begin? Decided before anything is read.

use walpoint_wal::Major;

use crate::exit::Failure;
use crate::session::Server;

/// Until 15 the server cuts an archive_command off here, its %p and %f filled in (`MAXPGPATH`,
/// `pgarch_archiveXlog`, postmaster/pgarch.c; from 16 on it is of any length).
const LONGEST_COMMAND_UNTIL_15: usize = 1024;
/// What %p grows by when it is filled in: `pg_wal/` and a name of 24 characters, or a few more.
const FILLED_IN: usize = 48;

/// Refuses with status 2 a server that is no release: a beta's files have other names and other content
/// than the release's, and what this program leaves out by name would be missing.
pub fn must_be_a_release(server: &Server, major: Option<Major>) -> Result<(), Failure> {
    match major {
        Some(_) => Ok(()),
        None => Err(refusal(
            &format!(
                "the server, version number {}, has the catalog version of no release that this walpoint knows",
                server.version_num
            ),
            "a beta or a development build can be archived from but not backed up: use a released PostgreSQL",
        )),
    }
}

/// Refuses with status 2 a server whose backup could never become complete. `follows` is whether the data directory
/// has `standby.signal`. Returns what the operator should know all the same.
pub fn pass(server: &Server, follows: bool) -> Result<Vec<String>, Failure> {
    match (server.is_in_recovery, follows) {
        // A standby's WAL is its primary's, which archives it.
        (true, true) => return Ok(Vec::new()),
        // Nobody archives what comes after its target, and it is about to part from the archive's timeline.
        (true, false) => {
            return Err(refusal(
                "the server is in recovery and is no standby: it has no standby.signal",
                "back up the server that archives, or a standby of it; this one when it has taken over (walpoint take-over)",
            ));
        }
        (false, _) => {}
    }
    if server.archive_mode == "off" {
        return Err(refusal(
            "archive_mode is off, so the WAL that makes it consistent would never be archived",
            "set archive_mode = on and restart the server; after a restore use \"walpoint take-over\"",
        ));
    }
    if server.archive_library.is_empty() && server.archive_command.trim().is_empty() {
        return Err(refusal(
            "archive_command is empty, so the WAL that makes it consistent would never be archived",
            "set archive_command = 'walpoint archive-push %p' and reload; \"walpoint init\" shows the lines",
        ));
    }
    Ok(doubts(server))
}

fn refusal(reason: &str, hint: &str) -> Failure {
    Failure::usage(format!("could not start the base backup: {reason}")).with_hint(hint)
}

/// A wrapper around our command is allowed, and another archiver may feed the
/// same archive; whether WAL arrives is seen at the end.
fn doubts(server: &Server) -> Vec<String> {
    let mut doubts = Vec::new();
    if !server.archive_library.is_empty() {
        doubts.push(format!(
            "WAL is archived by archive_library = '{}', not by walpoint: the backup is complete only when all its WAL arrives in this archive",
            server.archive_library
        ));
    } else if !is_our_command(&server.archive_command) {
        doubts.push(
            "archive_command does not look like \"walpoint archive-push %p\": the backup is complete only when all its WAL arrives in this archive".to_owned(),
        );
    }
    let longest = LONGEST_COMMAND_UNTIL_15.saturating_sub(FILLED_IN);
    if server.version_num < 160_000 && server.archive_command.len() > longest {
        doubts.push(format!(
            "archive_command has {} bytes, and a server before 16 cuts it off at {LONGEST_COMMAND_UNTIL_15}: put it into a script",
            server.archive_command.len()
        ));
    }
    doubts
}

fn is_our_command(command: &str) -> bool {
    command.contains("walpoint") && command.contains("archive-push") && command.contains("%p")
}

#[cfg(test)]
mod tests {
    use walpoint_wal::system_identifier::SystemIdentifier;
    use walpoint_wal::timestamp::Timestamp;

    use super::*;
    use crate::exit::Status;

    fn server() -> Server {
        Server {
            version_num: 150_020,
            system_identifier: SystemIdentifier(7),
            data_directory: "/data".into(),
            config_file: None,
            hba_file: None,
            ident_file: None,
            is_in_recovery: false,
            archive_mode: "on".into(),
            archive_command: "/usr/bin/walpoint --config /etc/w.toml archive-push %p".into(),
            archive_library: String::new(),
            wal_segment_size: 16 << 20,
            stats_temp_directory: None,
            subscriptions: Vec::new(),
            has_fsync: true,
            started: Timestamp(0),
            wal_log_hints: false,
        }
    }

    #[test]
    fn a_server_that_archives_with_walpoint_passes_without_a_word() {
        assert_eq!(pass(&server(), false), Ok(vec![]));
        assert_eq!(pass(&Server { archive_mode: "always".into(), ..server() }, false), Ok(vec![]));
    }

    #[test]
    fn a_server_whose_wal_goes_nowhere_is_refused() {
        let table = [
            Server { archive_mode: "off".into(), ..server() },
            Server { archive_command: String::new(), ..server() },
            Server { archive_command: "  ".into(), ..server() },
        ];
        for server in table {
            let failure = pass(&server, false).map_err(|failure| (failure.status, failure.hint.is_some()));
            assert_eq!(failure, Err((Status::Usage, true)), "{server:?}");
        }
    }

    #[test]
    fn a_standby_need_not_archive() {
        let standby = Server { is_in_recovery: true, archive_mode: "off".into(), ..server() };
        assert_eq!(pass(&standby, true), Ok(vec![]));
    }

    #[test]
    fn a_server_that_recovers_and_follows_nobody_is_refused() {
        let recovering = Server { is_in_recovery: true, ..server() };
        let failure = pass(&recovering, false).map_err(|failure| failure.error.contains("in recovery"));
        assert_eq!(failure, Err(true));
    }

    #[test]
    fn a_server_that_is_no_release_is_refused() {
        assert_eq!(must_be_a_release(&server(), Some(Major::V15)), Ok(()));
        let failure = must_be_a_release(&Server { version_num: 190_000, ..server() }, None);
        let failure = failure.map_err(|failure| (failure.status, failure.error.contains("190000")));
        assert_eq!(failure, Err((Status::Usage, true)));
    }

    #[test]
    fn a_command_that_the_server_would_cut_off_is_a_warning() {
        let archive_command = format!("walpoint --config /{} archive-push %p", "x".repeat(1000));
        let doubts = |version_num| {
            let server = Server { version_num, archive_command: archive_command.clone(), ..server() };
            pass(&server, false).map(|doubts| doubts.len())
        };
        assert_eq!((doubts(150_020), doubts(160_000)), (Ok(1), Ok(0)));
    }

    #[test]
    fn another_command_or_a_library_is_a_warning() {
        let table = [
            Server { archive_command: "/usr/local/bin/archive.sh %p %f".into(), ..server() },
            Server { archive_command: "walpoint archive-push %f".into(), ..server() },
            Server { archive_library: "basic_archive".into(), archive_command: String::new(), ..server() },
        ];
        for server in table {
            assert_eq!(pass(&server, false).map(|doubts| doubts.len()), Ok(1), "{server:?}");
        }
    }
}
