//! What must hold for any bytes: one function for each target of `tests/fuzz`, which
//! calls it with what libFuzzer makes up. The ordinary tests call it with the seeds
//! that are kept there.

mod envelope;
mod facts;
mod keys;
mod listing;
mod manifest;

pub use envelope::envelope;
pub use facts::{metadata, summary};
pub use keys::layout;
pub use listing::listing;
pub use manifest::manifest;

#[cfg(test)]
#[path = "../../../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn the_seeds_of_stored_objects_are_no_trouble() {
        replay("envelope", super::envelope);
        replay("manifest", super::manifest);
        replay("metadata", super::metadata);
        replay("summary", super::summary);
    }

    #[test]
    fn the_seeds_of_listings_are_no_trouble() {
        replay("layout", super::layout);
        replay("listing", super::listing);
    }
}
