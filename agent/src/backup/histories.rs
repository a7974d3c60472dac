//! The histories that lead to a backup's timeline. Without them its files and its WAL are there, and no
//! recovery finds from the one to the other.

use std::collections::BTreeSet;
use std::path::Path;

use walpoint_archive::{Archive, ArchiveError, Usable, WriterId};
use walpoint_pitr::path::TimelinePath;
use walpoint_wal::file_name::WalFileName;
use walpoint_wal::timeline::{TimelineHistory, TimelineId};

use crate::exit::{Failure, Status};
use crate::ship::before::history_in;
use crate::ship::histories;

/// Largest history file that is read; real ones have a line for each timeline.
const MAX_HISTORY_BYTES: u64 = 1 << 20;

/// Refuses before anything is read what neither the archive has nor `pg_wal`, from where `archive-push` takes it.
///
/// # Errors
/// As [`bring`].
pub async fn must_be_somewhere(
    archive: &Archive,
    pg_wal: &Path,
    timeline: TimelineId,
) -> Result<(), Failure> {
    match timeline == TimelineId::FIRST || history_in(pg_wal, timeline).is_some() {
        true => Ok(()),
        false => history(archive, timeline).await.map(drop),
    }
}

/// Brings what `pg_wal` has of them into the archive, makes sure that all are there, and says which way they lead.
///
/// # Errors
/// Status 1 when one is missing, damaged, another one, or there twice and undecided.
pub async fn bring(
    archive: &Archive,
    pg_wal: &Path,
    timeline: TimelineId,
    writer: WriterId,
) -> Result<TimelinePath, Failure> {
    histories::ensure(archive, pg_wal, timeline, writer).await.map_err(incomplete)?;
    must_lead_to(archive, timeline).await
}

/// The history of a timeline and those of its ancestors.
async fn must_lead_to(archive: &Archive, timeline: TimelineId) -> Result<TimelinePath, Failure> {
    if timeline == TimelineId::FIRST {
        return Ok(TimelinePath { timeline, steps: TimelineHistory::first().path() });
    }
    let own = history(archive, timeline).await?;
    let ancestors: BTreeSet<TimelineId> = own.ancestors.iter().map(|ancestor| ancestor.timeline).collect();
    for ancestor in ancestors.into_iter().filter(|ancestor| *ancestor != TimelineId::FIRST) {
        history(archive, ancestor).await?;
    }
    Ok(TimelinePath { timeline, steps: own.path() })
}

async fn history(archive: &Archive, timeline: TimelineId) -> Result<TimelineHistory, Failure> {
    let name = WalFileName::History(timeline);
    let state = archive.wal_variants(&name).await.map_err(incomplete)?;
    match state.usable() {
        Usable::One(variant) => {
            let mut bytes = Vec::new();
            archive.fetch_wal(variant, &mut bytes, MAX_HISTORY_BYTES).await.map_err(incomplete)?;
            TimelineHistory::parse(timeline, &bytes)
                .map_err(|error| Failure::failed(format!("could not complete the base backup: {error}")))
        }
        Usable::Nothing => Err(Failure::failed(format!(
            "could not complete the base backup: the archive lacks \"{name}\", without which nothing can be recovered along timeline {timeline}"
        ))
        .with_hint(format!(
            "find {name} in the pg_wal of the cluster that made timeline {timeline}, or of its standbys, walpoint archive-push it, and take the backup again"
        ))),
        Usable::Ambiguous(variants) => {
            let contents = variants.iter().map(|variant| variant.content).collect();
            Err(incomplete(ArchiveError::Ambiguous { name, contents }))
        }
    }
}

/// The status of a conflict is that of who is refused, and that of damage says that there is a backup.
fn incomplete(error: impl Into<Failure>) -> Failure {
    let failure: Failure = error.into();
    let status = match failure.status {
        Status::Conflict | Status::Damaged => Status::Failed,
        status => status,
    };
    Failure { status, error: format!("could not complete the base backup: {}", failure.error), ..failure }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use bytes::Bytes;
    use walpoint_archive::compress::CompressionLevel;
    use walpoint_archive::store::dir::DirStore;
    use walpoint_archive::{KeyRing, Sealer};
    use walpoint_wal::system_identifier::SystemIdentifier;

    use super::*;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    async fn put(archive: &Archive, timeline: u32, text: &'static str) {
        let writer = WriterId::random();
        let _ =
            archive.put_history(tli(timeline), Bytes::from_static(text.as_bytes()), writer).await.unwrap();
    }

    #[tokio::test]
    async fn every_history_on_the_way_is_required() {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(DirStore::open(root.path()).await.unwrap());
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
        let archive = Archive::new(store, SystemIdentifier(7), sealer);
        assert_eq!(must_lead_to(&archive, tli(1)).await.map(|path| path.steps.len()), Ok(1));
        let lacks = async |timeline: u32, name: &str| {
            let failure = must_lead_to(&archive, tli(timeline)).await.unwrap_err();
            assert_eq!(failure.status, Status::Failed);
            assert!(failure.error.contains(&format!("lacks \"{name}\"")), "{failure}");
        };
        lacks(3, "00000003.history").await;
        put(&archive, 3, "1\t0/1000000\tx\n2\t0/2000000\tx\n").await;
        lacks(3, "00000002.history").await;
        put(&archive, 2, "1\t0/1000000\tx\n").await;
        assert_eq!(must_lead_to(&archive, tli(3)).await.map(|path| path.steps.len()), Ok(3));
    }

    #[tokio::test]
    async fn a_history_that_is_nowhere_is_noticed_before_anything_is_read() {
        let root = tempfile::tempdir().unwrap();
        let pg_wal = tempfile::tempdir().unwrap();
        let store = Arc::new(DirStore::open(root.path()).await.unwrap());
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
        let archive = Archive::new(store, SystemIdentifier(7), sealer);
        assert_eq!(must_be_somewhere(&archive, pg_wal.path(), tli(1)).await, Ok(()));
        let failure = must_be_somewhere(&archive, pg_wal.path(), tli(2)).await.unwrap_err();
        assert!(failure.error.contains("00000002.history"), "{failure}");
        std::fs::write(pg_wal.path().join("00000002.history"), "1\t0/1000000\tx\n").unwrap();
        assert_eq!(must_be_somewhere(&archive, pg_wal.path(), tli(2)).await, Ok(()));
        std::fs::remove_file(pg_wal.path().join("00000002.history")).unwrap();
        put(&archive, 2, "1\t0/1000000\tx\n").await;
        assert_eq!(must_be_somewhere(&archive, pg_wal.path(), tli(2)).await, Ok(()));
    }
}
