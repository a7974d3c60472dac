//! Real PostgreSQL clusters: made by `initdb`, started as the dropped user,
//! killed in the ways that servers die.

mod layout;
mod options;
mod server;
mod sql;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use layout::Layout;
pub use options::{ClusterOptions, LayoutKind};
pub use server::{Server, Stop};
pub use sql::Sql;
pub(crate) use sql::SqlClient;

use crate::process::{Outcome, run};
use crate::programs::Postgres;
use crate::scratch::Scratch;
use crate::user::User;
use crate::wait;
use crate::walpoint::{ArchivePlace, Walpoint};

/// The superuser of every cluster. The harness comes in by `trust`; walpoint
/// comes in as its own role by `peer`, as postgres-conf/pg_hba.conf says.
pub const SUPERUSER: &str = "postgres";

const INITDB_LIMIT: Duration = Duration::from_secs(120);
/// A server that is not up after this long is a failure, not slowness.
pub const START_LIMIT: Duration = Duration::from_secs(120);

/// One cluster, stopped when dropped.
#[derive(Debug)]
pub struct Cluster {
    pub postgres: Postgres,
    pub layout: Layout,
    options: ClusterOptions,
    server: Option<Server>,
    scratch: Scratch,
}

impl Cluster {
    /// Makes a cluster with `initdb`. Not started; archiving is off until
    /// [`Cluster::archive_to`].
    pub fn init(postgres: &Postgres, options: ClusterOptions) -> Result<Cluster> {
        let scratch = Scratch::new("pg")?;
        let layout = Layout::new(scratch.path(), options.layout)?;
        initdb(postgres, &layout, &options)?;
        layout.write_configuration(scratch.path(), &options)?;
        Ok(Cluster { postgres: postgres.clone(), layout, options, server: None, scratch })
    }

    /// Takes over a directory that `walpoint restore` filled, as the server
    /// `like` would run it: same program, same environment, its own socket.
    pub fn restored(data: &Path, like: &Cluster) -> Result<Cluster> {
        let scratch = Scratch::new("re")?;
        let options = like.options.clone();
        let layout = Layout::of_restored(scratch.path(), data)?;
        Ok(Cluster { postgres: like.postgres.clone(), layout, options, server: None, scratch })
    }

    /// Makes walpoint for this cluster and turns archiving on with the files
    /// of postgres-conf/. Takes effect at the next start.
    pub fn archive_to(&mut self, place: &ArchivePlace) -> Result<Walpoint> {
        let walpoint = Walpoint::new(&self.scratch, place, Some(self))?;
        self.layout.include_archiving(&walpoint.hook_prefix())?;
        self.options.environment.extend(place.environment());
        Ok(walpoint)
    }

    /// Environment variables that the server process gets from now on.
    pub fn set_environment(&mut self, variables: &[(String, String)]) {
        self.options.environment.extend_from_slice(variables);
    }

    pub fn data(&self) -> &Path {
        &self.layout.data
    }

    pub fn socket_directory(&self) -> &Path {
        &self.layout.sockets
    }

    /// A directory of the user's that goes away with the cluster.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Appends to the configuration file; the last line of a setting wins.
    pub fn configure(&self, lines: &str) -> Result<()> {
        self.layout.append_configuration(lines)
    }

    /// Appends to postgresql.auto.conf, which overrides everything else: what
    /// an operator does who edits a restored cluster's settings.
    pub fn override_settings(&self, lines: &str) -> Result<()> {
        let path = self.data().join("postgresql.auto.conf");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        crate::scratch::write_private(&path, &format!("{text}\n{lines}\n"))
    }

    /// Starts the server and waits until it takes commands, reading and
    /// writing.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_open(START_LIMIT)?;
        self.make_role()
    }

    /// Starts the server without waiting.
    pub fn launch(&mut self) -> Result<()> {
        if self.is_running()? {
            bail!("the server in {} runs already", self.data().display());
        }
        self.server = Some(Server::start(&self.postgres, &self.layout, &self.options.environment)?);
        Ok(())
    }

    /// Starts a restored directory and waits for the end of its recovery.
    pub fn start_expect_ready(&mut self, limit: Duration) -> Result<()> {
        self.launch()?;
        self.wait_open(limit)
    }

    /// Starts a restored directory that must refuse to open: waits until the
    /// server has gone by itself, fails if it ever opens, returns its log.
    pub fn start_expect_fatal(&mut self, limit: Duration) -> Result<String> {
        self.launch()?;
        let opened = wait::until("the server to give up", limit, || {
            if !self.is_running()? {
                return Ok(Some(false));
            }
            Ok(self.is_open().then_some(true))
        })?;
        let log = self.log();
        if opened {
            self.stop(Stop::Immediate)?;
            bail!("the server opened although it must not\n{log}");
        }
        Ok(log)
    }

    /// Waits until the log has this text.
    pub fn wait_log(&mut self, text: &str, limit: Duration) -> Result<()> {
        wait::until_true(&format!("the log to say: {text}"), limit, || {
            let said = self.log().contains(text);
            if !said && !self.is_running()? {
                bail!("the server ended\n{}", tail(&self.log(), 60));
            }
            Ok(said)
        })
    }

    /// Waits until recovery is over and the server writes.
    pub fn wait_open(&mut self, limit: Duration) -> Result<()> {
        wait::until_true("the server to open", limit, || {
            if self.is_open() {
                return Ok(true);
            }
            if !self.is_running()? {
                bail!("the server ended instead of opening\n{}", self.log());
            }
            Ok(false)
        })
        .with_context(|| format!("server log:\n{}", tail(&self.log(), 60)))
    }

    /// True when the server answers and is not in recovery.
    pub fn is_open(&self) -> bool {
        self.sql()
            .and_then(|sql| sql.value("select (not pg_is_in_recovery())::text"))
            .is_ok_and(|v| v == "true")
    }

    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.server {
            Some(server) => server.is_running(),
            None => Ok(false),
        }
    }

    /// Stops the server and waits for its end.
    pub fn stop(&mut self, how: Stop) -> Result<()> {
        match self.server.take() {
            Some(server) => server.stop(how),
            None => Ok(()),
        }
    }

    /// `kill -9` of the postmaster; its children notice and end too.
    pub fn kill(&mut self) -> Result<()> {
        self.stop(Stop::Kill)
    }

    /// A new connection as superuser to the database `postgres`.
    pub fn sql(&self) -> Result<Sql> {
        Sql::connect(&self.connection(SUPERUSER))
    }

    /// Runs statements on a connection of their own.
    pub fn execute(&self, statements: &str) -> Result<()> {
        self.sql()?.execute(statements)
    }

    /// The first column of the first row, as text.
    pub fn value(&self, query: &str) -> Result<String> {
        self.sql()?.value(query)
    }

    /// A connection string for the Unix socket.
    pub fn connection(&self, user: &str) -> String {
        format!("host={} port=5432 user={user} dbname=postgres", self.layout.sockets.display())
    }

    /// Everything that the server has logged.
    pub fn log(&self) -> String {
        std::fs::read(&self.layout.log).map_or_else(
            |error| format!("(no log: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Runs one of the cluster's own client programs against it.
    pub fn client_tool(&self, name: &str, args: &[&str], limit: Duration) -> Result<Outcome> {
        let mut command = User::current()?.command(&self.postgres.tool(name));
        command.env("PGHOST", &self.layout.sockets).env("PGPORT", "5432").env("PGUSER", SUPERUSER);
        command.env("PGDATABASE", "postgres").current_dir(self.scratch.path()).args(args);
        run(command, limit)?.success()
    }

    /// Switches WAL and waits until PostgreSQL knows the segment as archived.
    /// Returns its name.
    pub fn switch_and_wait_archived(&self, limit: Duration) -> Result<String> {
        let sql = self.sql()?;
        // An empty segment is not switched: make sure that there is a record.
        sql.execute("select pg_create_restore_point('switch')")?;
        let segment = sql.value("select pg_walfile_name(pg_switch_wal())")?;
        wait::until_true(&format!("{segment} to be archived"), limit, || {
            let done = self.data().join(format!("pg_wal/archive_status/{segment}.done"));
            let last = sql.value("select coalesce(last_archived_wal, '') from pg_stat_archiver")?;
            Ok(done.exists() || last.get(..24).is_some_and(|last| last >= segment.as_str()))
        })
        .with_context(|| format!("server log:\n{}", tail(&self.log(), 30)))?;
        Ok(segment)
    }

    fn make_role(&self) -> Result<()> {
        let file = crate::programs::repository().join("postgres-conf/role.sql");
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        self.execute(&text)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Best effort: the keeper ends what this could not.
        let _ = self.stop(Stop::Immediate);
    }
}

/// The last `lines` of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn initdb(postgres: &Postgres, layout: &Layout, options: &ClusterOptions) -> Result<()> {
    let mut command = User::current()?.command(&postgres.tool("initdb"));
    command.arg("-D").arg(&layout.data).args(["-U", SUPERUSER, "-A", "trust", "--no-sync"]);
    command.args(["--locale=C", "--encoding=UTF8"]);
    command.arg(format!("--wal-segsize={}", options.wal_segsize_mb));
    match (options.checksums, postgres.major) {
        (true, _) => command.arg("--data-checksums"),
        // 18 turned the default round.
        (false, 18..) => command.arg("--no-data-checksums"),
        (false, _) => &mut command,
    };
    command.current_dir("/");
    run(command, INITDB_LIMIT)?.success().context("make a cluster")?;
    Ok(())
}

/// Where a file of the cluster's configuration lies, for tests that edit it.
pub fn configuration_file(cluster: &Cluster) -> PathBuf {
    cluster.layout.configuration.join("postgresql.conf")
}
