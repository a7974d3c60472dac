//! What must hold in every database of a restored cluster, whatever was in it.

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, SUPERUSER, Sql};

/// A connection to one database.
pub fn database(cluster: &Cluster, name: &str) -> Result<Sql> {
    Sql::connect(&cluster.connection(SUPERUSER).replace("dbname=postgres", &format!("dbname={name}")))
}

/// Every table's pages say the truth of visibility, every index finds every row, in every database.
pub fn must_be_sound(cluster: &Cluster) -> Result<()> {
    let names = cluster.sql()?.rows("select datname from pg_database where datallowconn order by 1")?;
    for name in names.into_iter().flatten().flatten() {
        database_is_sound(&database(cluster, &name)?).with_context(|| format!("database {name}"))?;
    }
    Ok(())
}

fn database_is_sound(sql: &Sql) -> Result<()> {
    sql.execute("create extension if not exists amcheck; create extension if not exists pg_visibility")?;
    let tables = "from pg_class where relkind in ('r', 'm', 't') and relpersistence = 'p'";
    let wrong = |what: &str| {
        sql.value(&format!("select coalesce(sum((select count(*) from {what}(oid))), 0) {tables}"))
    };
    ensure!(wrong("pg_check_visible")? == "0", "rows on all-visible pages are not visible to all");
    ensure!(wrong("pg_check_frozen")? == "0", "rows on all-frozen pages are not frozen");
    if sql.value("select current_setting('server_version_num')::int >= 140000")? == "t" {
        ensure!(wrong("verify_heapam")? == "0", "a table's pages are damaged");
    }
    sql.execute(
        "select bt_index_check(i.indexrelid, true) from pg_index i join pg_class c on c.oid = i.indexrelid
         where c.relam = (select oid from pg_am where amname = 'btree') and c.relpersistence = 'p'
         and c.relkind = 'i' and i.indisvalid",
    )
}

/// Sequential and index-only scans count the same rows of a table with an indexed column `n`.
pub fn counts_agree(sql: &Sql, table: &str) -> Result<String> {
    let count = |settings: &str| -> Result<String> {
        sql.execute(&format!("reset all; {settings}"))?;
        sql.value(&format!("select count(*) from {table} where n > -1"))
    };
    let sequential =
        count("set enable_indexscan = off; set enable_indexonlyscan = off; set enable_bitmapscan = off")?;
    let index_only =
        count("set enable_seqscan = off; set enable_indexscan = off; set enable_bitmapscan = off")?;
    let plan = sql.rows(&format!("explain select count(*) from {table} where n > -1"))?;
    ensure!(format!("{plan:?}").contains("Index Only Scan"), "no index-only scan: {plan:?}");
    ensure!(
        sequential == index_only,
        "{table}: {sequential} rows by a sequential scan, {index_only} by the index alone"
    );
    Ok(sequential)
}
