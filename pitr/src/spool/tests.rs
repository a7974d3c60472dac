#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use walpoint_wal::SegmentSize;

use super::*;

fn names(spool: &Spool) -> Vec<String> {
    let entries = std::fs::read_dir(spool.directory()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn segment() -> SegmentName {
    "000000010000000000000001".parse().unwrap()
}

fn put(tended: &Tended, text: &str) -> ContentHash {
    let content = ContentHash::of(text.as_bytes());
    let incoming = tended.begin(segment(), content.id()).unwrap();
    incoming.file().write_all(text.as_bytes()).unwrap();
    let coming = Held::Coming(text.len() as u64);
    assert_eq!(tended.spool().find(segment(), Some(content.id())), Some(coming), "before it is whole");
    incoming.finish(content, SystemTime::UNIX_EPOCH).unwrap();
    content
}

fn found(spool: &Spool, content: Option<ContentId>) -> Option<Found> {
    match spool.find(segment(), content)? {
        Held::Whole(found) => Some(found),
        Held::Coming(_) => None,
    }
}

#[test]
fn what_is_put_in_is_found_by_its_segment_and_content_until_it_is_removed() {
    let place = tempfile::tempdir().unwrap();
    let tended = Tended::take_over(Spool::at(place.path(), "7-1")).unwrap().unwrap();
    let spool = tended.spool();
    let content = put(&tended, "one");
    let only = found(spool, None).unwrap();
    put(&tended, "other");
    let one = found(spool, Some(content.id())).unwrap();
    assert_eq!((&one, std::fs::read(&one.path).unwrap()), (&only, b"one".to_vec()));
    assert_eq!((one.content, one.listed_at), (content, SystemTime::UNIX_EPOCH));
    assert_eq!(std::fs::metadata(&one.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(spool.find(segment().next(SegmentSize::new(1 << 20).unwrap()).unwrap(), None), None);
    assert!(tended.has(segment(), content));
    tended.remove(segment(), content);
    assert!(!tended.has(segment(), content) && found(spool, Some(content.id())).is_none());
    drop(tended.begin(segment(), content.id()).unwrap());
    assert_eq!(spool.find(segment(), Some(content.id())), None);
}

#[test]
fn a_name_says_the_segment_and_the_content_and_others_say_nothing() {
    let content = ContentHash::of(b"x");
    for named in [Named::Whole(segment(), content), Named::Coming(segment(), content.id())] {
        assert_eq!(Named::parse(&named.to_string()), Some(named));
    }
    let id = content.id();
    for other in ["", "asked", "lock", "-", &format!("{}-{id}", segment()), &content.to_string()] {
        assert_eq!(Named::parse(other), None, "{other}");
    }
}

#[test]
fn what_was_asked_for_last_is_known_and_the_same_again_is_another_question() {
    let place = tempfile::tempdir().unwrap();
    let spool = Spool::at(place.path(), "7-1");
    assert!(spool.note("000000010000000000000001".parse().unwrap()).is_err(), "nowhere");
    assert_eq!(spool.asked(), None);
    spool.make_own().unwrap();
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
    std::mem::forget(first.begin(segment(), content.id()).unwrap());
    drop(first);
    assert!(!spool.is_tended() && found(&spool, Some(content.id())).is_some());
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
    own.make_own().unwrap();
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
    assert!(tended.has(segment(), kept) && own.directory().exists());
    for file in ["other/file", "walpoint-spool-open/lock"] {
        assert!(place.path().join(file).exists(), "{file}");
    }
}

#[test]
fn whatever_a_spool_turns_out_to_be_only_what_is_made_here_is_removed_from_it() {
    let place = tempfile::tempdir().unwrap();
    let spool = Spool::at(place.path(), "7-1");
    spool.make_own().unwrap();
    let hash = ContentHash::of(b"x");
    let others =
        ["000000010000000000000001", "00000002.history", "archive_status.part", "asked", "PG_VERSION"];
    let whole = Named::Whole(segment(), hash).to_string();
    let ours = [whole, Named::Coming(segment(), hash.id()).to_string(), "asked.77".to_owned()];
    for name in others.into_iter().chain(ours.iter().map(String::as_str)) {
        std::fs::write(spool.directory().join(name), "").unwrap();
    }
    let _tended = Tended::take_over(spool.clone()).unwrap().unwrap();
    let mut expected = Vec::from(others);
    expected.push("lock");
    expected.sort();
    assert_eq!(names(&spool), expected);
}

#[test]
fn a_pipe_in_the_place_of_the_lock_is_not_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let spool = Spool::at(place.path(), "7-1");
    spool.make_own().unwrap();
    let lock = spool.directory().join("lock");
    rustix::fs::mkfifoat(rustix::fs::CWD, &lock, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    assert!(!spool.is_tended() && Tended::take_over(spool).is_err());
}

#[test]
fn a_place_where_others_can_exchange_directories_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let set = |mode| std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    for (mode, fits) in [(0o777, false), (0o770, false), (0o1777, true), (0o755, true)] {
        set(mode);
        assert_eq!(Spool::at(place.path(), "7-1").make_own().is_ok(), fits, "{mode:o}");
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
    assert!(spool.make_own().is_err(), "a symbolic link");
    std::fs::remove_file(spool.directory()).unwrap();
    spool.make_own().unwrap();
    std::fs::set_permissions(spool.directory(), std::fs::Permissions::from_mode(0o770)).unwrap();
    assert!(spool.make_own().is_err() && Tended::take_over(spool).is_err(), "a group can reach it");
}
