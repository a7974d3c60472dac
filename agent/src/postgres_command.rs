//! The commands that PostgreSQL runs, as text for its configuration. They name this program and the
//! configuration in use by absolute path: the server's PATH and working directory are its own.

use crate::exit::Failure;
use std::path::{Path, PathBuf};

/// The program that is running.
///
/// # Errors
/// Status 1 when the system does not say, or the program was replaced while it runs.
pub fn this_program() -> Result<PathBuf, Failure> {
    let path = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("could not find the path of this program: {error}")))?;
    if path.to_string_lossy().ends_with(" (deleted)") {
        return Err(Failure::failed(
            "could not name this program to PostgreSQL: it was replaced while it ran",
        )
        .with_hint("run the command again"));
    }
    Ok(path)
}

/// The path, when it can be written into PostgreSQL's configuration and read back as it is.
///
/// # Errors
/// Status 2 when it has a line break or is not UTF-8.
pub fn writable(path: &Path) -> Result<&Path, Failure> {
    match path.to_str() {
        Some(text) if !text.contains(['\n', '\r']) => Ok(path),
        _ => Err(Failure::usage(format!(
            "could not use \"{}\": PostgreSQL's configuration is to name it, and cannot: it has a line break or is not UTF-8",
            path.display()
        ))
        .with_hint("give it another name")),
    }
}

/// `archive_command`, as the setting's value.
pub fn archive_command(program: &Path, config: Option<&Path>) -> String {
    format!("{} archive-push %p", begin(program, config))
}

/// `restore_command`, as the setting's value. The contract is named relative to the data directory, where
/// PostgreSQL runs the command.
pub fn restore_command(program: &Path, config: Option<&Path>, contract: Option<&str>) -> String {
    let contract = contract.map(|file| format!(" --contract {}", word(file))).unwrap_or_default();
    format!("{} archive-get{contract} %f %p", begin(program, config))
}

fn begin(program: &Path, config: Option<&Path>) -> String {
    let program = word(&program.to_string_lossy());
    match config {
        Some(config) => format!("{program} --config {}", word(&config.to_string_lossy())),
        None => program,
    }
}

/// One word of a shell command, where `%` means something to PostgreSQL before the shell sees it.
fn word(text: &str) -> String {
    shell_word(&text.replace('%', "%%"))
}

/// One word of a shell command, quoted when it must be.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@=,%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_program_and_configuration() {
        let (program, config) = (Path::new("/usr/local/bin/walpoint"), Path::new("/etc/walpoint.toml"));
        assert_eq!(
            archive_command(program, Some(config)),
            "/usr/local/bin/walpoint --config /etc/walpoint.toml archive-push %p"
        );
        assert_eq!(
            restore_command(program, None, Some("walpoint.recovery.json")),
            "/usr/local/bin/walpoint archive-get --contract walpoint.recovery.json %f %p"
        );
    }

    #[test]
    fn a_path_that_no_configuration_can_hold_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        assert!(writable(Path::new("/a b/it's 100% ü\\")).is_ok());
        for path in [b"/a\nb".as_slice(), b"/a\rb", b"/caf\xe9"] {
            assert!(writable(Path::new(std::ffi::OsStr::from_bytes(path))).is_err(), "{path:?}");
        }
    }

    #[test]
    fn paths_pass_through_percent_and_shell() {
        let program = Path::new("/opt/my tools/100%/it's");
        assert_eq!(archive_command(program, None), r"'/opt/my tools/100%%/it'\''s' archive-push %p");
    }
}
