//! Keys of objects.

use walpoint_wal::{SegmentSize, SystemIdentifier, WalFileName};

use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::layout::{Entry, Layout};
use crate::object_key::{ObjectKey, Prefix};
use crate::store::Listed;

/// Whose keys are looked at: the cluster of the seeds.
const CLUSTER: SystemIdentifier = SystemIdentifier(7_710_470_717_974_640_540);

/// Any text is a key that stays within the archive or none, a key that the layout knows
/// is the one that it would build, and a catalog of such keys is made without a panic.
///
/// One key a line, below the cluster's folder.
pub fn layout(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let layout = Layout::new(CLUSTER);
    let mut listed = Vec::new();
    for line in text.lines() {
        let Ok(key) = ObjectKey::new(&format!("{CLUSTER}/{line}")) else { continue };
        assert!(key.as_str().split('/').all(|component| !matches!(component, "" | "." | "..")));
        assert!(Prefix::new(key.as_str()).is_ok());
        if let Some(entry) = layout.parse(&key) {
            is_built_alike(&layout, &entry, &key);
        }
        listed.push(Listed { key, size: line.len() as u64, modified: None });
    }
    let Ok(segment_size) = SegmentSize::new(1 << 20) else { return };
    let (system_identifier, block_size) = (CLUSTER, 8192);
    let cluster =
        Cluster { system_identifier, segment_size, block_size, wal_block_size: block_size, major: 15 };
    let mut catalog = Catalog::new(cluster);
    catalog.add_wal(&layout, &listed);
}

fn is_built_alike(layout: &Layout, entry: &Entry, key: &ObjectKey) {
    let (built, folder) = match entry {
        Entry::Cluster => (layout.cluster(), Prefix::all()),
        Entry::Wal { name, content, encrypted } => {
            (layout.wal(name, *content, *encrypted), layout.variants_prefix(name))
        }
        Entry::WalRefused { name, content } => (layout.refused(name, *content), layout.variants_prefix(name)),
        Entry::History { timeline, content } => {
            (layout.history(*timeline, *content), layout.timeline_prefix())
        }
        Entry::HistoryRefused { timeline, content } => {
            (layout.refused(&WalFileName::History(*timeline), *content), layout.timeline_prefix())
        }
        Entry::Conflict { name, content, encrypted } => {
            (layout.conflict(name, *content, *encrypted), layout.conflicts_prefix(name))
        }
        Entry::Pack { backup, number, content, encrypted } => {
            (layout.pack(backup, *number, *content, *encrypted), layout.backup_dir(backup))
        }
        Entry::Manifest { backup, content, encrypted } => {
            (layout.manifest(backup, *content, *encrypted), layout.backup_dir(backup))
        }
        Entry::Summary { backup } => (layout.summary(backup), layout.backup_dir(backup)),
        Entry::LiveTail { segment, chunk, encrypted } => {
            (layout.chunk(segment, *chunk, *encrypted), layout.tail_prefix(segment))
        }
        Entry::Idle(timeline) => (layout.idle(*timeline), layout.idle_prefix()),
        Entry::Verification(id) => (layout.verification(*id), layout.verification_prefix()),
        Entry::Drill(_) | Entry::ExpiryMark(_) => return,
    };
    assert_eq!(built, *key);
    assert!(key.as_str().starts_with(folder.as_str()));
    if let Entry::Wal { name: WalFileName::Segment(segment) | WalFileName::Partial(segment), .. } = entry {
        assert!(layout.before_segment(segment) < *key && *key < layout.after_segment(segment));
    }
}
