//! One archive after the other in one bucket: no trial waits for the last one's to be removed.

use anyhow::{Context, Result};
use walpoint_tests::scratch::write_private;
use walpoint_tests::walpoint::Walpoint;

/// Has these configurations name the archive of this number, which nobody has written to.
pub fn name_archive(number: u32, configured: &[&Walpoint]) -> Result<()> {
    for walpoint in configured {
        let text = std::fs::read_to_string(&walpoint.config)?;
        let (before, rest) = text.split_once("/archive").context("no url of an archive")?;
        let (_, after) = rest.split_once('"').context("the url does not end")?;
        write_private(&walpoint.config, &format!("{before}/archive/{number}\"{after}"))?;
    }
    Ok(())
}
