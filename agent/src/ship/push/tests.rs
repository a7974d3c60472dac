//! What a push costs in requests: on a store in the cloud each is a round trip, and the archiver waits.

#![allow(clippy::unwrap_used)]

use super::*;
use std::io::Read;
use std::path::Path;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::store::dir::DirStore;
use walpoint_archive::store::faulty::{Faulty, Verb};
use walpoint_archive::{KeyRing, Sealer};

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.zst"));
    let mut bytes = Vec::new();
    zstd::Decoder::new(std::fs::File::open(path).unwrap()).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

struct Place {
    root: tempfile::TempDir,
    store: Faulty,
}

impl Place {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["archive", "data/global", "data/pg_wal"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        std::fs::write(root.path().join("data/global/pg_control"), fixture("pg_control")).unwrap();
        let store = Faulty::new(Arc::new(DirStore::open(&root.path().join("archive")).await.unwrap()));
        Self { root, store }
    }

    /// Pushes a segment and returns how many calls of these verbs that took.
    async fn push<const N: usize>(&self, segment: &str, verbs: [Verb; N]) -> [u32; N] {
        let pg_wal = self.root.path().join("data/pg_wal");
        let path = pg_wal.join(segment);
        std::fs::write(&path, fixture(segment)).unwrap();
        let data = self.root.path().join("data");
        let found = crate::data_directory::look(&data).unwrap().unwrap();
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
        let archive = Archive::new(Arc::new(self.store.clone()), found.system_identifier(), sealer);
        let name: WalFileName = segment.parse().unwrap();
        let shipper = Shipper::one_by_one(archive);
        let before = verbs.map(|verb| self.store.calls(verb));
        let ground = Ground::of_name(&data, name).await.unwrap();
        shipper.ship(name, ground, None).await.unwrap();
        let mut calls = verbs.map(|verb| self.store.calls(verb));
        calls.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
        calls
    }
}

#[tokio::test]
async fn the_usual_push_lists_twice_and_asks_for_the_segment_before() {
    const VERBS: [Verb; 4] = [Verb::List, Verb::Head, Verb::Put, Verb::Get];
    let place = Place::new().await;
    // The very first says what the cluster is, too: not there, put, read back.
    assert_eq!(place.push("000000010000000000000008", VERBS).await, [2, 0, 2, 2]);
    assert_eq!(place.push("000000010000000000000009", VERBS).await, [2, 1, 1, 0]);
    assert_eq!(place.push("00000001000000000000000A", VERBS).await, [2, 1, 1, 0]);
    // Again, as after a crash: it is there, and is compared. It is so young that whoever put it might
    // still refuse it: so it is looked at twice.
    assert_eq!(place.push("00000001000000000000000A", VERBS).await, [2, 2, 0, 0]);
}
