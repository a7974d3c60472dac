//! What must hold for any bytes: one function for each target of `tests/fuzz`, which
//! calls it with what libFuzzer makes up. The ordinary tests call it with the seeds
//! that are kept there.

mod files;
mod made_sound;
mod segments;

pub use files::{backup_label, control_file, history, tablespace_map};
pub use segments::{reader, survey};

#[cfg(test)]
#[path = "../../../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn the_seeds_of_segments_are_no_trouble() {
        replay("survey", super::survey);
        replay("reader", super::reader);
    }

    #[test]
    fn the_seeds_of_small_files_are_no_trouble() {
        replay("history", super::history);
        replay("backup_label", super::backup_label);
        replay("tablespace_map", super::tablespace_map);
        replay("control_file", super::control_file);
    }
}
