#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;

use super::*;

fn why(directory: &Path) -> String {
    examine(directory).unwrap_err().why
}

#[test]
fn an_absent_and_an_empty_directory_are_taken() {
    let scratch = tempfile::tempdir().unwrap();
    assert_eq!(examine(&scratch.path().join("new")).unwrap(), Landing::Absent);
    assert_eq!(examine(scratch.path()).unwrap(), Landing::Empty);
}

#[test]
fn what_is_in_the_way_is_named() {
    let table: [(&[&str], &str); 6] = [
        (&["notes.txt"], "is not empty"),
        (&[".hidden"], "is not empty"),
        (&["lost+found"], "mount point"),
        (&["PG_VERSION", "postmaster.pid", CONTROL_FILE], "a server runs there"),
        (&["PG_VERSION", CONTROL_FILE], "holds a cluster"),
        (&["PG_VERSION", "base"], "did not end"),
    ];
    for (files, expected) in table {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("data")).unwrap();
        let directory = scratch.path().join("data");
        for file in files {
            fs::create_dir_all(directory.join(file).parent().unwrap()).unwrap();
            fs::write(directory.join(file), "").unwrap();
        }
        let why = why(&directory);
        assert!(why.contains(expected), "{files:?}: {why}");
    }
}

#[test]
fn a_restore_that_was_killed_at_its_first_step_is_recognised() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join(UNFINISHED_MARKER), "").unwrap();
    assert!(why(scratch.path()).contains("did not end"));
}

#[test]
fn links_files_and_missing_parents_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir(at("real")).unwrap();
    std::os::unix::fs::symlink(at("real"), at("link")).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
    fs::write(at("file"), "").unwrap();
    assert!(why(&at("link")).contains("symbolic link"));
    assert!(why(&at("dangling")).contains("symbolic link"));
    assert!(why(&at("file")).contains("not a directory"));
    assert!(why(&at("no/such")).contains("above it does not exist"));
    assert!(why(Path::new("relative")).contains("not an absolute path"));
}

#[test]
fn a_place_inside_another_cluster_is_refused_also_through_a_link() {
    let scratch = tempfile::tempdir().unwrap();
    let outer = scratch.path().join("outer");
    fs::create_dir_all(outer.join("global")).unwrap();
    fs::create_dir_all(outer.join("base")).unwrap();
    fs::write(outer.join("PG_VERSION"), "15").unwrap();
    std::os::unix::fs::symlink(outer.join("base"), scratch.path().join("link")).unwrap();
    for inner in [outer.join("copy"), outer.join("base/copy"), scratch.path().join("link/copy")] {
        assert!(why(&inner).contains("lies inside the data directory"), "{inner:?}");
    }
}

#[test]
fn space_is_counted_by_file_system() {
    let scratch = tempfile::tempdir().unwrap();
    let need = |name: &str, bytes| SpaceNeed { directory: scratch.path().join(name), bytes, files: 1 };
    let free = free_space(scratch.path()).unwrap().bytes;
    assert_eq!(shortages(&[need("a", 1), need("b/c", 1)]), []);
    let half = free / 2 + free / 8;
    let refused = shortages(&[need("a", half), need("b/c", half)]);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].why.contains("bytes are needed there"), "{}", refused[0].why);
    let files = SpaceNeed { directory: scratch.path().to_owned(), bytes: 1, files: u64::MAX };
    if free_space(scratch.path()).unwrap().files.is_some() {
        assert!(shortages(&[files])[0].why.contains("inodes"));
    }
}

#[test]
fn several_refusals_are_said_together_and_a_hint_once() {
    let refusal = |why: &str, hint: &str| Refusal { why: why.to_owned(), hint: hint.to_owned() };
    assert_eq!(Refusal::of_all(&[]), None);
    let all = [refusal("a", "x"), refusal("b", "y"), refusal("c", "x")];
    assert_eq!(Refusal::of_all(&all).unwrap(), refusal("a; b; c", "x; y"));
}
