//! Gives a target its seeds. Included by the tests of the packages that have targets.

use std::path::{Path, PathBuf};

/// Calls the target with every seed that is kept for it.
///
/// # Panics
/// When the target does, naming the seed, and when there is none.
pub fn replay(target: &str, one: fn(&[u8])) {
    let repository =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|folder| folder.join("tests/fuzz").is_dir());
    let seeds =
        repository.map(|repository| repository.join("tests/fuzz/seeds").join(target)).unwrap_or_default();
    let listed =
        std::fs::read_dir(&seeds).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let mut files: Vec<PathBuf> = listed.unwrap_or_default();
    files.sort();
    assert!(!files.is_empty(), "no seed in {}", seeds.display());
    for file in files {
        // Shown when it fails.
        println!("{}", file.display());
        let seed = std::fs::read(&file);
        assert!(seed.is_ok(), "could not read it: {:?}", seed.err());
        one(&seed.unwrap_or_default());
    }
}
