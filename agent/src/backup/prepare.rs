//! What is known and decided before a backup starts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use walpoint_archive::config::ArchiveUrl;
use walpoint_archive::manifest::CONFIG_FOLDER;
use walpoint_archive::{Archive, WriterId};
use walpoint_pitr::recovery_settings::STANDBY_SIGNAL;

use super::configuration::{self, ConfigurationFile};
use super::files::Scope;
use super::{gate, histories, left_out};
use crate::config::{Connection, Settings};
use crate::data_directory::{self, DataDirectory};
use crate::exit::Failure;
use crate::session::Session;
use crate::{open, writer_id};

/// Everything that is known before the backup starts.
pub struct Preparation {
    pub session: Session,
    /// By its real path.
    pub directory: DataDirectory,
    pub archive: Arc<Archive>,
    pub writer: WriterId,
    pub configuration: Vec<ConfigurationFile>,
}

/// Opens everything and lets pass only what can become a backup.
///
/// # Errors
/// Status 2 when the server does not archive, 4 when it is another cluster's.
pub async fn prepare(settings: &Settings) -> Result<Preparation, Failure> {
    let mut directory = data_directory::configured(settings)?;
    directory.path = real(&directory.path);
    let connection = settings.postgres.connection.as_ref().map(Connection::reveal);
    let session = Session::open(connection, Some(&directory.path)).await?;
    session.server.must_own(&directory.path, &directory.control)?;
    gate::must_be_a_release(&session.server, directory.control.major)?;
    let follows = directory.path.join(STANDBY_SIGNAL).exists();
    for doubt in gate::pass(&session.server, follows)? {
        tracing::warn!("{doubt}");
    }
    must_not_hold_the_archive(settings, &directory.path)?;
    left_out::must_be_whole(&session, &directory.path, "back up").await?;
    let archive =
        open::archive_to_build_on(settings, directory.control.system_identifier, open::Patience::Command)
            .await?;
    archive.ensure_cluster(&directory.as_cluster()?).await?;
    histories::must_be_somewhere(&archive, &directory.path.join("pg_wal"), directory.control.timeline)
        .await?;
    // The store has answered: from here on hours of work are not given up for an outage of minutes.
    let archive = open::again(settings, &archive, open::Patience::Work).await?;
    let server = &session.server;
    let roots: Vec<PathBuf> =
        [&server.config_file, &server.hba_file, &server.ident_file].into_iter().flatten().cloned().collect();
    let configuration = configuration::outside(&directory.path, &roots)
        .map_err(|error| {
            Failure::failed(error.to_string())
                .with_hint("the backup keeps the configuration files outside the data directory too: let this user read them")
        })?;
    let writer = writer_id::of(&directory.path);
    Ok(Preparation { session, directory, archive: Arc::new(archive), writer, configuration })
}

/// A backup that holds the archive it goes to would never end.
fn must_not_hold_the_archive(settings: &Settings, data_directory: &Path) -> Result<(), Failure> {
    match &settings.archive()?.url {
        ArchiveUrl::Dir(path) if real(path).starts_with(data_directory) => Err(Failure::usage(format!(
            "could not back up into \"{}\": it lies in the data directory",
            path.display()
        ))
        .with_hint("set [archive] url to a place outside, best on another machine")),
        _ => Ok(()),
    }
}

/// Without symbolic links, where that can be told.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

impl Preparation {
    /// What the files are chosen by.
    pub fn scope(&self) -> Scope {
        let Preparation { session, directory, configuration, .. } = self;
        let control = &directory.control;
        let major = control.major.map_or(0, |major| major.number());
        let inside = |path: &PathBuf| path.strip_prefix(&directory.path).map(Path::to_path_buf).ok();
        let temporary_statistics = session.server.stats_temp_directory.as_ref();
        let emptied = temporary_statistics.map(|path| directory.path.join(path)).as_ref().and_then(inside);
        // What an earlier restore put there has its successor in what is kept
        // from outside now.
        let is_replaced = !configuration.is_empty() && !self.uses_restored_configuration();
        Scope {
            data_directory: directory.path.clone(),
            tablespace_version: format!("PG_{major}_{}", control.catalog_version),
            major,
            emptied: emptied.into_iter().collect(),
            left: if is_replaced { vec![CONFIG_FOLDER.into()] } else { Vec::new() },
        }
    }

    fn uses_restored_configuration(&self) -> bool {
        let Preparation { session, directory, .. } = self;
        let restored = directory.path.join(CONFIG_FOLDER);
        let server = &session.server;
        [&server.config_file, &server.hba_file, &server.ident_file]
            .into_iter()
            .flatten()
            .any(|file| file.starts_with(&restored))
    }
}
