//! From a target to a plan, or to the reason why there is none.

mod outcome;

pub use outcome::{Candidate, Moment, Nearest, PlanError, PlanOutcome, RecoveryPlan, Segments, Unreachable};
