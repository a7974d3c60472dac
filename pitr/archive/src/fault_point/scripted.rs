//! Fails steps of this crate's own tests, in the thread that says so.

use std::cell::RefCell;

use rustix::io::Errno;

thread_local! {
    static FAILS: RefCell<Option<&'static str>> = const { RefCell::new(None) };
}

/// The next step of this name is not done: an error of the disk.
pub(crate) fn fail_next(name: &'static str) {
    FAILS.set(Some(name));
}

/// What becomes of a step before it is done.
pub(super) fn next(name: &str) -> Result<(), Errno> {
    FAILS.with_borrow_mut(|fails| match fails.take_if(|fails| *fails == name) {
        Some(_) => Err(Errno::IO),
        None => Ok(()),
    })
}
