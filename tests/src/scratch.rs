//! Temporary directories that the dropped user owns.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::keeper;
use crate::user::User;

/// A private temporary directory, removed on drop or when the process ends.
///
/// Its path is short: a Unix socket's path may have 107 bytes at most, and
/// PostgreSQL's socket lies in here.
#[derive(Debug)]
pub struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    /// `purpose` is a short word that tells a listing of /tmp what this was.
    pub fn new(purpose: &str) -> Result<Scratch> {
        let base = std::env::temp_dir();
        let base = if base.as_os_str().len() > 40 { PathBuf::from("/tmp") } else { base };
        let dir = tempfile::Builder::new()
            .prefix(&format!("wp-{purpose}-"))
            .rand_bytes(6)
            .tempdir_in(&base)
            .with_context(|| format!("make a temporary directory in {}", base.display()))?;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700))?;
        User::current()?.own(dir.path())?;
        keeper::register(dir.path())?;
        Ok(Scratch { dir })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A fresh subdirectory, mode 0700, owned by the user.
    pub fn make_dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        make_private_dir(&path)?;
        Ok(path)
    }
}

/// Makes a directory with mode 0700 that the user owns.
pub fn make_private_dir(path: &Path) -> Result<()> {
    std::fs::create_dir(path).with_context(|| format!("make {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    User::current()?.own(path)
}

/// Writes a file that the user owns, mode 0600.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    User::current()?.own(path)
}
