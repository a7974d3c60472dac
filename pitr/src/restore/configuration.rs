//! The configuration that came with a backup: which file is which, what it sets, and
//! what the server needs besides to start with it in its new place.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use walpoint_archive::{Archive, BackupSummary};
use walpoint_wal::Major;

use super::contents;
use super::error::RestoreError;
use super::inventory::Inventory;
use super::site::{NewFile, Place, Site};
use crate::postgresql_conf::{Inclusion, inclusions, value_of};
use crate::recovery_settings::{
    CONFIGURATION_DIRECTORY, RECOVERY_SIGNAL, RestoredConfiguration, STANDBY_SIGNAL, SUBSCRIPTION_WORKERS,
    interferes, overridden, without_block,
};

mod demands;

pub(super) use demands::demands;

const MAIN: &str = "postgresql.conf";
const AUTO: &str = "postgresql.auto.conf";
const ARCHIVE_MODE: &str = "archive_mode";

/// Larger than any configuration file, and small enough to be held.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The server refuses deeper nesting (`CONF_FILE_MAX_DEPTH`, conffiles.h).
const DEEPEST: usize = 10;

/// As much as is held of all of them, whatever a manifest says.
const LARGEST_TOGETHER: u64 = 64 * 1024 * 1024;

/// Configuration files with their content, those first that PostgreSQL reads last.
#[derive(Debug)]
pub(super) struct Configuration {
    texts: Vec<Text>,
    /// Files from outside the data directory: where they are now, and where they were.
    outside: Vec<(PathBuf, PathBuf)>,
}

#[derive(Debug)]
struct Text {
    path: PathBuf,
    content: Vec<u8>,
}

impl Configuration {
    /// Reads what the backup holds. Files that are too large to be configuration are left
    /// as they are.
    pub(super) async fn fetch(
        archive: &Archive,
        backup: &BackupSummary,
        inventory: &Inventory,
    ) -> Result<Configuration, RestoreError> {
        let outside = inventory.configuration.clone();
        let inside = [AUTO, MAIN].map(PathBuf::from).into_iter();
        let mut wanted: Vec<PathBuf> = inside.chain(outside.iter().map(|(place, _)| place.clone())).collect();
        let (mut room, mut texts) = (LARGEST_TOGETHER, Vec::<Text>::new());
        for _ in 0..=DEEPEST {
            let found = within_bounds(&inventory.files, wanted, &mut room);
            let read = read(archive, backup, inventory, found).await?;
            let known = |path: &PathBuf| texts.iter().chain(&read).any(|text| text.path == *path);
            let included = read.iter().flat_map(|text| included(text, &inventory.files));
            let included: BTreeSet<_> = included.filter(|path| !known(path)).collect();
            // Of a directory the last one counts, and a file mostly includes others at its end.
            wanted = included.into_iter().rev().collect();
            let behind_auto = usize::from(texts.first().is_some_and(|text| text.path == Path::new(AUTO)));
            texts.splice(behind_auto..behind_auto, read);
            if wanted.is_empty() {
                break;
            }
        }
        Ok(Configuration { texts, outside })
    }

    /// The content of a file in the data directory.
    pub(super) fn text_of(&self, name: &str) -> Option<&[u8]> {
        self.texts.iter().find(|text| text.path == Path::new(name)).map(|text| text.content.as_slice())
    }

    /// What the files say of a setting, each by itself.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = String> {
        self.texts.iter().filter_map(move |text| value_of(&without_block(&text.content), name))
    }

    /// The value that the backup's configuration gives to a setting, and the file. What
    /// an earlier restore wrote is not counted.
    pub(super) fn setting(&self, name: &str) -> Option<(String, String)> {
        self.texts.iter().find_map(|text| {
            let value = value_of(&without_block(&text.content), name)?;
            Some((value, text.path.display().to_string()))
        })
    }

    /// Writes what makes the server find its files here and not where they were.
    pub(super) fn complete(&self, site: &Site, major: Option<Major>) -> Result<(), RestoreError> {
        let own = self.text_of(MAIN);
        let lines = RestoredConfiguration {
            data_directory: site.data().path(),
            major,
            config_file: self.outside_file("config_file", MAIN).filter(|_| own.is_none()),
            hba_file: self.outside_file("hba_file", "pg_hba.conf"),
            ident_file: self.outside_file("ident_file", "pg_ident.conf"),
            external_pid_file: self.setting("external_pid_file").is_some_and(|(value, _)| !value.is_empty()),
            names_data_directory: own.is_some_and(|text| value_of(text, "data_directory").is_some()),
        }
        .lines()?;
        match own {
            _ if lines.is_empty() => {}
            Some(text) => {
                let text =
                    [text, b"\n# walpoint restore: files of the restored copy\n", lines.as_bytes()].concat();
                site.data().rewrite(Path::new(MAIN), &text)?;
            }
            None => {
                site.data().write_new(Path::new(MAIN), site.group().file_mode(0o640), lines.as_bytes())?
            }
        }
        self.make_included_directories(site)
    }

    /// What the backup's own settings would have done, by name and file. Values are left
    /// out: a connection string may hold a password.
    pub(super) fn neutralised(
        &self,
        inventory: &Inventory,
        backup: &BackupSummary,
        take_over: bool,
    ) -> Vec<String> {
        let signals =
            inventory.left_out.iter().filter(|name| *name == STANDBY_SIGNAL || *name == RECOVERY_SIGNAL);
        let mut neutralised: Vec<String> = signals.cloned().collect();
        let of_a_primary = [ARCHIVE_MODE, SUBSCRIPTION_WORKERS].into_iter().filter(|_| !take_over);
        for name in overridden().chain(of_a_primary) {
            if let Some((value, file)) = self.setting(name)
                && interferes(name, &value)
            {
                neutralised.push(format!("{name} in {file}"));
            }
        }
        let subscriptions = backup.subscriptions.iter().flatten().filter(|_| !take_over);
        neutralised.extend(subscriptions.map(|name| format!("subscription {name}")));
        neutralised
    }

    /// The file from outside that a setting named, else the one with its usual name,
    /// the highest up when there are several.
    fn outside_file(&self, setting: &str, usual: &str) -> Option<&str> {
        let named = self.setting(setting).and_then(|(value, _)| {
            self.outside.iter().find(|(_, original)| original == Path::new(&value)).map(|(place, _)| place)
        });
        let called = self.outside.iter().map(|(place, _)| place);
        let called = called.filter(|place| place.file_name().is_some_and(|it| it == usual));
        named.or_else(|| called.min_by_key(|place| place.components().count()))?.to_str()
    }

    /// An included directory may have been empty, and then no file of the backup makes it.
    fn make_included_directories(&self, site: &Site) -> Result<(), RestoreError> {
        for (place, _) in &self.outside {
            let text = self.texts.iter().find(|text| text.path == *place);
            for inclusion in text.map(|text| inclusions(&text.content)).unwrap_or_default() {
                let Inclusion::Directory(named) = inclusion else { continue };
                let below = |step| matches!(step, Component::Normal(_));
                if Path::new(&named).components().all(below) {
                    let beside = place.parent().unwrap_or(Path::new(""));
                    create_all(site, beside, Path::new(&named))?;
                }
            }
        }
        Ok(())
    }
}

/// Those of the paths that are files of the backup and can be held, each with its index.
fn within_bounds(files: &[NewFile], paths: Vec<PathBuf>, room: &mut u64) -> Vec<(PathBuf, usize)> {
    let fits = |path: PathBuf| {
        let place = Place::in_data_directory(&path);
        let (index, file) = files.iter().enumerate().find(|(_, file)| file.place == place)?;
        *room = room.checked_sub(file.size).filter(|_| file.size <= LARGEST)?;
        Some((path, index))
    };
    paths.into_iter().filter_map(fits).collect()
}

async fn read(
    archive: &Archive,
    backup: &BackupSummary,
    inventory: &Inventory,
    found: Vec<(PathBuf, usize)>,
) -> Result<Vec<Text>, RestoreError> {
    let wanted = found.iter().map(|(_, index)| *index).collect();
    let mut contents = contents::read(archive, backup, inventory, &wanted).await?;
    let text = |(path, index)| Some(Text { path, content: contents.remove(&index)? });
    Ok(found.into_iter().filter_map(text).collect())
}

/// Files in the data directory that a file includes by paths of its own place.
fn included(text: &Text, files: &[NewFile]) -> Vec<PathBuf> {
    let beside = text.path.parent().unwrap_or(Path::new(""));
    let below = |directory: &Path| {
        let inside = files.iter().filter(|file| file.place.tree == 0).map(|file| file.place.path.clone());
        let is_conf = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            path.parent() == Some(directory) && name.ends_with(".conf") && !name.starts_with('.')
        };
        inside.filter(is_conf).collect::<Vec<_>>()
    };
    let found = inclusions(&text.content).into_iter().flat_map(|inclusion| match inclusion {
        Inclusion::File(named) | Inclusion::FileIfExists(named) => vec![plain(&beside.join(named))],
        Inclusion::Directory(named) => below(&plain(&beside.join(named))),
    });
    found.collect()
}

/// Without `.` and `..`, as text: nothing is there yet to follow.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for step in path.components() {
        match step {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            step => plain.push(step),
        }
    }
    plain
}

/// Places for files that lay at these absolute paths, within the data directory: below
/// the directory that they have in common, so that what they include of each other by
/// relative paths is found.
pub(super) fn place(originals: &[PathBuf]) -> Vec<PathBuf> {
    let common = common_directory(originals);
    let place = |original: &PathBuf| {
        let below = original.strip_prefix(&common).unwrap_or(original);
        Path::new(CONFIGURATION_DIRECTORY).join(below.strip_prefix("/").unwrap_or(below))
    };
    originals.iter().map(place).collect()
}

fn common_directory(originals: &[PathBuf]) -> PathBuf {
    let mut directories = originals.iter().filter_map(|original| original.parent());
    let Some(first) = directories.next() else {
        return PathBuf::new();
    };
    directories.fold(first.to_owned(), |common, directory| {
        let shared = common.components().zip(directory.components()).take_while(|(one, other)| one == other);
        shared.map(|(step, _)| step).collect()
    })
}

fn create_all(site: &Site, beside: &Path, below: &Path) -> Result<(), RestoreError> {
    let mut path = beside.to_owned();
    for step in below.components() {
        path.push(step);
        site.data().create_directory(&path, site.group().directory_mode(0o750))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(originals: &[&str]) -> Vec<String> {
        let originals: Vec<PathBuf> = originals.iter().map(PathBuf::from).collect();
        place(&originals).iter().map(|it| it.display().to_string()).collect()
    }

    #[test]
    fn no_more_is_held_than_configuration_can_be() {
        let paths: Vec<PathBuf> = (0..6).map(|n| PathBuf::from(format!("walpoint-config/{n}"))).collect();
        let sizes = [LARGEST, LARGEST + 1, LARGEST, LARGEST, LARGEST, 1];
        let file = |(path, size): (&PathBuf, u64)| NewFile {
            place: Place::in_data_directory(path),
            mode: 0o600,
            size,
        };
        let files: Vec<NewFile> = paths.iter().zip(sizes).map(file).collect();
        let indexes = |files: &[NewFile], paths: Vec<PathBuf>| {
            let found = within_bounds(files, paths, &mut LARGEST_TOGETHER.clone());
            found.into_iter().map(|it| it.1).collect::<Vec<_>>()
        };
        assert_eq!(indexes(&files, paths.clone()), [0, 2, 3, 4]);
        assert_eq!(indexes(&files[..3], paths.into_iter().rev().collect()), [2, 0]);
    }

    #[test]
    fn files_from_outside_keep_their_places_among_each_other() {
        let debian = [
            "/etc/postgresql/15/main/conf.d/more.conf",
            "/etc/postgresql/15/main/pg_hba.conf",
            "/etc/postgresql/15/main/postgresql.conf",
        ];
        let expected = [
            "walpoint-config/conf.d/more.conf",
            "walpoint-config/pg_hba.conf",
            "walpoint-config/postgresql.conf",
        ];
        assert_eq!(placed(&debian), expected);
        assert_eq!(
            placed(&["/etc/pg/main/postgresql.conf", "/srv/hba/pg_hba.conf"]),
            ["walpoint-config/etc/pg/main/postgresql.conf", "walpoint-config/srv/hba/pg_hba.conf"]
        );
        assert_eq!(placed(&["/etc/pg_hba.conf"]), ["walpoint-config/pg_hba.conf"]);
        assert_eq!(placed(&[]), Vec::<String>::new());
    }
}
