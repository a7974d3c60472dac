//! `status`: how the agent of this data directory is, by its own words.

use crate::cli::StatusArgs;
use crate::config::{Settings, sizes};
use crate::daemon::report::{Disk, Report, Tail};
use crate::exit::{Ending, Failure};
use crate::output;
use crate::ship::ask::{self, Unanswered};
use crate::ship::cluster::HookCluster;
use crate::ship::socket::Socket;
use serde_json::Value;
use std::io::IsTerminal;
use std::time::Duration;

/// How often `--watch` asks.
const EVERY: Duration = Duration::from_secs(1);
/// To the upper left corner, and away with what is below.
const IN_PLACE: &str = "\x1b[H\x1b[J";

/// Carries out `status`.
///
/// # Errors
/// Status 1 when no agent answers.
pub async fn run(settings: &Settings, args: &StatusArgs, json: bool) -> Result<Ending, Failure> {
    let socket = socket(settings)?;
    if !args.watch {
        let text = said(&ask(&socket).await?, json)?;
        output::result(&text)?;
        return Ok(Ending::DONE);
    }
    let in_place = std::io::stdout().is_terminal() && !json;
    loop {
        // An agent that is restarted comes back.
        let text = match ask(&socket).await {
            Ok(report) => said(&report, json)?,
            Err(failure) if json => output::json_line(
                &serde_json::json!({ "status": failure.status.code(), "error": failure.error, "hint": failure.hint }),
            )?,
            Err(failure) => format!("{failure}\n"),
        };
        output::result_until_closed(&format!("{}{text}", if in_place { IN_PLACE } else { "" }))?;
        tokio::time::sleep(EVERY).await;
    }
}

fn socket(settings: &Settings) -> Result<Socket, Failure> {
    let path =
        settings.postgres.data_directory.as_deref().ok_or_else(crate::data_directory::not_configured)?;
    let cluster = HookCluster::in_directory(path)?;
    Socket::of(settings, cluster.system_identifier, path)
        .map_err(|error| Failure::failed(format!("could not look at \"{}\": {error}", path.display())))
}

async fn ask(socket: &Socket) -> Result<Value, Failure> {
    ask::status(socket).await.map_err(|why| match why {
        Unanswered::Nobody => Failure::failed(format!(
            "could not ask the agent: none listens at \"{}\"",
            socket.path().display()
        ))
        .with_hint("start it with \"walpoint agent\"; without it archive_command archives by itself"),
        Unanswered::Unusable(why) | Unanswered::Failed(why) => {
            Failure::failed(format!("could not ask the agent at \"{}\": {why}", socket.path().display()))
                .with_hint("restart the agent if it hangs; meanwhile archive_command archives by itself")
        }
    })
}

fn said(report: &Value, json: bool) -> Result<String, Failure> {
    if json {
        return output::json_line(report);
    }
    let report: Report = serde_json::from_value(report.clone()).map_err(|error| {
        Failure::failed(format!("could not understand the agent: {error}"))
            .with_hint("is it another version? restart it, or ask with --json")
    })?;
    Ok(in_words(&report))
}

/// A line for each thing, with its name in front.
fn in_words(report: &Report) -> String {
    let mut lines = vec![("agent", format!("process {}, since {}", report.agent.pid, report.agent.since))];
    let shipping = match report.shipping.as_slice() {
        [] => "nothing".to_owned(),
        names => names.join(" "),
    };
    lines.push(("shipping", shipping));
    lines.push(("waiting", waiting(report)));
    let shipped = &report.shipped;
    lines.push((
        "shipped",
        format!(
            "{}, {}{}",
            files(shipped.files),
            sizes::human(shipped.bytes),
            shipped.last.as_ref().map(|last| format!(", last {last}")).unwrap_or_default()
        ),
    ));
    lines.push(("store", store(report)));
    if let Some(seconds) = report.failing_seconds {
        lines.push(("failing", format!("for {}; nothing is archived", time(seconds))));
    }
    if let Some(last) = &report.last_error {
        lines.push(("last error", format!("{} {}", last.time, last.error)));
        if let Some(hint) = &last.hint {
            lines.push(("hint", hint.clone()));
        }
    }
    lines.extend(disk(&report.pg_wal).map(|text| ("pg_wal", text)));
    lines.push(("live tail", report.tail.as_ref().map_or("off".to_owned(), tail)));
    lines.iter().map(|(name, text)| format!("{name:<11}{text}\n")).collect()
}

fn waiting(report: &Report) -> String {
    let waiting = &report.waiting;
    match waiting.files {
        0 => "nothing".to_owned(),
        count => {
            let age = waiting.oldest_seconds.map(|seconds| format!(", the oldest for {}", time(seconds)));
            format!("{}, {}{}", files(count as u64), sizes::human(waiting.bytes), age.unwrap_or_default())
        }
    }
}

fn store(report: &Report) -> String {
    let latency = report.store.latency_ms.map(|latency| format!("{latency:.0} ms a request"));
    let rate = report.store.bytes_per_second.map(|rate| format!("{}/s a file", sizes::human(rate as u64)));
    let files = report.shipped.files_per_second;
    let files = (files > 0.0).then(|| format!("{files:.1} files/s in the last minute"));
    let said: Vec<String> = [latency, rate, files].into_iter().flatten().collect();
    if said.is_empty() { "not asked yet".to_owned() } else { said.join(", ") }
}

fn disk(disk: &Disk) -> Option<String> {
    let free = format!("{} free", sizes::human(disk.free_bytes?));
    Some(match disk.hours_left {
        Some(hours) => format!("{free}, full in {} at the present rate", time(hours * 3600.0)),
        None => free,
    })
}

fn tail(tail: &Tail) -> String {
    let at = match (&tail.timeline, &tail.lsn) {
        (Some(timeline), Some(lsn)) => format!("{lsn} on timeline {timeline}"),
        _ => "nothing yet".to_owned(),
    };
    let behind = tail.behind_bytes.filter(|bytes| *bytes > 0).map(|bytes| {
        let since = tail.behind_seconds.map(|seconds| format!(" and {}", time(seconds))).unwrap_or_default();
        format!(", {}{since} behind", sizes::human(bytes))
    });
    let error = tail.error.as_ref().map(|error| format!("; {error}"));
    [Some(at), behind, error].into_iter().flatten().collect()
}

fn files(count: u64) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Value {
        serde_json::json!({
            "agent": { "pid": 7, "version": "0.1.0", "since": "2026-11-20T21:45:00.000000Z" },
            "shipping": ["000000010000000000000007"],
            "waiting": { "files": 3, "bytes": 50_331_648, "oldest_seconds": 300.0 },
            "shipped": { "files": 1, "bytes": 16_777_216, "last": "000000010000000000000006", "ahead": 0, "files_per_second": 0.5 },
            "store": { "latency_ms": 12.3, "bytes_per_second": 52_428_800.0 },
            "failing_seconds": 130.0,
            "last_error": { "time": "2026-11-20T21:46:00.000000Z", "error": "could not put", "hint": "look" },
            "pg_wal": { "free_bytes": 1_073_741_824, "hours_left": 0.5 },
            "tail": { "timeline": 1, "lsn": "0/7000028", "behind_bytes": 1024, "behind_seconds": 1.0, "error": null },
            "later": "than this program",
        })
    }

    #[test]
    fn the_state_is_said_in_words() {
        let expected = "\
agent      process 7, since 2026-11-20 21:45:00.000000+00
shipping   000000010000000000000007
waiting    3 files, 48.0 MiB, the oldest for 5 min
shipped    1 file, 16.0 MiB, last 000000010000000000000006
store      12 ms a request, 50.0 MiB/s a file, 0.5 files/s in the last minute
failing    for 2 min; nothing is archived
last error 2026-11-20 21:46:00.000000+00 could not put
hint       look
pg_wal     1.00 GiB free, full in 30 min at the present rate
live tail  0/7000028 on timeline 1, 1.00 KiB and 1 s behind
";
        assert_eq!(said(&report(), false).unwrap(), expected);
    }

    #[test]
    fn json_is_what_the_agent_said_also_of_a_later_version() {
        let line = said(&report(), true).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), report());
    }
}
