//! What an expiry is about to take away. A backup does not build on that: neither on a parent that is marked nor on a
//! folder or WAL of its own. It looks before it begins, so that nothing is done in vain; what counts are its last looks.

use std::collections::{BTreeMap, BTreeSet};

use walpoint_archive::{Archive, BackupId, BackupSummary, ExpiryMarks, MarkedWal, ObjectKey};
use walpoint_wal::{Lsn, PathStep};

use crate::exit::Failure;
use crate::keep::snapshot::stretches;

/// The backups that are marked to go, complete or not, and the WAL.
#[derive(Debug, Clone, Default)]
pub struct Marked {
    by: BTreeMap<BackupId, ObjectKey>,
    wal: Vec<(MarkedWal, ObjectKey)>,
    /// Marks of a newer version, say: they may name any backup that was there before them.
    unreadable: BTreeSet<ObjectKey>,
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
                    let key = &standing.key;
                    marked.by.extend(mark.backups.iter().map(|id| (id.clone(), key.clone())));
                    marked.wal.extend(mark.wal.iter().map(|wal| (*wal, key.clone())));
                }
                Err(_) => {
                    marked.unreadable.insert(standing.key.clone());
                }
            }
        }
        marked
    }

    /// As far as it may name what was not there yet when these stood: a mark is never changed.
    pub fn since(&self, before: &Marked) -> Marked {
        let mut marked = self.clone();
        marked.unreadable.retain(|key| !before.unreadable.contains(key));
        marked
    }

    /// Why nobody may build on what lies in this backup's folder, or on the packs that it names; none where one may.
    pub fn why_not(&self, backup: &BackupId) -> Option<String> {
        let unreadable = || {
            let key = self.unreadable.first()?;
            Some(format!("\"{key}\" cannot be read, which may have marked it to go"))
        };
        match self.by.get(backup) {
            Some(key) => Some(format!("expire has marked it to go, in \"{key}\"")),
            None => unreadable(),
        }
    }

    /// Why nobody may complete a backup whose files are consistent only with this WAL; none where one may.
    pub fn why_not_its_wal(&self, backup: &BackupSummary, path: &[PathStep]) -> Option<String> {
        let (redo, stop, size) =
            (backup.redo, backup.stop.lsn.max(Lsn(backup.redo.0.saturating_add(1))), backup.segment_size);
        let is_read = |step: &&PathStep| step.begin < stop && step.end.is_none_or(|end| redo < end);
        let read: Vec<PathStep> = path.iter().filter(is_read).copied().collect();
        let last = Lsn(stop.0 - 1).segment_number(size);
        let own = stretches(&read, redo.segment_number(size), last, size);
        let (wal, key) = self.wal.iter().find(|(wal, _)| {
            own.iter().any(|(timeline, first, last)| wal.overlaps(*timeline, *first, *last, size))
        })?;
        Some(format!(
            "its WAL from {redo} to {} may go: expire has marked {} to {} to go, in \"{key}\"",
            backup.stop.lsn, wal.first, wal.last
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use walpoint_archive::catalog::DamagedObject;
    use walpoint_archive::{ExpiryMark, StandingMark};
    use walpoint_wal::{TimelineHistory, TimelineId};

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

    #[test]
    fn a_mark_of_before_cannot_name_what_came_after_it() {
        let by = |names: &[&str]| {
            let damaged = |key: &&str| {
                let reason = "format 2".to_owned();
                standing(key, Err(DamagedObject { key: key.parse().unwrap(), reason }))
            };
            Marked::by(&ExpiryMarks {
                standing: names.iter().map(damaged).collect(),
                ..ExpiryMarks::default()
            })
        };
        let own = backup(1, 1, 0, 1).id;
        let before = by(&["7/expire/a.json"]);
        assert_eq!(before.since(&before).why_not(&own), None);
        let now = by(&["7/expire/a.json", "7/expire/b.json"]);
        assert!(now.since(&before).why_not(&own).unwrap().contains("7/expire/b.json"));
        assert!(now.since(&Marked::default()).why_not(&own).unwrap().contains("7/expire/a.json"));
        // One that can be read says itself what it names.
        let names = Marked::of(&[&own]);
        assert!(names.since(&names).why_not(&own).is_some());
    }

    /// Segments of 1 MiB; timeline 2 left timeline 1 in the third one.
    #[test]
    fn marked_wal_is_that_of_a_backup_from_its_redo_to_its_stop_on_its_way() {
        let mib = |number: u64, more: u64| (number << 20) + more;
        let second = TimelineId::new(2).unwrap();
        let fork = TimelineHistory::parse(second, b"1\t0/200100\tx\n").unwrap().path();
        let straight = TimelineHistory::first().path();
        let refused = |timeline: u32, redo: u64, stop: u64, path: &[PathStep], first: &str, last: &str| {
            let wal = MarkedWal { first: first.parse().unwrap(), last: last.parse().unwrap() };
            let mark = ExpiryMark { wal: vec![wal], ..ExpiryMark::default() };
            let marked = Marked::by(&ExpiryMarks {
                standing: vec![standing("7/expire/a.json", Ok(mark))],
                ..ExpiryMarks::default()
            });
            marked.why_not_its_wal(&backup(1, timeline, redo, stop), path).is_some()
        };
        let segment = |timeline: u32, number: u64| format!("{timeline:08X}00000000{number:08X}");
        for (first, last, expected) in
            [(0, 2, false), (0, 3, true), (4, 4, true), (3, 5, true), (5, 5, true), (6, 9, false)]
        {
            let (first, last) = (segment(1, first), segment(1, last));
            let is = refused(1, mib(3, 40), mib(5, 1), &straight, &first, &last);
            assert_eq!(is, expected, "{first} to {last}");
        }
        // What ends where a segment begins does not need that one, and a checkpoint alone needs its own.
        assert!(!refused(1, mib(3, 40), mib(5, 0), &straight, &segment(1, 5), &segment(1, 5)));
        assert!(refused(1, mib(3, 0), mib(3, 0), &straight, &segment(1, 3), &segment(1, 3)));
        // Another timeline's is not its own; the parent's is as far as it is read.
        assert!(!refused(1, mib(3, 40), mib(5, 1), &straight, &segment(2, 3), &segment(2, 5)));
        assert!(refused(2, mib(1, 40), mib(3, 1), &fork, &segment(1, 0), &segment(1, 1)));
        assert!(refused(2, mib(1, 40), mib(3, 1), &fork, &segment(2, 2), &segment(2, 2)));
        assert!(!refused(2, mib(1, 40), mib(3, 1), &fork, &segment(1, 3), &segment(1, 3)));
        assert!(!refused(2, mib(2, 0x200), mib(3, 1), &fork, &segment(1, 0), &segment(1, 2)));
    }
}
