//! Clusters of very many small files, as very many tables make them: memory does not grow with their number.

use std::fs;

use anyhow::{Result, ensure};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::user::User;

const FEW: usize = 2_000;
const MANY: usize = 50_000;
/// More than this for each file more is memory that grows with them.
const BYTES_EACH: u64 = 1024;
const MOST_MEMORY: u64 = 256 << 20;

#[test]
fn fifty_thousand_small_files_come_back_in_bounded_memory() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select 1 as n")?;
    fill(&scene.cluster, 0..FEW)?;
    let few = peaks(&mut scene)?;
    fill(&scene.cluster, FEW..MANY)?;
    let many = peaks(&mut scene)?;
    for (command, few, many) in [("backup", few.0, many.0), ("restore", few.1, many.1)] {
        println!("{command}: {} MiB for {FEW} files, {} MiB for {MANY}", few >> 20, many >> 20);
        ensure!(many < MOST_MEMORY, "{command}: {} MiB", many >> 20);
        let growth = many.saturating_sub(few) / (MANY - FEW) as u64;
        ensure!(growth <= BYTES_EACH, "{command}: {growth} bytes of memory for each file more");
    }
    scene.cluster.stop(Stop::Fast)
}

/// Files of a few bytes where a relation's would lie, in a tenth of as many directories.
fn fill(cluster: &Cluster, numbers: std::ops::Range<usize>) -> Result<()> {
    let user = User::current()?;
    let base = cluster.data().join("base/4242424");
    for number in numbers {
        let directory = base.join(format!("{}", number / 5_000));
        if !directory.exists() {
            fs::create_dir_all(&directory)?;
            user.own(&base)?;
            user.own(&directory)?;
        }
        let file = directory.join(format!("{number}"));
        fs::write(&file, format!("the content of file {number}"))?;
        user.own(&file)?;
    }
    Ok(())
}

/// The most memory that a backup and a restore of it take; every file is back.
fn peaks(scene: &mut Scene) -> Result<(u64, u64)> {
    let backup = scene.walpoint.ok(&["backup"])?;
    let directory = scene.fresh_directory();
    let restore = scene.restore_into(&directory, &["--target-immediate"])?.success()?;
    let base = "base/4242424";
    let mut compared = 0;
    for folder in fs::read_dir(scene.cluster.data().join(base))? {
        let folder = folder?.file_name();
        for file in fs::read_dir(scene.cluster.data().join(base).join(&folder))? {
            let name = file?.file_name();
            let bytes = |root: &std::path::Path| fs::read(root.join(base).join(&folder).join(&name));
            ensure!(bytes(scene.cluster.data())? == bytes(&directory)?, "{} differs", name.display());
            compared += 1;
        }
    }
    println!("{compared} files: backup {:?}, restore {:?}", backup.elapsed, restore.elapsed);
    fs::remove_dir_all(&directory)?;
    Ok((backup.peak_memory, restore.peak_memory))
}
