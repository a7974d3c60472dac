//! Timelines and the files that say where one branched off from another.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;

/// Number of a timeline; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(NonZeroU32);

impl TimelineId {
    /// The timeline that every cluster starts on. It has no history file.
    pub const FIRST: TimelineId = TimelineId(NonZeroU32::MIN);

    /// `None` for 0.
    pub fn new(number: u32) -> Option<TimelineId> {
        NonZeroU32::new(number).map(TimelineId)
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// Eight upper-case hexadecimal digits, as in file names.
    pub fn hex8(self) -> String {
        format!("{:08X}", self.get())
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a timeline history file says: where the timeline comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineHistory {
    /// The timeline that this is the history of.
    pub timeline: TimelineId,
    /// Its ancestors, oldest first, as the file lists them.
    pub ancestors: Vec<Ancestor>,
}

/// One line of a history file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// The timeline that was left.
    pub timeline: TimelineId,
    /// Where it was left, as written; see [`TimelineHistory::path`] for what is used of it.
    pub fork: Lsn,
    /// Free text for people.
    pub reason: String,
}

/// A stretch of WAL that comes from one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStep {
    /// The timeline.
    pub timeline: TimelineId,
    /// First address taken from it.
    pub begin: Lsn,
    /// First address no longer taken from it; `None` for the last step.
    pub end: Option<Lsn>,
}

/// The file is not a timeline history that PostgreSQL would accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not read the history of timeline {timeline}: line {line} \"{text}\" {problem}")]
pub struct HistoryError {
    /// The timeline that the file is named for.
    pub timeline: TimelineId,
    /// Line number, from 1.
    pub line: usize,
    /// The line, shortened.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl TimelineHistory {
    /// Timeline 1, which has no ancestors and no file.
    pub fn first() -> TimelineHistory {
        TimelineHistory { timeline: TimelineId::FIRST, ancestors: Vec::new() }
    }

    /// Reads a history file by PostgreSQL's rules (`readTimeLineHistory`,
    /// access/transam/timeline.c, 13–18): blank lines and `#` comments are skipped,
    /// each other line is `timeline switchpoint reason`, timelines strictly increase
    /// and are less than the file's own.
    pub fn parse(timeline: TimelineId, bytes: &[u8]) -> Result<TimelineHistory, HistoryError> {
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (index, bytes) in bytes.split(|&b| b == b'\n').enumerate() {
            let text = String::from_utf8_lossy(bytes);
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let newest = ancestors.last().map(|ancestor| ancestor.timeline);
            let ancestor = parse_line(text).and_then(|it| in_sequence(it, newest, timeline));
            let refused = |problem| HistoryError {
                timeline,
                line: index + 1,
                text: text.chars().take(80).collect(),
                problem,
            };
            ancestors.push(ancestor.map_err(refused)?);
        }
        Ok(TimelineHistory { timeline, ancestors })
    }

    /// Which timeline each stretch of WAL comes from: oldest first, this timeline last.
    ///
    /// Forks can go backwards in a genuine file: recovery to a target before the fork
    /// of its target timeline, then promotion, writes that timeline as the parent with
    /// the earlier switch point. A later fork therefore cuts off all older steps, and
    /// a timeline of which nothing is left has no step (PostgreSQL looks addresses up
    /// newest timeline first, `tliOfPointInHistory`, to the same effect).
    pub fn path(&self) -> Vec<PathStep> {
        let mut begin = Lsn::ZERO;
        let mut steps = Vec::new();
        for (ancestor, end) in self.ancestors.iter().zip(self.effective_forks()) {
            if begin < end {
                steps.push(PathStep { timeline: ancestor.timeline, begin, end: Some(end) });
                begin = end;
            }
        }
        steps.push(PathStep { timeline: self.timeline, begin, end: None });
        steps
    }

    /// First address that is not taken from this ancestor; `None` when it is no ancestor.
    pub fn fork_from(&self, timeline: TimelineId) -> Option<Lsn> {
        let index = self.ancestors.iter().position(|ancestor| ancestor.timeline == timeline)?;
        self.ancestors.iter().skip(index).map(|ancestor| ancestor.fork).min()
    }

    /// For each ancestor, the least fork from it on: in one pass, the file may have any number.
    fn effective_forks(&self) -> Vec<Lsn> {
        let mut forks: Vec<Lsn> = self.ancestors.iter().map(|ancestor| ancestor.fork).collect();
        let mut least = Lsn(u64::MAX);
        for fork in forks.iter_mut().rev() {
            least = least.min(*fork);
            *fork = least;
        }
        forks
    }
}

fn parse_line(text: &str) -> Result<Ancestor, &'static str> {
    let mut words = text.splitn(2, |c: char| c.is_ascii_whitespace());
    let number = words.next().unwrap_or_default();
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    let timeline = if digits { number.parse().ok().and_then(TimelineId::new) } else { None };
    let timeline = timeline.ok_or("does not begin with a timeline")?;
    let rest = words.next().unwrap_or_default().trim_start();
    let mut words = rest.splitn(2, |c: char| c.is_ascii_whitespace());
    let fork = words.next().unwrap_or_default().parse().map_err(|_| "has no switch point")?;
    let reason = words.next().unwrap_or_default().trim().to_owned();
    Ok(Ancestor { timeline, fork, reason })
}

fn in_sequence(
    ancestor: Ancestor,
    newest: Option<TimelineId>,
    child: TimelineId,
) -> Result<Ancestor, &'static str> {
    if newest.is_some_and(|newest| ancestor.timeline <= newest) {
        return Err("does not name a later timeline than the line before");
    }
    if ancestor.timeline >= child {
        return Err("names a timeline that is not older than the file's own");
    }
    Ok(ancestor)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn parse(number: u32, text: &str) -> Result<TimelineHistory, HistoryError> {
        TimelineHistory::parse(tli(number), text.as_bytes())
    }

    #[test]
    fn reads_what_postgresql_writes() {
        let text = "1\t0/3000158\tno recovery target specified\n\n# a comment\n2\t0/4000000\tbefore 2026\n";
        let history = parse(3, text).unwrap();
        assert_eq!(history.ancestors.len(), 2);
        assert_eq!(history.ancestors[0].reason, "no recovery target specified");
        let step =
            |t, begin, end: Option<u64>| PathStep { timeline: tli(t), begin: Lsn(begin), end: end.map(Lsn) };
        let path =
            [step(1, 0, Some(0x300_0158)), step(2, 0x300_0158, Some(0x400_0000)), step(3, 0x400_0000, None)];
        assert_eq!(history.path(), path);
        assert_eq!(history.fork_from(tli(2)), Some(Lsn(0x400_0000)));
        assert_eq!(history.fork_from(tli(3)), None);
    }

    #[test]
    fn a_later_fork_at_an_earlier_address_cuts_off_what_is_older() {
        let history = parse(3, "1\t0/500\tx\n2\t0/300\tx\n").unwrap();
        let steps: Vec<_> = history.path().iter().map(|s| (s.timeline.get(), s.begin.0, s.end)).collect();
        assert_eq!(steps, [(1, 0, Some(Lsn(0x300))), (3, 0x300, None)]);
        assert_eq!(history.fork_from(tli(1)), Some(Lsn(0x300)));
        assert_eq!(history.ancestors[0].fork, Lsn(0x500));
    }

    #[test]
    fn a_hundred_thousand_ancestors_are_no_trouble() {
        let lines: String = (1..=100_000).map(|number| format!("{number}\t0/{number:X}\tx\n")).collect();
        let path = parse(100_001, &lines).unwrap().path();
        assert_eq!(path.len(), 100_001);
        assert_eq!(path[99_999].end, Some(Lsn(100_000)));
    }

    #[test]
    fn what_postgresql_refuses_is_refused() {
        for (number, text) in [
            (2, "x\t0/1\n"),
            (2, "1\n"),
            (2, "1\tzz\n"),
            (3, "2\t0/1\n1\t0/2\n"),
            (2, "2\t0/1\n"),
            (3, "1\t0/1\n1\t0/2\n"),
            (2, "0\t0/1\n"),
        ] {
            assert!(parse(number, text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_empty_file_means_no_ancestors() {
        assert_eq!(
            parse(5, "").unwrap().path(),
            [PathStep { timeline: tli(5), begin: Lsn::ZERO, end: None }]
        );
        assert_eq!(TimelineHistory::first().path().len(), 1);
    }

    #[test]
    fn a_last_line_without_newline_and_other_bytes_are_no_trouble() {
        let history = TimelineHistory::parse(tli(2), b"  1 0/28 caf\xe9\r\n#x").unwrap();
        assert_eq!(history.ancestors[0].fork, Lsn(0x28));
    }
}
