//! `list`: what the archive holds. Backups by default, WAL by timeline with `--wal`, every stored content of
//! one WAL file with `--wal FILE`.

use crate::cli::ListArgs;
use crate::config::{Settings, sizes};
use crate::exit::{Ending, Failure};
use crate::{cluster_choice, output};
use serde_json::{Value, json};
use walpoint_archive::catalog::{Catalog, CatalogScope};
use walpoint_archive::summary::BackupSummary;

mod contents;
mod damage;
mod wal;

/// Carries out `list`.
pub async fn run(settings: &Settings, args: &ListArgs, as_json: bool) -> Result<Ending, Failure> {
    let chosen = cluster_choice::open(settings, args.cluster).await?;
    let text = match &args.wal {
        None => {
            let catalog = chosen.archive.catalog(CatalogScope::NoWal).await?;
            if as_json { output::json_line(&backups_json(&catalog))? } else { backups_text(&catalog) }
        }
        Some(None) => wal::list(&chosen.archive, settings.workers(), as_json).await?,
        Some(Some(name)) => contents::list(&chosen.archive, name, as_json).await?,
    };
    output::result(&text)?;
    Ok(Ending::DONE)
}

fn backups_json(catalog: &Catalog) -> Value {
    let backups: Vec<Value> = catalog.backups.iter().map(backup_json).collect();
    json!({
        "cluster": catalog.cluster.system_identifier,
        "backups": backups,
        "unfinished": catalog.unfinished,
        "damaged": unreadable(catalog),
    })
}

fn backup_json(backup: &BackupSummary) -> Value {
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
        "verified_at": Value::Null,
    })
}

fn backups_text(catalog: &Catalog) -> String {
    let header = ["backup", "timeline", "start", "stop", "ended", "data", "stored", "remarks"];
    let rows: Vec<Vec<String>> = catalog.backups.iter().map(backup_row).collect();
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

fn backup_row(backup: &BackupSummary) -> Vec<String> {
    let mut remarks = Vec::new();
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
        remarks.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_names_of_a_backup_are_the_interface() {
        let backup: BackupSummary =
            serde_json::from_str(include_str!("../../tests/fixtures/backup.json")).unwrap();
        let listed = backup_json(&backup);
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
        assert!(backup_row(&backup).contains(&"22.0 MiB".to_owned()));
    }
}
