//! Breaks the program's own steps. The archive is a directory, or lies in a bucket.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use walpoint_tests::archive_files;
use walpoint_tests::garage::Garage;
use walpoint_tests::process::Outcome;
use walpoint_tests::torture::{KINDS, Reached, StepFault, Steps};
use walpoint_tests::walpoint::{ArchivePlace, Walpoint};

use crate::breaks::{Breaks, Endings};
use crate::bucket::name_archive;
use crate::workplace::Workplace;

pub struct InSteps {
    workplace: Workplace,
    plain: Walpoint,
    faulty: Steps,
    /// How many archives there have been in the bucket; none where the archive is a directory.
    in_bucket: Option<u32>,
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

    /// With an archive in a bucket of its own. `None`, said aloud, also where there is no Garage.
    pub fn in_bucket() -> Result<Option<InSteps>> {
        let Some(garage) = Garage::shared()? else { return Ok(None) };
        let breaks = InSteps::configured(Workplace::new()?, &garage.archive()?)?;
        Ok(breaks.map(|breaks| InSteps { in_bucket: Some(0), ..breaks }))
    }

    fn configured(workplace: Workplace, place: &ArchivePlace) -> Result<Option<InSteps>> {
        let plain = Walpoint::new(&workplace.scratch, place, None)?;
        InSteps::of(workplace, plain)
    }

    /// With a configuration that is there.
    pub fn of(workplace: Workplace, plain: Walpoint) -> Result<Option<InSteps>> {
        let faulty = Steps::of(&plain, workplace.path("steps"))?;
        Ok(faulty.map(|faulty| InSteps { workplace, plain, faulty, in_bucket: None }))
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
        match &mut self.in_bucket {
            Some(number) => {
                *number += 1;
                // The build with fault points reads the same file.
                name_archive(*number, &[&self.plain])
            }
            None => self.workplace.empty("archive").map(drop),
        }
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
