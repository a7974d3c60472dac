//! docs/proof.md names only tests that are there, and leaves out no failure.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use walpoint_tests::programs::repository;

const FAILURES: u32 = 88;

#[test]
fn every_test_that_the_list_of_proofs_names_is_there() -> Result<()> {
    let list = list()?;
    let mut sources = String::new();
    for package in ["agent", "pitr", "tests"] {
        read_sources(&repository().join(package), &mut sources)?;
    }
    let mut missing = Vec::new();
    // What ends with a slash says where files lie.
    for word in list.split('`').skip(1).step_by(2).filter(|word| !word.ends_with('/')) {
        let is_there = match word.strip_prefix("scenarios/").or(word.strip_prefix("tests/")) {
            Some(file) => {
                let tests = repository().join("tests/tests");
                let places = [tests.join("scenarios").join(file), tests.join(file)];
                places.iter().any(|place| place.is_dir() || place.with_extension("rs").is_file())
            }
            None if is_a_tests_name(word) => sources.contains(&format!("fn {}", word.trim_end_matches('…'))),
            None => true,
        };
        if !is_there {
            missing.push(word);
        }
    }
    assert!(missing.is_empty(), "named and not there: {missing:?}");
    Ok(())
}

#[test]
fn every_failure_of_the_catalogue_stands_in_the_list_of_proofs() -> Result<()> {
    let list = list()?;
    let first_cells = list.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let listed: BTreeSet<u32> =
        first_cells.flat_map(|cell| cell.split(", ")).filter_map(|number| number.parse().ok()).collect();
    assert_eq!(listed, (1..=FAILURES).collect());
    Ok(())
}

fn list() -> Result<String> {
    std::fs::read_to_string(repository().join("docs/proof.md")).context("read docs/proof.md")
}

/// Names of files, settings and functions are shorter, or have other characters.
fn is_a_tests_name(word: &str) -> bool {
    let name = word.trim_end_matches('…');
    name.matches('_').count() >= 3
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn read_sources(directory: &Path, sources: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        // What cargo built is no source.
        if path.is_dir() && !path.join("CACHEDIR.TAG").exists() {
            read_sources(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
