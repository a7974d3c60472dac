//! The data directory of the server that answers, where it can be seen: `check` may run on another machine, as
//! another user, or beside a copy of that directory.

use std::path::{Path, PathBuf};

use walpoint_pitr::recovery_settings::{RECOVERY_SIGNAL, STANDBY_SIGNAL};
use walpoint_wal::control_file::{ControlFile, DbState};
use walpoint_wal::lsn::Lsn;
use walpoint_wal::system_identifier::SystemIdentifier;

use crate::data_directory;
use crate::session::Session;

/// It was looked at, and it is the server's.
#[derive(Debug, Clone)]
pub struct ServerDirectory {
    pub path: PathBuf,
}

impl ServerDirectory {
    /// Looks at `path`.
    ///
    /// # Errors
    /// Why the server's directory cannot be seen there.
    pub async fn at(path: &Path, session: &Session) -> Result<ServerDirectory, String> {
        // Asked before the file is read: a checkpoint in between makes the file newer, never older.
        let redo = session.checkpoint_redo().await.map_err(|error| error.to_string())?;
        let found = data_directory::open(path).map_err(|failure| failure.error)?;
        let not_here = |why: &str| format!("the server's data directory \"{}\" {why}", path.display());
        let directory = found.ok_or_else(|| not_here("is not here"))?;
        let server = Running {
            system_identifier: session.server.system_identifier,
            redo,
            is_in_recovery: session.server.is_in_recovery,
        };
        match server.is_described_by(&directory.control) {
            true => Ok(ServerDirectory { path: directory.path }),
            false => Err(not_here("is not what lies here under that name")),
        }
    }

    /// Does the server recover to a target and follow no primary? A standby has a signal file of its own,
    /// which counts more.
    pub fn is_restored_copy(&self) -> bool {
        self.path.join(RECOVERY_SIGNAL).exists() && !self.path.join(STANDBY_SIGNAL).exists()
    }
}

/// What a running server says of itself that its control file says too.
#[derive(Debug, Clone, Copy)]
struct Running {
    system_identifier: SystemIdentifier,
    redo: Lsn,
    is_in_recovery: bool,
}

impl Running {
    /// The control file of another cluster differs, and so does that of a copy: it stays behind at the
    /// server's next checkpoint, and that of a standby is in another state.
    fn is_described_by(self, control: &ControlFile) -> bool {
        let state = if self.is_in_recovery { DbState::InArchiveRecovery } else { DbState::InProduction };
        control.system_identifier == self.system_identifier
            && control.state == state
            && control.redo >= self.redo
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A real one, of a running primary.
    fn control() -> ControlFile {
        let bytes = zstd::decode_all(&include_bytes!("../../tests/fixtures/pg_control.zst")[..]).unwrap();
        ControlFile { state: DbState::InProduction, ..ControlFile::parse(&bytes).unwrap() }
    }

    #[test]
    fn only_the_servers_own_control_file_describes_it() {
        let (control, recovering) = (control(), DbState::InArchiveRecovery);
        let server = Running {
            system_identifier: control.system_identifier,
            redo: control.redo,
            is_in_recovery: false,
        };
        assert!(server.is_described_by(&control));
        let newer = ControlFile { redo: Lsn(control.redo.0 + 1), ..control.clone() };
        assert!(server.is_described_by(&newer));
        let others = [
            ControlFile { system_identifier: SystemIdentifier(1), ..control.clone() },
            ControlFile { redo: Lsn(control.redo.0 - 1), ..control.clone() },
            ControlFile { state: DbState::ShutDown, ..control.clone() },
            ControlFile { state: recovering, ..control.clone() },
        ];
        for other in others {
            assert!(!server.is_described_by(&other), "{other:?}");
        }
        let standby = Running { is_in_recovery: true, ..server };
        assert!(!standby.is_described_by(&control));
        assert!(standby.is_described_by(&ControlFile { state: recovering, ..control }));
    }
}
