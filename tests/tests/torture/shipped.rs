//! The program that is shipped has nothing of this.

use anyhow::{Context, Result, ensure};
use walpoint_tests::programs;

const VARIABLE: &[u8] = b"WALPOINT_TEST_FAULT";

fn names_the_variable(binary: &std::path::Path) -> Result<bool> {
    let bytes = std::fs::read(binary).with_context(|| format!("read {}", binary.display()))?;
    Ok(bytes.windows(VARIABLE.len()).any(|window| window == VARIABLE))
}

#[test]
fn the_program_that_is_shipped_cannot_be_told_to_fail() -> Result<()> {
    let Some(faults) = programs::walpoint_faults()? else { return Ok(()) };
    ensure!(names_the_variable(&faults)?, "the build with fault points has none");
    ensure!(!names_the_variable(&programs::walpoint()?)?, "the program that is shipped has fault points");
    Ok(())
}
