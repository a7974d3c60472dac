//! `list`: what the archive holds. Backups by default, WAL by timeline with `--wal`, every stored content of
//! one WAL file with `--wal FILE`.

use crate::cli::ListArgs;
use crate::config::{Settings, sizes};
use crate::exit::{Ending, Failure};
use crate::{cluster_choice, output};
use serde_json::{Value, json};
use walpoint_archive::catalog::{Catalog, CatalogScope};
use walpoint_archive::{BackupHead, Layout, Proof, Verification};

mod contents;
mod damage;
mod wal;

/// Carries out `list`.
pub async fn run(settings: &Settings, args: &ListArgs, as_json: bool) -> Result<Ending, Failure> {
    let chosen = cluster_choice::open(settings, args.cluster).await?;
    let text = match &args.wal {
        None => {
            let catalog = chosen.archive.catalog(CatalogScope::NoWal).await?;
            let verified = chosen.archive.verification().await?;
            let listed = Listed { catalog: &catalog, verified: &verified, layout: chosen.archive.layout() };
            if as_json { output::json_line(&listed.json())? } else { listed.text() }
        }
        Some(None) => wal::list(&chosen.archive, settings.workers(), as_json).await?,
        Some(Some(name)) => contents::list(&chosen.archive, name, as_json).await?,
    };
    output::result(&text)?;
    Ok(Ending::DONE)
}

/// The backups, and what is known of them.
struct Listed<'a> {
    catalog: &'a Catalog,
    verified: &'a Verification,
    layout: &'a Layout,
}

impl Listed<'_> {
    fn json(&self) -> Value {
        let catalog = self.catalog;
        let backups = catalog.backups.iter();
        let backups: Vec<Value> =
            backups.map(|it| backup_json(it, self.proof(it), self.damaged(it))).collect();
        json!({
            "cluster": catalog.cluster.system_identifier,
            "backups": backups,
            "unfinished": catalog.unfinished,
            "damaged": unreadable(catalog),
        })
    }

    fn text(&self) -> String {
        let catalog = self.catalog;
        let header =
            ["backup", "timeline", "start", "stop", "ended", "data", "stored", "verified", "remarks"];
        let backups = catalog.backups.iter();
        let rows: Vec<Vec<String>> =
            backups.map(|it| backup_row(it, self.proof(it), self.damaged(it))).collect();
        let mut text = format!("cluster {}\n", catalog.cluster.system_identifier);
        if rows.is_empty() {
            text += "no backup is complete\n";
        } else {
            text += &output::table(&header, &rows);
        }
        for id in &catalog.unfinished {
            text += &format!("unfinished: {id}\n");
        }
        text + &unreadable_text(catalog)
    }

    /// When all that it needs was last found sound.
    fn proof(&self, backup: &BackupHead) -> Option<Proof> {
        self.verified.of_backup(self.layout, backup)
    }

    /// How much of it was found damaged.
    fn damaged(&self, backup: &BackupHead) -> usize {
        self.verified.damaged_of(self.layout, backup)
    }
}

fn backup_json(backup: &BackupHead, proof: Option<Proof>, damaged: usize) -> Value {
    json!({
        "id": backup.id,
        "kind": backup.kind,
        "parent": backup.parent,
        "label": backup.label,
        "timeline": backup.timeline,
        "start": backup.start,
        "stop": backup.stop,
        "bytes": backup.bytes,
        "files": backup.files,
        "damaged_pages": backup.damaged_pages,
        "verified_at": proof.map(|proof| proof.stored_at),
        "content_verified_at": proof.and_then(|proof| proof.content_at),
        "damaged_objects": damaged,
    })
}

/// Histories and summaries that are there and cannot be read.
pub fn unreadable(catalog: &Catalog) -> Vec<Value> {
    let objects = catalog.damaged.iter();
    objects.map(|object| json!({ "key": object.key.as_str(), "reason": object.reason })).collect()
}

/// The same in words.
pub fn unreadable_text(catalog: &Catalog) -> String {
    let objects = catalog.damaged.iter();
    objects.map(|object| format!("damaged: {}: {}\n", object.key, object.reason)).collect()
}

fn backup_row(backup: &BackupHead, proof: Option<Proof>, damaged: usize) -> Vec<String> {
    let mut remarks = Vec::new();
    if damaged > 0 {
        remarks.push(format!("{damaged} of its objects were found damaged"));
    }
    if backup.damaged_pages > 0 {
        remarks.push(format!("{} damaged pages", backup.damaged_pages));
    }
    if let Some(parent) = &backup.parent {
        remarks.push(format!("after {parent}"));
    }
    vec![
        backup.id.to_string(),
        backup.timeline.to_string(),
        backup.start.lsn.to_string(),
        backup.stop.lsn.to_string(),
        backup.stop.time.to_string(),
        sizes::human(backup.bytes.data),
        sizes::human(backup.bytes.stored),
        proof.map_or_else(|| "never".to_owned(), |proof| proof.stored_at.to_string()),
        remarks.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use walpoint_archive::BackupSummary;

    #[test]
    fn the_names_of_a_backup_are_the_interface() {
        let backup: BackupSummary =
            serde_json::from_str(include_str!("../../tests/fixtures/backup.json")).unwrap();
        let layout = Layout::new(backup.system_identifier);
        let backup = backup.into_head(&layout);
        let listed = backup_json(&backup, None, 0);
        let expected = json!({
            "id": "20261121T005909Z-full-66a14c",
            "kind": "full",
            "parent": null,
            "timeline": 1,
            "start": { "lsn": "0/900028", "time": "2026-11-21T00:59:09.764767Z" },
            "stop": { "lsn": "0/900100", "time": "2026-11-21T00:59:10.107907Z" },
            "bytes": { "data": 23_058_081, "stored": 2_997_371 },
            "damaged_pages": 0,
            "verified_at": null,
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&listed[name], value, "{name}");
            assert!(listed.as_object().unwrap().contains_key(name), "{name} is missing");
        }
        assert!(backup_row(&backup, None, 0).contains(&"22.0 MiB".to_owned()));
    }
}
