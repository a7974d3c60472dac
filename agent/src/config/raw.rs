//! Configuration values as they were read, with where each came from, before they become [`super::Settings`].

use super::keys::{Key, Kind};
use super::{durations, sizes};
use crate::exit::Failure;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Where a value was written, for messages.
#[derive(Clone, Debug)]
pub enum Origin {
    /// In the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Section of the key.
        section: &'static str,
        /// Name of the key.
        name: &'static str,
    },
    /// In this environment variable.
    Variable(String),
}

impl Origin {
    /// A refusal of the value that stands here. The value itself is quoted only by parsers of values that
    /// are no secrets.
    pub fn refuse(&self, what: &str) -> Failure {
        match self {
            Self::File { path, section, name } => {
                Failure::usage(format!("could not use \"{name}\" in section [{section}]: {what}"))
                    .with_hint(format!("correct the configuration file \"{}\"", path.display()))
            }
            Self::Variable(name) => {
                Failure::usage(format!("could not use the environment variable {name}: {what}"))
                    .with_hint("correct or unset the variable, which counts more than the configuration file")
            }
        }
    }
}

/// One value of one [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawValue {
    Text(String),
    List(Vec<String>),
    Switch(bool),
    Number(i64),
    Duration(Duration),
    Size(u64),
}

impl RawValue {
    /// Reads text (an environment variable, or a quoted text in the file) as a value of `kind`.
    ///
    /// # Errors
    /// Status 2 when the text is no such value.
    pub fn from_text(kind: Kind, text: &str, origin: &Origin) -> Result<Self, Failure> {
        match kind {
            Kind::Text => Ok(Self::Text(text.to_owned())),
            Kind::List => Ok(Self::List(split_list(text))),
            Kind::Switch => match text {
                "true" => Ok(Self::Switch(true)),
                "false" => Ok(Self::Switch(false)),
                _ => Err(origin.refuse(&format!("\"{text}\" is neither true nor false"))),
            },
            Kind::Number => text
                .parse()
                .map(Self::Number)
                .map_err(|_| origin.refuse(&format!("\"{text}\" is not a whole number"))),
            Kind::Duration => durations::parse(text).map(Self::Duration).map_err(|what| origin.refuse(&what)),
            Kind::Size => sizes::parse(text).map(Self::Size).map_err(|what| origin.refuse(&what)),
        }
    }
}

/// The items of a comma-separated list.
pub fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// All values read, by section and name.
#[derive(Default)]
pub struct RawSettings {
    values: BTreeMap<(&'static str, &'static str), (RawValue, Origin)>,
}

impl RawSettings {
    /// Sets a key, over an earlier value.
    pub fn set(&mut self, key: &Key, value: RawValue, origin: Origin) {
        self.values.insert((key.section, key.name), (value, origin));
    }

    /// Takes a key away, as if nobody had set it.
    pub fn unset(&mut self, key: &Key) {
        self.values.remove(&(key.section, key.name));
    }

    /// Takes a text out.
    pub fn text(&mut self, section: &'static str, name: &'static str) -> Option<(String, Origin)> {
        match self.values.remove(&(section, name)) {
            Some((RawValue::Text(text), origin)) => Some((text, origin)),
            _ => None,
        }
    }

    /// Takes a path out.
    ///
    /// # Errors
    /// Status 2 for a relative one: the hooks run in PostgreSQL's working directory, commands in the
    /// operator's, and both must mean the same file.
    pub fn path(&mut self, section: &'static str, name: &'static str) -> Result<Option<PathBuf>, Failure> {
        match self.text(section, name) {
            Some((text, origin)) if !text.starts_with('/') => {
                Err(origin.refuse(&format!("\"{text}\" is not an absolute path")))
            }
            found => Ok(found.map(|(text, _)| PathBuf::from(text))),
        }
    }

    /// Takes a list out; empty when it was not set.
    pub fn list(&mut self, section: &'static str, name: &'static str) -> Vec<String> {
        match self.values.remove(&(section, name)) {
            Some((RawValue::List(list), _)) => list,
            _ => Vec::new(),
        }
    }

    /// Takes a switch out.
    pub fn switch(&mut self, section: &'static str, name: &'static str) -> Option<bool> {
        match self.values.remove(&(section, name)) {
            Some((RawValue::Switch(on), _)) => Some(on),
            _ => None,
        }
    }

    /// Takes a duration out.
    pub fn duration(&mut self, section: &'static str, name: &'static str) -> Option<Duration> {
        match self.values.remove(&(section, name)) {
            Some((RawValue::Duration(duration), _)) => Some(duration),
            _ => None,
        }
    }

    /// Takes a size out, in bytes.
    pub fn size(&mut self, section: &'static str, name: &'static str) -> Option<u64> {
        match self.values.remove(&(section, name)) {
            Some((RawValue::Size(bytes), _)) => Some(bytes),
            _ => None,
        }
    }

    /// Takes a number out, checked against the range of its type.
    ///
    /// # Errors
    /// Status 2 when it does not fit.
    pub fn number<N: TryFrom<i64>>(
        &mut self,
        section: &'static str,
        name: &'static str,
    ) -> Result<Option<N>, Failure> {
        match self.values.remove(&(section, name)) {
            Some((RawValue::Number(number), origin)) => match N::try_from(number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(origin.refuse(&format!("{number} is out of range"))),
            },
            _ => Ok(None),
        }
    }

    /// Keys that nobody took out: a key in the table that no setting uses.
    #[cfg(test)]
    pub fn left(&self) -> Vec<String> {
        self.values.keys().map(|(section, name)| format!("{section}.{name}")).collect()
    }
}
