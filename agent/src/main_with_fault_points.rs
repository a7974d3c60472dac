//! `walpoint-faults`: the same program, built with steps that a test can fail
//! (`walpoint_archive::fault_point`). It is never installed.

// What is included cannot begin with a comment of its module, so main.rs does not.
include!("main.rs");
