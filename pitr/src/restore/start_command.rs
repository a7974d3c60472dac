//! The command that starts the restored cluster. Pure but for one look whether a
//! program is there.

use std::path::{Path, PathBuf};

use walpoint_wal::Major;

use super::tree::Owner;

/// Where the server's first words go: without a file they would hold the terminal, or
/// the pipe, of whoever runs the command.
const LOG_FILE: &str = "walpoint-start.log";

/// A shell command that works for the user who restored. PostgreSQL refuses root, so
/// for root it changes to the files' owner first.
pub(super) fn start_command(data_directory: &Path, major: Option<Major>, owner: Option<Owner>) -> String {
    if is_safe_for_pg_ctl(data_directory) {
        by_pg_ctl(&program("pg_ctl", major), data_directory, owner)
    } else {
        by_itself(&program("postgres", major), data_directory, owner)
    }
}

/// `pg_ctl` puts both its paths between double quotes in a shell command of its own
/// (`start_postmaster` in src/bin/pg_ctl/pg_ctl.c), where these mean something.
fn is_safe_for_pg_ctl(data_directory: &Path) -> bool {
    !data_directory.to_string_lossy().contains(['"', '$', '`', '\\'])
}

/// Debian's packages keep the programs of each version apart, outside PATH.
fn program(name: &str, major: Option<Major>) -> PathBuf {
    major
        .map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/{name}")))
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}

fn by_pg_ctl(pg_ctl: &Path, data_directory: &Path, owner: Option<Owner>) -> String {
    let log = data_directory.join(LOG_FILE);
    let (pg_ctl, directory, log) = (quote(pg_ctl), quote(data_directory), quote(&log));
    format!("{}{pg_ctl} -D {directory} -l {log} start", as_owner(owner))
}

/// Without waiting until the server has started.
fn by_itself(postgres: &Path, data_directory: &Path, owner: Option<Owner>) -> String {
    let log = data_directory.join(LOG_FILE);
    let (postgres, directory, log) = (quote(postgres), quote(data_directory), quote(&log));
    format!("nohup {}{postgres} -D {directory} >>{log} 2>&1 </dev/null &", as_owner(owner))
}

fn as_owner(owner: Option<Owner>) -> String {
    let Some(Owner { user, group }) = owner else { return String::new() };
    format!("setpriv --reuid={user} --regid={group} --init-groups ")
}

/// A path as one word of the shell.
fn quote(path: &Path) -> String {
    let text = path.to_string_lossy();
    let safe = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    match !text.is_empty() && text.chars().all(safe) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_command_names_the_directory_and_a_log() {
        assert_eq!(
            by_pg_ctl(Path::new("pg_ctl"), Path::new("/srv/data"), None),
            "pg_ctl -D /srv/data -l /srv/data/walpoint-start.log start"
        );
    }

    #[test]
    fn root_starts_it_as_the_owner_of_the_files() {
        let owner = Some(Owner { user: 104, group: 110 });
        let text = by_pg_ctl(Path::new("/usr/bin/pg_ctl"), Path::new("/d"), owner);
        assert!(
            text.starts_with("setpriv --reuid=104 --regid=110 --init-groups /usr/bin/pg_ctl -D /d "),
            "{text}"
        );
    }

    #[test]
    fn what_pg_ctl_would_hand_to_a_shell_is_started_without_it() {
        for path in ["/a\"b", "/$(reboot)", "/`reboot`", r"/a\b"] {
            let text = start_command(Path::new(path), None, None);
            assert!(text.starts_with("nohup postgres -D '"), "{text}");
        }
        assert!(start_command(Path::new("/it's % & ü"), None, None).starts_with("pg_ctl "));
    }

    #[test]
    fn the_shell_reads_any_path_as_one_word() {
        for path in ["/a b", "/it's", "/$(reboot)", "/x;y", "/new\nline", "/ünïcode", "/-n"] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quote(Path::new(path)))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), path);
        }
    }
}
