//! One client of the ledger: transactions of every form, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_postgres::SimpleQueryMessage;

use super::Orders;
use super::notes::{Change, Notes};
use crate::cluster::SqlClient;

/// How a transaction ends.
#[derive(Debug, Clone, Copy)]
enum Form {
    Commit,
    Rollback,
    /// A savepoint kept and one rolled back inside a commit.
    Savepoints,
    CommitPrepared,
    RollbackPrepared,
}

pub(super) struct Client {
    number: u32,
    random: StdRng,
    next_id: i64,
    /// Own committed rows: nobody else touches them, so a client's view of
    /// them never depends on the others.
    rows: Vec<i64>,
    notes: Arc<Notes>,
}

impl Client {
    pub(super) fn new(number: u32, seed: u64, notes: Arc<Notes>) -> Client {
        let random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number)));
        let next_id = i64::from(number) * 1_000_000_000;
        Client { number, random, next_id, rows: Vec::new(), notes }
    }

    pub(super) async fn run(mut self, connection: String, orders: Arc<Orders>) -> Result<()> {
        let sql = SqlClient::connect(&connection).await?;
        while !orders.stop.load(Ordering::Relaxed) {
            if orders.pause.load(Ordering::Relaxed) {
                wait_to_go_on(&orders).await;
                continue;
            }
            self.transaction(&sql).await?;
        }
        Ok(())
    }

    async fn transaction(&mut self, sql: &SqlClient) -> Result<()> {
        let form = self.choose_form();
        sql.run("begin").await?;
        let mut changes = self.write(sql).await?;
        if let Form::Savepoints = form {
            sql.run("savepoint kept").await?;
            changes.extend(self.write(sql).await?);
            sql.run("release kept; savepoint lost").await?;
            self.write(sql).await?;
            sql.run("rollback to lost").await?;
        }
        let xid = current_xid(sql).await?;
        match form {
            Form::Commit | Form::Savepoints => self.commit(sql, xid, changes, None, "commit").await,
            Form::Rollback => sql.run("rollback").await,
            Form::CommitPrepared => {
                let name = format!("ledger-{xid}");
                // Noted before PREPARE: from then on the transaction can
                // outlive this client.
                self.notes.note(xid, changes.clone(), Some(name.clone()));
                sql.run(&format!("prepare transaction '{name}'")).await?;
                let commit = format!("commit prepared '{name}'");
                self.commit(sql, xid, changes, Some(name), &commit).await
            }
            Form::RollbackPrepared => {
                let name = format!("ledger-{xid}");
                self.notes.note(xid, changes, Some(name.clone()));
                sql.run(&format!("prepare transaction '{name}'")).await?;
                sql.run(&format!("rollback prepared '{name}'")).await
            }
        }
    }

    async fn commit(
        &mut self,
        sql: &SqlClient,
        xid: u32,
        changes: Vec<Change>,
        prepared: Option<String>,
        statement: &str,
    ) -> Result<()> {
        self.notes.note(xid, changes.clone(), prepared);
        sql.run(statement).await?;
        self.notes.acknowledge(xid);
        for change in changes {
            match change {
                Change::Put { id, .. } if !self.rows.contains(&id) => self.rows.push(id),
                Change::Put { .. } => {}
                Change::Delete { id } => self.rows.retain(|row| *row != id),
            }
        }
        // A long list would only slow the client down.
        if self.rows.len() > 200 {
            self.rows.drain(..100);
        }
        Ok(())
    }

    /// One insert, update or delete of an own row.
    async fn write(&mut self, sql: &SqlClient) -> Result<Vec<Change>> {
        let old = match self.rows.len() {
            0 => None,
            count => self.rows.get(self.random.random_range(0..count)).copied(),
        };
        match (self.random.random_range(0..10), old) {
            (0, Some(id)) => {
                sql.run(&format!("delete from ledger where id = {id}")).await?;
                // Not written twice in one transaction after the delete.
                self.rows.retain(|row| *row != id);
                Ok(vec![Change::Delete { id }])
            }
            (1..=2, Some(id)) => self.put(sql, id).await,
            _ => {
                self.next_id += 1;
                self.put(sql, self.next_id).await
            }
        }
    }

    async fn put(&mut self, sql: &SqlClient, id: i64) -> Result<Vec<Change>> {
        let (number, word) = (self.number, self.random.random::<u64>());
        let payload = format!("{word:016x}").repeat(self.random.random_range(1..12));
        sql.run(&format!(
            "insert into ledger values ({id}, {number}, '{payload}') \
             on conflict (id) do update set payload = excluded.payload"
        ))
        .await?;
        Ok(vec![Change::Put { id, client: number, payload }])
    }

    fn choose_form(&mut self) -> Form {
        match self.random.random_range(0..20) {
            0..=1 => Form::Rollback,
            2..=4 => Form::Savepoints,
            5 => Form::CommitPrepared,
            6 => Form::RollbackPrepared,
            _ => Form::Commit,
        }
    }
}

async fn wait_to_go_on(orders: &Orders) {
    orders.paused.fetch_add(1, Ordering::Relaxed);
    while orders.pause.load(Ordering::Relaxed) && !orders.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    orders.paused.fetch_sub(1, Ordering::Relaxed);
}

/// The top-level transaction's 32-bit xid, as WAL records carry it.
async fn current_xid(sql: &SqlClient) -> Result<u32> {
    let messages = sql.messages("select pg_current_xact_id()::text").await?;
    let text = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    let full: u64 = text.context("no transaction id")?.parse()?;
    Ok((full & 0xFFFF_FFFF) as u32)
}
