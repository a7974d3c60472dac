//! Incremental backups hold what has changed, exactly, and come back as a full one would: index-only scans count what
//! sequential ones count, every page's word on visibility is true, and every index finds every row.

mod boundary;
mod changes;
mod crash;
mod indexes;
mod parents;
mod size;
pub mod soundness;
mod trust;
mod visibility;

use anyhow::{Context, Result, ensure};
use walpoint_tests::scene::Scene;
use walpoint_tests::walpoint::Walpoint;

/// Takes one, which must have this parent.
fn incremental(walpoint: &Walpoint, parent: &str) -> Result<String> {
    incremental_by(walpoint, parent, "pages are compared with")
}

/// Takes one with this parent, whose pages must be compared in this way.
pub fn incremental_by(walpoint: &Walpoint, parent: &str, how: &str) -> Result<String> {
    let outcome = walpoint.run(&["--json", "backup", "--incremental"])?.success()?;
    let told: serde_json::Value = outcome.json()?;
    ensure!(told["kind"] == "incr" && told["parent"] == parent, "{parent} is not the parent: {outcome}");
    let line = outcome.stderr.lines().find(|line| line.contains("pages are compared with"));
    ensure!(line.is_some_and(|line| line.contains(how)), "not \"{how}\": {outcome}");
    Ok(told["id"].as_str().context("no id")?.to_owned())
}

/// Takes one that must be a full one, for this reason.
fn full_instead(walpoint: &Walpoint, reason: &str) -> Result<String> {
    let outcome = walpoint.run(&["--json", "backup", "--incremental"])?.success()?;
    let told: serde_json::Value = outcome.json()?;
    ensure!(told["kind"] == "full", "it is not a full one: {outcome}");
    let said = told["instead_of_incremental"].as_str().unwrap_or_default();
    ensure!(said.contains(reason), "\"{said}\" does not say \"{reason}\"");
    ensure!(outcome.stderr.contains(said), "the log does not say why: {outcome}");
    Ok(told["id"].as_str().context("no id")?.to_owned())
}

/// Bytes stored for a backup.
fn stored(walpoint: &Walpoint, id: &str) -> Result<u64> {
    let (_, listing) = walpoint.json(&["list"])?;
    let backups = listing["backups"].as_array().context("no backups")?;
    let backup = backups.iter().find(|backup| backup["id"] == id).context("the backup is not listed")?;
    backup["bytes"]["stored"].as_u64().context("no stored bytes")
}

/// Restores this very backup to its end, and starts it.
fn recover_backup(scene: &mut Scene, id: &str) -> Result<walpoint_tests::cluster::Cluster> {
    scene.recover(&["--target-immediate", "--backup", id])
}
