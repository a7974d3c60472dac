//! Configuration that lies outside the data directory: the files that the
//! server reads at start and everything they include. Debian's clusters keep
//! it under `/etc/postgresql`; without it a restored one does not start.
//!
//! Only what `include` names is followed. Keys and certificates are not:
//! a private key does not belong in a backup that nobody asked to hold it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// The server refuses deeper nesting (`CONF_FILE_MAX_DEPTH`, conffiles.h).
const DEEPEST: usize = 10;

/// Larger than any configuration: something else was named.
const LARGEST: u64 = 16 * 1024 * 1024;

/// One configuration file from outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationFile {
    /// Where it lies, absolute.
    pub path: PathBuf,
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("could not read configuration file \"{}\": {reason}", path.display())]
pub struct ConfigurationError {
    pub path: PathBuf,
    pub reason: String,
}

/// Reads the files named by `roots` (`config_file`, `hba_file`, `ident_file`)
/// and what they include, and returns those that lie outside
/// `data_directory`, in path order.
pub fn outside(
    data_directory: &Path,
    roots: &[PathBuf],
) -> Result<Vec<ConfigurationFile>, ConfigurationError> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let mut pending: Vec<(PathBuf, usize)> = roots.iter().map(|path| (normal(path), 0)).collect();
    while let Some((path, depth)) = pending.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        if depth > DEEPEST {
            return Err(refused(&path, "it is included too deep"));
        }
        let file = read(&path)?;
        for included in included_files(&path, &file.content)? {
            pending.push((normal(&included), depth + 1));
        }
        if !is_inside(data_directory, &path) {
            found.push(file);
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Without `.` and `..`, by the names alone, as the server does it
/// (`canonicalize_path`).
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

/// Does the file belong to the data directory's own files, by whichever
/// names the two are reached?
fn is_inside(data_directory: &Path, path: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    path.parent().is_some_and(|parent| real(parent).starts_with(real(data_directory)))
}

fn read(path: &Path) -> Result<ConfigurationFile, ConfigurationError> {
    let read = || -> io::Result<ConfigurationFile> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let mut content = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut content)?;
        let mode = metadata.permissions().mode() & 0o7777;
        Ok(ConfigurationFile { path: path.to_path_buf(), content, mode })
    };
    let file = read().map_err(|error| refused(path, &error.to_string()))?;
    if file.content.len() as u64 > LARGEST {
        return Err(refused(path, "it is larger than 16 MiB"));
    }
    Ok(file)
}

fn refused(path: &Path, reason: &str) -> ConfigurationError {
    ConfigurationError { path: path.to_path_buf(), reason: reason.to_owned() }
}

/// The files that the file at `path` includes, in order.
fn included_files(path: &Path, content: &[u8]) -> Result<Vec<PathBuf>, ConfigurationError> {
    let beside = path.parent().unwrap_or(Path::new("/"));
    let mut files = Vec::new();
    for inclusion in inclusions(&String::from_utf8_lossy(content)) {
        match inclusion {
            Inclusion::File(name) => files.push(beside.join(name)),
            Inclusion::FileIfExists(name) => {
                let file = beside.join(name);
                if file.exists() {
                    files.push(file);
                }
            }
            Inclusion::Directory(name) => {
                let directory = beside.join(name);
                let names = conf_files(&directory);
                files.extend(names.map_err(|error| refused(&directory, &error.to_string()))?);
            }
        }
    }
    Ok(files)
}

/// Files whose names end in `.conf` and do not begin with a dot, by name
/// (`GetConfFilesInDir`, conffiles.c).
fn conf_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".conf") && name.len() > 5 && !name.starts_with('.') && !entry.path().is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Inclusion {
    File(String),
    FileIfExists(String),
    Directory(String),
}

/// The include directives of `postgresql.conf` and, from 16 on, of
/// `pg_hba.conf` and `pg_ident.conf`, whose syntax differs only in what else
/// may stand there.
fn inclusions(text: &str) -> Vec<Inclusion> {
    text.lines().filter_map(inclusion).collect()
}

fn inclusion(line: &str) -> Option<Inclusion> {
    let line = line.trim_start();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(line.len());
    let (word, rest) = line.split_at_checked(end)?;
    let make: fn(String) -> Inclusion = match word.to_ascii_lowercase().as_str() {
        "include" => Inclusion::File,
        "include_if_exists" => Inclusion::FileIfExists,
        "include_dir" => Inclusion::Directory,
        _ => return None,
    };
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    Some(make(value(rest)?)).filter(|_| !rest.is_empty())
}

/// A value in single quotes (a quote doubled or behind a backslash), in
/// double quotes as `pg_hba.conf` has them, or a bare word.
fn value(text: &str) -> Option<String> {
    let mut chars = text.chars().peekable();
    let quote = match chars.peek()? {
        '\'' | '"' => chars.next()?,
        _ => {
            let word: String = chars.take_while(|c| !c.is_whitespace() && *c != '#').collect();
            return Some(word).filter(|word| !word.is_empty());
        }
    };
    let mut value = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quote == '\'' => value.push(chars.next()?),
            c if c == quote => {
                if chars.peek() != Some(&quote) {
                    return Some(value);
                }
                chars.next();
                value.push(quote);
            }
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn directives_are_read_as_the_server_reads_them() {
        let table: &[(&str, Option<Inclusion>)] = &[
            ("include 'a.conf'", Some(Inclusion::File("a.conf".into()))),
            ("  INCLUDE = 'a b.conf'  # why", Some(Inclusion::File("a b.conf".into()))),
            ("include='it''s'", Some(Inclusion::File("it's".into()))),
            ("include 'it\\'s'", Some(Inclusion::File("it's".into()))),
            ("include_if_exists x.conf # y", Some(Inclusion::FileIfExists("x.conf".into()))),
            ("include_dir 'conf.d'", Some(Inclusion::Directory("conf.d".into()))),
            ("include_dir \"conf.d\"", Some(Inclusion::Directory("conf.d".into()))),
            ("#include 'a.conf'", None),
            ("included = 'a.conf'", None),
            ("include", None),
            ("include '", None),
            ("include # nothing", None),
            ("port = 5432", None),
            ("local all all trust", None),
            ("", None),
        ];
        for (line, expected) in table {
            assert_eq!(inclusion(line), *expected, "{line}");
        }
    }

    #[test]
    fn files_outside_are_found_through_files_inside() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("data")).unwrap();
        fs::create_dir_all(at("etc/conf.d")).unwrap();
        fs::write(at("data/postgresql.conf"), "include '../etc/main.conf'\ninclude_if_exists 'none'\n")
            .unwrap();
        fs::write(at("etc/main.conf"), "include_dir 'conf.d'\ninclude 'main.conf'\n").unwrap();
        fs::write(at("etc/conf.d/20.conf"), "port = 2").unwrap();
        fs::write(at("etc/conf.d/10.conf"), "port = 1").unwrap();
        fs::write(at("etc/conf.d/.hidden.conf"), "").unwrap();
        fs::write(at("etc/conf.d/note.txt"), "").unwrap();
        fs::write(at("etc/pg_hba.conf"), "local all all peer").unwrap();
        let roots = [at("data/postgresql.conf"), at("etc/pg_hba.conf")];
        let found = outside(&at("data"), &roots).unwrap();
        let names: Vec<String> =
            found.iter().map(|file| file.path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["10.conf", "20.conf", "main.conf", "pg_hba.conf"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("pg_ident.conf");
        let error = outside(Path::new("/data"), std::slice::from_ref(&missing)).unwrap_err();
        assert_eq!(error.path, missing);
    }
}
