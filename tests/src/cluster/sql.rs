//! A blocking SQL connection over the Unix socket.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow};

use crate::runtime;

/// No statement of a scenario takes this long; one that does is stuck.
const STATEMENT_LIMIT: Duration = Duration::from_secs(120);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Everything goes through the simple protocol: rows are text, as `psql`
/// shows them.
pub struct Sql {
    client: SqlClient,
}

impl std::fmt::Debug for Sql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sql")
    }
}

impl Sql {
    pub fn connect(connection: &str) -> Result<Sql> {
        runtime::block_on(async { Ok(Sql { client: SqlClient::connect(connection).await? }) })
    }

    pub fn execute(&self, statements: &str) -> Result<()> {
        self.messages(statements).map(drop)
    }

    /// The first column of the first row; NULL and no row are errors.
    pub fn value(&self, query: &str) -> Result<String> {
        let rows = self.rows(query)?;
        let first = rows.first().and_then(|row| row.first().cloned().flatten());
        first.with_context(|| format!("no value from: {query}"))
    }

    /// All rows as text, `None` for NULL.
    pub fn rows(&self, query: &str) -> Result<Vec<Vec<Option<String>>>> {
        Ok(self.messages(query)?.iter().map(cells).collect())
    }

    fn messages(&self, query: &str) -> Result<Vec<SimpleQueryRow>> {
        let messages = runtime::block_on(self.client.messages(query))?;
        Ok(messages.into_iter().filter_map(row).collect())
    }
}

/// The asynchronous form, for the ledger's clients.
pub(crate) struct SqlClient {
    client: Client,
}

impl SqlClient {
    pub(crate) async fn connect(connection: &str) -> Result<SqlClient> {
        Ok(SqlClient { client: connect(connection).await? })
    }

    pub(crate) async fn run(&self, statements: &str) -> Result<()> {
        self.messages(statements).await.map(drop)
    }

    pub(crate) async fn messages(&self, statements: &str) -> Result<Vec<SimpleQueryMessage>> {
        let answer = tokio::time::timeout(STATEMENT_LIMIT, self.client.simple_query(statements)).await;
        let messages = answer.context("the statement did not end")?;
        messages.map_err(|error| describe(&error)).with_context(|| format!("run: {statements}"))
    }
}

/// Connects on the current runtime; the connection's task ends with the client.
async fn connect(connection: &str) -> Result<Client> {
    let connecting = tokio::time::timeout(CONNECT_LIMIT, tokio_postgres::connect(connection, NoTls));
    let (client, driver) = connecting
        .await
        .context("the server does not answer")?
        .map_err(|error| describe(&error))
        .with_context(|| format!("connect to {connection}"))?;
    tokio::spawn(async move {
        // An error here is also an error of the client, which reports it.
        let _ = driver.await;
    });
    Ok(client)
}

fn row(message: SimpleQueryMessage) -> Option<SimpleQueryRow> {
    match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }
}

fn cells(row: &SimpleQueryRow) -> Vec<Option<String>> {
    (0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()
}

/// tokio-postgres says only "db error"; the server's words are in its source.
fn describe(error: &tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(db) => anyhow::anyhow!("{}: {}", db.severity(), db.message()),
        None => anyhow::anyhow!("{error}"),
    }
}
