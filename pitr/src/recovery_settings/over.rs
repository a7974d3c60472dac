//! What of a restored cluster's settings goes when its recovery is over. Pure.

use super::{BEGIN, SUBSCRIPTION_WORKERS, SUBSCRIPTIONS_OFF_COMMENT, TARGETS};
use crate::postgresql_conf::value_of;

/// `postgresql.auto.conf` of a cluster whose recovery is over and which takes the place of
/// the original: without the target, the command that the recovery needed, and what kept
/// subscriptions from running. What was emptied stays so.
///
/// Lines are known by what they say and not by the block that they are in: `ALTER SYSTEM`
/// writes the file anew without comments, so the block's marks may be gone. A target of
/// the operator's own goes too: on a primary it does nothing, and a standby made from it
/// would stop there.
pub fn without_recovery(auto_conf: &str) -> String {
    let value = |line: &str, name: &str| value_of(line.as_bytes(), name);
    let lines: Vec<&str> = auto_conf.split_inclusive('\n').collect();
    let is_contracted =
        |line: &str| value(line, "restore_command").is_some_and(|it| it.contains("--contract"));
    let is_ours = lines.iter().any(|line| is_contracted(line) || line.trim() == BEGIN);
    // One that the operator set stands above ours, or has taken its place.
    let workers = lines.iter().rposition(|line| value(line, SUBSCRIPTION_WORKERS).is_some());
    let workers = workers.filter(|&last| {
        is_ours && lines.get(last).and_then(|line| value(line, SUBSCRIPTION_WORKERS)).as_deref() == Some("0")
    });
    let goes = |(index, line): (usize, &str)| {
        Some(index) == workers
            || is_contracted(line)
            || names_target(line)
            || SUBSCRIPTIONS_OFF_COMMENT.contains(&line.trim_end())
    };
    lines.iter().copied().enumerate().filter(|it| !goes(*it)).map(|(_, line)| line).collect()
}

fn names_target(line: &str) -> bool {
    let about = ["recovery_target_inclusive", "recovery_target_timeline", "recovery_target_action"];
    TARGETS.into_iter().chain(about).any(|name| value_of(line.as_bytes(), name).is_some())
}
