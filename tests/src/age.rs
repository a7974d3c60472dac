//! Keys by the stock `age-keygen`: what an operator makes, not what walpoint makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;
use crate::programs;
use crate::scratch::write_private;
use crate::walpoint::CALL_LIMIT;

const KEYGEN: &str = "/usr/bin/age-keygen";

/// An identity, its file, and the public key that seals for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub file: PathBuf,
    pub recipient: String,
    text: String,
}

impl Identity {
    /// Makes one in a file of this name. `None` where age is not installed, said on stdout.
    pub fn generate(directory: &Path, name: &str) -> Result<Option<Identity>> {
        if !Path::new(KEYGEN).exists() {
            return programs::missing("age is not installed");
        }
        let text = run(Command::new(KEYGEN), CALL_LIMIT)?.success()?.stdout;
        let public = text.lines().find_map(|line| line.strip_prefix("# public key: "));
        let recipient = public.context("age-keygen printed no public key")?.to_owned();
        let file = directory.join(name);
        write_private(&file, &text)?;
        Ok(Some(Identity { file, recipient, text }))
    }

    /// What its file holds.
    pub fn text(&self) -> &str {
        &self.text
    }
}
