//! The steps that a test can fail: every write, fsync and rename of the durable
//! write goes through [`step`], and in a test every request to the store is one too.
//!
//! The program that is shipped has none of that: there, a step is a call of its
//! work and nothing else. With the feature `fault-points`, which only the program
//! `walpoint-faults` of `scripts/torture` is built with, the environment says
//! which step fails and how ([`injected`]).

#[cfg(feature = "fault-points")]
pub mod injected;
#[cfg(test)]
pub(crate) mod scripted;

#[cfg(feature = "fault-points")]
pub use injected::step;

/// Does one step. Its name says what it is: "fsync a file".
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn step<T, E: From<rustix::io::Errno>>(
    _name: &'static str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    #[cfg(test)]
    scripted::next(_name)?;
    work()
}

/// Panics when a test asks for it by this name, on whatever thread that is. Only in a debug build.
pub fn panic_for_a_test(place: &str) {
    #[cfg(debug_assertions)]
    #[expect(clippy::panic, reason = "the panic that the exit statuses are tested with")]
    if std::env::var("WALPOINT_TEST_PANIC").is_ok_and(|wanted| wanted == place) {
        panic!("asked for by a test");
    }
    #[cfg(not(debug_assertions))]
    let _unused = place;
}
