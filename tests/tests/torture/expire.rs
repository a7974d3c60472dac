//! expire --apply: whatever fails, what is listed restores, what the policy keeps is there, and a plain one finishes.
//! It marks; when the marks have stood for the time of grace, it deletes.

mod in_directory;
mod over_s3;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use walpoint_tests::cluster::Cluster;
use walpoint_tests::scene::Scene;
use walpoint_tests::torture::Tree;
use walpoint_tests::walpoint::Walpoint;

use crate::restore::{RestoreArgs, is_of_its_own, places};
use crate::workplace::{Workplace, remove};

/// What is failed at its points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is marked yet.
    Mark,
    /// All that goes was marked long enough ago.
    Delete,
}

/// The statuses of one that was not all done: refused, or something could not be deleted.
const NOT_DONE: [i32; 2] = [1, 7];

/// A policy that keeps one backup, and what that one needs.
fn apply(grace: &str) -> [&str; 6] {
    ["expire", "--keep-last", "1", "--grace", grace, "--apply"]
}

/// What would still go, by the same policy.
fn look(walpoint: &Walpoint) -> Result<Value> {
    let (status, said) = walpoint.json(&["expire", "--keep-last", "1"])?;
    ensure!(status == 0, "status {status}: {said:#}");
    Ok(said)
}

/// Nothing is left that no policy asks for.
fn expect_finished(walpoint: &Walpoint, stays: &str) -> Result<()> {
    let said = look(walpoint)?;
    ensure!(said["frees"] == 0 && !goes(&said)?.any(|_| true), "something is left: {said:#}");
    ensure!(listed(walpoint)? == BTreeSet::from([stays.to_owned()]), "not only {stays} is listed");
    Ok(())
}

/// All that goes is marked.
fn expect_marked(walpoint: &Walpoint) -> Result<()> {
    let said = look(walpoint)?;
    let mut unmarked = goes(&said)?.filter(|it| it["marked_at"].is_null());
    ensure!(unmarked.next().is_none(), "something is not marked: {said:#}");
    Ok(())
}

/// The folders that go.
fn goes(said: &Value) -> Result<impl Iterator<Item = &Value>> {
    let folders = said["folders"].as_array().context("folders")?;
    Ok(folders.iter().filter(|folder| folder["goes"] == true))
}

fn listed(walpoint: &Walpoint) -> Result<BTreeSet<String>> {
    let (status, list) = walpoint.json(&["list"])?;
    let backups = list["backups"].as_array().with_context(|| format!("status {status}: {list}"))?;
    backups.iter().map(|backup| Ok(backup["id"].as_str().context("an id")?.to_owned())).collect()
}

/// What every backup restores to, data directory and tablespace, as it was before anything went.
struct Whole(BTreeMap<String, [Tree; 2]>);

impl Whole {
    fn of(scene: &Scene, walpoint: &Walpoint, workplace: &Workplace) -> Result<Whole> {
        let mut whole = BTreeMap::new();
        for id in listed(walpoint)? {
            let target = restored(scene, walpoint, workplace, &id)?;
            let kept = workplace.path(&format!("whole-{id}"));
            rustix::fs::rename(&target, &kept)?;
            let [data, tablespace] = places(&kept);
            whole.insert(id, [Tree::of(&data)?, Tree::of(&tablespace)?]);
        }
        Ok(Whole(whole))
    }

    /// What is listed restores, and what stays is listed and leads on to the present.
    fn expect_listed_restores(
        &self,
        scene: &Scene,
        walpoint: &Walpoint,
        workplace: &Workplace,
        stays: &str,
    ) -> Result<()> {
        let listed = listed(walpoint)?;
        ensure!(listed.contains(stays), "{stays} is not listed any more");
        for id in listed {
            let target = restored(scene, walpoint, workplace, &id)?;
            let [data, tablespace] = places(&target);
            let [of_data, of_tablespace] = self.0.get(&id).with_context(|| format!("{id} is new"))?;
            of_data.same_as(&data, is_of_its_own)?;
            of_tablespace.same_as(&tablespace, |_| false)?;
            remove(&target)?;
        }
        walpoint.ok(&["plan", "--latest"]).map(drop)
    }
}

fn restored(
    scene: &Scene,
    walpoint: &Walpoint,
    workplace: &Workplace,
    id: &str,
) -> Result<std::path::PathBuf> {
    let target = workplace.empty("target")?;
    let immediate = ["--target-immediate", "--backup", id].map(str::to_owned).to_vec();
    let args = RestoreArgs { scene, target: immediate }.at(&target)?;
    walpoint.ok(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(target)
}

/// The newest moment, as PostgreSQL recovers to it.
fn expect_recovers(scene: &Scene, walpoint: &Walpoint, workplace: &Workplace, rows: &str) -> Result<()> {
    let target = workplace.empty("target")?;
    let args = RestoreArgs { scene, target: vec!["--latest".to_owned()] }.at(&target)?;
    walpoint.ok(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut restored = Cluster::restored(&places(&target)[0], &scene.cluster)?;
    restored.start_expect_ready(walpoint_tests::scene::RECOVERY_LIMIT)?;
    ensure!(restored.value(crate::stage::ROWS)? == rows, "not the rows that were archived");
    restored.stop(walpoint_tests::cluster::Stop::Immediate)?;
    remove(&target)
}

/// A row that is in the archive, and a backup after it.
fn row_and_backup(scene: &Scene, args: &[&str]) -> Result<String> {
    scene.cluster.execute("insert into t select n from generate_series(1, 10) n")?;
    scene.archive_everything()?;
    Ok(scene.walpoint.ok(args)?.last_line()?.to_owned())
}

fn run_expire(walpoint: &Walpoint, grace: &str) -> Result<()> {
    walpoint.run_in(Path::new("/"), &apply(grace))?.success().map(drop)
}
