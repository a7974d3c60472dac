//! Damage to an archive that is a directory: what disks and people do to it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Every file below `directory` whose name contains `part`, its metadata file
/// included; what lies under `conflict/` too.
pub fn named(directory: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(named(&path, part));
        } else if entry.file_name().to_string_lossy().contains(part) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Removes every such file; none at all is an error of the test.
pub fn remove(directory: &Path, part: &str) -> Result<()> {
    let files = named(directory, part);
    if files.is_empty() {
        bail!("nothing in {} is named like {part}", directory.display());
    }
    for file in files {
        std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    }
    Ok(())
}

/// Flips one bit of the byte at `offset`.
pub fn flip_bit(file: &Path, offset: usize) -> Result<()> {
    let mut bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let byte = bytes.get_mut(offset).with_context(|| format!("{} is too short", file.display()))?;
    *byte ^= 0x04;
    std::fs::write(file, bytes).with_context(|| format!("write {}", file.display()))
}
