//! What `expire` says: for each backup and each run of WAL why it stays or goes, and what that frees.

use super::{size, words};
use crate::config::durations;
use crate::keep::decide::FolderFate;
use crate::keep::expire::{Applied, Seen};
use crate::keep::policy::Policy;
use crate::output;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use walpoint_archive::{BackupId, Cluster};
use walpoint_wal::{SegmentName, TimelineId, Timestamp};

/// Keys that are listed one by one.
const LISTED: usize = 20;

/// What there is to say.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    pub cluster: &'a Cluster,
    pub policy: &'a Policy,
    pub seen: &'a Seen,
    /// What was done; none in a dry run.
    pub applied: Option<&'a Applied>,
}

impl<'a> Report<'a> {
    /// For people.
    pub fn text(self) -> String {
        let mut text = format!("cluster {}\n", self.cluster.system_identifier);
        let decision = &self.seen.decision;
        if !self.policy.is_empty() {
            text += &format!("policy: {}\n", self.policy.words());
            text += &self.backups();
            text += &self.folders();
            text += &self.wal();
        }
        for note in decision.notes.iter().chain(self.applied.iter().flat_map(|applied| &applied.notes)) {
            text += &format!("note: {note}\n");
        }
        text += &listed("not ours, left alone", &self.seen.snapshot.unknown);
        text + &self.outcome()
    }

    fn backups(self) -> String {
        let marked = self.seen.marked();
        let header = ["backup", "timeline", "ended", "fate", "why", "frees"];
        let folders = self.folders_by_id();
        let rows =
            self.seen.decision.backups.iter().zip(&self.seen.snapshot.backups).map(|(fate, backup)| {
                let (word, why, frees) = match fate.stays.is_empty() {
                    false => ("stays", words::of_backup(&fate.stays, self.policy).join(", "), "-".to_owned()),
                    true => {
                        let frees = folders.get(&fate.id).map_or(0, |folder| folder.frees);
                        ("goes", why_it_goes(marked.get(&backup.id)), size(frees))
                    }
                };
                let (timeline, ended) = (backup.timeline.to_string(), backup.ended.to_string());
                vec![fate.id.to_string(), timeline, ended, word.to_owned(), why, frees]
            });
        let rows: Vec<Vec<String>> = rows.collect();
        if rows.is_empty() { "no backup is complete\n".to_owned() } else { output::table(&header, &rows) }
    }

    /// Folders without a complete backup, and packs that outlive theirs.
    fn folders(self) -> String {
        let mut text = String::new();
        for folder in &self.seen.decision.folders {
            if folder.is_young {
                text += &format!("unfinished: {}, {}: it may be being made\n", folder.id, size(folder.bytes));
            } else if !folder.is_backup && folder.goes() {
                let frees = size(folder.frees);
                text += &format!("never completed or half gone: {} goes and frees {frees}\n", folder.id);
            }
        }
        let alive: Vec<&FolderFate> = self.outliving().collect();
        if alive.is_empty() {
            return text;
        }
        for folder in &alive {
            text += &format!(
                "packs of {} that newer backups need: {} of {}, {} of {}\n",
                folder.id,
                folder.needed_packs,
                folder.packs,
                size(folder.needed_bytes),
                size(folder.bytes)
            );
        }
        let held: u64 = alive.iter().map(|folder| folder.needed_bytes).sum();
        let borrowed = self.seen.decision.borrowed;
        let due = if borrowed.full_is_due() { "is due; it" } else { "is not due yet; it" };
        text + &format!(
            "a new full backup {due} frees {} when the incremental ones that need these packs have gone; of the \
             newest backup {} of {} lie in packs of expired ones\n",
            size(held),
            size(borrowed.of_the_gone),
            size(borrowed.needs)
        )
    }

    fn outliving(self) -> impl Iterator<Item = &'a FolderFate> {
        self.seen.decision.folders.iter().filter(|folder| folder.needed_packs > 0)
    }

    fn folders_by_id(self) -> BTreeMap<&'a BackupId, &'a FolderFate> {
        self.seen.decision.folders.iter().map(|folder| (&folder.id, folder)).collect()
    }

    fn wal(self) -> String {
        let header = ["WAL of timeline", "first", "last", "segments", "stored", "fate", "why", "frees"];
        let rows = self.seen.decision.wal.iter().map(|wal| {
            let (fate, why, frees) = match wal.stays.is_empty() {
                false => ("stays", words::of_wal(&wal.stays, self.policy).join(", "), "-".to_owned()),
                true => ("goes", "no policy asks for it".to_owned(), size(wal.bytes)),
            };
            vec![
                wal.timeline.to_string(),
                self.name(wal.timeline, wal.first),
                self.name(wal.timeline, wal.last),
                wal.segments.to_string(),
                size(wal.bytes),
                fate.to_owned(),
                why,
                frees,
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        if rows.is_empty() { String::new() } else { output::table(&header, &rows) }
    }

    fn name(self, timeline: TimelineId, number: u64) -> String {
        let name = SegmentName::from_number(timeline, number, self.cluster.segment_size);
        name.map_or_else(|| format!("segment {number}"), |name| name.to_string())
    }

    /// What was done, or what would be.
    fn outcome(self) -> String {
        let decision = &self.seen.decision;
        let here = decision.obstacles.iter().chain(self.applied.iter().flat_map(|it| &it.obstacles));
        let here: Vec<String> = here.cloned().collect();
        if !here.is_empty() {
            return listed("refused, nothing goes", &here);
        }
        let grace = durations::render(self.policy.grace);
        let Some(applied) = self.applied else {
            return match (self.policy.is_empty(), decision.lets_anything_go()) {
                (true, _) => "say what to keep in section [retention], or with --keep-…\n".to_owned(),
                (_, false) => "nothing goes\n".to_owned(),
                _ => format!(
                    "{} would go; --apply marks it, and deletes it when it has been marked for {grace}\n",
                    size(decision.frees())
                ),
            };
        };
        let mut text = String::new();
        if !applied.marked.is_empty() {
            text += &format!(
                "marked: {} backups, {} runs of WAL; they go with an --apply after {grace}\n",
                applied.marked.backups.len(),
                applied.marked.wal.len()
            );
        }
        text += &format!(
            "deleted: {} backups, {} objects, {}\n",
            applied.backups,
            applied.objects,
            size(applied.bytes)
        );
        let stuck: Vec<String> = applied.failed.iter().map(|it| format!("{}: {}", it.key, it.why)).collect();
        text + &listed("could not be deleted", &stuck)
    }

    /// For programs.
    pub fn json(self) -> Value {
        let decision = &self.seen.decision;
        let (folders, marked) = (self.folders_by_id(), self.seen.marked());
        let applied = self.applied;
        let backups = decision.backups.iter().zip(&self.seen.snapshot.backups).map(|(fate, backup)| {
            json!({
                "id": fate.id,
                "timeline": backup.timeline,
                "ended": backup.ended,
                "verified_at": backup.verified_at,
                "stays": !fate.stays.is_empty(),
                "why": words::of_backup(&fate.stays, self.policy),
                "frees": folders.get(&fate.id).map_or(0, |folder| folder.frees),
                "marked_at": marked.get(&fate.id),
            })
        });
        let wal = decision.wal.iter().map(|wal| {
            json!({
                "timeline": wal.timeline,
                "first": self.name(wal.timeline, wal.first),
                "last": self.name(wal.timeline, wal.last),
                "segments": wal.segments,
                "objects": wal.objects,
                "bytes": wal.bytes,
                "stays": !wal.stays.is_empty(),
                "why": words::of_wal(&wal.stays, self.policy),
            })
        });
        let obstacles = decision.obstacles.iter().chain(applied.iter().flat_map(|it| &it.obstacles));
        let notes = decision.notes.iter().chain(applied.iter().flat_map(|it| &it.notes));
        json!({
            "cluster": self.cluster.system_identifier,
            "policy": self.policy.words(),
            "grace": durations::render(self.policy.grace),
            "now": self.seen.snapshot.now,
            "backups": backups.collect::<Vec<Value>>(),
            "folders": decision.folders.iter().map(|it| folder(it, marked.get(&it.id))).collect::<Vec<Value>>(),
            "wal": wal.collect::<Vec<Value>>(),
            "unknown": self.seen.snapshot.unknown,
            "frees": decision.frees(),
            "full_backup": {
                "due": decision.borrowed.full_is_due(),
                "newest_needs": decision.borrowed.needs,
                "newest_borrows": decision.borrowed.of_the_gone,
            },
            "refused": obstacles.collect::<Vec<&String>>(),
            "notes": notes.collect::<Vec<&String>>(),
            "applied": applied.map(done),
        })
    }
}

fn why_it_goes(marked: Option<&Timestamp>) -> String {
    match marked {
        Some(since) => format!("no policy asks for it; marked {since}"),
        None => "no policy asks for it".to_owned(),
    }
}

fn folder(folder: &FolderFate, marked: Option<&Timestamp>) -> Value {
    json!({
        "id": folder.id,
        "complete": folder.is_backup,
        "may_be_being_made": folder.is_young,
        "goes": folder.goes(),
        "bytes": folder.bytes,
        "frees": folder.frees,
        "packs": folder.packs,
        "needed": { "packs": folder.needed_packs, "bytes": folder.needed_bytes },
        "marked_at": marked,
    })
}

fn done(applied: &Applied) -> Value {
    let failed = applied.failed.iter().map(|stuck| json!({ "key": stuck.key, "error": stuck.why }));
    json!({
        "marked": { "backups": applied.marked.backups, "wal": applied.marked.wal },
        "deleted": { "backups": applied.backups, "objects": applied.objects, "bytes": applied.bytes },
        "failed": failed.collect::<Vec<Value>>(),
    })
}

/// One line for each, as far as people read that.
fn listed(what: &str, items: &[String]) -> String {
    let mut text: String = items.iter().take(LISTED).map(|item| format!("{what}: {item}\n")).collect();
    if let Some(more) = items.len().checked_sub(LISTED).filter(|more| *more > 0) {
        text += &format!("{what}: and {more} more\n");
    }
    text
}
