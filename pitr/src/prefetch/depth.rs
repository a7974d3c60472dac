//! How far ahead, and how much of a disk. Pure.

use std::time::Duration;

/// Segments ahead at first, and when replay is slow.
const LEAST: u64 = 2;
/// Segments ahead at most: more are of no use to any replay.
const MOST: u64 = 64;
/// What waited longer came too early.
const TOO_EARLY: Duration = Duration::from_secs(10);

/// Of what is free on its disk the spool takes so much, as a part.
const SHARE: u64 = 4;

/// How many segments are fetched ahead: as many as replay goes through while they come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Depth {
    now: u64,
    most: u64,
}

impl Depth {
    /// With room for so many segments.
    pub(super) fn new(room: u64) -> Self {
        let most = room.min(MOST);
        Self { now: LEAST.min(most), most }
    }

    pub(super) fn segments(self) -> usize {
        usize::try_from(self.now).unwrap_or_default()
    }

    pub(super) fn most(self) -> u64 {
        self.most
    }

    /// What was asked for was not there yet.
    pub(super) fn missed(&mut self) {
        self.now = (self.now * 2).min(self.most);
    }

    /// It was there, and had waited so long.
    pub(super) fn found_after(&mut self, waited: Duration) {
        if waited > TOO_EARLY {
            self.now = (self.now - self.now.div_ceil(4)).max(LEAST).min(self.most);
        }
    }
}

/// Bytes that the spool may have, by the configured bound and by its disk, of which it has some already. Others
/// need the disk, too: recovery itself, where it is the same one.
pub(super) fn room(bound: u64, free: u64, held: u64) -> u64 {
    bound.min(free.saturating_add(held) / SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_doubles_the_depth_and_a_long_wait_lessens_it() {
        let mut depth = Depth::new(1000);
        assert_eq!(depth.segments(), 2);
        for expected in [4, 8, 16, 32, 64, 64] {
            depth.missed();
            assert_eq!(depth.segments(), expected);
        }
        depth.found_after(TOO_EARLY);
        assert_eq!(depth.segments(), 64);
        for expected in [48, 36, 27, 20, 15, 11, 8, 6, 4, 3, 2, 2] {
            depth.found_after(TOO_EARLY * 2);
            assert_eq!(depth.segments(), expected);
        }
    }

    #[test]
    fn the_depth_stays_within_the_room() {
        for (room, segments) in [(0, [0, 0, 0]), (1, [1, 1, 1]), (3, [2, 3, 3]), (5, [2, 4, 5])] {
            let mut depth = Depth::new(room);
            for expected in segments {
                assert_eq!(depth.segments(), expected, "{room}");
                depth.missed();
            }
            depth.found_after(TOO_EARLY * 2);
            assert!(depth.segments() as u64 <= room);
        }
    }

    #[test]
    fn a_disk_is_filled_to_a_quarter_of_what_is_free() {
        assert_eq!(room(100, 1000, 0), 100);
        assert_eq!(room(100, 200, 0), 50);
        // What it has itself was free before.
        assert_eq!(room(100, 150, 50), 50);
        assert_eq!(room(0, 1000, 0), 0);
    }
}
