//! Breaks the requests that the program sends to a real S3 server: one of them,
//! or every one from some on.

use std::path::Path;

use anyhow::{Result, ensure};
use walpoint_tests::garage::Garage;
use walpoint_tests::process::Outcome;
use walpoint_tests::programs;
use walpoint_tests::proxy::{Proxy, Rule};
use walpoint_tests::torture::Reached;
use walpoint_tests::walpoint::Walpoint;

use crate::breaks::{Breaks, Endings};
use crate::bucket::name_archive;
use crate::requests::{KINDS, KINDS_OF_OUTAGE, RequestFault};
use crate::workplace::Workplace;

/// How long a reply may take: nobody waits half a minute at every point.
const REQUEST_TIMEOUT: &str = "[archive]\nrequest_timeout = \"700ms\"\n";
/// How long the hooks try when the store does not come back.
const SHORT: &str = "[archive_push]\ndeadline = \"2s\"\n[archive_get]\nretry_for = \"2s\"\n";
/// How long the commands do. They have no setting for it, and the build with fault points has this.
const SHORT_OF_COMMANDS: (&str, &str) = ("WALPOINT_TEST_FAULT_PATIENCE_MS", "2000");

/// How many requests are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    One,
    /// The one and all after it: the store has gone.
    FromThereOn,
}

pub struct OverS3 {
    workplace: Workplace,
    proxy: Proxy,
    broken: Broken,
    kinds: &'static [RequestFault],
    direct: Walpoint,
    through_proxy: Walpoint,
    archives: u32,
}

impl OverS3 {
    /// With an archive in a bucket of its own. `None`, said aloud, where there is no Garage.
    pub fn new(broken: Broken) -> Result<Option<OverS3>> {
        let Some(garage) = Garage::shared()? else { return Ok(None) };
        let workplace = Workplace::new()?;
        let direct = Walpoint::new(&workplace.scratch, &garage.archive()?, None)?;
        let breaks = OverS3::of(garage, workplace, direct, broken)?;
        if broken == Broken::FromThereOn {
            breaks.through_proxy.configure(SHORT)?;
        }
        Ok(Some(breaks))
    }

    /// With a configuration that is there.
    pub fn of(garage: &Garage, workplace: Workplace, direct: Walpoint, broken: Broken) -> Result<OverS3> {
        let proxy = Proxy::start(garage.address())?;
        let through_proxy = direct.with_config(|text| {
            text.replace(&garage.endpoint(), &proxy.endpoint()).replace("[archive]\n", REQUEST_TIMEOUT)
        })?;
        Ok(OverS3 { workplace, proxy, broken, kinds: &KINDS, direct, through_proxy, archives: 0 })
    }

    /// A command whose store goes away, and does not come back for as long as it waits. `None`, said
    /// aloud, where there is no build with fault points.
    pub fn gone(garage: &Garage, direct: Walpoint) -> Result<Option<OverS3>> {
        let Some(binary) = programs::walpoint_faults()? else { return Ok(None) };
        let mut breaks = OverS3::of(garage, Workplace::new()?, direct, Broken::FromThereOn)?;
        let (name, value) = SHORT_OF_COMMANDS;
        breaks.through_proxy = breaks.through_proxy.with_binary(binary).with_environment(name, value);
        breaks.kinds = &KINDS_OF_OUTAGE;
        Ok(Some(breaks))
    }
}

impl Breaks for OverS3 {
    type Kind = RequestFault;

    fn kinds(&self) -> &'static [RequestFault] {
        self.kinds
    }

    fn points(&self) -> &'static str {
        "requests"
    }

    fn workplace(&self) -> &Workplace {
        &self.workplace
    }

    fn plain(&self) -> &Walpoint {
        &self.direct
    }

    /// Another prefix in the bucket.
    fn empty_archive(&mut self) -> Result<()> {
        self.archives += 1;
        name_archive(self.archives, &[&self.direct, &self.through_proxy])
    }

    /// The store keeps its own time.
    fn age_archive(&self) -> Result<()> {
        Ok(())
    }

    fn run(
        &self,
        directory: &Path,
        args: &[&str],
        number: usize,
        kind: RequestFault,
    ) -> Result<(Outcome, Reached)> {
        self.proxy.clear();
        self.proxy.forget_requests();
        if let Some(before) = number.checked_sub(1) {
            let rule = Rule::new(kind.fault()).after(before);
            self.proxy.add(if self.broken == Broken::One { rule.times(1) } else { rule });
        }
        let outcome = self.through_proxy.run_in(directory, args)?;
        // What it restored asks through the proxy, too, and not only where the point was met.
        self.proxy.clear();
        let requests = self.proxy.requests();
        ensure!(!requests.is_empty(), "no request came to the proxy\n{outcome}");
        let hit = number.checked_sub(1).and_then(|before| requests.get(before));
        let reached = match hit {
            Some(request) => Reached::Hit(format!("{} {}", request.method, request.target)),
            None => Reached::Untouched(requests.len()),
        };
        Ok((outcome, reached))
    }

    fn endings(&self, kind: RequestFault) -> Endings {
        match (self.broken, kind) {
            // Slow, and complete.
            (Broken::One, _) | (_, RequestFault::Trickle) => Endings::Either,
            (Broken::FromThereOn, _) => Endings::Failed,
        }
    }

    fn leaves_nothing(&self, _: RequestFault) -> bool {
        true
    }
}
