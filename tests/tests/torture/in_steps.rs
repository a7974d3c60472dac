//! Breaks the program's own steps. The archive is a directory.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use walpoint_tests::archive_files;
use walpoint_tests::process::Outcome;
use walpoint_tests::torture::{KINDS, Reached, StepFault, Steps};
use walpoint_tests::walpoint::{ArchivePlace, Walpoint};

use crate::breaks::{Breaks, Endings};
use crate::workplace::Workplace;

pub struct InSteps {
    workplace: Workplace,
    plain: Walpoint,
    faulty: Steps,
}

impl InSteps {
    /// With an archive of its own. `None`, said aloud, where there is no build with fault points.
    pub fn new() -> Result<Option<InSteps>> {
        let workplace = Workplace::new()?;
        let place = ArchivePlace::Directory(workplace.path("archive"));
        InSteps::configured(workplace, &place)
    }

    /// With an archive that is there.
    pub fn on(archive: &Path) -> Result<Option<InSteps>> {
        InSteps::configured(Workplace::new()?, &ArchivePlace::Directory(archive.to_owned()))
    }

    fn configured(workplace: Workplace, place: &ArchivePlace) -> Result<Option<InSteps>> {
        let plain = Walpoint::new(&workplace.scratch, place, None)?;
        InSteps::of(workplace, plain)
    }

    /// With a configuration that is there.
    pub fn of(workplace: Workplace, plain: Walpoint) -> Result<Option<InSteps>> {
        let faulty = Steps::of(&plain, workplace.path("steps"))?;
        Ok(faulty.map(|faulty| InSteps { workplace, plain, faulty }))
    }
}

impl Breaks for InSteps {
    type Kind = StepFault;

    fn kinds(&self) -> &'static [StepFault] {
        &KINDS
    }

    fn points(&self) -> &'static str {
        "steps"
    }

    fn workplace(&self) -> &Workplace {
        &self.workplace
    }

    fn plain(&self) -> &Walpoint {
        &self.plain
    }

    fn empty_archive(&mut self) -> Result<()> {
        self.workplace.empty("archive").map(drop)
    }

    fn age_archive(&self) -> Result<()> {
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for file in archive_files::named(&self.workplace.path("archive"), "") {
            File::options().write(true).open(&file)?.set_modified(long_ago)?;
        }
        Ok(())
    }

    fn run(
        &self,
        directory: &Path,
        args: &[&str],
        number: usize,
        kind: StepFault,
    ) -> Result<(Outcome, Reached)> {
        self.faulty.run(directory, args, number, kind)
    }

    fn endings(&self, kind: StepFault) -> Endings {
        match kind {
            StepFault::KillBefore | StepFault::KillAfter => Endings::Killed,
            StepFault::Refused => Endings::FailedOrSaid,
            StepFault::Error | StepFault::Lost => Endings::Either,
        }
    }

    fn leaves_nothing(&self, kind: StepFault) -> bool {
        // Of a file whose making was reported as failed nobody knows.
        matches!(kind, StepFault::Error | StepFault::Refused)
    }
}
