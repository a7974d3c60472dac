//! archive-push of a segment that does not fit in one put: it is uploaded in parts, and none of them is an
//! object until all are there.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Result;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;

use crate::breaks::Breaks;
use crate::in_steps::InSteps;
use crate::over_s3::{Broken, OverS3};
use crate::push::Push;
use crate::stage;

/// More than one part (16 MiB) of what does not compress, in a segment that is too large to be sealed in
/// memory.
const NOISE_MIB: u32 = 17;
const SEGMENT_MIB: u32 = 64;

struct Large {
    /// What was made of it is gone with it.
    _cluster: Cluster,
    skeleton: PathBuf,
    segment: String,
}

/// None, said aloud, without PostgreSQL.
fn shared() -> Result<Option<&'static Large>> {
    static SHARED: OnceLock<Option<Large>> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_makes_it = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(large) = SHARED.get() {
        return Ok(large.as_ref());
    }
    let made = make()?;
    Ok(SHARED.get_or_init(|| made).as_ref())
}

fn make() -> Result<Option<Large>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let options = ClusterOptions { wal_segsize_mb: SEGMENT_MIB, ..ClusterOptions::default() };
    let mut cluster = Cluster::init(&postgres, options)?;
    cluster.start()?;
    let sql = cluster.sql()?;
    let bytes = "select string_agg(decode(md5(random()::text), 'hex'), '') from generate_series(1, 65536)";
    for _ in 0..NOISE_MIB {
        sql.execute(&format!("select pg_logical_emit_message(false, 'noise', ({bytes}))"))?;
    }
    let segment = sql.value("select pg_walfile_name(pg_switch_wal())")?;
    cluster.stop(Stop::Immediate)?;
    let skeleton = stage::skeleton(&cluster, std::slice::from_ref(&segment))?;
    Ok(Some(Large { _cluster: cluster, skeleton, segment }))
}

fn push<B: Breaks>(breaks: Option<B>, operation: &str) -> Result<()> {
    let (Some(large), Some(breaks)) = (shared()?, breaks) else { return Ok(()) };
    let (skeleton, name) = (large.skeleton.as_path(), large.segment.as_str());
    Push { breaks, skeleton, before: Vec::new(), name, differs: false }.every_point(operation, 1)
}

#[test]
fn the_push_in_parts() -> Result<()> {
    push(InSteps::new()?, "push in parts")
}

#[test]
fn the_push_in_parts_over_s3_in_steps() -> Result<()> {
    push(InSteps::in_bucket()?, "push in parts over S3, in steps")
}

#[test]
fn the_push_in_parts_over_s3_with_one_request_broken() -> Result<()> {
    push(OverS3::new(Broken::One)?, "push in parts over S3")
}
