//! Has the disk write what was restored while further packs are opened. All of it is made durable at the end, which
//! then has little left to wait for; what the disk refuses now it may not report again, so it counts.

use std::fs::File;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use super::error::RestoreError;
use super::site::{Place, Site};
use super::stopped;

/// After so many bytes of a file the disk is told to write them, and at a pack's end of those that are some part of it.
const MUCH: u64 = if cfg!(test) { 64 << 10 } else { 16 << 20 };
const REST: u64 = MUCH / 4;

/// How many files the disk writes at once, and how many wait for it.
const SENDING: usize = 4;
const WAITING: usize = 16;

/// Where workers hand over what they have written.
#[derive(Debug, Clone)]
pub(super) struct ToDisk(mpsc::Sender<(Place, File)>);

/// What was handed over.
#[derive(Debug)]
pub(super) struct Written(mpsc::Receiver<(Place, File)>);

/// From the workers to the disk. It ends when the last worker is gone.
pub(super) fn channel() -> (ToDisk, Written) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (ToDisk(sender), Written(receiver))
}

impl ToDisk {
    /// So many bytes of a file were written; `unsent` counts those that the disk was not told of. Blocks while the
    /// disk has enough to do.
    pub(super) fn wrote(&self, place: &Place, open: &File, bytes: usize, unsent: &mut u64) {
        *unsent += bytes as u64;
        if *unsent >= MUCH {
            *unsent = 0;
            self.hand_over(place, open);
        }
    }

    /// The rest of the file is in other packs, or nowhere.
    pub(super) fn end_of_pack(&self, place: &Place, open: &File, unsent: u64) {
        if unsent >= REST {
            self.hand_over(place, open);
        }
    }

    /// Where nobody sends any more all is over anyway.
    fn hand_over(&self, place: &Place, open: &File) {
        if let Ok(file) = open.try_clone() {
            let _ = self.0.blocking_send((place.clone(), file));
        }
    }
}

impl Written {
    /// Sends to the disk all that comes.
    ///
    /// # Errors
    /// When the disk refuses some of it.
    pub(super) async fn send(self, site: &Arc<Site>) -> Result<(), RestoreError> {
        let files = stream::unfold(self.0, |mut files| async {
            let file = files.recv().await?;
            Some((file, files))
        });
        let send = |(place, file): (Place, File)| {
            let site = Arc::clone(site);
            let sent = tokio::task::spawn_blocking(move || site.sync_data(&place, &file));
            async { sent.await.map_err(|_| stopped())? }
        };
        files.map(send).buffer_unordered(SENDING).try_for_each(|()| std::future::ready(Ok(()))).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::site::{Claim, GroupAccess};
    use super::*;

    /// What cannot be synced says so, as a disk does that lost what it was to write.
    #[tokio::test]
    async fn what_the_disk_refuses_fails_the_restore() {
        let scratch = tempfile::tempdir().unwrap();
        let claim = Claim {
            data_directory: &scratch.path().join("data"),
            tablespaces: &[],
            group: GroupAccess::Denied,
            owner: None,
            cluster: walpoint_wal::SystemIdentifier(7),
        };
        let site = Arc::new(Site::claim(&claim).unwrap());
        let place = Place::in_data_directory("file");
        for (path, refused) in [(scratch.path().join("file"), false), ("/dev/null".into(), true)] {
            let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
            let (to_disk, written) = channel();
            let work = tokio::task::spawn_blocking({
                let place = place.clone();
                move || {
                    let mut unsent = 0;
                    for _ in 0..WAITING + SENDING + 2 {
                        to_disk.wrote(&place, &file, MUCH as usize, &mut unsent);
                    }
                    to_disk.end_of_pack(&place, &file, REST);
                }
            });
            assert_eq!(written.send(&site).await.is_err(), refused);
            // Nobody waits for a disk that is asked for nothing any more.
            work.await.unwrap();
        }
    }
}
