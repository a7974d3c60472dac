//! What an expiry is about to take away. A backup does not build on that: neither on a parent that is marked nor on a
//! folder of its own. It looks before it begins, so that nothing is done in vain, and once more right before its
//! summary is stored: FORMAT.md section 10 says why nothing it names can go then.

use std::collections::BTreeMap;

use walpoint_archive::{Archive, ArchiveError, BackupId, ExpiryMarks, ObjectKey};

use crate::exit::Failure;

/// The backups that are marked to go, complete or not.
#[derive(Debug, Clone, Default)]
pub struct Marked {
    by: BTreeMap<BackupId, ObjectKey>,
    /// A mark of a newer version, say: it may name any backup.
    unreadable: Option<ObjectKey>,
}

impl Marked {
    /// As the marks say that stand now.
    ///
    /// # Errors
    /// When the archive does not answer.
    pub async fn now(archive: &Archive) -> Result<Marked, Failure> {
        Ok(Marked::by(&archive.expiry_marks().await?))
    }

    fn by(marks: &ExpiryMarks) -> Marked {
        let mut marked = Marked::default();
        for standing in &marks.standing {
            match &standing.mark {
                Ok(mark) => {
                    marked.by.extend(mark.backups.iter().map(|id| (id.clone(), standing.key.clone())))
                }
                Err(_) => marked.unreadable = Some(standing.key.clone()),
            }
        }
        marked
    }

    /// Why nobody may build on what lies in this backup's folder, or on the packs that it names; none where one may.
    pub fn why_not(&self, backup: &BackupId) -> Option<String> {
        let unreadable = || {
            let key = self.unreadable.as_ref()?;
            Some(format!("\"{key}\" cannot be read, which may have marked it to go"))
        };
        match self.by.get(backup) {
            Some(key) => Some(format!("expire has marked it to go, in \"{key}\"")),
            None => unreadable(),
        }
    }
}

/// Refuses to complete a backup that names what may be gone in a moment: packs that were stored in its own folder
/// before it was interrupted, or what its parent names.
///
/// # Errors
/// When that is so, and when the archive does not answer.
pub async fn must_not_be(
    archive: &Archive,
    own: &BackupId,
    parent: Option<&BackupId>,
) -> Result<(), Failure> {
    let marked = Marked::now(archive).await?;
    for backup in [Some(own), parent].into_iter().flatten() {
        if let Some(why) = marked.why_not(backup) {
            return Err(given_up(&format!("packs of {backup} may go: {why}")));
        }
    }
    // A summary goes before what it names.
    let Some(parent) = parent else { return Ok(()) };
    match archive.store().head(&archive.layout().summary(parent)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Err(given_up(&format!("its parent {parent} is gone"))),
        Err(error) => Err(ArchiveError::from(error).into()),
    }
}

fn given_up(why: &str) -> Failure {
    Failure::failed(format!("could not complete the base backup: {why}"))
        .with_hint("take the backup again; it uses only what stays")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use walpoint_archive::catalog::DamagedObject;
    use walpoint_archive::compress::CompressionLevel;
    use walpoint_archive::store::dir::DirStore;
    use walpoint_archive::{ExpiryMark, KeyRing, Sealer, StandingMark};
    use walpoint_wal::SystemIdentifier;

    use crate::backup::parent::choice::tests::backup;

    impl Marked {
        /// By a mark that names these.
        pub fn of(backups: &[&BackupId]) -> Marked {
            let standing = vec![standing("7/expire/a.json", Ok(of(backups)))];
            Marked::by(&ExpiryMarks { standing, ..ExpiryMarks::default() })
        }
    }

    fn standing(name: &str, mark: Result<ExpiryMark, DamagedObject>) -> StandingMark {
        StandingMark { key: name.parse().unwrap(), stored_at: None, age: None, mark }
    }

    fn of(backups: &[&BackupId]) -> ExpiryMark {
        let backups = backups.iter().map(|id| (*id).clone()).collect();
        ExpiryMark { backups, ..ExpiryMark::default() }
    }

    #[test]
    fn what_stands_in_a_mark_is_not_built_on_and_the_mark_is_named() {
        let (one, other, seen) = (backup(1, 1, 0, 1).id, backup(2, 1, 0, 1).id, backup(3, 1, 0, 1).id);
        let mark = ExpiryMark { seen: vec![seen.clone()], ..of(&[&one]) };
        let standing =
            vec![standing("7/expire/a.json", Ok(mark)), standing("7/expire/b.json", Ok(of(&[&other])))];
        let marked = Marked::by(&ExpiryMarks { standing, ..ExpiryMarks::default() });
        assert!(marked.why_not(&one).unwrap().contains("7/expire/a.json"));
        assert!(marked.why_not(&other).unwrap().contains("7/expire/b.json"));
        // It was only there when the mark was made.
        assert_eq!(marked.why_not(&seen), None);
        assert_eq!(Marked::default().why_not(&one), None);
    }

    #[test]
    fn a_mark_that_cannot_be_read_may_be_of_any_backup() {
        let key: ObjectKey = "7/expire/a.json".parse().unwrap();
        let damaged = DamagedObject { key, reason: "format 2".to_owned() };
        let standing = vec![standing("7/expire/a.json", Err(damaged))];
        let marked = Marked::by(&ExpiryMarks { standing, ..ExpiryMarks::default() });
        assert!(marked.why_not(&backup(1, 1, 0, 1).id).unwrap().contains("cannot be read"));
    }

    #[tokio::test]
    async fn a_backup_is_not_completed_on_what_was_marked_or_went_meanwhile() {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(DirStore::open(root.path()).await.unwrap());
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
        let archive = Archive::new(store, SystemIdentifier(7), sealer);
        let (parent, own) = (backup(1, 1, 0, 1), backup(2, 1, 0, 1).id);
        let ended = |own: BackupId, parent: BackupId| {
            let archive = &archive;
            async move { must_not_be(archive, &own, Some(&parent)).await.map_err(|failure| failure.error) }
        };
        let gone = ended(own.clone(), parent.id.clone()).await.unwrap_err();
        assert!(gone.contains("is gone"), "{gone}");
        archive.put_summary(&parent).await.unwrap();
        assert_eq!(ended(own.clone(), parent.id.clone()).await, Ok(()));
        for marked in [&parent.id, &own] {
            let key = archive.put_expiry_mark(&of(&[marked])).await.unwrap();
            let refused = ended(own.clone(), parent.id.clone()).await.unwrap_err();
            assert!(refused.contains(marked.as_str()) && refused.contains(key.as_str()), "{refused}");
            archive.store().delete(&key).await.unwrap();
        }
        assert_eq!(must_not_be(&archive, &own, None).await.map_err(|failure| failure.error), Ok(()));
    }
}
