//! The history of the timeline that is recovered to, where recovery has it already.
//!
//! PostgreSQL asks for it when it begins, and once more at its end, when it has removed `recovery.signal`
//! (`writeTimeLineHistory`, access/transam/timeline.c, 13–18). Stopped there it would come up by plain crash
//! recovery next time, and go on writing the old timeline. What the first answer left in `pg_wal` is as good as
//! the archive's when it names the forks that the contract names: then nobody need be asked.

use std::io::Write;
use std::path::Path;

use walpoint_archive::fault_point::step;
use walpoint_wal::{TimelineHistory, TimelineId, WalFileName};

use super::deliver::SMALL_FILE;
use super::temporary::Temporary;
use super::{GetError, GetRequest, check_contract};

/// Hands over the file that is asked for out of the directory it is to be put in, when it is there and what the
/// contract says. False when the archive has to be asked.
///
/// # Errors
/// When it cannot be written.
pub fn deliver_own_history(request: &GetRequest) -> Result<bool, GetError> {
    let WalFileName::History(timeline) = request.name else { return Ok(false) };
    let Some(text) = of_contract(request, timeline) else { return Ok(false) };
    let mut temporary = Temporary::beside(&request.destination)?;
    step("write", || temporary.file().write_all(&text)).map_err(|error| temporary.error("write", error))?;
    temporary.place(&request.destination)?;
    Ok(true)
}

fn of_contract(request: &GetRequest, timeline: TimelineId) -> Option<Vec<u8>> {
    check_contract(request).ok()?;
    let path = request.contract.as_ref()?.path.as_slice();
    path.last().filter(|step| step.timeline == timeline)?;
    let beside = request.destination.parent().unwrap_or(Path::new(""));
    let file = beside.join(request.name.to_string());
    if std::fs::metadata(&file).ok()?.len() > SMALL_FILE {
        return None;
    }
    let text = std::fs::read(&file).ok()?;
    let history = TimelineHistory::parse(timeline, &text).ok()?;
    (history.path() == path).then_some(text)
}
