//! Pieces of files go into packs, full packs are sealed and handed over to be
//! stored. In memory at a time: one open pack for each worker, and as many
//! sealed ones on their way to the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc;
use walpoint_archive::envelope::{Sealed, Sealer};
use walpoint_archive::pack::{PackWriter, PiecePlace};

/// A piece's place among the packs of this backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedPiece {
    /// Number of the pack.
    pub pack: u32,
    pub place: PiecePlace,
}

/// A pack that is ready to be stored.
#[derive(Debug)]
pub struct SealedPack {
    pub number: u32,
    pub sealed: Sealed,
}

/// Why a piece could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("could not pack a piece of a file: {0}")]
    Append(#[from] walpoint_archive::pack::PackError),
    #[error("could not seal pack {number}: {source}")]
    Seal { number: u32, source: std::io::Error },
    #[error("could not number another pack: there are 4294967295 of them")]
    TooMany,
    /// Whoever stores the packs has stopped, and says why itself.
    #[error("could not hand over a pack: storing packs has ended")]
    NotStored,
}

/// What all packers of a backup share.
#[derive(Debug)]
struct Shared {
    sealer: Sealer,
    next_number: AtomicU32,
    sealed: mpsc::Sender<SealedPack>,
}

/// Fills one pack after the other. Each worker has its own; clones share the
/// numbering and the way to the store.
#[derive(Debug)]
pub struct Packer {
    shared: Arc<Shared>,
    open: Option<(u32, PackWriter)>,
}

impl Packer {
    /// A packer, and where the sealed packs come out. The other end closes when
    /// the last packer is gone.
    pub fn new(sealer: Sealer, first_number: u32) -> (Packer, mpsc::Receiver<SealedPack>) {
        let (sender, receiver) = mpsc::channel(1);
        let shared = Shared { sealer, next_number: AtomicU32::new(first_number), sealed: sender };
        (Packer { shared: Arc::new(shared), open: None }, receiver)
    }

    /// Another packer beside this one, with a pack of its own.
    pub fn beside(&self) -> Packer {
        Packer { shared: Arc::clone(&self.shared), open: None }
    }

    /// Packs one piece. Blocks while too many sealed packs wait for the store.
    pub fn append(&mut self, plain: &[u8]) -> Result<PlacedPiece, PackError> {
        if self.open.as_ref().is_some_and(|(_, pack)| !pack.has_room_for(plain.len())) {
            self.finish()?;
        }
        let (number, mut pack) = match self.open.take() {
            Some(open) => open,
            None => (self.shared.number()?, PackWriter::new(self.shared.sealer.level())),
        };
        let place = pack.append(plain)?;
        self.open = Some((number, pack));
        Ok(PlacedPiece { pack: number, place })
    }

    /// Seals the open pack and hands it over.
    pub fn finish(&mut self) -> Result<(), PackError> {
        let Some((number, pack)) = self.open.take() else { return Ok(()) };
        let sealed = pack.finish(&self.shared.sealer).map_err(|source| PackError::Seal { number, source })?;
        self.shared.sealed.blocking_send(SealedPack { number, sealed }).map_err(|_| PackError::NotStored)
    }
}

impl Shared {
    fn number(&self) -> Result<u32, PackError> {
        let next = |number: u32| number.checked_add(1);
        self.next_number
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .map_err(|_| PackError::TooMany)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use walpoint_archive::compress::CompressionLevel;
    use walpoint_archive::encrypt::KeyRing;
    use walpoint_archive::pack::{MAX_PIECE_BYTES, open_pack, read_piece};

    use super::*;

    fn sealer() -> Sealer {
        Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()))
    }

    /// Bytes that do not compress, another sequence for each seed.
    fn noise(seed: u64, size: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        std::iter::repeat_with(next).take(size).collect()
    }

    #[test]
    fn pieces_of_all_packers_come_back_from_numbered_packs() {
        let (packer, mut receiver) = Packer::new(sealer(), 0);
        let collect = std::thread::spawn(move || {
            let mut packs = BTreeMap::new();
            while let Some(pack) = receiver.blocking_recv() {
                assert!(packs.insert(pack.number, pack.sealed).is_none());
            }
            packs
        });
        let work = |mut packer: Packer, seeds: std::ops::Range<u64>| {
            std::thread::spawn(move || {
                let placed = seeds.map(|seed| (seed, packer.append(&noise(seed, MAX_PIECE_BYTES)).unwrap()));
                let placed: Vec<_> = placed.collect();
                packer.finish().unwrap();
                placed
            })
        };
        let workers = [work(packer.beside(), 0..20), work(packer, 20..25)];
        let placed: Vec<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        let packs = collect.join().unwrap();
        assert_eq!(packs.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        for (seed, piece) in placed {
            let sealed = &packs[&piece.pack];
            let frames = open_pack(&KeyRing::default(), sealed.bytes.to_vec(), false).unwrap();
            assert!(read_piece(&frames, &piece.place).unwrap() == noise(seed, MAX_PIECE_BYTES));
        }
    }

    #[test]
    fn a_packer_whose_store_has_stopped_says_so() {
        let (mut packer, receiver) = Packer::new(sealer(), 0);
        drop(receiver);
        packer.append(b"piece").unwrap();
        assert!(matches!(packer.finish(), Err(PackError::NotStored)));
    }

    #[test]
    fn a_packer_without_pieces_makes_no_pack() {
        let (mut packer, mut receiver) = Packer::new(sealer(), 0);
        packer.finish().unwrap();
        drop(packer);
        assert!(receiver.blocking_recv().is_none());
    }
}
