//! What a decision between two contents of a segment leaves apart: what was archived behind
//! it may continue the content that is refused now.

use serde::Serialize;
use walpoint_archive::{Archive, ArchiveError, Catalog};
use walpoint_wal::SegmentName;

use crate::coverage::{Coverage, Illegible};
use crate::locate::{Content, PathWal, WalSource, chains};
use crate::path::{TimelinePath, known};
use crate::plan::words;

/// A segment at which recovery ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Apart {
    /// The segment that is in the way.
    pub segment: SegmentName,
    /// Why, in words.
    pub reason: String,
}

/// The places beside this segment where the WAL breaks, on every timeline that leads through
/// it. Without the key a place that only the content can tell of is among them.
pub async fn apart_beside(
    archive: &Archive,
    catalog: &Catalog,
    segment: SegmentName,
) -> Result<Vec<Apart>, ArchiveError> {
    match apart_by(archive, catalog, segment, Content::Read).await {
        Err(ArchiveError::NoKey { .. }) => apart_by(archive, catalog, segment, Content::Sealed).await,
        shown => shown,
    }
}

async fn apart_by(
    archive: &Archive,
    catalog: &Catalog,
    segment: SegmentName,
    content: Content,
) -> Result<Vec<Apart>, ArchiveError> {
    let size = catalog.cluster.segment_size;
    let source = WalSource::new(archive, catalog.cluster.system_identifier, size);
    let mut illegible = Illegible::default();
    let mut found: Vec<Apart> = Vec::new();
    for timeline in known(catalog) {
        let Ok(path) = TimelinePath::to(catalog, timeline) else { continue };
        loop {
            let coverage = Coverage::without(catalog, path.clone(), &illegible);
            match apart_on(&PathWal::new(&source, &coverage), segment, content).await {
                Ok(apart) => {
                    found.extend(apart);
                    break;
                }
                Err(error) if illegible.learns(&source, catalog, &error).await => {}
                Err(error) => return Err(error),
            }
        }
    }
    found.sort_by_key(|apart| apart.segment);
    found.dedup();
    Ok(found)
}

async fn apart_on(
    wal: &PathWal<'_>,
    segment: SegmentName,
    content: Content,
) -> Result<Vec<Apart>, ArchiveError> {
    let number = segment
        .number(wal.size())
        .ok()
        .filter(|number| wal.link(*number).is_some_and(|link| link.name == segment));
    let Some(number) = number else { return Ok(Vec::new()) };
    let chains = chains(wal, content).await?;
    let beside =
        chains.iter().filter(|chain| [number.checked_sub(1), Some(number)].contains(&Some(chain.last())));
    let apart = beside.filter_map(|chain| {
        let segment = chain.ends.segment()?;
        Some(Apart { segment, reason: words::chain_end(&chain.ends).0 })
    });
    Ok(apart.collect())
}
