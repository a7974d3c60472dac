//! Every stored content of one WAL file: what there is to decide between.

use crate::exit::Failure;
use crate::output;
use serde::Serialize;
use walpoint_archive::catalog::{Usable, Variant};
use walpoint_archive::content::ContentId;
use walpoint_archive::object_key::ObjectKey;
use walpoint_archive::writer_id::WriterId;
use walpoint_archive::{Archive, ArchiveError};
use walpoint_wal::{Timestamp, WalFileName};

#[derive(Serialize)]
struct Contents {
    file: WalFileName,
    /// The one that recovery uses.
    used: Option<ContentId>,
    contents: Vec<Content>,
}

#[derive(Serialize)]
struct Content {
    content: ContentId,
    state: &'static str,
    writer: Option<WriterId>,
    stored_at: Option<Timestamp>,
    stored_bytes: u64,
    encrypted: bool,
    key: String,
}

/// Renders the contents of one file.
pub async fn list(archive: &Archive, name: &WalFileName, as_json: bool) -> Result<String, Failure> {
    let state = archive.wal_variants(name).await?;
    let used = match state.usable() {
        Usable::One(variant) => Some(variant.content),
        Usable::Nothing | Usable::Ambiguous(_) => None,
    };
    let mut contents = Vec::new();
    for variant in &state.variants {
        let word = match (variant.refused, used) {
            (true, _) => "refused",
            (false, Some(_)) => "used",
            (false, None) => "undecided",
        };
        contents.push(content(archive, variant, word).await?);
    }
    for variant in &archive.wal_conflicts(name).await? {
        contents.push(content(archive, variant, "refused").await?);
    }
    let contents = Contents { file: *name, used, contents };
    if as_json { output::json_line(&contents) } else { Ok(text(&contents)) }
}

async fn content(archive: &Archive, variant: &Variant, state: &'static str) -> Result<Content, Failure> {
    Ok(Content {
        content: variant.content,
        state,
        writer: writer(archive, &variant.key()).await?,
        stored_at: variant.stored_at,
        stored_bytes: variant.stored_size,
        encrypted: variant.encrypted,
        key: variant.key().to_string(),
    })
}

/// Who stored an object; none when its metadata do not say it, which must not hide the rest.
async fn writer(archive: &Archive, key: &ObjectKey) -> Result<Option<WriterId>, Failure> {
    match archive.common(key).await {
        Ok(common) => Ok(Some(common.writer)),
        Err(ArchiveError::Damaged { .. } | ArchiveError::UnknownFormat { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn text(contents: &Contents) -> String {
    if contents.contents.is_empty() {
        return format!("the archive has nothing under the name {}\n", contents.file);
    }
    let header = ["content", "state", "writer", "stored at", "bytes", "key"];
    let row = |content: &Content| {
        vec![
            content.content.to_string(),
            content.state.to_owned(),
            content.writer.map_or_else(|| "unknown".to_owned(), |writer| writer.to_string()),
            content.stored_at.map(|time| time.to_string()).unwrap_or_default(),
            content.stored_bytes.to_string(),
            content.key.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = contents.contents.iter().map(row).collect();
    format!("{}\n{}", contents.file, output::table(&header, &rows))
}
