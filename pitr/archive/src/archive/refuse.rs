//! Two contents under one name: who may stand, and what becomes of the other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use walpoint_wal::WalFileName;

use super::cluster::plain_metadata;
use super::{Archive, PutWal, SMALL};
use crate::catalog::{SegmentState, Variant};
use crate::content::ContentId;
use crate::error::{ArchiveError, Rival};
use crate::facts::FORMAT;
use crate::layout::Entry;
use crate::store::PutMode;

/// How a content stands to what a listing shows under its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stance {
    /// Nothing is there.
    Free,
    /// This content stands, alone.
    Same,
    /// It may not stand: another does, or it was refused.
    Taken,
    /// It stands beside another. Which of them was acknowledged cannot be seen.
    Undecided,
}

impl Stance {
    /// What a push finds before it puts anything.
    pub(super) fn before_put(state: &SegmentState, ours: ContentId) -> Self {
        let standing = state.standing();
        let own = standing.iter().any(|variant| variant.content == ours);
        match (own, standing.len()) {
            (true, 1) => Self::Same,
            // Each may be the one that was acknowledged: refusing ours could make it doubtful.
            (true, _) => Self::Undecided,
            // Also when all are refused: two pushes met and nobody has decided since. A third
            // content that would slip in here would be taken for the decision.
            (false, 0) if state.variants.is_empty() && !state.refused.contains(&ours) => Self::Free,
            (false, _) => Self::Taken,
        }
    }

    /// What a push finds after its put.
    pub(super) fn after_put(state: &SegmentState, ours: ContentId) -> Self {
        match Self::before_put(state, ours) {
            // Our object is not listed, or marked, though we put it.
            Self::Taken if !state.refused.contains(&ours) => Self::Free,
            stance => stance,
        }
    }
}

/// What a mark says. The key is what counts; this is for people, and for `check`.
#[derive(Serialize, Deserialize)]
struct Mark {
    format: u32,
    name: String,
    refused: String,
    why: String,
    /// Set by a person: there is nothing left to decide.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    resolved: bool,
}

/// Who refuses a content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Push,
    Person,
}

impl Archive {
    /// The refused variants of a name whose bytes are kept under `conflict/`.
    pub async fn wal_conflicts(&self, name: &WalFileName) -> Result<Vec<Variant>, ArchiveError> {
        let listed = self.store.list(&self.layout.conflicts_prefix(name), None, None).await?;
        let kept = listed.iter().filter_map(|object| match self.layout.parse(&object.key)? {
            Entry::Conflict { name, content, encrypted } => {
                Some(Variant::aside(&self.layout, name, content, encrypted, object))
            }
            _ => None,
        });
        Ok(kept.collect())
    }

    /// Marks a content refused under a name: recovery will not use it.
    pub(super) async fn mark_refused(
        &self,
        name: &WalFileName,
        content: ContentId,
    ) -> Result<(), ArchiveError> {
        self.mark(name, content, By::Push).await
    }

    /// The same by a person's decision, also where a push refused it before.
    pub(super) async fn mark_resolved(
        &self,
        name: &WalFileName,
        content: ContentId,
    ) -> Result<(), ArchiveError> {
        self.mark(name, content, By::Person).await
    }

    async fn mark(&self, name: &WalFileName, content: ContentId, by: By) -> Result<(), ArchiveError> {
        let key = self.layout.refused(name, content);
        let undescribable = |what: String| ArchiveError::Undescribable { key: key.to_string(), what };
        // A mark that is there already says the same to recovery.
        let (why, mode) = match by {
            By::Push => ("the archive had other content under this name", PutMode::CreateOnly),
            By::Person => ("walpoint resolve kept other content under this name", PutMode::Overwrite),
        };
        let mark = Mark {
            format: FORMAT,
            name: name.to_string(),
            refused: content.to_string(),
            why: why.to_owned(),
            resolved: by == By::Person,
        };
        let mut json = serde_json::to_vec(&mark).map_err(|error| undescribable(error.to_string()))?;
        json.push(b'\n');
        let metadata = plain_metadata(&json).map_err(|error| undescribable(error.to_string()))?;
        let _ = self.store.put(&key, Bytes::from(json), &metadata, mode).await?;
        Ok(())
    }

    /// Whether a person refused this content, so that nothing is left to decide. A mark that is not
    /// there or cannot be read says nothing of the kind.
    pub async fn is_resolved(&self, name: &WalFileName, content: ContentId) -> Result<bool, ArchiveError> {
        let key = self.layout.refused(name, content);
        match self.read_plain(&key, SMALL).await {
            Ok(json) => Ok(serde_json::from_slice::<Mark>(&json).is_ok_and(|mark| mark.resolved)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(ArchiveError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Keeps a refused file's bytes where no recovery reads. The mark comes
    /// first: an earlier put of ours, given up as failed, may still arrive.
    pub(super) async fn set_aside(&self, put: &PutWal) -> Result<(), ArchiveError> {
        let ours = put.facts.common().content.id();
        // PostgreSQL tries again for ever: the bytes are sent once.
        if self.wal_conflicts(&put.name).await?.iter().any(|kept| kept.content == ours) {
            return Ok(());
        }
        let key = self.layout.conflict(&put.name, ours, self.sealer.encrypts());
        let _ = self.store_file(&key, put).await?;
        Ok(())
    }

    /// The error that names who stands in the way.
    pub(super) async fn conflict(&self, put: &PutWal, state: &SegmentState) -> ArchiveError {
        let ours = put.facts.common().content.id();
        let mut theirs: Vec<Rival> = Vec::new();
        for variant in &state.variants {
            let known = theirs.iter().any(|rival| rival.content == variant.content);
            if variant.content == ours || known {
                continue;
            }
            // That one's metadata cannot be read must not hide the conflict.
            let writer = self.common(&variant.key()).await.ok().map(|common| common.writer);
            theirs.push(Rival {
                content: variant.content,
                writer,
                stored_at: variant.stored_at,
                refused: variant.refused,
            });
        }
        ArchiveError::Conflict { name: put.name, ours, theirs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentHash;

    fn id(content: &str) -> ContentId {
        ContentHash::of(content.as_bytes()).id()
    }

    /// `a`: the object stands, `a!`: it is there and refused, `!a`: only the mark is there.
    fn state(objects: &str) -> SegmentState {
        let layout = crate::layout::Layout::new(walpoint_wal::SystemIdentifier(7));
        let name: WalFileName = "000000010000000000000003".parse().unwrap();
        let mut keys = Vec::new();
        for object in objects.split_whitespace() {
            let content = id(object.trim_matches('!'));
            if !object.starts_with('!') {
                keys.push(layout.wal(&name, content, false));
            }
            if object.contains('!') {
                keys.push(layout.refused(&name, content));
            }
        }
        keys.sort();
        let listed: Vec<_> =
            keys.into_iter().map(|key| crate::store::Listed { key, size: 1, modified: None }).collect();
        SegmentState::from_listing(&layout, &listed)
    }

    #[test]
    fn a_push_judges_what_it_finds() {
        for (objects, before, after) in [
            ("", Stance::Free, Stance::Free),
            ("us", Stance::Same, Stance::Same),
            ("them", Stance::Taken, Stance::Free),
            ("us them", Stance::Undecided, Stance::Undecided),
            ("us them other", Stance::Undecided, Stance::Undecided),
            ("us them!", Stance::Same, Stance::Same),
            ("us! them", Stance::Taken, Stance::Taken),
            ("us! them!", Stance::Taken, Stance::Taken),
            ("us!", Stance::Taken, Stance::Taken),
            ("!us", Stance::Taken, Stance::Taken),
            ("them!", Stance::Taken, Stance::Free),
            // A mark without an object: what it forbade never arrived.
            ("!them", Stance::Free, Stance::Free),
        ] {
            assert_eq!(Stance::before_put(&state(objects), id("us")), before, "before, with {objects:?}");
            assert_eq!(Stance::after_put(&state(objects), id("us")), after, "after, with {objects:?}");
        }
    }
}
