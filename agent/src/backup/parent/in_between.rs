//! The WAL between a parent and the backup that is being taken: unbroken in the archive, and what it did. Only the
//! segment in which this backup starts is not archived yet; what is before the start in it is read where it lies.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use walpoint_archive::Catalog;
use walpoint_pitr::path::TimelinePath;
use walpoint_pitr::unbroken::{self, Between, Told};
use walpoint_wal::{Carry, Edge, Lsn, SegmentName, Survey, SurveyOf, Surveyor};

use super::super::patience::pause;
use super::super::prepare::Preparation;
use super::{NoParent, segment_start};
use crate::config::Settings;
use crate::exit::Failure;

/// How often the archive is asked for what is on its way. Each time all of the stretch is listed.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// From a parent's start to this backup's.
#[derive(Debug)]
pub struct Stretch {
    pub from: Lsn,
    pub to: Lsn,
    /// What of the archive's WAL was seen last; nothing at first.
    pub catalog: Catalog,
    pub path: TimelinePath,
}

/// What the WAL of the stretch tells; why it is no ground to build on otherwise. Waits for what is not archived yet,
/// as long as the backup would wait for its own WAL, which is archived after it.
///
/// # Errors
/// When the archive does not answer.
pub async fn told(
    settings: &Settings,
    preparation: &Preparation,
    mut stretch: Stretch,
) -> Result<Result<Told, NoParent>, Failure> {
    let open = segment_start(stretch.to, stretch.catalog.cluster.segment_size.bytes());
    let to = open.max(stretch.from);
    let archived = match archived(settings, preparation, &mut stretch, to).await? {
        Ok(told) => told,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(Ok(archived.and(in_open_segment(preparation, &stretch))))
}

async fn archived(
    settings: &Settings,
    preparation: &Preparation,
    stretch: &mut Stretch,
    to: Lsn,
) -> Result<Result<Told, NoParent>, Failure> {
    let archive = &preparation.archive;
    let since = Instant::now();
    let until = since + settings.backup.wal_timeout;
    let mut looked_again = None;
    loop {
        archive.look_for_wal(&mut stretch.catalog, stretch.from).await?;
        let path = stretch.path.clone();
        let missing = match unbroken::between(archive, &stretch.catalog, path, stretch.from, to).await? {
            Between::Unbroken(told) => return Ok(Ok(told)),
            Between::Broken(why) => {
                return Ok(Err(NoParent(format!("the archive's WAL since the parent is broken: {why}"))));
            }
            Between::Missing(name) => name,
        };
        let is_awaited = is_awaited(preparation, missing);
        if Instant::now() >= until || (!is_awaited && looked_again == Some(missing)) {
            return Ok(Err(NoParent(format!(
                "the archive's WAL since the parent is broken: segment {missing} is missing"
            ))));
        }
        // It may have been archived after it was looked for.
        looked_again = (!is_awaited).then_some(missing);
        let pause = pause(since.elapsed(), SHORTEST_PAUSE, LONGEST_PAUSE);
        sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
    }
}

/// Whether a segment may still be archived: it is in `pg_wal`, and the server does not call it archived. A standby
/// calls it so as soon as it has it.
fn is_awaited(preparation: &Preparation, name: SegmentName) -> bool {
    let pg_wal = preparation.directory.path.join("pg_wal");
    let is_archived = pg_wal.join(format!("archive_status/{name}.done")).exists();
    pg_wal.join(name.to_string()).exists() && (preparation.session.server.is_in_recovery || !is_archived)
}

/// What is in the open segment from its beginning on. What cannot be read may have been anything.
fn in_open_segment(preparation: &Preparation, stretch: &Stretch) -> Told {
    let unknown = Told { file_copy: true, parameter_changes: None };
    let size = stretch.catalog.cluster.segment_size;
    let pg_wal = preparation.directory.path.join("pg_wal");
    let read = |number: u64, partial: bool, carry: Carry| {
        let name = SegmentName::from_number(stretch.path.timeline, number, size)?;
        let expected = Some(preparation.directory.control.system_identifier);
        let of = SurveyOf { name, partial, file_size: size.bytes(), expected, carry };
        survey(&pg_wal.join(name.to_string()), of).ok().flatten()
    };
    let number = stretch.to.segment_number(size);
    // A backup of a standby starts wherever the last checkpoint did: a record that spans into the segment begins in
    // the one before, which is there as long as the server may have to recover from it.
    let before = number.checked_sub(1).and_then(|before| read(before, false, Carry::Unknown));
    let carry = before.and_then(|before| before.carry_out).map_or(Carry::Unknown, Carry::Known);
    match read(number, true, carry) {
        Some(survey) if survey.end >= stretch.to && !matches!(survey.edge, Edge::Unchecked { .. }) => {
            Told { file_copy: survey.file_copy, parameter_changes: Some(survey.parameter_changes) }
        }
        _ => unknown,
    }
}

fn survey(path: &Path, of: SurveyOf) -> io::Result<Option<Survey>> {
    let mut surveyor = Surveyor::new(of);
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(surveyor.finish().ok()),
            read => surveyor.feed(buffer.get(..read).unwrap_or_default()),
        }
    }
}
