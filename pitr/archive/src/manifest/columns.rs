//! A piece as a manifest has it: an array, because there is one for each MiB.
//! One that is a part of its frame has two columns more.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Piece;
use crate::backup_id::BackupId;
use crate::content::ContentHash;
use crate::pack::PartOfFrame;

/// The columns that every piece has, for whoever reads a manifest by eye.
pub(super) const COLUMNS: [&str; 7] =
    ["file_offset", "length", "backup", "pack", "pack_offset", "stored_length", "blake3"];

/// A piece to be written.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Columns<'a> {
    Whole(u64, u32, Option<&'a BackupId>, u32, u64, u32, ContentHash),
    Part(u64, u32, Option<&'a BackupId>, u32, u64, u32, ContentHash, u32, u32),
}

impl<'a> Columns<'a> {
    pub(super) fn of(piece: &'a Piece) -> Self {
        let Piece { file_offset, length, ref backup, pack, pack_offset, stored_length, blake3, part } =
            *piece;
        let backup = backup.as_ref();
        match part {
            None => Self::Whole(file_offset, length, backup, pack, pack_offset, stored_length, blake3),
            Some(PartOfFrame { skip, frame_length }) => Self::Part(
                file_offset,
                length,
                backup,
                pack,
                pack_offset,
                stored_length,
                blake3,
                skip,
                frame_length,
            ),
        }
    }
}

/// A piece that was read.
#[derive(Debug)]
pub(super) struct OwnedColumns(pub Piece);

impl<'de> Deserialize<'de> for OwnedColumns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ReadColumns)
    }
}

struct ReadColumns;

impl<'de> Visitor<'de> for ReadColumns {
    type Value = OwnedColumns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a piece: an array of 7 columns, or 9")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut columns: A) -> Result<OwnedColumns, A::Error> {
        Ok(OwnedColumns(Piece {
            file_offset: next(&mut columns)?,
            length: next(&mut columns)?,
            backup: next(&mut columns)?,
            pack: next(&mut columns)?,
            pack_offset: next(&mut columns)?,
            stored_length: next(&mut columns)?,
            blake3: next(&mut columns)?,
            part: match columns.next_element()? {
                Some(skip) => Some(PartOfFrame { skip, frame_length: next(&mut columns)? }),
                None => None,
            },
        }))
    }
}

fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(columns: &mut A) -> Result<T, A::Error> {
    columns.next_element()?.ok_or_else(|| A::Error::custom("a piece lacks columns"))
}
