//! Segments whose metadata are not what was stored. Nothing that such an object says of
//! itself is believed, and `archive-get` does not hand it out: it is a gap.

use std::collections::BTreeMap;

use walpoint_archive::store::StoreErrorKind;
use walpoint_archive::{ArchiveError, Catalog, DamagedObject, Entry, ObjectKey, SegmentState, Variant};
use walpoint_wal::WalFileName;

use crate::locate::WalSource;

/// Most of these that are planned around. Where more turn up it is the archive that is
/// wrong (a copy without its metadata, say), and the error says so sooner than a plan.
const MOST: usize = 64;

/// The objects that were met so far, by the name they hold, and what is wrong with each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Illegible(BTreeMap<WalFileName, Vec<DamagedObject>>);

impl Illegible {
    /// This one, for tests that have names only.
    #[cfg(test)]
    pub fn only(variant: &Variant, why: &str) -> Illegible {
        let object = DamagedObject { key: variant.key(), reason: why.to_owned() };
        Illegible(BTreeMap::from([(variant.name, vec![object])]))
    }

    /// What is wrong with this one.
    pub fn why(&self, variant: &Variant) -> Option<&str> {
        // Nearly always there is none, and a key is not made for each segment.
        let objects = self.0.get(&variant.name)?;
        let key = variant.key();
        objects.iter().find(|object| object.key == key).map(|object| object.reason.as_str())
    }

    /// Whether `error` speaks of a segment whose metadata cannot be read and that was not
    /// known as such: then planning is to begin again without it.
    pub async fn learns(&mut self, source: &WalSource<'_>, catalog: &Catalog, error: &ArchiveError) -> bool {
        if let ArchiveError::Ambiguous { name, .. } = error {
            return self.learns_of_rival_tails(catalog, name);
        }
        let known: usize = self.0.values().map(Vec::len).sum();
        let Some(key) = object_of(error).filter(|_| known < MOST) else { return false };
        let Ok(key) = ObjectKey::new(key) else { return false };
        let Some(state) = state_of(source, catalog, &key) else { return false };
        let mut variants = state.variants.iter().chain(state.tail.as_deref());
        let Some(variant) = variants.find(|it| it.key() == key && self.why(it).is_none()) else {
            return false;
        };
        // Its content may be what is damaged: that is another matter.
        let Err(error) = source.facts(variant).await else { return false };
        let Ok(object) = DamagedObject::by(key, error) else { return false };
        self.0.entry(variant.name).or_default().push(object);
        true
    }

    fn learns_of_rival_tails(&mut self, catalog: &Catalog, name: &WalFileName) -> bool {
        let states = catalog.wal.values().flat_map(BTreeMap::values);
        let mut tails = states.filter_map(|state| state.tail.as_deref());
        let Some(tail) = tails.find(|it| it.name == *name && self.why(it).is_none()) else { return false };
        let object = DamagedObject { key: tail.key(), reason: RIVAL_TAILS.to_owned() };
        self.0.entry(tail.name).or_default().push(object);
        true
    }
}

/// What the archive has of the segment that this object is of.
fn state_of<'c>(source: &WalSource<'_>, catalog: &'c Catalog, key: &ObjectKey) -> Option<&'c SegmentState> {
    let segment = match source.layout().parse(key)? {
        Entry::Wal { name: WalFileName::Segment(segment), .. } | Entry::LiveTail { segment, .. } => segment,
        _ => return None,
    };
    let number = segment.number(catalog.cluster.segment_size).ok()?;
    catalog.wal.get(&segment.timeline)?.get(&number)
}

/// Why a tail is of no use that two servers shipped, or one whose disk took back what it had.
const RIVAL_TAILS: &str = "while it was being written it was shipped with different bytes, and the whole of it, \
                           which decides, is not there";

/// The object that an error says is not what it should be.
fn object_of(error: &ArchiveError) -> Option<&str> {
    match error {
        ArchiveError::Damaged { key, .. } | ArchiveError::UnknownFormat { key, .. } => Some(key),
        ArchiveError::Store(error) if error.kind == StoreErrorKind::Damaged => Some(&error.key),
        _ => None,
    }
}
