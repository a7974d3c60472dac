//! From values as read to [`Settings`]: defaults, ranges, and words with a meaning.

use super::raw::{Origin, RawSettings};
use super::*;
use std::str::FromStr;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::config::{ArchiveUrl, ServerSideEncryption};

/// Of values that are sound alone: where each of them stands is not known any more.
const WHERE_TO_CORRECT: &str =
    "correct the configuration file, or the WALPOINT_… variable, which counts more";

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

const fn hours(hours: u64) -> Duration {
    minutes(hours * 60)
}

/// Builds the settings, taking every value out of `raw`.
pub fn settings(source: Option<PathBuf>, raw: &mut RawSettings) -> Result<Settings, Failure> {
    Ok(Settings {
        source,
        postgres: PostgresSettings {
            data_directory: raw.path("postgres", "data_directory")?,
            connection: raw.text("postgres", "connection").map(|(text, _)| Connection(text)),
        },
        archive: archive(raw)?,
        compression: compression(raw)?,
        encryption: EncryptionConfig {
            recipients: raw.list("encryption", "recipients"),
            identity_file: raw.path("encryption", "identity_file")?,
        },
        archive_push: PushSettings {
            deadline: raw.duration("archive_push", "deadline").unwrap_or(Duration::from_secs(30)),
        },
        archive_get: get(raw)?,
        backup: BackupSettings {
            wal_timeout: raw.duration("backup", "wal_timeout").unwrap_or(minutes(10)),
            incremental: raw.switch("backup", "incremental").unwrap_or(false),
            full_every: raw.duration("backup", "full_every").unwrap_or(hours(7 * 24)),
            max_rate: raw.size("backup", "max_rate").and_then(NonZeroU64::new),
        },
        check: check(raw)?,
        agent: agent(raw)?,
        retention: retention(raw)?,
    })
}

/// Reads a word or name by its type's own parser.
fn parsed<T: FromStr>(value: Option<(String, Origin)>) -> Result<Option<T>, Failure>
where
    T::Err: fmt::Display,
{
    value
        .map(|(text, origin)| text.parse().map_err(|error: T::Err| origin.refuse(&error.to_string())))
        .transpose()
}

fn archive(raw: &mut RawSettings) -> Result<Option<ArchiveConfig>, Failure> {
    let url: Option<ArchiveUrl> = parsed(raw.text("archive", "url"))?;
    let text = |raw: &mut RawSettings, name| raw.text("archive", name).map(|(text, _)| text);
    let endpoint = text(raw, "endpoint");
    let region = text(raw, "region");
    let storage_class = text(raw, "storage_class");
    let kms_key = text(raw, "kms_key");
    let path_style = raw.switch("archive", "path_style");
    let ca_file = raw.path("archive", "ca_file")?;
    let sse: Option<ServerSideEncryption> = parsed(raw.text("archive", "sse"))?;
    let request_timeout =
        raw.duration("archive", "request_timeout").unwrap_or(ArchiveConfig::DEFAULT_REQUEST_TIMEOUT);
    let Some(url) = url else { return Ok(None) };
    let config = ArchiveConfig {
        url,
        endpoint,
        region,
        path_style,
        ca_file,
        storage_class,
        sse,
        kms_key,
        request_timeout,
    };
    config.validate().map_err(|error| Failure::usage(error.to_string()).with_hint(WHERE_TO_CORRECT))?;
    Ok(Some(config))
}

fn compression(raw: &mut RawSettings) -> Result<CompressionConfig, Failure> {
    let level = raw.number("compression", "level")?.unwrap_or(CompressionConfig::default().level);
    CompressionLevel::new(level)
        .map_err(|error| Failure::usage(error.to_string()).with_hint(WHERE_TO_CORRECT))?;
    Ok(CompressionConfig { level })
}

fn get(raw: &mut RawSettings) -> Result<GetSettings, Failure> {
    Ok(GetSettings {
        retry_for: raw.duration("archive_get", "retry_for").unwrap_or(minutes(10)),
        standby_retry_for: raw
            .duration("archive_get", "standby_retry_for")
            .unwrap_or(Duration::from_secs(10)),
        standby_on_outage: parsed(raw.text("archive_get", "standby_on_outage"))?
            .unwrap_or(StandbyOnOutage::Retry),
    })
}

impl FromStr for StandbyOnOutage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "retry" => Ok(Self::Retry),
            "stop" => Ok(Self::Stop),
            _ => Err(format!("\"{text}\" is neither \"retry\" nor \"stop\"")),
        }
    }
}

fn check(raw: &mut RawSettings) -> Result<CheckSettings, Failure> {
    let mut duration = |name, default| raw.duration("check", name).unwrap_or(default);
    let (wal_lag_warning, wal_lag_critical) =
        (duration("wal_lag_warning", minutes(10)), duration("wal_lag_critical", minutes(30)));
    let (backup_age_warning, backup_age_critical) =
        (duration("backup_age_warning", hours(26)), duration("backup_age_critical", hours(50)));
    let in_flight = duration("in_flight", minutes(1));
    let probe_timeout = duration("probe_timeout", minutes(2));
    let look_back = raw.number("check", "look_back")?.unwrap_or(1);
    for (name, warning, critical) in [
        ("wal_lag", wal_lag_warning, wal_lag_critical),
        ("backup_age", backup_age_warning, backup_age_critical),
    ] {
        if warning > critical {
            return Err(Failure::usage(format!(
                "{name}_warning is above {name}_critical in section [check]: {} and {}",
                durations::render(warning),
                durations::render(critical)
            ))
            .with_hint(WHERE_TO_CORRECT));
        }
    }
    Ok(CheckSettings {
        wal_lag_warning,
        wal_lag_critical,
        backup_age_warning,
        backup_age_critical,
        look_back,
        in_flight,
        probe_timeout,
    })
}

/// The server and the store are asked this often at most.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

fn agent(raw: &mut RawSettings) -> Result<AgentSettings, Failure> {
    let workers: Option<u16> = raw.number("agent", "workers")?;
    let workers = match workers {
        None => default_workers(std::thread::available_parallelism().ok()),
        Some(workers) => NonZeroUsize::new(usize::from(workers)).ok_or_else(|| {
            Failure::usage("could not use 0 workers in section [agent]: at least 1 is needed")
                .with_hint(WHERE_TO_CORRECT)
        })?,
    };
    let live_tail_interval = raw.duration("agent", "live_tail_interval").unwrap_or(Duration::from_secs(1));
    if live_tail_interval < SHORTEST_INTERVAL {
        return Err(Failure::usage(format!(
            "could not use {} as live_tail_interval in section [agent]: at least {} are needed",
            durations::render(live_tail_interval),
            durations::render(SHORTEST_INTERVAL)
        ))
        .with_hint(WHERE_TO_CORRECT));
    }
    Ok(AgentSettings {
        socket_directory: raw.path("agent", "socket_directory")?,
        workers,
        live_tail: raw.switch("agent", "live_tail").unwrap_or(true),
        live_tail_interval,
        spool: raw.size("agent", "spool").unwrap_or(1 << 30),
        spool_directory: raw.path("agent", "spool_directory")?.unwrap_or_else(|| PathBuf::from("/var/tmp")),
        drain: raw.duration("agent", "drain").unwrap_or(Duration::from_secs(10)),
    })
}

/// As many as there are cores, at most 4: the primary is never the victim.
pub(super) fn default_workers(cores: Option<NonZeroUsize>) -> NonZeroUsize {
    let four = NonZeroUsize::MIN.saturating_add(3);
    cores.map_or(four, |cores| cores.min(four))
}

fn retention(raw: &mut RawSettings) -> Result<RetentionSettings, Failure> {
    Ok(RetentionSettings {
        last: raw.number("retention", "last")?,
        window: raw.duration("retention", "window"),
        daily: raw.number("retention", "daily")?,
        weekly: raw.number("retention", "weekly")?,
        monthly: raw.number("retention", "monthly")?,
        yearly: raw.number("retention", "yearly")?,
        wal: raw.duration("retention", "wal"),
        min_verified: raw.number("retention", "min_verified")?,
        timezone: raw.text("retention", "timezone").map(|(text, _)| text),
        grace: raw.duration("retention", "grace"),
    })
}
