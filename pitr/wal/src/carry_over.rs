//! What reading one segment leaves for the next.

/// State at the end of a segment: where the next record is expected, and the beginning
/// of a record that spans into the next segment. Lives in memory only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarryOver {
    _p: (),
}

/// What is known of the segment before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carry {
    /// Nothing: a record that spans in cannot be checked.
    Unknown,
    /// How it ended.
    Known(CarryOver),
}
