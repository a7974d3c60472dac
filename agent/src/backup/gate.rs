//! May a base backup of this server begin? Decided before anything is read.

use crate::exit::Failure;
use crate::session::Server;

/// Refuses with status 2 a server whose backup could never become complete.
/// Returns what the operator should know all the same.
pub fn pass(server: &Server) -> Result<Vec<String>, Failure> {
    if server.is_in_recovery {
        return Err(refusal("the server is in recovery", "take the base backup on the primary"));
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
    doubts
}

fn is_our_command(command: &str) -> bool {
    command.contains("walpoint") && command.contains("archive-push") && command.contains("%p")
}

#[cfg(test)]
mod tests {
    use walpoint_wal::system_identifier::SystemIdentifier;

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
        }
    }

    #[test]
    fn a_server_that_archives_with_walpoint_passes_without_a_word() {
        assert_eq!(pass(&server()), Ok(vec![]));
        assert_eq!(pass(&Server { archive_mode: "always".into(), ..server() }), Ok(vec![]));
    }

    #[test]
    fn a_server_whose_wal_goes_nowhere_is_refused() {
        let table = [
            Server { archive_mode: "off".into(), ..server() },
            Server { archive_command: String::new(), ..server() },
            Server { archive_command: "  ".into(), ..server() },
            Server { is_in_recovery: true, ..server() },
        ];
        for server in table {
            let failure = pass(&server).map_err(|failure| (failure.status, failure.hint.is_some()));
            assert_eq!(failure, Err((Status::Usage, true)), "{server:?}");
        }
    }

    #[test]
    fn another_command_or_a_library_is_a_warning() {
        let table = [
            Server { archive_command: "/usr/local/bin/archive.sh %p %f".into(), ..server() },
            Server { archive_command: "walpoint archive-push %f".into(), ..server() },
            Server { archive_library: "basic_archive".into(), archive_command: String::new(), ..server() },
        ];
        for server in table {
            assert_eq!(pass(&server).map(|doubts| doubts.len()), Ok(1), "{server:?}");
        }
    }
}
