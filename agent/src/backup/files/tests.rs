#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use proptest::prelude::*;

use super::*;

/// A data directory made up of empty files and directories.
struct Tree {
    root: tempfile::TempDir,
}

impl Tree {
    fn new() -> Tree {
        let tree = Tree { root: tempfile::tempdir().unwrap() };
        for directory in ["data/base/5", "data/global", "data/pg_wal", "data/pg_tblspc"] {
            fs::create_dir_all(tree.path(directory)).unwrap();
        }
        tree
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    fn file(&self, relative: &str, size: usize) -> &Tree {
        let path = self.path("data").join(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![b'x'; size]).unwrap();
        self
    }

    fn scope(&self) -> Scope {
        Scope {
            data_directory: self.path("data"),
            tablespace_version: "PG_15_202209061".into(),
            major: 15,
            emptied: Vec::new(),
            left: Vec::new(),
        }
    }

    fn listed(&self) -> BTreeMap<String, EntryKind> {
        by_path(&walk(&self.scope()).unwrap())
    }
}

fn by_path(listing: &Listing) -> BTreeMap<String, EntryKind> {
    let text = |entry: &Entry| entry.path.to_str().unwrap().to_owned();
    listing.entries.iter().map(|entry| (text(entry), entry.kind.clone())).collect()
}

#[test]
fn files_that_the_server_rebuilds_are_left_and_their_directories_kept() {
    let tree = Tree::new();
    tree.file("PG_VERSION", 3)
        .file("postmaster.pid", 80)
        .file("walpoint.writer", 16)
        .file("pg_wal/000000010000000000000001", 100)
        .file("pg_wal/archive_status/000000010000000000000001.ready", 0)
        .file("pg_replslot/one/state", 10)
        .file("base/pgsql_tmp/pgsql_tmp12.0", 10)
        .file("global/pg_control", 8192)
        .file("global/1262", 8192)
        .file("log/postgresql.log", 7);
    let listed = tree.listed();
    let names: Vec<&str> = listed.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "PG_VERSION",
            "base",
            "base/5",
            "global",
            "global/1262",
            "log",
            "log/postgresql.log",
            "pg_replslot",
            "pg_tblspc",
            "pg_wal",
            "pg_wal/archive_status"
        ]
    );
    assert_eq!(walk(&tree.scope()).unwrap().bytes, 3 + 8192 + 7);
}

#[test]
fn from_17_on_the_summaries_directory_is_kept() {
    let tree = Tree::new();
    let listing = walk(&Scope { major: 17, ..tree.scope() }).unwrap();
    assert!(by_path(&listing).contains_key("pg_wal/summaries"));
}

#[test]
fn of_unlogged_relations_the_init_fork_alone_is_kept() {
    let tree = Tree::new();
    for name in ["7", "7.1", "7_fsm", "7_vm", "7_init", "8", "8_vm", "t3_9", "t3_9_fsm"] {
        tree.file(&format!("base/5/{name}"), 8192);
    }
    let listed = tree.listed();
    let kept: Vec<&str> = listed.keys().filter_map(|path| path.strip_prefix("base/5/")).collect();
    assert_eq!(kept, ["7_init", "8", "8_vm"]);
}

#[test]
fn a_tablespace_is_walked_behind_its_link_and_only_our_version_of_it() {
    let tree = Tree::new();
    fs::create_dir_all(tree.path("space/PG_15_202209061/5")).unwrap();
    fs::create_dir_all(tree.path("space/PG_16_202307071/5")).unwrap();
    fs::write(tree.path("space/PG_15_202209061/5/9"), [0; 10]).unwrap();
    fs::write(tree.path("space/PG_15_202209061/5/t1_9"), [0; 10]).unwrap();
    fs::write(tree.path("space/PG_16_202307071/5/9"), [0; 10]).unwrap();
    symlink(tree.path("space"), tree.path("data/pg_tblspc/16384")).unwrap();
    let listed = tree.listed();
    assert_eq!(listed.get("pg_tblspc/16384"), Some(&EntryKind::Tablespace { oid: 16384 }));
    let inside: Vec<&str> = listed.keys().filter_map(|path| path.strip_prefix("pg_tblspc/16384/")).collect();
    assert_eq!(inside, ["PG_15_202209061", "PG_15_202209061/5", "PG_15_202209061/5/9"]);
}

#[test]
fn a_tablespace_inside_the_data_directory_is_kept_once() {
    let tree = Tree::new();
    tree.file("space/PG_15_202209061/5/9", 10);
    symlink(tree.path("data/space"), tree.path("data/pg_tblspc/16384")).unwrap();
    let listed = tree.listed();
    assert_eq!(listed.get("space"), Some(&EntryKind::Directory));
    assert!(!listed.contains_key("space/PG_15_202209061"));
    assert!(listed.contains_key("pg_tblspc/16384/PG_15_202209061/5/9"));
}

#[test]
fn a_link_that_is_in_its_place_is_followed() {
    let tree = Tree::new();
    fs::write(tree.path("outside.conf"), b"port = 1\n").unwrap();
    symlink(tree.path("outside.conf"), tree.path("data/postgresql.conf")).unwrap();
    fs::remove_dir(tree.path("data/pg_wal")).unwrap();
    fs::create_dir(tree.path("wal")).unwrap();
    fs::write(tree.path("wal/000000010000000000000001"), b"").unwrap();
    symlink(tree.path("wal"), tree.path("data/pg_wal")).unwrap();
    let listed = tree.listed();
    assert_eq!(listed.get("postgresql.conf"), Some(&EntryKind::File { size: 9, relation: None }));
    assert_eq!(listed.get("pg_wal"), Some(&EntryKind::Directory));
    assert_eq!(listed.keys().filter(|path| path.starts_with("pg_wal/0")).count(), 0);
}

#[test]
fn a_link_that_nobody_could_restore_ends_the_backup() {
    for target in ["elsewhere", "nowhere"] {
        let tree = Tree::new();
        fs::create_dir(tree.path("elsewhere")).unwrap();
        symlink(tree.path(target), tree.path("data/log")).unwrap();
        let error = walk(&tree.scope()).unwrap_err();
        assert!(matches!(error, WalkError::Refused { .. }), "{target}: {error}");
        assert!(error.to_string().contains("data/log"), "{error}");
    }
}

#[test]
fn sockets_are_left() {
    let tree = Tree::new();
    let _socket = UnixListener::bind(tree.path("data/.s.PGSQL.5432")).unwrap();
    assert!(!tree.listed().contains_key(".s.PGSQL.5432"));
}

#[test]
fn what_the_scope_names_is_left_or_emptied() {
    let tree = Tree::new();
    tree.file("stats/global.stat", 5).file("walpoint-config/postgresql.conf", 5);
    let scope = Scope { emptied: vec!["stats".into()], left: vec!["walpoint-config".into()], ..tree.scope() };
    let listed = by_path(&walk(&scope).unwrap());
    assert!(listed.contains_key("stats") && !listed.contains_key("stats/global.stat"));
    assert!(!listed.keys().any(|path| path.starts_with("walpoint-config")));
}

#[test]
fn a_data_directory_that_is_not_there_is_an_error() {
    let tree = Tree::new();
    let scope = Scope { data_directory: tree.path("none"), ..tree.scope() };
    assert!(matches!(walk(&scope).unwrap_err(), WalkError::Io { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever lies in a database's directory: what is not temporary, not
    /// rebuilt and not reset at start is listed, with its size, and in order.
    #[test]
    fn every_other_file_of_a_database_is_kept(
        names in proptest::collection::btree_set("(t[0-9]_)?[1-9](_fsm|_vm|_init)?(\\.[1-3])?|[a-z]{1,6}", 0..24),
    ) {
        let tree = Tree::new();
        for name in &names {
            tree.file(&format!("base/5/{name}"), name.len());
        }
        let is_kept = |name: &str| {
            let number = name.split(['_', '.']).next().unwrap_or_default();
            let is_number = number.chars().all(|c| c.is_ascii_digit());
            let is_unlogged = is_number
                && names.iter().any(|other| *other == format!("{number}_init") || other.starts_with(&format!("{number}_init.")))
                && !name.contains("_init");
            let is_temporary = name.starts_with('t') && name.contains('_');
            !is_unlogged && !is_temporary
        };
        let expected: Vec<String> =
            names.iter().filter(|name| is_kept(name)).map(|name| format!("base/5/{name}")).collect();
        let listing = walk(&tree.scope()).unwrap();
        let listed: Vec<String> = listing
            .entries
            .iter()
            .filter(|entry| matches!(entry.kind, EntryKind::File { .. }))
            .map(|entry| entry.path.to_str().unwrap().to_owned())
            .collect();
        prop_assert_eq!(listed, expected);
        prop_assert!(listing.entries.is_sorted_by_key(|entry| entry.path.as_os_str().as_bytes().to_vec()));
    }
}
