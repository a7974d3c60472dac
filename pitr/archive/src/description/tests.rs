#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;
use proptest::prelude::*;

fn description() -> Metadata {
    let mut description = Description::of(ContentHash::of(b"content"), 7).unwrap();
    description.put("run-high", Some("2026-11-20T21:45:00.123456Z")).unwrap();
    description.put("system", Some("7")).unwrap();
    description.finish().unwrap()
}

#[test]
fn the_hash_is_what_the_stock_tools_compute() {
    let mut metadata = Metadata::new();
    metadata.insert("size", "7").unwrap();
    metadata.insert("format", "1").unwrap();
    metadata.insert("mtime", "1").unwrap();
    // printf 'format:1\nsize:7\n' | sha256sum
    assert_eq!(check_of(&metadata), "3e2a64efcc347969");
}

#[test]
fn names_of_others_are_not_covered_and_do_no_harm() {
    let mut metadata = description();
    assert!(Described::verified(&metadata).is_ok());
    for name in ["mtime", "s3cmd-attrs", "signature", "invented-later"] {
        metadata.insert(name, "x").unwrap();
    }
    assert!(Described::verified(&metadata).is_ok());
}

#[test]
fn what_a_tool_added_to_a_copy_pushes_out_nothing_of_ours() {
    let foreign = "x".repeat(Metadata::MAX_BYTES - 8);
    let ours = description();
    let stored = ours.iter().chain([("a", foreign.as_str()), ("z", foreign.as_str()), ("Not-Ours", "")]);
    let found = Metadata::from_store(stored);
    assert!(Described::verified(&found).is_ok(), "{found:?}");
    assert_eq!(found.get("content"), ours.get("content"));
    let from_the_front = Metadata::from_store([("a", foreign.as_str())].into_iter().chain(ours.iter()));
    assert!(Described::verified(&from_the_front).is_ok(), "{from_the_front:?}");
}

#[test]
fn without_its_hash_or_with_anothers_metadata_is_not_believed() {
    let text: Vec<(String, String)> =
        description().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for left_out in ["check", "run-high", "content", "system"] {
        let kept = text.iter().filter(|(name, _)| name != left_out);
        let metadata = Metadata::from_store(kept.map(|(name, value)| (name.as_str(), value.as_str())));
        assert_eq!(Described::verified(&metadata).unwrap_err(), FactsError::Altered, "without {left_out}");
    }
    let mut metadata = description();
    metadata.insert("check", "0123456789abcdef").unwrap();
    assert_eq!(Described::verified(&metadata).unwrap_err(), FactsError::Altered);
    let mut upper = description();
    upper.insert("check", &description().get("check").unwrap().to_uppercase()).unwrap();
    assert_eq!(Described::verified(&upper).unwrap_err(), FactsError::Altered);
    let mut added = description();
    added.insert("run-commits", "7").unwrap();
    assert_eq!(Described::verified(&added).unwrap_err(), FactsError::Altered, "a name of ours was added");
}

#[test]
fn a_later_format_is_told_from_damage_whatever_its_hash_covers() {
    let mut metadata = description();
    metadata.insert("format", "2").unwrap();
    assert_eq!(Described::verified(&metadata).unwrap_err(), FactsError::UnknownFormat(2));
    assert_eq!(Described::verified(&Metadata::new()).unwrap_err(), FactsError::Missing("format"));
}

/// The names in the first column of the tables of FORMAT.md, section 4.
fn names_of_the_format() -> BTreeSet<&'static str> {
    let format = include_str!("../../../../FORMAT.md");
    let section = format.split("\n## ").find(|section| section.starts_with("4. ")).unwrap();
    let first_columns = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    first_columns.flat_map(|column| column.split('`').step_by(2)).filter(|name| !name.is_empty()).collect()
}

#[test]
fn what_is_covered_is_what_the_format_lists() {
    assert!(COVERED.is_sorted(), "it is searched by halving");
    let mut covered: BTreeSet<&str> = COVERED.into();
    covered.insert(CHECK);
    assert_eq!(names_of_the_format(), covered);
}

proptest! {
    #[test]
    fn one_character_that_changed_is_seen(which in any::<prop::sample::Index>(), to in 0x21_u8..0x7f) {
        let sound = description();
        let (name, value) = sound.iter().nth(which.index(sound.iter().count())).unwrap();
        let at = which.index(value.len());
        let mut bytes = value.as_bytes().to_vec();
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        let mut changed = sound.clone();
        changed.insert(name, std::str::from_utf8(&bytes).unwrap()).unwrap();
        prop_assert!(Described::verified(&changed).is_err(), "{} of {}", name, value);
    }
}
