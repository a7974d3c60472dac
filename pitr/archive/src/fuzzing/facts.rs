//! What is said of objects: metadata and summaries.

use walpoint_wal::SystemIdentifier;

use crate::backup_id::BackupId;
use crate::description::resealed;
use crate::layout::Layout;
use crate::store::Metadata;
use crate::summary::BackupSummary;
use crate::wal_facts::WalFacts;

/// Whose summary and which: those of the seeds.
const CLUSTER: SystemIdentifier = SystemIdentifier(7_710_470_717_974_640_540);
const BACKUP: &str = "20261121T040420Z-full-f2fe5e";

/// Metadata of WAL that are accepted are facts that can be stored again.
///
/// One `name=value` a line; the hash over them is made right.
pub fn metadata(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let found = Metadata::from_store(text.lines().filter_map(|line| line.split_once('=')));
    let again = |metadata: &Metadata| {
        let facts = WalFacts::from_metadata(metadata).ok()?;
        let stored = facts.to_metadata();
        assert!(stored.is_ok(), "{stored:?}");
        stored.ok()
    };
    // What is too long is left out when it is stored, once.
    if let Some(once) = again(&resealed(&found, &[])) {
        assert_eq!(again(&once).as_ref(), Some(&once));
    }
}

/// A summary that is accepted says the same when it is written again.
pub fn summary(data: &[u8]) {
    let layout = Layout::new(CLUSTER);
    let Ok(id) = BACKUP.parse::<BackupId>() else { return };
    let Ok(summary) = BackupSummary::parse(&layout, &id, data) else { return };
    assert_eq!(summary.packs_by_number(&layout).len(), summary.packs.len());
    let again = summary.to_json().map(|json| BackupSummary::parse(&layout, &id, &json).ok());
    assert_eq!(again.ok().flatten(), Some(summary));
}
