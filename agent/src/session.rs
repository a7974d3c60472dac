//! SQL: one connection to the cluster's server, its settings, the start and
//! stop of a backup, the position of WAL and of the archiver.

mod archiving;
mod connection;
mod error;
mod flushed;
mod online_backup;
mod server;

use std::path::Path;

use tokio::sync::watch;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row};

pub use archiving::{ArchiverStatistics, WalFile};
pub use connection::holds_password;
pub use error::SessionError;
pub use flushed::Flushed;
pub use online_backup::{Position, StoppedBackup};
pub use server::Server;

/// An open session. The backup that was started in it ends with it.
pub struct Session {
    client: Client,
    /// Why the connection ended; `None` while it lives.
    ended: watch::Receiver<Option<String>>,
    /// What the server said about itself when the session was opened.
    pub server: Server,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Session {
    /// Connects and asks the server about itself. `connection` is
    /// `[postgres] connection`; without it the server is the one that runs in
    /// `data_directory`, by its local socket.
    pub async fn open(
        connection: Option<&str>,
        data_directory: Option<&Path>,
    ) -> Result<Session, SessionError> {
        let config = connection::parameters(connection, data_directory)?;
        let (client, ended) = connect(&config).await?;
        prepare(&client).await?;
        let server = Server::ask(&client).await?;
        Ok(Session { client, ended, server })
    }

    /// Waits until the connection ends and returns why. Never returns while
    /// it lives, so that it can stand beside work in a `select!`.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the connection was closed".into(),
        }
    }

    /// Runs a statement that returns exactly one row; `doing` completes
    /// "could not …" when it fails.
    async fn row(&self, doing: &str, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Row, SessionError> {
        self.client.query_one(sql, values).await.map_err(|error| SessionError::statement(doing, &error))
    }

    /// Runs a statement without a result.
    async fn run(&self, doing: &str, sql: &str) -> Result<(), SessionError> {
        self.client.batch_execute(sql).await.map_err(|error| SessionError::statement(doing, &error))
    }
}

/// Connects as the user that is asked for; when none is, as the one who runs
/// this process, and where the cluster has no such role, as `postgres`.
async fn connect(config: &Config) -> Result<(Client, watch::Receiver<Option<String>>), SessionError> {
    let attempt = config.connect(NoTls).await;
    let no_such_role =
        |error: &tokio_postgres::Error| error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    let (client, driver) = match attempt {
        Err(error) if config.get_user().is_none() && no_such_role(&error) => {
            let first = unreachable(config, &error);
            let postgres = config.clone().user("postgres").connect(NoTls).await;
            postgres.map_err(|_| first)?
        }
        other => other.map_err(|error| unreachable(config, &error))?,
    };
    let (sender, ended) = watch::channel(None);
    tokio::spawn(async move {
        let reason = match driver.await {
            Ok(()) => "the connection was closed".to_owned(),
            Err(error) => error::explain(&error),
        };
        let _ = sender.send(Some(reason));
    });
    Ok((client, ended))
}

fn unreachable(config: &Config, error: &tokio_postgres::Error) -> SessionError {
    SessionError::Unreachable {
        error: format!(
            "could not connect to the server at {}: {}",
            connection::describe(config),
            error::explain(error)
        ),
        hint: Some(
            "is PostgreSQL running, and does [postgres] connection name it and a role that may log in?"
                .into(),
        ),
    }
}

/// A role's or database's defaults must not change what the statements here
/// mean, nor cut them short.
async fn prepare(client: &Client) -> Result<(), SessionError> {
    // The session waits in silence while files are read. Which timeouts there are depends on the version.
    let sql = "SET search_path = pg_catalog; SET datestyle = 'ISO, YMD'; \
               SET default_transaction_read_only = off; SET synchronous_commit = on; \
               SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN \
               ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_session_timeout', \
               'idle_in_transaction_session_timeout')";
    client.batch_execute(sql).await.map_err(|error| SessionError::statement("set up the session", &error))
}
