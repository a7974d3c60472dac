//! What the restored configuration asks of the machine that it is restored to, and
//! that is not there: files, directories, settings as high as the original's. Advice,
//! said before anything is written; what libraries the server loads is not looked at.

use std::path::Path;

use walpoint_archive::summary::Settings;

use super::{Configuration, MAIN, plain};
use crate::postgresql_conf::{Inclusion, inclusions};
use crate::restore::inventory::Inventory;
use crate::restore::site::Place;

/// Files and directories that a setting names, and the setting without which it says nothing.
const NAMED: [(&str, Option<&str>); 9] = [
    ("hba_file", None),
    ("ident_file", None),
    ("ssl_cert_file", Some("ssl")),
    ("ssl_key_file", Some("ssl")),
    ("ssl_ca_file", Some("ssl")),
    ("ssl_crl_file", Some("ssl")),
    ("ssl_crl_dir", Some("ssl")),
    ("ssl_dh_params_file", Some("ssl")),
    ("log_directory", Some("logging_collector")),
];

/// Each demand that is not met, as a sentence.
pub(in crate::restore) fn demands(
    configuration: &Configuration,
    inventory: &Inventory,
    data_directory: &Path,
    settings: &Settings,
) -> Vec<String> {
    let there = There { inventory, data_directory };
    let mut demands = Vec::new();
    if configuration.text_of(MAIN).is_none() && configuration.outside_file("config_file", MAIN).is_none() {
        demands.push("the backup holds no postgresql.conf: the server needs one to start".to_owned());
    }
    demands.extend(configuration.missing_inclusions(&there));
    demands.extend(configuration.missing_files(&there));
    demands.extend(configuration.missing_sockets(&there));
    demands.extend(configuration.low_settings(settings));
    demands
}

/// What there will be: the files of the backup in their new place, and the machine's own.
struct There<'a> {
    inventory: &'a Inventory,
    data_directory: &'a Path,
}

impl There<'_> {
    /// Relative paths are taken from `beside`, within the data directory.
    fn has(&self, beside: &Path, named: &str) -> bool {
        let path = plain(&self.data_directory.join(beside).join(named));
        match path.strip_prefix(self.data_directory) {
            Ok(within) => within == Path::new("") || self.inventory.has(&Place::in_data_directory(within)),
            Err(_) => path.exists(),
        }
    }
}

impl Configuration {
    fn missing_inclusions(&self, there: &There<'_>) -> Vec<String> {
        let mut missing = Vec::new();
        for text in &self.texts {
            let beside = text.path.parent().unwrap_or(Path::new(""));
            let outside = self.outside.iter().any(|(place, _)| *place == text.path);
            for inclusion in inclusions(&text.content) {
                let named = match inclusion {
                    // These are made.
                    Inclusion::Directory(named) if outside && Path::new(&named).is_relative() => continue,
                    // This one cannot keep a server from starting.
                    Inclusion::FileIfExists(_) => continue,
                    Inclusion::File(named) | Inclusion::Directory(named) => named,
                };
                if !there.has(beside, &named) {
                    missing.push(format!("{} includes \"{named}\", which is not here", text.path.display()));
                }
            }
        }
        missing
    }

    fn missing_files(&self, there: &There<'_>) -> Vec<String> {
        let mut missing = Vec::new();
        for (name, condition) in NAMED {
            let counts = condition.is_none_or(|it| self.setting(it).is_some_and(|(value, _)| is_on(&value)));
            let Some((value, file)) = self.setting(name).filter(|(value, _)| counts && !value.is_empty())
            else {
                continue;
            };
            let came_along = self.outside.iter().any(|(_, original)| original == Path::new(&value));
            // The server makes a directory for its log in its own.
            let made = name == "log_directory" && Path::new(&value).is_relative();
            if !came_along && !made && !there.has(Path::new(""), &value) {
                missing.push(format!("{file} sets {name} to \"{value}\", which is not here"));
            }
        }
        missing
    }

    fn missing_sockets(&self, there: &There<'_>) -> Vec<String> {
        let Some((value, file)) = self.setting("unix_socket_directories") else { return Vec::new() };
        let directories = value.split(',').map(|it| it.trim().trim_matches('"'));
        directories
            .filter(|directory| directory.starts_with('/') && !there.has(Path::new(""), directory))
            .map(|it| format!("{file} names \"{it}\" in unix_socket_directories, which is not here"))
            .collect()
    }

    /// Recovery stops where a setting is below the original's (`CheckRequiredParameterValues`,
    /// access/transam/xlogrecovery.c). What no file says is the default, and is not
    /// judged.
    pub(in crate::restore) fn low_settings(&self, of_original: &Settings) -> Vec<String> {
        let needed = [
            ("max_connections", of_original.max_connections),
            ("max_worker_processes", of_original.max_worker_processes),
            ("max_wal_senders", of_original.max_wal_senders),
            ("max_prepared_transactions", of_original.max_prepared_xacts),
            ("max_locks_per_transaction", of_original.max_locks_per_xact),
        ];
        let low = needed.into_iter().filter_map(|(name, needed)| {
            let (value, file) = self.setting(name)?;
            let value: i32 = value.parse().ok().filter(|value| *value < needed)?;
            Some(format!(
                "{file} sets {name} to {value}, and the original ran with {needed}: recovery stops at that"
            ))
        });
        low.collect()
    }
}

/// PostgreSQL's words for true, as far as people write them.
fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1")
}
