//! The wall clock, for what people read.

use std::time::{SystemTime, UNIX_EPOCH};
use walpoint_wal::Timestamp;

/// Now.
#[expect(clippy::disallowed_methods, reason = "a report says when things happened")]
pub fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since_1970.as_micros()).ok();
    micros.and_then(Timestamp::from_unix_micros).unwrap_or(Timestamp(0))
}

/// Seconds since a file was last written; none when it is not there.
#[expect(clippy::disallowed_methods, reason = "the age of a file is told by a clock only")]
pub fn age_of(path: &std::path::Path) -> Option<f64> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    Some(SystemTime::now().duration_since(modified).unwrap_or_default().as_secs_f64())
}
