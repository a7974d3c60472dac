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

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn archive(&self) -> Archive {
        let found = crate::data_directory::look(&self.data()).unwrap().unwrap();
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
        Archive::new(Arc::new(self.store.clone()), found.system_identifier(), sealer)
    }

    async fn ground(&self, segment: &str) -> Ground {
        std::fs::write(self.data().join("pg_wal").join(segment), fixture(segment)).unwrap();
        Ground::of_name(&self.data(), segment.parse().unwrap()).await.unwrap()
    }

    /// Pushes a segment and returns how many calls of these verbs that took.
    async fn push<const N: usize>(&self, segment: &str, verbs: [Verb; N]) -> [u32; N] {
        let ground = self.ground(segment).await;
        let shipper = Shipper::one_by_one(self.archive());
        let before = verbs.map(|verb| self.store.calls(verb));
        shipper.ship(segment.parse().unwrap(), ground, None).await.unwrap();
        self.calls_since(before, verbs)
    }

    /// Pushes segments side by side, as the agent does, and returns the same.
    async fn push_together<const N: usize>(
        &self,
        shipper: &Shipper,
        segments: &[&str],
        verbs: [Verb; N],
    ) -> [u32; N] {
        let mut pushes = Vec::new();
        let before = verbs.map(|verb| self.store.calls(verb));
        for segment in segments {
            let (name, ground) = (segment.parse().unwrap(), self.ground(segment).await);
            pushes.push(shipper.ship(name, ground, shipper.announce(name)));
        }
        futures::future::join_all(pushes).await.into_iter().for_each(|pushed| pushed.unwrap());
        self.calls_since(before, verbs)
    }

    fn calls_since<const N: usize>(&self, before: [u32; N], verbs: [Verb; N]) -> [u32; N] {
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
    // Again, as after a crash: it is there, which is seen once more before it counts, and is compared. It is so
    // young that whoever put it might still refuse it: so it is looked at again.
    assert_eq!(place.push("00000001000000000000000A", VERBS).await, [3, 2, 0, 0]);
}

#[tokio::test]
async fn segments_that_are_pushed_together_are_looked_for_with_one_listing() {
    let place = Place::new().await;
    let segments = ["000000010000000000000008", "000000010000000000000009", "00000001000000000000000A"];
    let shipper = Shipper::several_at_once(place.archive());
    // One for the first, whose segment before nobody has announced, one for all that follow, one after each put.
    assert_eq!(place.push_together(&shipper, &segments, [Verb::List, Verb::Put]).await, [5, 4]);
    // Who comes once more sees what became of it.
    let again = place.push_together(&shipper, &segments[1..], [Verb::List, Verb::Put]).await;
    assert_eq!(again, [5, 0]);
}
