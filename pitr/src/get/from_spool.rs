//! Takes a segment that was fetched ahead: the content that the archive's listing names, or what the archive was
//! seen to have a moment ago.
//!
//! It is taken out of the spool first and looked at then: nobody else knows where it is by that time, and
//! PostgreSQL gets a file that nobody has open. Whatever is wrong with it, the archive is asked instead.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::OFlags;
use walpoint_archive::content::ContentHasher;
use walpoint_archive::{ContentHash, ContentId};
use walpoint_wal::SegmentName;

use super::temporary::Temporary;
use crate::spool::{Found, Held, KNOWN_FOR, Spool};

/// Pause between two looks for a file that is being fetched.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// A file that does not grow for so long is not waited for.
const STALLED: Duration = Duration::from_secs(1);
/// Bytes that are read and hashed at a time.
const STEP: usize = 256 * 1024;

/// The segment with this content and size, ready to be put in place at the destination. None when the spool
/// does not have it.
pub(super) async fn take(
    spool: &Spool,
    segment: SegmentName,
    content: ContentId,
    size: u64,
    destination: &Path,
) -> Option<Temporary> {
    let found = wait_for(spool, segment, Some(content)).await?;
    take_found(&found, size, destination)
}

/// The segment with the content that the archive was seen to have a moment ago, by somebody who still sees to it.
pub(super) async fn take_known(
    spool: &Spool,
    segment: SegmentName,
    size: u64,
    destination: &Path,
) -> Option<Temporary> {
    if !spool.is_tended() {
        return None;
    }
    let found = wait_for(spool, segment, None).await?;
    // What a clock that was set back shows in the future is not believed.
    let is_known = now().duration_since(found.listed_at).is_ok_and(|age| age <= KNOWN_FOR);
    is_known.then(|| take_found(&found, size, destination)).flatten()
}

#[expect(clippy::disallowed_methods, reason = "another process noted when it listed the archive")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn take_found(found: &Found, size: u64, destination: &Path) -> Option<Temporary> {
    match take_file(found, size, destination) {
        Ok(taken) => {
            tracing::debug!("{} was fetched ahead", found.content);
            Some(taken)
        }
        Err(error) => {
            tracing::debug!("what was fetched ahead as {} is of no use: {error}", found.content);
            let _ = std::fs::remove_file(&found.path);
            None
        }
    }
}

/// Waits for a file that is on its way: fetching it once more would take longer, and hinder both.
async fn wait_for(spool: &Spool, segment: SegmentName, content: Option<ContentId>) -> Option<Found> {
    let (mut seen, mut grown) = (0, Instant::now());
    loop {
        match spool.find(segment, content)? {
            Held::Whole(found) => return Some(found),
            Held::Coming(bytes) if bytes > seen => (seen, grown) = (bytes, Instant::now()),
            Held::Coming(_) => {}
        }
        if grown.elapsed() > STALLED || !spool.is_tended() {
            return None;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn take_file(found: &Found, size: u64, destination: &Path) -> io::Result<Temporary> {
    match Temporary::taken_from(&found.path, destination) {
        Ok(mut taken) => {
            check_owner(taken.file(), size)?;
            verified(found.content, taken.file(), io::sink())?;
            Ok(taken)
        }
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy(found, size, destination),
        Err(error) => Err(error),
    }
}

fn copy(found: &Found, size: u64, destination: &Path) -> io::Result<Temporary> {
    let mut from = open(&found.path)?;
    check_owner(&from, size)?;
    let mut copied = Temporary::beside(destination).map_err(io::Error::other)?;
    verified(found.content, &mut from, copied.file())?;
    // It is not asked for twice.
    let _ = std::fs::remove_file(&found.path);
    Ok(copied)
}

/// Opens a file, and nothing that a link leads to.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let no_links = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).write(true).custom_flags(no_links).open(path)
}

/// That it is a whole segment, and nobody else's by another name.
fn check_owner(file: &File, size: u64) -> io::Result<()> {
    let metadata = file.metadata()?;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.nlink() == 1;
    if !metadata.is_file() || !is_ours || metadata.len() != size {
        return Err(io::Error::other("it is not a whole file of this user alone"));
    }
    Ok(())
}

fn verified(content: ContentHash, from: &mut File, mut to: impl Write) -> io::Result<()> {
    let mut hasher = ContentHasher::new();
    let mut buffer = vec![0; STEP];
    from.rewind()?;
    loop {
        let read = from.read(&mut buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        hasher.update(bytes);
        to.write_all(bytes)?;
    }
    match hasher.finish() {
        found if found == content => Ok(()),
        found => Err(io::Error::other(format!("its content is {found}"))),
    }
}
