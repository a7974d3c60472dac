//! What can be said of the command line before it is parsed: which command is meant, so that its rules for
//! exit statuses hold even when the rest of the line is wrong.

use crate::exit::Role;
use clap::CommandFactory;
use std::ffi::OsString;

/// Options that take the next word as their value.
const WITH_VALUE: [&str; 3] = ["--config", "--log-format", "--log-level"];

/// The command that the line calls, as far as can be seen without parsing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// Whose rules hold.
    pub role: Role,
    /// The command's name, empty when there is none.
    pub name: String,
    /// Whether `--json` stands somewhere on the line.
    pub json: bool,
    /// Whether the log is asked for as JSON.
    pub json_log: bool,
}

impl Called {
    /// Reads the words after the program's name.
    pub fn by(words: &[OsString]) -> Self {
        let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
        let name = name(&words);
        let json_log = words.contains(&"--log-format=json")
            || words.windows(2).any(|pair| pair == ["--log-format", "json"]);
        Self { role: role(name), name: name.to_owned(), json: words.contains(&"--json"), json_log }
    }
}

/// The first word that is a command's name and not an option's value. Where there is none, a hook's name
/// anywhere counts: `--config $UNSET archive-get` swallows the name, and must not answer as a usage error.
fn name<'a>(words: &[&'a str]) -> &'a str {
    let commands = super::Cli::command();
    let is_command = |word: &str| commands.get_subcommands().any(|command| command.get_name() == word);
    let mut is_value = false;
    for word in words {
        if !is_value && is_command(word) {
            return word;
        }
        is_value = !is_value && WITH_VALUE.contains(word);
    }
    words.iter().find(|word| role(word).is_hook()).copied().unwrap_or_default()
}

fn role(name: &str) -> Role {
    match name {
        "archive-push" => Role::Push,
        "archive-get" => Role::Get,
        "check" => Role::Check,
        _ => Role::Command,
    }
}

/// True when the line is a hook's name and `--help`, nothing else.
pub fn is_only_help(words: &[OsString]) -> bool {
    matches!(words, [_, help] if help == "--help" || help == "-h")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(line: &str) -> Called {
        Called::by(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_role_is_found_before_parsing() {
        for (line, role) in [
            ("archive-get a b", Role::Get),
            ("--config x archive-get a b", Role::Get),
            ("--config=x --json archive-get a b", Role::Get),
            ("--bogus archive-get", Role::Get),
            ("--bogus value archive-get a b", Role::Get),
            ("--config archive-get a b", Role::Get),
            ("archive-get --contract check a b", Role::Get),
            ("archive-push pg_wal/x", Role::Push),
            ("--log-level debug archive-push x", Role::Push),
            ("check --probe", Role::Check),
            ("list --wal archive-get", Role::Command),
            ("--config archive-get list", Role::Command),
            ("restore", Role::Command),
            ("", Role::Command),
        ] {
            assert_eq!(called(line).role, role, "{line}");
        }
    }

    #[test]
    fn how_to_answer_is_found_before_parsing() {
        assert!(called("plan --json --nonsense").json);
        assert!(called("--log-format json plan").json_log && called("plan --log-format=json").json_log);
        assert!(!called("plan --log-format text").json_log);
    }

    #[test]
    fn every_definition_is_sound() {
        super::super::Cli::command().debug_assert();
    }
}
