//! Names of backups: `20261120T214500Z-full-3fa9c1`. They sort by the time the
//! backup began (UTC), and the random digits keep two backups that begin in the
//! same second, on a primary and on its standby say, from sharing a folder.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use walpoint_wal::Timestamp;

/// What a backup reads from the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum BackupKind {
    /// Everything.
    #[serde(rename = "full")]
    Full,
    /// What changed since an earlier backup; the rest is named in its packs.
    #[serde(rename = "incr")]
    Incremental,
}

impl BackupKind {
    /// The word for it in ids and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incr",
        }
    }
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The name of one backup. Ordered by the time it began.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

/// Text that is not a backup's id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a backup id like 20261120T214500Z-full-3fa9c1")]
pub struct BackupIdError(String);

/// `20261120T214500Z`: 0 stands for any digit.
const TIME_SHAPE: &[u8; 16] = b"00000000T000000Z";
const RANDOM_DIGITS: usize = 6;

impl BackupId {
    /// A new name for a backup that begins now.
    pub fn new(now: Timestamp, kind: BackupKind) -> Self {
        let random: u32 = rand::random();
        Self::with_random(now, kind, random)
    }

    fn with_random(now: Timestamp, kind: BackupKind, random: u32) -> Self {
        // 2026-11-20T21:45:00.123456Z without its fraction and punctuation.
        let rfc3339 = now.rfc3339();
        let seconds = rfc3339.split_once('.').map_or(rfc3339.as_str(), |(seconds, _)| seconds);
        let compact: String = seconds.chars().filter(|c| c.is_ascii_digit() || *c == 'T').collect();
        Self(format!("{compact}Z-{kind}-{:06x}", random & 0x00ff_ffff))
    }

    /// Full or incremental.
    pub fn kind(&self) -> BackupKind {
        if self.0.contains("-full-") { BackupKind::Full } else { BackupKind::Incremental }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupId({})", self.0)
    }
}

impl FromStr for BackupId {
    type Err = BackupIdError;

    fn from_str(text: &str) -> Result<Self, BackupIdError> {
        let refused = || BackupIdError(text.chars().take(80).collect());
        let mut parts = text.split('-');
        let (time, kind, random, rest) = (parts.next(), parts.next(), parts.next(), parts.next());
        let sound = time.is_some_and(is_time)
            && kind.is_some_and(|kind| kind == "full" || kind == "incr")
            && random.is_some_and(is_random)
            && rest.is_none();
        if sound { Ok(Self(text.to_owned())) } else { Err(refused()) }
    }
}

fn is_time(text: &str) -> bool {
    text.len() == TIME_SHAPE.len()
        && text.bytes().zip(TIME_SHAPE).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            letter => byte == *letter,
        })
}

fn is_random(text: &str) -> bool {
    text.len() == RANDOM_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl TryFrom<String> for BackupId {
    type Error = BackupIdError;

    fn try_from(text: String) -> Result<Self, BackupIdError> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-20 21:45:00.999999 UTC.
    const AN_EVENING: Timestamp = Timestamp(848_526_300_999_999);

    #[test]
    fn an_id_says_when_and_what() {
        let id = BackupId::with_random(AN_EVENING, BackupKind::Full, 0xff3f_a9c1);
        assert_eq!(id.to_string(), "20261120T214500Z-full-3fa9c1");
        assert_eq!(id.kind(), BackupKind::Full);
        let id = BackupId::with_random(AN_EVENING, BackupKind::Incremental, 7);
        assert_eq!(id.to_string(), "20261120T214500Z-incr-000007");
        assert_eq!(id.kind(), BackupKind::Incremental);
    }

    #[test]
    fn two_backups_of_one_moment_have_two_names() {
        let names: std::collections::BTreeSet<_> =
            (0..20).map(|_| BackupId::new(AN_EVENING, BackupKind::Full)).collect();
        assert!(names.len() > 1);
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in [
            "",
            "-",
            "20261120T214500Z",
            "20261120T214500Z-full",
            "20261120T214500Z-full-3fa9c",
            "20261120T214500Z-full-3FA9C1",
            "20261120T214500Z-diff-3fa9c1",
            "20261120T214500Z-full-3fa9c1-",
            "2026112021450000-full-3fa9c1",
            "20261120T214500Z-full-3fa9c1/..",
            "../../etc",
        ] {
            assert!(text.parse::<BackupId>().is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn an_id_parses_to_itself_and_sorts_by_time(
            seconds in 0i64..3_000_000_000, later in 1i64..1_000_000_000, a: u32, b: u32,
        ) {
            let first = BackupId::with_random(Timestamp(seconds * 1_000_000), BackupKind::Full, a);
            let second =
                BackupId::with_random(Timestamp((seconds + later) * 1_000_000), BackupKind::Incremental, b);
            prop_assert_eq!(&first.to_string().parse::<BackupId>().unwrap(), &first);
            prop_assert!(first < second);
        }
    }
}
