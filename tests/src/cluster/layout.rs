//! Where a cluster's files lie, and what is written into its configuration.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::options::{ClusterOptions, LayoutKind};
use crate::programs::repository;
use crate::scratch::{make_private_dir, write_private};
use crate::user::User;

#[derive(Debug, Clone)]
pub struct Layout {
    pub kind: LayoutKind,
    pub data: PathBuf,
    /// Holds postgresql.conf: the data directory, or the one beside it.
    pub configuration: PathBuf,
    pub sockets: PathBuf,
    pub log: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path, kind: LayoutKind) -> Result<Layout> {
        let data = root.join("data");
        let configuration = match kind {
            LayoutKind::Plain => data.clone(),
            LayoutKind::Debian => root.join("etc"),
        };
        if kind == LayoutKind::Debian {
            make_private_dir(&configuration)?;
        }
        let sockets = root.join("s");
        make_private_dir(&sockets)?;
        Ok(Layout { kind, data, configuration, sockets, log: root.join("server.log") })
    }

    /// A restored directory has its configuration inside, whatever layout the
    /// original had.
    pub(super) fn of_restored(root: &Path, data: &Path) -> Result<Layout> {
        let sockets = root.join("s");
        make_private_dir(&sockets)?;
        let (data, configuration) = (data.to_owned(), data.to_owned());
        Ok(Layout { kind: LayoutKind::Plain, data, configuration, sockets, log: root.join("server.log") })
    }

    /// Turns what `initdb` wrote into the wanted layout, and adds the
    /// harness's settings, the postgres-conf fragment for pg_hba.conf first.
    pub(super) fn write_configuration(&self, root: &Path, options: &ClusterOptions) -> Result<()> {
        if self.kind == LayoutKind::Debian {
            self.move_configuration_out()?;
        }
        self.append_configuration(&settings(&self.sockets))?;
        self.append_configuration(&options.configuration)?;
        let fragment = read_fragment("pg_hba.conf")?;
        let hba = format!(
            "{fragment}\n# The harness itself.\nlocal all postgres trust\nlocal replication all trust\n"
        );
        write_private(&self.configuration.join("pg_hba.conf"), &hba)?;
        let user = &User::current()?.name;
        write_private(&self.configuration.join("pg_ident.conf"), &format!("walpoint {user} walpoint\n"))?;
        make_private_dir(&root.join("conf"))
    }

    /// Debian's `pg_createcluster`: the three files and conf.d lie in /etc,
    /// and postgresql.conf says where everything is.
    fn move_configuration_out(&self) -> Result<()> {
        for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
            let target = self.configuration.join(name);
            rustix::fs::rename(self.data.join(name), &target)
                .with_context(|| format!("move {name} out of the data directory"))?;
        }
        make_private_dir(&self.configuration.join("conf.d"))?;
        self.append_configuration(&format!(
            "data_directory = '{}'\nhba_file = '{etc}/pg_hba.conf'\nident_file = '{etc}/pg_ident.conf'\n\
             include_dir = 'conf.d'\n",
            self.data.display(),
            etc = self.configuration.display()
        ))
    }

    /// Includes postgres-conf/archiving.conf, the very file that users copy,
    /// with the binary's path and configuration put in, as its comment says.
    pub(super) fn include_archiving(&self, hook_prefix: &str) -> Result<()> {
        let text = read_fragment("archiving.conf")?;
        let target = match self.kind {
            LayoutKind::Plain => self.sockets.with_file_name("conf").join("archiving.conf"),
            LayoutKind::Debian => self.configuration.join("conf.d/archiving.conf"),
        };
        write_private(&target, &text.replace("= 'walpoint ", &format!("= '{hook_prefix} ")))?;
        match self.kind {
            LayoutKind::Plain => {
                self.append_configuration(&format!("include_if_exists '{}'\n", target.display()))
            }
            LayoutKind::Debian => Ok(()),
        }
    }

    pub(super) fn append_configuration(&self, lines: &str) -> Result<()> {
        let path = self.configuration.join("postgresql.conf");
        let mut file = OpenOptions::new()
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        writeln!(file, "{lines}").with_context(|| format!("append to {}", path.display()))
    }
}

fn settings(sockets: &Path) -> String {
    // The small sizes keep a cluster cheap; durability settings stay as they
    // are by default, because the promises under test rest on them.
    format!(
        "# The harness.\nlisten_addresses = ''\nport = 5432\nunix_socket_directories = '{}'\n\
         max_connections = 30\nshared_buffers = '16MB'\nmax_prepared_transactions = 10\n\
         track_commit_timestamp = on\nlog_min_messages = info\nlog_line_prefix = '%m [%p] %b '\n\
         log_timezone = 'UTC'\ntimezone = 'UTC'\nwal_keep_size = 0\nautovacuum = off\n",
        sockets.display()
    )
}

fn read_fragment(name: &str) -> Result<String> {
    let path = repository().join("postgres-conf").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
