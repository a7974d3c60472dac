//! Files of a backup that are known only at its end, or lie elsewhere:
//! `backup_label`, `tablespace_map`, `pg_control`, and configuration from
//! outside the data directory.

use std::path::Path;

use walpoint_archive::RelativePath;
use walpoint_archive::manifest::{CONFIG_FOLDER, EntryKind, ManifestEntry, Piece, Windows};
use walpoint_archive::pack::MAX_PIECE_BYTES;
use walpoint_archive::relative_path::RelativePathError;

use super::configuration::ConfigurationFile;
use super::files::CONTROL_FILE;
use super::packs::{PackError, Packer};
use crate::session::StoppedBackup;

/// Permission bits of what the server writes for itself.
const PRIVATE: u32 = 0o600;

/// One such file, before it is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateFile {
    pub path: RelativePath,
    pub kind: EntryKind,
    pub mode: u32,
    pub content: Vec<u8>,
}

impl LateFile {
    /// All of them. The label and the map are kept byte by byte as the server
    /// gave them out; there is no map when there are no tablespaces.
    pub fn all(
        stopped: &StoppedBackup,
        control_file: &[u8],
        configuration: &[ConfigurationFile],
    ) -> Result<Vec<LateFile>, RelativePathError> {
        let mut files = vec![
            LateFile::file("backup_label", stopped.label_file.as_bytes())?,
            LateFile::file(CONTROL_FILE, control_file)?,
        ];
        if !stopped.tablespace_map.is_empty() {
            files.push(LateFile::file("tablespace_map", stopped.tablespace_map.as_bytes())?);
        }
        for file in configuration {
            files.push(LateFile::configuration(file)?);
        }
        Ok(files)
    }

    fn file(path: &str, content: &[u8]) -> Result<LateFile, RelativePathError> {
        Ok(LateFile {
            path: RelativePath::new(path)?,
            kind: EntryKind::File,
            mode: PRIVATE,
            content: content.to_vec(),
        })
    }

    /// Under its whole old path, so that no two meet.
    fn configuration(file: &ConfigurationFile) -> Result<LateFile, RelativePathError> {
        let below_root = file.path.strip_prefix("/").unwrap_or(&file.path);
        Ok(LateFile {
            path: RelativePath::from_path(&Path::new(CONFIG_FOLDER).join(below_root))?,
            kind: EntryKind::Config { original: file.path.clone() },
            mode: file.mode & 0o777,
            content: file.content.clone(),
        })
    }

    /// Puts the content into packs; what is left is its line in the manifest.
    pub fn pack(self, packer: &mut Packer) -> Result<ManifestEntry, PackError> {
        let mut pieces = Vec::new();
        let mut size = 0;
        for plain in self.content.chunks(MAX_PIECE_BYTES) {
            let placed = packer.append(plain)?;
            pieces.push(Piece::new(size, placed.pack, placed.place));
            size += plain.len() as u64;
        }
        let LateFile { path, kind, mode, .. } = self;
        Ok(ManifestEntry { path, kind, mode, size, pieces, windows: Windows::default() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use walpoint_wal::lsn::Lsn;
    use walpoint_wal::timestamp::Timestamp;

    use super::*;
    use crate::session::Position;

    fn stopped(tablespace_map: &str) -> StoppedBackup {
        StoppedBackup {
            position: Position { lsn: Lsn(9), time: Timestamp(9) },
            label_file: "START WAL LOCATION: …\n".into(),
            tablespace_map: tablespace_map.into(),
        }
    }

    fn paths(files: &[LateFile]) -> Vec<&str> {
        files.iter().filter_map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn the_map_is_kept_only_when_there_are_tablespaces() {
        let files = LateFile::all(&stopped(""), b"control", &[]).unwrap();
        assert_eq!(paths(&files), ["backup_label", "global/pg_control"]);
        let files = LateFile::all(&stopped("16384 /srv\n"), b"control", &[]).unwrap();
        assert_eq!(paths(&files), ["backup_label", "global/pg_control", "tablespace_map"]);
        assert_eq!(files[0].content, "START WAL LOCATION: …\n".as_bytes());
    }

    #[test]
    fn configuration_is_kept_under_its_old_path() {
        let file = ConfigurationFile {
            path: "/etc/postgresql/15/main/pg_hba.conf".into(),
            content: b"local all all peer\n".to_vec(),
            mode: 0o2640,
        };
        let files = LateFile::all(&stopped(""), b"", std::slice::from_ref(&file)).unwrap();
        let kept = files.last().unwrap();
        assert_eq!(kept.path.as_str(), Some("walpoint-config/etc/postgresql/15/main/pg_hba.conf"));
        assert_eq!(kept.kind, EntryKind::Config { original: file.path });
        assert_eq!(kept.mode, 0o640);
    }
}
