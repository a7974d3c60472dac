//! The commented configuration that `init` writes: every key of the one table, with what it means.

use super::keys::{KEYS, Key, Kind};

/// Renders the configuration. `value` gives the text of a key that is set; every other one is a comment.
pub fn render(value: impl Fn(&Key) -> Option<String>) -> String {
    let mut text = String::from(
        "# Configuration of walpoint. Every key can also be set as WALPOINT_<SECTION>_<KEY> in the environment,\n\
         # which wins. Durations and sizes are written with their unit. What is commented out is a default or an\n\
         # example.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            text += &format!("\n[{section}]\n");
            if section == "retention" {
                text += "# What \"walpoint expire\" keeps: all that any of these asks for. Without any, nothing expires.\n";
            }
        }
        text += &format!("# {}\n", key.about);
        text += &match value(key) {
            Some(value) => format!("{} = {}\n", key.name, in_toml(key.kind, &value)),
            None => format!("#{} = {}\n", key.name, in_toml(key.kind, key.example)),
        };
    }
    text
}

fn in_toml(kind: Kind, text: &str) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    match kind {
        Kind::Switch | Kind::Number => text.to_owned(),
        Kind::Text | Kind::Duration | Kind::Size => quoted(text),
        Kind::List => {
            let items: Vec<String> = super::raw::split_list(text).iter().map(|item| quoted(item)).collect();
            format!("[{}]", items.join(", "))
        }
    }
}
