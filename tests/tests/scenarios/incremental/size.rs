//! An incremental backup stores no more than the pages that changed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;

use super::{incremental, stored};

const PAGE: usize = 8192;

#[test]
fn one_page_in_a_hundred_at_random_costs_these_pages_compressed() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let options = ClusterOptions {
        configuration: "autovacuum = off\n".into(),
        wal_segsize_mb: 16,
        ..ClusterOptions::default()
    };
    let scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute(
        "create table t (n int, filler text) with (fillfactor = 80);
         alter table t alter filler set storage plain;
         insert into t select n, string_agg(md5(random()::text), '') from generate_series(1, 100000) n,
           generate_series(1, 32) group by n",
    )?;
    scene.cluster.execute("vacuum t; ")?;
    let full = scene.backup()?;
    let pages: u64 = scene.cluster.value("select pg_relation_size('t') / 8192")?.parse()?;
    scene.cluster.execute(
        "update t set n = -n where ctid = any (select ('(' || (random() * (select relpages - 1 from pg_class
         where relname = 't'))::int || ',1)')::tid from generate_series(1, (select relpages / 100 from pg_class
         where relname = 't')))",
    )?;
    scene.cluster.execute("checkpoint")?;
    let since = start_of(&scene, &full)?;
    let changed = changed_pages(scene.cluster.data(), since)?;
    let first = incremental(&scene.walpoint, &full)?;
    let compressed = walpoint_compressed(&changed)?;
    let (own, all) = (stored(&scene.walpoint, &first)?, stored(&scene.walpoint, &full)?);
    let ratio = own as f64 / compressed as f64;
    println!(
        "{} of {pages} pages changed, {compressed} bytes compressed; {own} bytes stored ({ratio:.3}), {all} for the full one",
        changed.len() / PAGE
    );
    ensure!(changed.len() / PAGE > pages as usize / 150, "too little was changed");
    ensure!(ratio <= 1.15, "{ratio:.3} of the pages that changed");
    let manifest = manifest_size(&scene, &first)?;
    let data: u64 =
        scene.walpoint.json(&["list"])?.1["backups"][1]["bytes"]["data"].as_u64().context("no size")?;
    println!("manifest: {manifest} bytes for {data} of data");
    ensure!(manifest * 1000 <= data, "the manifest has {manifest} bytes for {data}");
    let mut scene = scene;
    scene.cluster.stop(Stop::Fast)
}

fn start_of(scene: &Scene, id: &str) -> Result<u64> {
    let (_, listing) = scene.walpoint.json(&["list"])?;
    let backups = listing["backups"].as_array().context("no backups")?;
    let backup = backups.iter().find(|backup| backup["id"] == id).context("not listed")?;
    backup["start"]["lsn"].as_str().and_then(walpoint_tests::wal_dump::parse_lsn).context("no start")
}

/// All pages of main forks with such an LSN, one behind the other.
fn changed_pages(data: &Path, since: u64) -> Result<Vec<u8>> {
    let mut changed = Vec::new();
    let mut folders = vec![data.join("global")];
    folders.extend(
        fs::read_dir(data.join("base"))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()?,
    );
    for file in folders.iter().map(fs::read_dir).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            continue;
        }
        for page in fs::read(&path)?.chunks_exact(PAGE) {
            let half =
                |at: usize| u64::from(u32::from_le_bytes(page[at..at + 4].try_into().unwrap_or_default()));
            if half(0) << 32 | half(4) >= since || page.iter().all(|byte| *byte == 0) {
                changed.extend_from_slice(page);
            }
        }
    }
    Ok(changed)
}

/// As a pack has them, in pieces of 1 MiB.
fn walpoint_compressed(pages: &[u8]) -> Result<u64> {
    let mut pack = walpoint_archive::PackWriter::new(walpoint_archive::compress::CompressionLevel::default());
    let mut size = 0;
    for piece in pages.chunks(walpoint_archive::pack::MAX_PIECE_BYTES) {
        if !pack.has_room_for(piece.len()) {
            pack = walpoint_archive::PackWriter::new(walpoint_archive::compress::CompressionLevel::default());
        }
        size += u64::from(pack.append(piece)?.stored_length);
    }
    Ok(size)
}

fn manifest_size(scene: &Scene, id: &str) -> Result<u64> {
    let cluster = scene.cluster.value("select system_identifier from pg_control_system()")?;
    let folder = scene.archive_directory()?.join(cluster).join("backup").join(id);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("manifest-") && !name.ends_with(".meta") {
            return Ok(entry.metadata()?.len());
        }
    }
    anyhow::bail!("no manifest")
}
