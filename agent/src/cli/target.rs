//! The recovery target on the command line, common to `plan` and `restore`.

use crate::exit::Failure;
use clap::Args;
use walpoint_archive::backup_id::BackupId;
use walpoint_pitr::target::{Target, TargetRequest, TargetTimeline, parse_target_time};
use walpoint_wal::{Lsn, SystemIdentifier};

/// Which moment, of which cluster.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// Recover up to this time, like "2026-11-20 21:45:00+00"
    #[arg(long, value_name = "TIME")]
    pub target_time: Option<String>,
    /// Recover up to this WAL position, like A3/4F000028
    #[arg(long, value_name = "LSN")]
    pub target_lsn: Option<Lsn>,
    /// Recover up to the end of this transaction
    #[arg(long, value_name = "XID")]
    pub target_xid: Option<u64>,
    /// Recover up to this restore point
    #[arg(long, value_name = "NAME")]
    pub target_name: Option<String>,
    /// Recover no further than a backup needs to be consistent: the newest, or the one of --backup
    #[arg(long)]
    pub target_immediate: bool,
    /// Recover everything that the archive has on the timeline
    #[arg(long)]
    pub latest: bool,
    /// Stop just before the target, not just after it; with a time, an LSN or a transaction
    #[arg(long)]
    pub exclusive: bool,
    /// Time zone of a --target-time without an offset, like Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// Timeline to recover along: a number, "latest" (the newest one) or "current" (the backup's)
    #[arg(long, value_name = "TIMELINE", default_value = "latest")]
    pub target_timeline: TargetTimeline,
    /// Base backup to start from [default: the last one before the target]
    #[arg(long, value_name = "ID")]
    pub backup: Option<BackupId>,
    /// The cluster, when the archive holds several
    #[arg(long, value_name = "SYSTEM IDENTIFIER")]
    pub cluster: Option<SystemIdentifier>,
}

impl TargetArgs {
    /// The request that these options make.
    ///
    /// # Errors
    /// Status 2: not exactly one target, a time that cannot be read or says no offset, `--exclusive` where
    /// it has no meaning.
    pub fn request(&self) -> Result<TargetRequest, Failure> {
        let target = self.target()?;
        if self.timezone.is_some() && self.target_time.is_none() {
            return Err(Failure::usage("--timezone has a meaning only with --target-time")
                .with_hint("leave out --timezone, or name the moment with --target-time"));
        }
        let request = TargetRequest {
            target,
            exclusive: self.exclusive,
            timeline: self.target_timeline,
            backup: self.backup.clone(),
        };
        request.check()?;
        Ok(request)
    }

    /// True when some target is named, right or wrong.
    pub fn names_a_target(&self) -> bool {
        self.target_time.is_some()
            || self.target_lsn.is_some()
            || self.target_xid.is_some()
            || self.target_name.is_some()
            || self.target_immediate
            || self.latest
    }

    /// These options as they would be written again.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.extend([name.to_owned(), value]);
            }
        };
        option("--target-time", self.target_time.clone());
        option("--timezone", self.timezone.clone());
        option("--target-lsn", self.target_lsn.map(|lsn| lsn.to_string()));
        option("--target-xid", self.target_xid.map(|xid| xid.to_string()));
        option("--target-name", self.target_name.clone());
        option(
            "--target-timeline",
            match self.target_timeline {
                TargetTimeline::Latest => None,
                TargetTimeline::Current => Some("current".to_owned()),
                TargetTimeline::Number(timeline) => Some(timeline.to_string()),
            },
        );
        option("--backup", self.backup.as_ref().map(ToString::to_string));
        option("--cluster", self.cluster.map(|cluster| cluster.to_string()));
        for (flag, is_set) in [
            ("--target-immediate", self.target_immediate),
            ("--latest", self.latest),
            ("--exclusive", self.exclusive),
        ] {
            words.extend(is_set.then(|| flag.to_owned()));
        }
        words
    }

    fn target(&self) -> Result<Target, Failure> {
        let mut given = Vec::new();
        if let Some(text) = &self.target_time {
            given.push(self.time(text)?);
        }
        given.extend(self.target_lsn.map(Target::Lsn));
        given.extend(self.target_xid.map(Target::Xid));
        given.extend(self.target_name.clone().map(Target::Name));
        given.extend(self.target_immediate.then_some(Target::Immediate));
        given.extend(self.latest.then_some(Target::Latest));
        match (given.pop(), given.is_empty()) {
            (Some(target), true) => Ok(target),
            (None, _) => Err(Failure::usage("no recovery target is given").with_hint(ONE_OF)),
            (Some(_), false) => {
                Err(Failure::usage("more than one recovery target is given").with_hint(ONE_OF))
            }
        }
    }

    fn time(&self, text: &str) -> Result<Target, Failure> {
        Ok(Target::Time(parse_target_time(text, self.timezone.as_deref())?))
    }
}

const ONE_OF: &str = "give exactly one of --target-time, --target-lsn, --target-xid, --target-name, \
                      --target-immediate and --latest";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Status;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        target: TargetArgs,
    }

    fn request(words: &[&str]) -> Result<TargetRequest, Failure> {
        let words = std::iter::once("test").chain(words.iter().copied());
        Line::try_parse_from(words).unwrap().target.request()
    }

    #[test]
    fn options_are_written_as_they_were_read() {
        let words =
            ["--target-lsn", "A3/4F000028", "--target-timeline", "3", "--cluster", "7", "--exclusive"];
        let line = Line::try_parse_from(std::iter::once("test").chain(words)).unwrap();
        assert_eq!(line.target.words(), words);
    }

    #[test]
    fn exactly_one_target_is_taken() {
        for words in [
            &["--target-time", "2026-11-20 21:45:00+00"][..],
            &["--target-lsn", "A3/4F000028", "--exclusive"],
            &["--target-xid", "4294967999"],
            &["--target-name", "before the change"],
            &["--target-immediate"],
            &["--latest", "--target-timeline", "3"],
        ] {
            request(words).unwrap();
        }
        for words in [
            &[][..],
            &["--latest", "--target-immediate"],
            &["--latest", "--exclusive"],
            &["--target-immediate", "--exclusive"],
            &["--target-name", "x", "--exclusive"],
            &["--target-time", "2026-11-20 21:45:00"],
            &["--latest", "--timezone", "UTC"],
        ] {
            assert_eq!(request(words).unwrap_err().status, Status::Usage, "{words:?}");
        }
    }
}
