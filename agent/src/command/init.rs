//! `init`: tries the archive, writes a commented configuration, and shows or sets what PostgreSQL needs.
//!
//! The configuration is written last: an archive that does not work leaves nothing behind that a second
//! `init` would have to refuse to overwrite.

use crate::cli::{GlobalArgs, InitArgs};
use crate::config::keys::Key;
use crate::config::{self, Settings, environment, template};
use crate::exit::{Ending, Failure};
use crate::session::{Session, holds_password};
use crate::{data_directory, open, output, postgres_command};
use serde_json::json;
use std::path::{Path, PathBuf};
use trial::Ability;
use walpoint_archive::config::ArchiveUrl;
use walpoint_archive::durable::{self, Placed, Placement};
use walpoint_archive::store::dir::create_dir_archive;
use walpoint_pitr::postgresql_conf;

mod trial;

const ARCHIVE_TIMEOUT: &str = "archive_timeout";

/// Carries out `init`.
pub async fn run(global: &GlobalArgs, args: &InitArgs) -> Result<Ending, Failure> {
    let file = configuration_file(global)?;
    let (settings, text) = configuration(&file, args)?;
    data_directory::refuse_root_without(settings.postgres.data_directory.as_deref())?;
    open::refuse_root(&settings)?;
    make_directory(&settings).await?;
    let store = open::store(&settings, open::Patience::Question).await?;
    let ability = trial::run(store.as_ref()).await?;
    if let Some(text) = &text {
        write(&file, text)?;
    }
    let mut lines = postgresql_lines(&file)?;
    let applied = if args.apply { Some(apply(&settings, &mut lines).await?) } else { None };
    let said = Said { file: &file, written: text.is_some(), settings: &settings, ability, lines, applied };
    output::result(&if global.json { said.json()? } else { said.text()? })?;
    Ok(Ending::DONE)
}

fn configuration_file(global: &GlobalArgs) -> Result<PathBuf, Failure> {
    let named = global.config.clone().or_else(environment::config_file);
    let path = named.unwrap_or_else(|| config::DEFAULT_FILE.into());
    std::path::absolute(&path)
        .map_err(|error| Failure::usage(format!("could not use \"{}\" as a path: {error}", path.display())))
}

/// The settings in use and, when they are still to be written, their text.
fn configuration(file: &Path, args: &InitArgs) -> Result<(Settings, Option<String>), Failure> {
    let there = file.symlink_metadata().is_ok();
    if there && (args.url.is_some() || args.data_directory.is_some()) {
        return Err(Failure::usage(format!("could not write \"{}\": it exists already", file.display()))
            .with_hint("edit that file, or name another one with --config"));
    }
    if there {
        return Ok((Settings::load(Some(file))?, None));
    }
    let data_directory = args.data_directory.as_deref().map(absolute_text).transpose()?;
    let text = template::render(|key| match (key.section, key.name) {
        ("archive", "url") if args.url.is_some() => args.url.clone(),
        ("postgres", "data_directory") if data_directory.is_some() => data_directory.clone(),
        _ => from_environment(key),
    });
    let settings = Settings::from_text(file, &text)?;
    settings.archive().map_err(|failure| failure.with_hint("name it with --url"))?;
    Ok((settings, Some(text)))
}

/// What the environment says goes into the file: the server that runs the hooks has another environment.
/// But for a password: who kept it out of files did so on purpose, and no hook connects to the server.
fn from_environment(key: &Key) -> Option<String> {
    let value = std::env::var(key.variable()).ok().filter(|value| !value.is_empty())?;
    if (key.section, key.name) == ("postgres", "connection") && holds_password(&value) {
        tracing::warn!(
            "{} is not written to the configuration because it holds a password: backup, check and take-over need the variable as init did",
            key.variable()
        );
        return None;
    }
    Some(value)
}

fn absolute_text(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).ok();
    absolute.as_deref().and_then(Path::to_str).map(str::to_owned).ok_or_else(|| {
        Failure::usage(format!("could not use \"{}\" as the data directory: not UTF-8", path.display()))
    })
}

/// Elsewhere a directory that is absent may be a disk that is not mounted; here it is a new archive.
async fn make_directory(settings: &Settings) -> Result<(), Failure> {
    let ArchiveUrl::Dir(path) = &settings.archive()?.url else { return Ok(()) };
    create_dir_archive(path).await.map_err(|error| {
        let hint = error.hint.clone();
        Failure::from(error)
            .with_hint("name a directory that is yours, or in one that is, with --url file:///directory")
            .with_hint_of(hint)
    })
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let placed = durable::write_file(file, text.as_bytes(), durable::FILE_MODE, Placement::CreateOnly);
    match placed {
        Ok(Placed::Created) => Ok(()),
        Ok(Placed::Exists) => {
            // Nobody had it when this began.
            Err(Failure::usage(format!("could not write \"{}\": it exists already", file.display()))
                .with_hint(
                    "somebody else has just written it: look at it, or name another one with --config",
                ))
        }
        Err(error) => Err(Failure::failed(format!("could not write \"{}\": {error}", file.display()))
            .with_hint("name a file in a directory that exists and is yours, with --config")),
    }
}

/// Names and values for postgresql.conf.
fn postgresql_lines(file: &Path) -> Result<Vec<(&'static str, String)>, Failure> {
    let program = postgres_command::this_program()?;
    Ok(vec![
        ("archive_mode", "on".to_owned()),
        ("archive_command", postgres_command::archive_command(&program, Some(file))),
        (ARCHIVE_TIMEOUT, "60s".to_owned()),
    ])
}

/// What `--apply` did.
struct Applied {
    /// Whether PostgreSQL must be restarted for `archive_mode`.
    restart_needed: bool,
    /// The `archive_timeout` that the operator had chosen, and that stays.
    kept_timeout: Option<String>,
}

/// Sets the lines in the running cluster; those that it has its own value for are taken out.
async fn apply(settings: &Settings, lines: &mut Vec<(&'static str, String)>) -> Result<Applied, Failure> {
    let connection = settings.postgres.connection.as_ref().map(config::Connection::reveal);
    let session = Session::open(connection, settings.postgres.data_directory.as_deref()).await?;
    let kept_timeout = keep_timeout(lines, session.archive_timeout().await?);
    let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
    session.alter_system(&lines).await?;
    Ok(Applied { restart_needed: session.server.archive_mode == "off", kept_timeout })
}

/// Only where it is off (0) is a timeout ours to choose. The value that stays, when one does.
fn keep_timeout(lines: &mut Vec<(&'static str, String)>, now: String) -> Option<String> {
    if now == "0" {
        return None;
    }
    lines.retain(|(name, _)| *name != ARCHIVE_TIMEOUT);
    Some(now)
}

struct Said<'a> {
    file: &'a Path,
    written: bool,
    settings: &'a Settings,
    ability: Ability,
    lines: Vec<(&'static str, String)>,
    /// With `--apply`.
    applied: Option<Applied>,
}

impl Said<'_> {
    fn json(&self) -> Result<String, Failure> {
        let lines: serde_json::Map<String, serde_json::Value> =
            self.lines.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        output::json_line(&json!({
            "config": self.file,
            "written": self.written,
            "archive": {
                "url": self.settings.archive()?.url.to_string(),
                "create_only": self.ability.create_only,
                "checksum": self.ability.checksum.word(),
            },
            "encrypted": !self.settings.encryption.recipients.is_empty(),
            "postgresql": lines,
            "applied": self.applied.is_some(),
            "restart_needed": self.applied.as_ref().map(|applied| applied.restart_needed),
            "kept_archive_timeout": self.applied.as_ref().and_then(|applied| applied.kept_timeout.as_ref()),
        }))
    }

    fn text(&self) -> Result<String, Failure> {
        let mut text = format!("archive {}\n{}", self.settings.archive()?.url, self.ability.text());
        if self.settings.encryption.recipients.is_empty() {
            text += "  not encrypted by walpoint: [encryption] recipients is empty\n";
        }
        let did = if self.written { "wrote" } else { "used" };
        text += &format!("{did} the configuration \"{}\"\n\n", self.file.display());
        text += match &self.applied {
            Some(_) => "set in the running cluster:\n\n",
            None => "add to postgresql.conf (or run init again with --apply):\n\n",
        };
        for (name, value) in &self.lines {
            let line = postgresql_conf::assignment(name, value)
                .map_err(|error| Failure::failed(error.to_string()))?;
            text += &format!("{}\n", line.trim_end());
        }
        if let Some(kept) = self.applied.as_ref().and_then(|applied| applied.kept_timeout.as_ref()) {
            text += &format!("\narchive_timeout stays at {kept}, as it was set before.\n");
        }
        text += match &self.applied {
            Some(Applied { restart_needed: false, .. }) => "\n",
            _ => "\narchive_mode takes effect when PostgreSQL is restarted.\n",
        };
        text +=
            "Never wrap the command in timeout, a pipe or ||: PostgreSQL acts on its exact exit status.\n";
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_that_was_chosen_stays() {
        let lines = || vec![("archive_mode", "on".to_owned()), (ARCHIVE_TIMEOUT, "60s".to_owned())];
        let mut off = lines();
        assert_eq!((keep_timeout(&mut off, "0".to_owned()), off.len()), (None, 2));
        let mut chosen = lines();
        let kept = keep_timeout(&mut chosen, "5min".to_owned());
        assert_eq!((kept.as_deref(), chosen), (Some("5min"), vec![("archive_mode", "on".to_owned())]));
    }
}
