//! Descriptors that this process got from the one that started it.
//!
//! PostgreSQL before 16 hands everything that its startup process has open to what `restore_command` runs: data
//! files, WAL, the pipes between the server's processes. A process that stays would keep the room of files that
//! the server has dropped, and hold pipes open whose end somebody waits for. Rust opens everything so that it is
//! closed in children; for what it did not open there is no safe call.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// Where the system lists the descriptors of the process that asks.
const DESCRIPTORS: &str = "/dev/fd";
/// Standard input, output and error.
const STANDARD: RawFd = 2;

/// Has every descriptor but the standard ones closed in the children that are started from now on. Here they
/// stay as they are.
///
/// # Errors
/// When the system does not say which ones there are.
pub fn keep_from_children() -> io::Result<()> {
    for entry in std::fs::read_dir(DESCRIPTORS)? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(number) = number.filter(|number| *number > STANDARD) {
            close_in_children(number)?;
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "a descriptor that nobody here owns can be named by its number only")]
fn close_in_children(number: RawFd) -> io::Result<()> {
    // SAFETY: it was listed as open a moment ago, is not -1, and is neither read, written nor closed here. If
    // somebody has closed it since, the call fails; if the number is another file's by now, that one is ours, and
    // to be closed in children anyway.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    match fcntl_setfd(descriptor, FdFlags::CLOEXEC) {
        Ok(()) | Err(Errno::BADF) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::io::fcntl_getfd;
    use std::fs::File;

    #[test]
    fn what_was_inherited_is_closed_in_children_and_stays_here() {
        let file = File::open("/dev/null").unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        keep_from_children().unwrap();
        assert_eq!(fcntl_getfd(&file).unwrap(), FdFlags::CLOEXEC);
        assert_eq!(fcntl_getfd(std::io::stdin()).ok(), Some(FdFlags::empty()));
    }
}
