//! Copies of programs where the dropped user can read them.
//!
//! Root's home is closed to `postgres`, and a debug build may lie there too.
//! A copy is made once per version and kept for the next run, under a
//! directory that only this user can write.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::user::User;

/// A path with the same content that the user can read and execute: the
/// original when its directories are open, else a copy named by `key`.
pub fn readable(original: &Path, key: &str) -> Result<PathBuf> {
    if !User::current()?.dropped || open_to_all(original) {
        return Ok(original.to_owned());
    }
    let target = stage_dir()?.join(key);
    if !target.exists() {
        copy(original, &target)?;
    }
    Ok(target)
}

fn open_to_all(path: &Path) -> bool {
    path.ancestors().all(|part| {
        std::fs::metadata(part).is_ok_and(|meta| meta.permissions().mode() & 0o005 == 0o005 || !meta.is_dir())
    })
}

fn stage_dir() -> Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let dir = PathBuf::from(format!("/tmp/walpoint-test-programs-{uid}"));
    if let Err(error) = std::fs::create_dir(&dir)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(error).with_context(|| format!("make {}", dir.display()));
    }
    let meta = std::fs::symlink_metadata(&dir)?;
    if !meta.is_dir() || meta.uid() != uid {
        bail!("{} is not ours: remove it", dir.display());
    }
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// Copies beside the target, then renames with `mv -T`, which fails rather
/// than nest when another test process was faster; its copy is as good.
fn copy(original: &Path, target: &Path) -> Result<()> {
    let partial = target.with_extension(format!("partial-{}", std::process::id()));
    let status = Command::new("cp").arg("-aL").arg(original).arg(&partial).status().context("run cp")?;
    if !status.success() {
        bail!("could not copy {} to {}", original.display(), partial.display());
    }
    let status =
        Command::new("chmod").args(["-R", "a+rX,go-w"]).arg(&partial).status().context("run chmod")?;
    let moved = Command::new("mv").arg("-T").arg(&partial).arg(target).status().context("run mv")?;
    if !status.success() || !(moved.success() || target.exists()) {
        bail!("could not put {} in place", target.display());
    }
    Ok(())
}
