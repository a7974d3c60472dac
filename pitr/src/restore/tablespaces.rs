//! Where each tablespace of a backup goes. Pure.

use std::path::{Component, Path, PathBuf};

use super::error::RestoreError;

/// Another place for a tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceMapping {
    /// Which one: its path in the backup, or its object identifier.
    pub from: String,
    /// The directory to restore it to.
    pub to: PathBuf,
}

/// A tablespace and where it is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its object identifier, which is its name in `pg_tblspc`.
    pub oid: u32,
    /// Where it was when the backup was made.
    pub original: PathBuf,
    /// Where it goes.
    pub directory: PathBuf,
}

impl Tablespace {
    /// Its link, in the data directory.
    pub(super) fn link(&self) -> PathBuf {
        link_of(self.oid)
    }
}

/// The link of a tablespace, in the data directory.
pub(super) fn link_of(oid: u32) -> PathBuf {
    Path::new("pg_tblspc").join(oid.to_string())
}

/// Finds the directory of each tablespace: where it is mapped to, else where it was.
pub(super) fn place(
    tablespaces: &[(u32, PathBuf)],
    mappings: &[TablespaceMapping],
    data_directory: &Path,
) -> Result<Vec<Tablespace>, RestoreError> {
    for mapping in mappings {
        check_mapping(mapping, tablespaces)?;
    }
    let mut placed: Vec<Tablespace> = Vec::new();
    for (oid, original) in tablespaces {
        let mut mapped = mappings.iter().filter(|mapping| means(mapping, *oid, original));
        let directory = mapped.next().map_or(original, |mapping| &mapping.to).clone();
        if mapped.next().is_some() {
            return refuse(&oid.to_string(), "it is mapped twice".to_owned());
        }
        let others = placed.iter().map(|it| it.directory.as_path()).chain([data_directory]);
        if let Some(other) = others.into_iter().find(|other| overlap(other, &directory)) {
            let why = format!("\"{}\" and \"{}\" would mix", directory.display(), other.display());
            return refuse(&oid.to_string(), why);
        }
        placed.push(Tablespace { oid: *oid, original: original.clone(), directory });
    }
    Ok(placed)
}

fn check_mapping(mapping: &TablespaceMapping, tablespaces: &[(u32, PathBuf)]) -> Result<(), RestoreError> {
    if !is_plain(&mapping.to) {
        return refuse(&mapping.from, format!("\"{}\" is not an absolute path", mapping.to.display()));
    }
    if !tablespaces.iter().any(|(oid, original)| means(mapping, *oid, original)) {
        let known: Vec<String> =
            tablespaces.iter().map(|(oid, path)| format!("{oid} at \"{}\"", path.display())).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return refuse(&mapping.from, format!("the backup has no such tablespace; it has {known}"));
    }
    Ok(())
}

fn means(mapping: &TablespaceMapping, oid: u32, original: &Path) -> bool {
    // Compared as paths, so that a slash at the end makes no difference.
    Path::new(&mapping.from) == original || mapping.from == oid.to_string()
}

fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Whether a path is absolute and leads nowhere but down.
pub(super) fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.parent().is_some()
        && path.components().all(|it| matches!(it, Component::RootDir | Component::Normal(_)))
}

fn refuse<T>(from: &str, why: String) -> Result<T, RestoreError> {
    Err(RestoreError::TablespaceMapping { from: from.to_owned(), why })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn placed(mappings: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let tablespaces = [(16384, PathBuf::from("/srv/fast")), (16385, PathBuf::from("/srv/slow"))];
        let mappings: Vec<TablespaceMapping> = mappings
            .iter()
            .map(|(from, to)| TablespaceMapping { from: (*from).to_owned(), to: PathBuf::from(to) })
            .collect();
        place(&tablespaces, &mappings, Path::new("/srv/data"))
            .map(|it| it.iter().map(|it| it.directory.display().to_string()).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_tablespace_goes_where_it_is_mapped_to_and_else_where_it_was() {
        assert_eq!(placed(&[]).unwrap(), ["/srv/fast", "/srv/slow"]);
        assert_eq!(placed(&[("/srv/fast/", "/new/a"), ("16385", "/new/b")]).unwrap(), ["/new/a", "/new/b"]);
    }

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        let table: [(&[(&str, &str)], &str); 7] = [
            (&[("/srv/other", "/new")], "16384 at \"/srv/fast\""),
            (&[("1638", "/new")], "no such tablespace"),
            (&[("16384", "new")], "not an absolute path"),
            (&[("16384", "/new/../etc")], "not an absolute path"),
            (&[("16384", "/new"), ("/srv/fast", "/newer")], "mapped twice"),
            (&[("16384", "/new"), ("16385", "/new/below")], "would mix"),
            (&[("16384", "/srv/data/pg_tblspc/x")], "would mix"),
        ];
        for (mappings, expected) in table {
            let error = placed(mappings).unwrap_err();
            assert!(error.contains(expected), "{mappings:?}: {error}");
        }
    }
}
