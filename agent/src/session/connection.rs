//! How the server is reached: by `[postgres] connection`, or else by the
//! local socket that `postmaster.pid` of the data directory names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::SessionError;

/// Where a running postmaster listens, read from its lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    /// A socket directory, or a host name or address.
    pub host: String,
    pub port: u16,
}

/// Builds the connection parameters. Without a database name the database is
/// `postgres`; without a host it is the data directory's own server.
pub(super) fn parameters(
    connection: Option<&str>,
    data_directory: Option<&Path>,
) -> Result<Config, SessionError> {
    let mut config = match connection {
        Some(text) => text.parse::<Config>().map_err(|error| SessionError::Usage {
            // The text may hold a password: the parser's words are enough.
            error: format!("could not read [postgres] connection: {error}"),
            hint: Some(
                "write it as \"host=/run/postgresql port=5432 user=postgres\" or as a postgresql:// URL"
                    .into(),
            ),
        })?,
        None => Config::new(),
    };
    refuse_half_a_password(&config)?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        add_local_listener(&mut config, data_directory)?;
    }
    if config.get_dbname().is_none() {
        config.dbname("postgres");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(10));
    }
    if config.get_application_name().is_none() {
        config.application_name("walpoint");
    }
    Ok(config)
}

/// In a URL the first `@` ends the password; one that holds an `@` would go on in the host's name, which
/// is said in messages.
fn refuse_half_a_password(config: &Config) -> Result<(), SessionError> {
    let is_odd = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
    if !config.get_hosts().iter().any(is_odd) {
        return Ok(());
    }
    Err(SessionError::Usage {
        error: "could not read [postgres] connection: the host's name holds an @".into(),
        hint: Some("write an @ of the password as %40".into()),
    })
}

/// Whether a connection text holds a password, or is none, which might hold one somewhere.
pub fn holds_password(text: &str) -> bool {
    text.parse::<Config>().map_or(true, |config| config.get_password().is_some())
}

fn add_local_listener(config: &mut Config, data_directory: Option<&Path>) -> Result<(), SessionError> {
    let Some(data_directory) = data_directory else {
        return Err(SessionError::Usage {
            error: "could not find the server: neither [postgres] connection nor [postgres] data_directory is set".into(),
            hint: Some("set [postgres] data_directory to the server's data directory".into()),
        });
    };
    let file = data_directory.join("postmaster.pid");
    let text = std::fs::read_to_string(&file).map_err(|error| SessionError::Unreachable {
        error: format!(
            "could not find a running server in \"{}\": could not read \"{}\": {error}",
            data_directory.display(),
            file.display()
        ),
        hint: Some(
            "is PostgreSQL running there, and does this command run as the data directory's owner?".into(),
        ),
    })?;
    let listener = parse_postmaster_pid(&text).ok_or_else(|| SessionError::Unreachable {
        error: format!("could not find the server's port and socket in \"{}\"", file.display()),
        hint: Some("is the server still starting? otherwise set [postgres] connection".into()),
    })?;
    config.host(&listener.host);
    if config.get_ports().is_empty() {
        config.port(listener.port);
    }
    Ok(())
}

/// Reads port (line 4), first socket directory (line 5) and first listen
/// address (line 6) of `postmaster.pid` (PostgreSQL `miscadmin.h`,
/// `LOCK_FILE_LINE_*`, 13–18). `None` while the server has not written them.
pub(super) fn parse_postmaster_pid(text: &str) -> Option<Listener> {
    let mut lines = text.lines();
    let port = lines.nth(3)?.trim().parse().ok()?;
    let socket_directory = lines.next()?.trim();
    let address = lines.next().unwrap_or_default().trim();
    let host = match (socket_directory, address) {
        ("", "") => return None,
        ("", "*") => "localhost",
        ("", address) => address,
        (directory, _) => directory,
    };
    Some(Listener { host: host.to_owned(), port })
}

/// What to call the server in a message: never a password.
pub(super) fn describe(config: &Config) -> String {
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => PathBuf::from(path).display().to_string(),
        })
        .collect();
    let port = config.get_ports().first().copied().unwrap_or(5432);
    format!("{} port {port}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn listener(host: &str, port: u16) -> Option<Listener> {
        Some(Listener { host: host.into(), port })
    }

    #[test]
    fn postmaster_pid_names_the_socket_first() {
        let text = "4711\n/data\n1700000000\n5433\n/run/postgresql\nlocalhost\n  1 2\nready   \n";
        assert_eq!(parse_postmaster_pid(text), listener("/run/postgresql", 5433));
    }

    #[test]
    fn without_a_socket_the_address_is_used() {
        assert_eq!(parse_postmaster_pid("1\n/d\n1\n5432\n\n*\n"), listener("localhost", 5432));
        assert_eq!(parse_postmaster_pid("1\n/d\n1\n5432\n\n::1\n"), listener("::1", 5432));
    }

    #[test]
    fn a_file_that_is_not_whole_yet_names_nothing() {
        for text in ["", "1\n/d\n1\n", "1\n/d\n1\n5432\n", "1\n/d\n1\n5432\n\n\n", "1\n/d\n1\nx\n/s\n"] {
            assert_eq!(parse_postmaster_pid(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_password_is_not_repeated_in_an_error() {
        let error = parameters(Some("password=secret nonsense"), None).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
        let error = parameters(Some("postgresql://user:half@secret@host/db"), None).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }

    #[test]
    fn a_password_is_noticed_in_every_form_of_the_text() {
        for text in ["host=h password=p", "postgresql://u:p@h/db", "password=p nonsense"] {
            assert!(holds_password(text), "{text}");
        }
        for text in ["host=/run/postgresql user=u", "postgresql://u@h/db", ""] {
            assert!(!holds_password(text), "{text}");
        }
    }

    #[test]
    fn defaults_are_filled_in_and_given_values_kept() {
        let config = parameters(Some("host=/run/x user=u"), None).unwrap();
        assert_eq!(config.get_dbname(), Some("postgres"));
        assert_eq!(describe(&config), "/run/x port 5432");
        let config = parameters(Some("postgresql://u@h:99/db"), None).unwrap();
        assert_eq!(config.get_dbname(), Some("db"));
        assert_eq!(describe(&config), "h port 99");
    }
}
