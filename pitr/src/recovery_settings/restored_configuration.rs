//! The settings by which a server finds the restored copies of its configuration. Pure.

use std::path::Path;

use walpoint_wal::Major;

use crate::postgresql_conf::{UnwritableValue, assignment};

/// Which files of the old configuration there are, for the settings that name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoredConfiguration<'a> {
    /// The restored data directory, absolute.
    pub data_directory: &'a Path,
    /// The server's version.
    pub major: Option<Major>,
    /// `postgresql.conf`, within the data directory.
    pub config_file: Option<&'a str>,
    /// `pg_hba.conf`, within the data directory.
    pub hba_file: Option<&'a str>,
    /// `pg_ident.conf`, within the data directory.
    pub ident_file: Option<&'a str>,
    /// Whether the old configuration had a second pid file: a copy on the same
    /// machine must not write over it.
    pub external_pid_file: bool,
    /// Whether the data directory's own `postgresql.conf` says where the data
    /// directory is: the old one.
    pub names_data_directory: bool,
}

impl RestoredConfiguration<'_> {
    /// Lines that make the server read the restored copies and not the originals:
    /// a whole `postgresql.conf` when the data directory has none of its own, else
    /// lines for the end of it. Empty when nothing needs to be said.
    ///
    /// Paths are absolute: PostgreSQL takes relative ones from where it was started
    /// (`SelectConfigFiles`, utils/misc/guc.c).
    pub fn lines(&self) -> Result<String, UnwritableValue> {
        let mut lines = String::new();
        if let Some(file) = self.config_file {
            lines.push_str(
                "# This cluster's configuration lay outside its data directory. walpoint restore\n",
            );
            lines.push_str("# put the copy from the backup here and overrides the paths that it names.\n");
            lines.push_str(&assignment("include", file)?.replacen(" = ", " ", 1));
        }
        if self.config_file.is_some() || self.names_data_directory {
            lines.push_str(&assignment("data_directory", &self.data_directory.to_string_lossy())?);
        }
        for (name, file) in [("hba_file", self.hba_file), ("ident_file", self.ident_file)] {
            if let Some(file) = file {
                lines.push_str(&assignment(name, &self.data_directory.join(file).to_string_lossy())?);
            }
        }
        if self.external_pid_file {
            // Empty would be a complaint in the log at every start.
            lines.push_str(&assignment("external_pid_file", "walpoint-config/server.pid")?);
        }
        if self.config_file.is_some() && matches!(self.major, Some(Major::V13 | Major::V14)) {
            // Debian points it below /run, at a directory that only its own start script makes.
            lines.push_str(&assignment("stats_temp_directory", "pg_stat_tmp")?);
        }
        Ok(lines)
    }
}
