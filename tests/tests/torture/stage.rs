//! A small cluster and its archive in a directory, made once for all trials.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::scratch::{make_private_dir, write_private};
use walpoint_tests::wait;

use crate::workplace::copy;

/// What every restored cluster must answer.
pub const ROWS: &str = "select count(*) || ' ' || sum(n) from t";

/// A stopped cluster. Nobody writes to its directories any more.
pub struct Stage {
    pub scene: Scene,
    pub rows: String,
    /// Segments in the archive, oldest first, the last one with everything.
    pub archived: Vec<String>,
    /// Segments in `pg_wal` that nobody has pushed.
    pub waiting: Vec<String>,
    /// The part of a data directory that the hooks look at.
    pub skeleton: PathBuf,
}

/// The one stage of this process; none, said aloud, without PostgreSQL.
pub fn shared() -> Result<Option<&'static Stage>> {
    static SHARED: OnceLock<Option<Stage>> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_makes_it = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stage) = SHARED.get() {
        return Ok(stage.as_ref());
    }
    let made = make()?;
    Ok(SHARED.get_or_init(|| made).as_ref())
}

/// A stopped cluster with a backup in a bucket.
pub struct StageOverS3 {
    pub garage: &'static Garage,
    pub scene: Scene,
    pub backup: String,
    pub rows: String,
}

/// None, said aloud, without Garage or PostgreSQL.
pub fn over_s3() -> Result<Option<StageOverS3>> {
    let Some(garage) = Garage::shared()? else { return Ok(None) };
    let Some(mut scene) = small_scene(Some(garage))? else { return Ok(None) };
    let rows = scene.cluster.value(ROWS)?;
    let backup = scene.backup()?;
    scene.cluster.stop(Stop::Fast)?;
    Ok(Some(StageOverS3 { garage, scene, backup, rows }))
}

/// A cluster of one database, with a table in a tablespace: as few files as can be.
/// It archives to a bucket where there is a server for one, else to a directory.
pub fn small_scene(garage: Option<&Garage>) -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let options = ClusterOptions::default();
    let scene = match garage {
        Some(garage) => Scene::on_garage(&postgres, garage, options)?,
        None => Scene::on_directory(&postgres, options)?,
    };
    let sql = scene.cluster.sql()?;
    sql.execute("update pg_database set datistemplate = false")?;
    sql.execute("drop database template0")?;
    sql.execute("drop database template1")?;
    let tablespace = scene.cluster.scratch().make_dir("tablespace")?;
    sql.execute(&format!("create tablespace elsewhere location '{}'", tablespace.display()))?;
    sql.execute("create table t tablespace elsewhere as select n from generate_series(1, 1000) n")?;
    Ok(Some(scene))
}

fn make() -> Result<Option<Stage>> {
    let Some(mut scene) = small_scene(None)? else { return Ok(None) };
    scene.backup()?;
    let mut archived = Vec::new();
    for _ in 0..3 {
        scene.cluster.execute("insert into t select n from generate_series(1, 10) n")?;
        archived.push(scene.archive_everything()?);
    }
    let rows = scene.cluster.value(ROWS)?;
    let waiting = hold_back(&scene)?;
    scene.cluster.stop(Stop::Immediate)?;
    let skeleton = skeleton(&scene.cluster, &waiting)?;
    Ok(Some(Stage { scene, rows, archived, waiting, skeleton }))
}

/// Turns archiving off and fills more segments.
fn hold_back(scene: &Scene) -> Result<Vec<String>> {
    let sql = scene.cluster.sql()?;
    sql.execute("alter system set archive_command = 'exit 1'")?;
    sql.execute("select pg_reload_conf()")?;
    wait::until_true("the settings to be read", Duration::from_secs(10), || {
        Ok(scene.cluster.value("show archive_command")? == "exit 1")
    })?;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        sql.execute("insert into t select n from generate_series(1, 1000) n")?;
        waiting.push(sql.value("select pg_walfile_name(pg_switch_wal())")?);
    }
    Ok(waiting)
}

/// The control file, the version, and the WAL that waits; and a history as a promotion would
/// leave it.
pub fn skeleton(cluster: &Cluster, waiting: &[String]) -> Result<PathBuf> {
    let data = cluster.data();
    let skeleton = cluster.scratch().make_dir("skeleton")?;
    for directory in ["global", "pg_wal"] {
        make_private_dir(&skeleton.join(directory))?;
    }
    let segments = waiting.iter().map(|name| format!("pg_wal/{name}"));
    for file in segments.chain(["global/pg_control".to_owned(), "PG_VERSION".to_owned()]) {
        copy(&data.join(&file), &skeleton.join(&file))?;
    }
    let first = waiting.first().context("a segment")?;
    let number = u64::from_str_radix(&first[8..16], 16)? << 32 | u64::from_str_radix(&first[16..], 16)? << 20;
    let history =
        format!("1\t{:X}/{:X}\tno recovery target specified\n", number >> 32, (number & 0xFFFF_FFFF) + 0x80);
    write_private(&skeleton.join("pg_wal/00000002.history"), &history)?;
    Ok(skeleton)
}

/// The option that puts the tablespace of a small scene elsewhere.
pub fn mapping(scene: &Scene, to: &Path) -> Result<String> {
    let from = scene.cluster.scratch().path().join("tablespace");
    Ok(format!("{}={}", from.display(), to.display()))
}

impl Stage {
    /// A file of the skeleton's `pg_wal`.
    pub fn wal(&self, name: &str) -> PathBuf {
        self.skeleton.join("pg_wal").join(name)
    }

    pub fn archive(&self) -> Result<&Path> {
        self.scene.archive_directory()
    }
}
