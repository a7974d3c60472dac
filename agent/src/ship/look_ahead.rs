//! Which file is shipped next: pure decisions over what was seen. PostgreSQL's own order (history files first, then
//! by name), so that what it asks for next is what was shipped first.

use super::shipped::Shipped;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use walpoint_wal::{SegmentName, WalFileName};

/// Files that wait, are under way, or were shipped and are not yet known as archived to PostgreSQL.
#[derive(Debug, Default)]
pub struct LookAhead {
    waiting: BTreeSet<Turn>,
    /// Segments that a standby received and nobody archived. PostgreSQL takes them for archived and removes them.
    left_behind: BTreeSet<Turn>,
    under_way: BTreeMap<WalFileName, Origin>,
    shipped: BTreeMap<WalFileName, Shipped>,
}

/// Why a file is shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Ready,
    LeftBehind,
}

impl LookAhead {
    /// All files that PostgreSQL has for its archiver: what is not among them any more is forgotten.
    pub fn swept(&mut self, ready: Vec<WalFileName>) {
        // There may be very many: the queue is gone before the one that replaces it is made.
        self.waiting = BTreeSet::new();
        let mut ready: Vec<Turn> = ready.into_iter().map(Turn).collect();
        ready.sort_unstable();
        self.shipped.retain(|name, _| ready.binary_search(&Turn(*name)).is_ok());
        let (under_way, shipped) = (&self.under_way, &self.shipped);
        ready.retain(|Turn(name)| !under_way.contains_key(name) && !shipped.contains_key(name));
        self.waiting = ready.into_iter().collect();
    }

    /// PostgreSQL has a file for its archiver.
    pub fn appeared(&mut self, name: WalFileName) {
        if !self.under_way.contains_key(&name) && !self.shipped.contains_key(&name) {
            self.waiting.insert(Turn(name));
        }
    }

    /// PostgreSQL knows it as archived, or has it no more.
    pub fn is_gone(&mut self, name: WalFileName) {
        self.waiting.remove(&Turn(name));
        self.shipped.remove(&name);
    }

    /// Segments of earlier timelines that the archive lacks.
    pub fn left_behind(&mut self, names: impl IntoIterator<Item = WalFileName>) {
        let under_way = &self.under_way;
        self.left_behind.extend(names.into_iter().filter(|name| !under_way.contains_key(name)).map(Turn));
    }

    /// The file whose turn it is. What was left behind comes first: it may be removed at any checkpoint.
    pub fn next(&self) -> Option<WalFileName> {
        self.left_behind.first().or(self.waiting.first()).map(|turn| turn.0)
    }

    /// A file is being shipped.
    pub fn begin(&mut self, name: WalFileName) {
        self.waiting.remove(&Turn(name));
        self.shipped.remove(&name);
        let is_left_behind = self.left_behind.remove(&Turn(name));
        self.under_way.insert(name, if is_left_behind { Origin::LeftBehind } else { Origin::Ready });
    }

    /// It is durable in the archive.
    pub fn landed(&mut self, name: WalFileName, shipped: Shipped) {
        // PostgreSQL will not ask for what was left behind.
        if self.under_way.remove(&name) != Some(Origin::LeftBehind) {
            self.shipped.insert(name, shipped);
        }
    }

    /// It is not; it waits again, where it was, when it is still there.
    pub fn failed(&mut self, name: WalFileName, is_there: bool) {
        let origin = self.under_way.remove(&name);
        if is_there {
            let queue = match origin {
                Some(Origin::LeftBehind) => &mut self.left_behind,
                _ => &mut self.waiting,
            };
            queue.insert(Turn(name));
        }
    }

    /// What was shipped under this name.
    pub fn shipped(&self, name: WalFileName) -> Option<Shipped> {
        self.shipped.get(&name).copied()
    }

    /// It is not what the name means now.
    pub fn forget(&mut self, name: WalFileName) {
        self.shipped.remove(&name);
    }

    /// Nothing that was shipped is where it should be: the archive is another one.
    pub fn forget_all(&mut self) {
        for (name, _) in std::mem::take(&mut self.shipped) {
            self.waiting.insert(Turn(name));
        }
    }

    /// Whether it is being shipped.
    pub fn is_under_way(&self, name: WalFileName) -> bool {
        self.under_way.contains_key(&name)
    }

    /// What is being shipped.
    pub fn under_way(&self) -> impl Iterator<Item = WalFileName> + '_ {
        self.under_way.keys().copied()
    }

    /// Files that are not in the archive yet, in their order.
    pub fn outside(&self) -> impl Iterator<Item = WalFileName> + '_ {
        self.under_way().chain(self.waiting.iter().map(|turn| turn.0))
    }

    /// The one that PostgreSQL offers first.
    pub fn oldest(&self) -> Option<WalFileName> {
        self.outside().map(Turn).min().map(|turn| turn.0)
    }

    /// How many of them.
    pub fn count_outside(&self) -> usize {
        self.under_way.len() + self.waiting.len()
    }

    /// How many are in the archive and PostgreSQL has not asked for them yet.
    pub fn count_ahead(&self) -> usize {
        self.shipped.len()
    }
}

/// A file in the order of PostgreSQL's archiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn(WalFileName);

impl Turn {
    /// History files before all others, these by their names' bytes.
    fn key(self) -> (bool, u32, u32, u32, u8, u32) {
        let of = |segment: SegmentName, kind, offset| {
            (true, segment.timeline.get(), segment.log, segment.seg, kind, offset)
        };
        match self.0 {
            WalFileName::History(timeline) => (false, timeline.get(), 0, 0, 0, 0),
            WalFileName::Segment(segment) => of(segment, 0, 0),
            WalFileName::BackupHistory { segment, offset } => of(segment, 1, offset),
            WalFileName::Partial(segment) => of(segment, 2, 0),
        }
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    fn name(text: &str) -> WalFileName {
        text.parse().unwrap()
    }

    fn names(texts: &[&str]) -> Vec<WalFileName> {
        texts.iter().map(|text| name(text)).collect()
    }

    fn shipped() -> Shipped {
        let file = tempfile::NamedTempFile::new().unwrap();
        Shipped::of(&Source::open(file.path()).unwrap()).unwrap()
    }

    /// Takes everything, in its order.
    fn order(ahead: &mut LookAhead) -> Vec<String> {
        let mut order = Vec::new();
        while let Some(next) = ahead.next() {
            ahead.begin(next);
            order.push(next.to_string());
        }
        order
    }

    #[test]
    fn the_order_is_postgresqls_own() {
        let sorted = [
            "00000002.history",
            "0000000A.history",
            "000000010000000000000007",
            "000000010000000000000007.00000028.backup",
            "000000010000000000000007.partial",
            "000000010000000000000008",
            "000000010000000100000000",
            "000000020000000000000003",
        ];
        let mut ahead = LookAhead::default();
        let mut mixed = names(&sorted);
        mixed.reverse();
        ahead.swept(mixed);
        assert_eq!(order(&mut ahead), sorted);
        // The same as PostgreSQL's own rule says it: histories first, then strcmp.
        let mut by_text = sorted.to_vec();
        by_text.sort_by_key(|text| (!text.ends_with(".history"), *text));
        assert_eq!(by_text, sorted);
    }

    #[test]
    fn what_is_under_way_or_shipped_does_not_wait_and_what_failed_does() {
        let mut ahead = LookAhead::default();
        let [one, two, three] =
            ["000000010000000000000001", "000000010000000000000002", "000000010000000000000003"].map(name);
        ahead.swept(vec![one, two, three]);
        ahead.begin(one);
        ahead.begin(two);
        ahead.landed(one, shipped());
        ahead.swept(vec![one, two, three]);
        ahead.appeared(one);
        ahead.appeared(two);
        assert_eq!((ahead.next(), ahead.count_outside(), ahead.count_ahead()), (Some(three), 2, 1));
        ahead.failed(two, true);
        assert_eq!(ahead.next(), Some(two));
        ahead.begin(two);
        ahead.failed(two, false);
        assert_eq!(ahead.next(), Some(three), "one that has gone is not tried for ever");
    }

    #[test]
    fn what_postgresql_knows_as_archived_is_forgotten() {
        let mut ahead = LookAhead::default();
        let [one, two] = ["000000010000000000000001", "000000010000000000000002"].map(name);
        ahead.swept(vec![one, two]);
        for name in [one, two] {
            ahead.begin(name);
            ahead.landed(name, shipped());
        }
        ahead.is_gone(one);
        assert!(ahead.shipped(one).is_none() && ahead.shipped(two).is_some());
        ahead.swept(Vec::new());
        assert_eq!((ahead.count_ahead(), ahead.count_outside()), (0, 0));
    }

    #[test]
    fn another_archive_gets_everything_again() {
        let mut ahead = LookAhead::default();
        let one = name("000000010000000000000001");
        ahead.begin(one);
        ahead.landed(one, shipped());
        ahead.forget_all();
        assert_eq!((ahead.next(), ahead.shipped(one).is_some()), (Some(one), false));
    }

    #[test]
    fn what_was_left_behind_comes_first_and_is_not_postgresqls_to_ask_for() {
        let mut ahead = LookAhead::default();
        let [waits, left] = ["000000020000000000000009", "000000010000000000000007"].map(name);
        ahead.swept(vec![waits]);
        ahead.left_behind([left]);
        assert_eq!(ahead.next(), Some(left));
        ahead.begin(left);
        ahead.failed(left, true);
        assert_eq!(ahead.next(), Some(left));
        ahead.begin(left);
        ahead.landed(left, shipped());
        assert_eq!((ahead.next(), ahead.count_ahead()), (Some(waits), 0));
    }

    #[test]
    fn a_hundred_thousand_files_take_less_than_200_bytes_each() {
        // What comes in order leaves the nodes of a B-tree, of 11 places, at least 6 full.
        let [waiting, shipped] =
            [size_of::<Turn>(), size_of::<WalFileName>() + size_of::<Shipped>()].map(|size| size * 11 / 6);
        assert!(waiting < 200 && shipped < 200, "{waiting} {shipped}");
    }
}
