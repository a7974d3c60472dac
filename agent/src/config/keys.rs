//! Every configuration key there is: the file and the environment are both read by this one table.

/// What a key holds, and so how its text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A list of texts; comma-separated in the environment.
    List,
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Number,
    /// A number with a unit of time.
    Duration,
    /// A number with a unit of bytes.
    Size,
}

/// One key of one section.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Section, as written in brackets in the file.
    pub section: &'static str,
    /// Name within the section.
    pub name: &'static str,
    /// How its value is read.
    pub kind: Kind,
    /// Its default, or a value as it could be.
    pub example: &'static str,
    /// What it means, for the configuration that `init` writes.
    pub about: &'static str,
}

impl Key {
    /// The environment variable that sets this key.
    pub fn variable(&self) -> String {
        format!("{}{}_{}", super::environment::PREFIX, self.section, self.name).to_ascii_uppercase()
    }
}

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    example: &'static str,
    about: &'static str,
) -> Key {
    Key { section, name, kind, example, about }
}

/// The table, section by section.
pub const KEYS: &[Key] = &[
    key(
        "postgres",
        "data_directory",
        Kind::Text,
        "/var/lib/postgresql/17/main",
        "The cluster's data directory.",
    ),
    key(
        "postgres",
        "connection",
        Kind::Text,
        "host=/run/postgresql user=postgres",
        "How to connect; without it the server of the data directory is asked for its socket.",
    ),
    key(
        "archive",
        "url",
        Kind::Text,
        "s3://bucket/prefix",
        "The archive: s3://bucket/prefix or file:///directory.",
    ),
    key(
        "archive",
        "endpoint",
        Kind::Text,
        "https://s3.example.org",
        "Address of an S3-compatible store; without it AWS.",
    ),
    key(
        "archive",
        "region",
        Kind::Text,
        "eu-central-1",
        "S3 region; without it what the AWS environment or profile says.",
    ),
    key(
        "archive",
        "path_style",
        Kind::Switch,
        "true",
        "Name the bucket in the path of requests; true by default where an endpoint is set.",
    ),
    key(
        "archive",
        "ca_file",
        Kind::Text,
        "/etc/walpoint/ca.pem",
        "Certificates to trust instead of the system's, PEM.",
    ),
    key("archive", "storage_class", Kind::Text, "STANDARD_IA", "Storage class of new objects."),
    key("archive", "sse", Kind::Text, "aws:kms", "Encryption by the store: AES256 or aws:kms."),
    key("archive", "kms_key", Kind::Text, "alias/walpoint", "KMS key for aws:kms."),
    key("archive", "request_timeout", Kind::Duration, "30s", "How long one request may take."),
    key("compression", "level", Kind::Number, "1", "zstd level; higher is smaller and slower."),
    key(
        "encryption",
        "recipients",
        Kind::List,
        "age1…",
        "age public keys; with any, everything stored is encrypted.",
    ),
    key(
        "encryption",
        "identity_file",
        Kind::Text,
        "/etc/walpoint/identity.txt",
        "File with the age identities that can read; a host that only archives needs none.",
    ),
    key(
        "archive_push",
        "deadline",
        Kind::Duration,
        "30s",
        "How long a push may take, besides the file's size at 1 MiB/s.",
    ),
    key(
        "archive_get",
        "retry_for",
        Kind::Duration,
        "10min",
        "How long recovery waits for an archive that cannot be reached.",
    ),
    key(
        "archive_get",
        "standby_retry_for",
        Kind::Duration,
        "10s",
        "The same for a standby, which asks again by itself.",
    ),
    key(
        "archive_get",
        "standby_on_outage",
        Kind::Text,
        "retry",
        "What a standby is told then: \"retry\", or \"stop\" to take it down.",
    ),
    key(
        "backup",
        "wal_timeout",
        Kind::Duration,
        "10min",
        "How long a backup waits for its WAL to be archived.",
    ),
    key(
        "backup",
        "incremental",
        Kind::Switch,
        "false",
        "Whether a backup without a flag is an incremental one.",
    ),
    key(
        "backup",
        "full_every",
        Kind::Duration,
        "7d",
        "How old the last full backup may be before such a one is a full one again.",
    ),
    key(
        "backup",
        "max_rate",
        Kind::Size,
        "100MiB",
        "How much of the data directory a backup reads in a second at most.",
    ),
    key(
        "check",
        "wal_lag_warning",
        Kind::Duration,
        "10min",
        "Age of the oldest WAL outside the archive that is a warning.",
    ),
    key("check", "wal_lag_critical", Kind::Duration, "30min", "… and critical."),
    key(
        "check",
        "backup_age_warning",
        Kind::Duration,
        "26h",
        "Age of the last good backup that is a warning.",
    ),
    key("check", "backup_age_critical", Kind::Duration, "50h", "… and critical."),
    key("check", "look_back", Kind::Number, "1", "From how many backups back WAL is looked at."),
    key(
        "check",
        "in_flight",
        Kind::Duration,
        "1min",
        "A hole in the newest WAL younger than this is on its way.",
    ),
    key(
        "check",
        "probe_timeout",
        Kind::Duration,
        "2min",
        "How long check --probe waits for a segment to arrive.",
    ),
    key("agent", "socket_directory", Kind::Text, "/run/walpoint", "Where the agent's socket lies."),
    key(
        "agent",
        "workers",
        Kind::Number,
        "4",
        "Files handled at the same time; by default the number of cores, at most 4.",
    ),
    key("agent", "live_tail", Kind::Switch, "true", "Whether the open segment's tail is shipped."),
    key("agent", "live_tail_interval", Kind::Duration, "1s", "How often."),
    key(
        "agent",
        "spool",
        Kind::Size,
        "1GiB",
        "How much WAL archive-get may have fetched ahead of recovery; 0B for none.",
    ),
    key(
        "agent",
        "spool_directory",
        Kind::Text,
        "/var/tmp",
        "Where that lies; best on the disk of pg_wal, and outside the data directory.",
    ),
    key(
        "agent",
        "drain",
        Kind::Duration,
        "10s",
        "How long the agent may finish its work when it is told to leave.",
    ),
    key(
        "retention",
        "last",
        Kind::Number,
        "3",
        "Keep this many of the newest backups, and all WAL from them on.",
    ),
    key(
        "retention",
        "window",
        Kind::Duration,
        "30d",
        "Keep what is needed to reach every moment of this time back from now.",
    ),
    key("retention", "daily", Kind::Number, "7", "Keep one backup for each of this many days."),
    key("retention", "weekly", Kind::Number, "4", "… weeks."),
    key("retention", "monthly", Kind::Number, "12", "… months."),
    key("retention", "yearly", Kind::Number, "3", "… years."),
    key("retention", "wal", Kind::Duration, "30d", "Keep WAL of this time back from now."),
    key(
        "retention",
        "min_verified",
        Kind::Number,
        "1",
        "Keep at least this many backups that were verified.",
    ),
    key("retention", "timezone", Kind::Text, "UTC", "The time zone whose days, weeks and months are meant."),
    key(
        "retention",
        "grace",
        Kind::Duration,
        "2d",
        "How long what is to go stays marked before it goes: longer than any backup or restore takes.",
    ),
];

/// The key of this section and name.
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// Every section, in the table's order.
pub fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&'static str> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    sections
}

/// From which Jaro-Winkler similarity on one name can be another mistyped.
const ALIKE: f64 = 0.85;

/// The candidate that is most like `text`: what the writer probably meant. None when none is like it.
pub fn nearest<C: AsRef<str>>(text: &str, candidates: impl IntoIterator<Item = C>) -> Option<C> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(text, candidate.as_ref()), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, candidate)| candidate)
}

/// Whether `text` is `name` but for a letter or a word: at most a quarter of it differs.
pub fn is_misspelled(text: &str, name: &str) -> bool {
    strsim::normalized_damerau_levenshtein(text, name) >= 0.75
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_share_a_variable() {
        let mut variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
        variables.sort();
        let all = variables.len();
        variables.dedup();
        assert_eq!(variables.len(), all);
    }

    #[test]
    fn a_section_stands_together() {
        let mut sections = sections();
        let all = sections.len();
        sections.sort_unstable();
        sections.dedup();
        assert_eq!(sections.len(), all, "a section is split in the table");
    }

    #[test]
    fn the_nearest_is_what_was_meant() {
        assert_eq!(nearest("endpiont", ["url", "endpoint", "region"]), Some("endpoint"));
        assert_eq!(nearest("arhive", sections()), Some("archive"));
        assert_eq!(nearest("tea", sections()), None);
    }
}
