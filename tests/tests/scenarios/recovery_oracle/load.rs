//! What is written while the oracle takes notes: the ledger's transactions,
//! definitions of tables, checkpoints, switches, restore points, an idle stretch.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use walpoint_tests::cluster::{Cluster, Sql};
use walpoint_tests::ledger::{Ledger, Notes};
use walpoint_tests::scene::Scene;

pub const LOAD_LIMIT: Duration = Duration::from_secs(120);
const ROUNDS: u32 = 12;
/// Long against the microseconds between two commits of the load.
const IDLE: Duration = Duration::from_secs(2);

/// Loads the scene's cluster, takes a backup in the midst of it, and has
/// everything archived. Returns the backup's id and the ledger's notes.
pub fn run(scene: &Scene, seed: u64) -> Result<(String, Arc<Notes>)> {
    make_definitions(&scene.cluster)?;
    let sql = scene.cluster.sql()?;
    let ledger = Ledger::start(&scene.cluster, 4, seed)?;
    ledger.wait_for_commits(100, LOAD_LIMIT)?;
    let backup = scene.backup()?;
    // Many segments, with checkpoints between: a lost or mistaken one has to
    // show wherever it is.
    for round in 0..ROUNDS {
        ledger.wait_for_commits(60, LOAD_LIMIT)?;
        define(&sql, round)?;
        sql.execute(&format!("select pg_create_restore_point('point-{round}')"))?;
        sql.execute(if round % 3 == 0 { "checkpoint" } else { "select pg_switch_wal()" })?;
        if round == ROUNDS / 2 {
            ledger.pause()?;
            std::thread::sleep(IDLE);
            sql.execute("checkpoint")?;
            ledger.resume();
        }
    }
    // Targets keep away from the very last commits.
    ledger.wait_for_commits(60, LOAD_LIMIT)?;
    let notes = ledger.finish()?;
    scene.archive_everything()?;
    Ok((backup, notes))
}

/// The table that says which tables there are, and with how many rows.
pub fn make_definitions(cluster: &Cluster) -> Result<()> {
    cluster.execute("create table defined(n int primary key, rows int not null)")
}

/// Makes, empties and drops tables, each in one transaction with what is said
/// of it; what is rolled back says nothing.
fn define(sql: &Sql, round: u32) -> Result<()> {
    sql.execute(&format!(
        "begin; create table side_{round} as select x, repeat('y', 200) as y from generate_series(1, 100) x; \
         insert into defined values ({round}, 100); commit"
    ))?;
    sql.execute(&format!(
        "begin; create table lost_{round}(x int); insert into defined values (-{round} - 1, 0); rollback"
    ))?;
    match round {
        0 | 1 => Ok(()),
        _ if round.is_multiple_of(2) => {
            let emptied = round - 1;
            sql.execute(&format!(
                "begin; truncate side_{emptied}; update defined set rows = 0 where n = {emptied}; commit"
            ))
        }
        _ => {
            let dropped = round - 3;
            sql.execute(&format!(
                "begin; drop table side_{dropped}; delete from defined where n = {dropped}; commit"
            ))
        }
    }
}

/// The tables that are there are those that are said to be there.
pub fn judge_definitions(restored: &Cluster) -> Result<()> {
    let sql = restored.sql()?;
    let list = |query: &str| -> Result<Vec<Vec<Option<String>>>> { sql.rows(query) };
    let said = list("select 'side_' || n, rows::text from defined order by 1")?;
    let there = list("select relname::text from pg_class where relname ~ '^(side|lost)_' order by 1")?;
    let names: Vec<_> = said.iter().map(|row| row[..1].to_vec()).collect();
    ensure!(names == there, "tables {there:?}, said were {names:?}");
    for row in &said {
        let [Some(name), Some(rows)] = &row[..] else { continue };
        let found = sql.value(&format!("select count(*)::text from {name}"))?;
        ensure!(found == *rows, "{name} has {found} rows, said were {rows}");
    }
    Ok(())
}
