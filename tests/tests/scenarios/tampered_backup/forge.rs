//! Makes a backup say something else, with every hash and count as if it had
//! always said so: what somebody can do who writes to the archive.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::envelope::Sealed;
use walpoint_archive::store::ObjectStore;
use walpoint_archive::store::dir::DirStore;
use walpoint_archive::{Archive, BackupSummary, KeyRing, ManifestReader, Sealer, StoredHash};
use walpoint_tests::runtime;
use walpoint_tests::user::User;

/// An archive that is a directory, with one backup, and how it was before.
pub struct Forge {
    directory: PathBuf,
    sound: PathBuf,
}

/// A backup on its way to say something else.
pub struct Backup {
    archive: Archive,
    summary: BackupSummary,
    /// The manifest's lines but for the last, which is made anew.
    pub lines: Vec<Value>,
    /// What stands behind the last of these lines, as it is.
    pub more: Vec<u8>,
}

impl Forge {
    /// Keeps a copy of the archive.
    pub fn new(directory: &Path, copy: PathBuf) -> Result<Forge> {
        duplicate(directory, &copy)?;
        Ok(Forge { directory: directory.to_owned(), sound: copy })
    }

    /// The archive as it was, and then with its backup changed.
    pub fn tamper(&self, change: impl FnOnce(&mut Backup) -> Result<()>) -> Result<()> {
        self.mend()?;
        let mut backup = Backup::of(&self.directory)?;
        change(&mut backup)?;
        backup.store(&self.directory)?;
        // Root forges, and the archive's owner reads.
        let user = User::current()?;
        if user.dropped {
            let owner = format!("{}:{}", user.uid, user.gid);
            let status = Command::new("chown").arg("-R").arg(owner).arg(&self.directory).status()?;
            ensure!(status.success(), "could not give the archive to its owner");
        }
        Ok(())
    }

    /// The archive as it was.
    pub fn mend(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.directory)?;
        duplicate(&self.sound, &self.directory)
    }
}

impl Backup {
    fn of(directory: &Path) -> Result<Backup> {
        runtime::block_on(async {
            let store: Arc<dyn ObjectStore> = Arc::new(DirStore::open(directory).await?);
            let clusters = Archive::clusters(store.as_ref()).await?;
            let cluster = clusters.sound.first().context("no cluster")?.system_identifier;
            let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
            let archive = Archive::new(store, cluster, sealer);
            let head = archive.backups().await?.sound.pop().context("no backup")?;
            let summary = archive.whole(&head).await?;
            let mut manifest = Vec::new();
            archive.fetch_manifest(&summary, &mut manifest).await?;
            ensure!(ManifestReader::new(manifest.as_slice()).is_ok(), "not a manifest");
            let mut lines = Vec::new();
            for line in String::from_utf8(manifest)?.lines() {
                lines.push(serde_json::from_str(line)?);
            }
            lines.pop();
            Ok(Backup { archive, summary, lines, more: Vec::new() })
        })
    }

    /// Where the entry with this path stands.
    pub fn position(&self, path: &str) -> Result<usize> {
        let found = self.lines.iter().position(|line| line["path"] == path);
        found.with_context(|| format!("the manifest has no {path}"))
    }

    /// The line of this path.
    pub fn line(&mut self, path: &str) -> Result<&mut Value> {
        let position = self.position(path)?;
        Ok(&mut self.lines[position])
    }

    /// A line right behind the header.
    pub fn first(&mut self, line: Value) {
        self.lines.insert(1, line);
    }

    /// A line where the order of paths has it.
    pub fn insert(&mut self, line: Value) -> Result<()> {
        let path = line["path"].as_str().context("a line without a path")?;
        let before = |other: &Value| other["path"].as_str().is_some_and(|other| other < path);
        let position = self.lines.iter().skip(1).take_while(|other| before(other)).count() + 1;
        self.lines.insert(position, line);
        Ok(())
    }

    /// A pack besides those that are there: a frame that is this long when it is
    /// decompressed, and does not say so. Its number and stored length.
    pub fn add_bomb(&mut self, plain_size: u64) -> Result<(usize, usize)> {
        let mut bytes = Vec::new();
        let zeros = std::io::repeat(0).take(plain_size);
        let seal = self.archive.sealer().seal_into(zeros, None, &mut bytes)?;
        let stored_length = bytes.len();
        let sealed = Sealed {
            stored: StoredHash::of(&bytes),
            bytes: bytes.into(),
            content: seal.content,
            plain_size,
            encrypted: false,
        };
        let number = self.summary.packs.len();
        let put = self.archive.put_pack(&self.summary.id, u32::try_from(number)?, &sealed);
        let pack = runtime::block_on(async { Ok(put.await?) })?;
        self.summary.packs.push(pack);
        Ok((number, stored_length))
    }

    /// Puts the manifest, and then the summary that names it in place of the old one.
    fn store(mut self, directory: &Path) -> Result<()> {
        let manifest = self.manifest()?;
        let key = self.archive.layout().summary(&self.summary.id);
        for name in [key.to_string(), format!("{key}.meta")] {
            std::fs::remove_file(directory.join(name))?;
        }
        runtime::block_on(async {
            self.summary.manifest = self.archive.put_manifest(&self.summary.id, manifest).await?;
            Ok(self.archive.put_summary(&self.summary).await?)
        })
    }

    fn manifest(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        for line in &self.lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        text.extend_from_slice(&self.more);
        let files = || self.lines.iter().filter(|line| line["size"].is_u64());
        let bytes = files().fold(0u64, |sum, line| sum.saturating_add(line["size"].as_u64().unwrap_or(0)));
        let last = json!({
            "entries": self.lines.len() - 1,
            "files": files().count(),
            "bytes": bytes,
            "sha256": StoredHash::of(&text).to_string(),
        });
        serde_json::to_writer(&mut text, &last)?;
        text.push(b'\n');
        Ok(text)
    }
}

fn duplicate(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "could not copy {}", from.display());
    Ok(())
}
