use super::keys::{KEYS, Key, Kind};
use super::*;
use std::io::Write;

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

fn from_environment(pairs: &[(&str, &str)]) -> Result<Settings, Failure> {
    let mut raw = RawSettings::default();
    environment::read(environment(pairs).into_iter(), &mut raw)?;
    read::settings(None, &mut raw)
}

fn from_text(text: &str) -> Result<Settings, Failure> {
    with_environment(text, &[])
}

fn with_environment(text: &str, pairs: &[(&str, &str)]) -> Result<Settings, Failure> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Settings::read(Some(file.path()), environment(pairs).into_iter())
}

/// A value that the key takes, and that is not its default.
fn sample(key: &Key) -> &'static str {
    match (key.section, key.name, key.kind) {
        ("archive", "url", _) => "s3://bucket/prefix",
        ("archive", "endpoint", _) => "https://127.0.0.1:3900",
        ("archive", "sse", _) => "aws:kms",
        ("archive", "storage_class", _) => "STANDARD_IA",
        ("archive_get", "standby_on_outage", _) => "stop",
        (_, _, Kind::Text) => "/some/text",
        (_, _, Kind::List) => "age1one, age1two",
        (_, _, Kind::Switch) => "true",
        (_, _, Kind::Number) => "3",
        (_, "wal_lag_critical" | "backup_age_critical", _) => "7d",
        (_, _, Kind::Duration) => "7s",
        (_, _, Kind::Size) => "7MiB",
    }
}

#[test]
fn every_key_of_the_table_is_used() {
    let mut raw = RawSettings::default();
    let variables: Vec<(OsString, OsString)> =
        KEYS.iter().map(|key| (key.variable().into(), sample(key).into())).collect();
    environment::read(variables.into_iter(), &mut raw).unwrap();
    read::settings(None, &mut raw).unwrap();
    assert_eq!(raw.left(), Vec::<String>::new());
}

#[test]
fn file_and_environment_say_the_same() {
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            text += &format!("[{section}]\n");
        }
        text += &match key.kind {
            Kind::Text | Kind::Duration | Kind::Size => format!("{} = \"{}\"\n", key.name, sample(key)),
            Kind::List => format!("{} = [\"age1one\", \"age1two\"]\n", key.name),
            Kind::Switch | Kind::Number => format!("{} = {}\n", key.name, sample(key)),
        };
    }
    let mut by_file = from_text(&text).unwrap();
    by_file.source = None;
    let variables: Vec<(String, &str)> = KEYS.iter().map(|key| (key.variable(), sample(key))).collect();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let by_environment = from_environment(&variables).unwrap();
    assert_eq!(format!("{by_file:?}"), format!("{by_environment:?}"));
    assert_eq!(by_environment.encryption.recipients, ["age1one", "age1two"]);
}

#[test]
fn defaults_are_the_interface() {
    let settings = from_environment(&[("WALPOINT_ARCHIVE_URL", "file:///srv/archive")]).unwrap();
    assert_eq!(settings.archive().unwrap().request_timeout, Duration::from_secs(30));
    assert_eq!(settings.compression.level, 1);
    assert_eq!(settings.archive_push.deadline, Duration::from_secs(30));
    assert_eq!(settings.archive_get.retry_for, Duration::from_secs(600));
    assert_eq!(settings.archive_get.standby_retry_for, Duration::from_secs(10));
    assert_eq!(settings.archive_get.standby_on_outage, StandbyOnOutage::Retry);
    assert_eq!(settings.backup.wal_timeout, Duration::from_secs(600));
    assert!(!settings.backup.incremental);
    assert_eq!(settings.backup.full_every, Duration::from_secs(7 * 86_400));
    assert_eq!(settings.check.wal_lag_warning, Duration::from_secs(600));
    assert_eq!(settings.check.wal_lag_critical, Duration::from_secs(1800));
    assert_eq!(settings.check.backup_age_warning, Duration::from_secs(26 * 3600));
    assert_eq!(settings.check.backup_age_critical, Duration::from_secs(50 * 3600));
    assert!(settings.agent.live_tail);
    assert_eq!(settings.agent.live_tail_interval, Duration::from_secs(1));
    assert_eq!(settings.check.look_back, 1);
}

#[test]
fn the_environment_wins_over_the_file() {
    let text = "[archive]\nurl = \"file:///one\"\nregion = \"here\"\n";
    let variables = [("WALPOINT_ARCHIVE_URL", "file:///two"), ("WALPOINT_ARCHIVE_REGION", "")];
    let settings = with_environment(text, &variables).unwrap();
    assert_eq!(settings.archive().unwrap().url.to_string(), "file:///two");
    assert_eq!(settings.archive().unwrap().region, None, "an empty variable takes the key away");
}

#[test]
fn what_nobody_knows_names_the_nearest() {
    for (text, nearest) in [
        ("[arhive]\nurl = \"s3://b\"\n", "[archive]"),
        ("[archive]\nendpiont = \"x\"\n", "endpoint"),
        ("[archive]\ndeadline = \"1s\"\n", "deadline in section [archive_push]"),
        ("url = \"s3://bucket\"\n", "url in section [archive]"),
    ] {
        let failure = from_text(text).unwrap_err();
        assert_eq!(failure.status, crate::exit::Status::Usage);
        assert!(failure.hint.as_ref().unwrap().contains(nearest), "{text}: {failure:?}");
    }
    let failure = from_environment(&[("WALPOINT_ARCHIVE_ENDPIONT", "x")]).unwrap_err();
    assert!(failure.hint.unwrap().contains("WALPOINT_ARCHIVE_ENDPOINT"));
}

#[test]
fn a_bare_number_is_refused_for_every_key_with_a_unit_and_the_message_says_so() {
    let with_unit: Vec<&Key> =
        KEYS.iter().filter(|key| matches!(key.kind, Kind::Duration | Kind::Size)).collect();
    assert!(with_unit.len() >= 12, "{with_unit:?}");
    for key in with_unit {
        for failure in [
            from_text(&format!("[{}]\n{} = 30\n", key.section, key.name)).unwrap_err(),
            from_text(&format!("[{}]\n{} = \"30\"\n", key.section, key.name)).unwrap_err(),
            from_environment(&[(&key.variable(), "30")]).unwrap_err(),
        ] {
            assert_eq!(failure.status, crate::exit::Status::Usage);
            assert!(failure.error.contains("has no unit"), "{failure:?}");
            assert!(failure.error.to_lowercase().contains(key.name), "{failure:?}");
        }
    }
}

#[test]
fn workers_are_the_cores_and_at_most_four() {
    for (cores, workers) in [(1, 1), (2, 2), (4, 4), (5, 4), (64, 4)] {
        assert_eq!(read::default_workers(NonZeroUsize::new(cores)).get(), workers);
    }
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(from_environment(&[]).unwrap().workers().get(), cores.min(4));
    let chosen = from_environment(&[("WALPOINT_AGENT_WORKERS", "9")]).unwrap();
    assert_eq!(chosen.workers().get(), 9, "what was asked for is not cut");
}

#[test]
fn values_that_do_not_fit_are_refused() {
    for text in [
        "[archive]\nurl = 3\n",
        "[archive]\nurl = \"ftp://x\"\n",
        "[archive]\nca_file = \"relative.pem\"\n",
        "[archive]\npath_style = \"yes\"\n",
        "[archive]\nurl = \"s3://bucket\"\nkms_key = \"x\"\n",
        "[encryption]\nrecipients = \"age1\"\n",
        "[encryption]\nrecipients = [1]\n",
        "[compression]\nlevel = 99999999999\n",
        "[compression]\nlevel = 22\n",
        "[agent]\nworkers = 0\n",
        "[agent]\nworkers = -1\n",
        "[archive_get]\nstandby_on_outage = \"panic\"\n",
        "[check]\nwal_lag_warning = \"2h\"\n",
        "archive = 3\n",
        "[archive\n",
    ] {
        let failure = from_text(text).unwrap_err();
        assert_eq!(failure.status, crate::exit::Status::Usage, "{text}");
    }
}

#[test]
fn ours_alone_are_read_and_tests_may_set_theirs() {
    from_environment(&[("PATH", "x"), ("WALPOINT_CONFIG", "x"), ("WALPOINT_TEST_ANYTHING", "x")]).unwrap();
    assert!(from_environment(&[("WALPOINT_TESTING", "x")]).is_err());
}

#[test]
fn a_connection_does_not_print() {
    let settings = from_environment(&[("WALPOINT_POSTGRES_CONNECTION", "host=h password=hunter2")]).unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"));
    assert!(settings.postgres.connection.unwrap().reveal().contains("hunter2"));
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let failure = Settings::read(Some(Path::new("/nowhere/walpoint.toml")), std::iter::empty()).unwrap_err();
    assert_eq!(failure.status, crate::exit::Status::Usage);
}

#[test]
fn a_file_that_was_named_by_a_relative_path_is_known_by_an_absolute_one() {
    // Written into restore_command, which PostgreSQL runs in another directory.
    let file = tempfile::NamedTempFile::new_in(".").unwrap();
    let name = Path::new(file.path().file_name().unwrap());
    let settings = Settings::read(Some(name), std::iter::empty()).unwrap();
    assert_eq!(settings.source, Some(std::env::current_dir().unwrap().join(name)));
}

#[test]
fn what_init_writes_is_read_back() {
    let every = template::render(|key| Some(sample(key).to_owned()));
    from_text(&every).unwrap();
    let none = template::render(|_| None);
    let settings = from_text(&none).unwrap();
    assert!(settings.archive().is_err(), "what is commented out must not be set");
    let uncommented: String = none
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| line.trim_start_matches('#').to_owned() + "\n")
        .collect();
    from_text(&uncommented).unwrap();
}
