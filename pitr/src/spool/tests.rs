#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use super::*;

fn names(spool: &Spool) -> Vec<String> {
    let entries = std::fs::read_dir(spool.directory()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn put(tended: &Tended, text: &str) -> ContentHash {
    let content = ContentHash::of(text.as_bytes());
    let incoming = tended.begin(content.id()).unwrap();
    incoming.file().write_all(text.as_bytes()).unwrap();
    assert!(tended.spool().find(content.id()).is_none(), "it is there before it is whole");
    assert_eq!(tended.spool().bytes_coming(content.id()), Some(text.len() as u64));
    incoming.finish(content).unwrap();
    content
}

#[test]
fn what_is_put_in_is_found_by_its_contents_id_until_it_is_removed() {
    let place = tempfile::tempdir().unwrap();
    let tended = Tended::take_over(Spool::at(place.path(), "7-1")).unwrap().unwrap();
    let content = put(&tended, "one");
    put(&tended, "other");
    let found = tended.spool().find(content.id()).unwrap();
    assert_eq!((found.content, std::fs::read(&found.path).unwrap()), (content, b"one".to_vec()));
    assert_eq!(std::fs::metadata(&found.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(tended.has(content));
    tended.remove(content);
    assert!(!tended.has(content) && tended.spool().find(content.id()).is_none());
    drop(tended.begin(content.id()).unwrap());
    assert_eq!(tended.spool().bytes_coming(content.id()), None);
}

#[test]
fn what_was_asked_for_last_is_known_and_the_same_again_is_another_question() {
    let place = tempfile::tempdir().unwrap();
    let spool = Spool::at(place.path(), "7-1");
    assert!(spool.note("000000010000000000000001".parse().unwrap()).is_err(), "nowhere");
    assert_eq!(spool.asked(), None);
    spool.make().unwrap();
    for name in ["000000010000000000000001", "000000020000000000000002"] {
        spool.note(name.parse().unwrap()).unwrap();
        assert_eq!(spool.asked().unwrap().segment.to_string(), name);
    }
    assert_eq!(names(&spool), ["asked"]);
    let asked = spool.asked().unwrap();
    assert_ne!(asked, Asked { process: asked.process + 1, ..asked });
    for rubbish in ["", "000000010000000000000001", "x 1", "000000010000000000000001 x"] {
        std::fs::write(spool.directory().join("asked"), rubbish).unwrap();
        assert_eq!(spool.asked(), None, "{rubbish}");
    }
}

#[test]
fn one_tends_it_and_the_next_begins_with_an_empty_one() {
    let place = tempfile::tempdir().unwrap();
    let spool = Spool::at(place.path(), "7-1");
    assert!(!spool.is_tended());
    let first = Tended::take_over(spool.clone()).unwrap().unwrap();
    spool.note("000000010000000000000001".parse().unwrap()).unwrap();
    assert!(spool.is_tended());
    assert!(Tended::take_over(spool.clone()).unwrap().is_none());
    let content = put(&first, "left behind");
    std::mem::forget(first.begin(content.id()).unwrap());
    drop(first);
    assert!(!spool.is_tended() && spool.find(content.id()).is_some());
    let second = Tended::take_over(spool.clone()).unwrap().unwrap();
    assert_eq!(names(&spool), ["asked", "lock"]);
    second.clear();
    assert!(!spool.directory().exists());
}

#[test]
fn only_spools_of_ours_that_nobody_tends_are_removed() {
    let place = tempfile::tempdir().unwrap();
    let own = Spool::at(place.path(), "own");
    let tended = Tended::take_over(Spool::at(place.path(), "tended")).unwrap().unwrap();
    let abandoned = Tended::take_over(Spool::at(place.path(), "abandoned")).unwrap().unwrap();
    let (kept, _left) = (put(&tended, "kept"), put(&abandoned, "left"));
    drop(abandoned);
    own.make().unwrap();
    // Another program's, one that `archive-get` made and nobody came to, and one that others can reach.
    for (name, file, mode) in [
        ("other", "file", 0o700),
        ("walpoint-spool-new", "asked", 0o700),
        ("walpoint-spool-open", "lock", 0o755),
    ] {
        let directory = place.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join(file), "").unwrap();
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    remove_abandoned(place.path(), &own);
    for name in ["walpoint-spool-abandoned", "walpoint-spool-new"] {
        assert!(!place.path().join(name).exists(), "{name}");
    }
    assert!(tended.has(kept) && own.directory().exists());
    for file in ["other/file", "walpoint-spool-open/lock"] {
        assert!(place.path().join(file).exists(), "{file}");
    }
}

#[test]
fn a_directory_that_others_could_have_put_there_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let spool = Spool::at(place.path(), "7-1");
    let real = place.path().join("real");
    std::fs::create_dir(&real).unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(&real, spool.directory()).unwrap();
    assert!(spool.make().is_err(), "a symbolic link");
    std::fs::remove_file(spool.directory()).unwrap();
    spool.make().unwrap();
    std::fs::set_permissions(spool.directory(), std::fs::Permissions::from_mode(0o770)).unwrap();
    assert!(spool.make().is_err() && Tended::take_over(spool).is_err(), "a group can reach it");
}
