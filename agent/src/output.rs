//! What the program writes. Nothing here panics and no log line decides a status: a write to standard error
//! that fails is lost, and a closed pipe ends a listing quietly.

use crate::exit::{Failure, Role};
use rustix::io::Errno;
use serde_json::json;
use std::os::fd::{AsFd, BorrowedFd};

/// Writes to standard error, and gives up silently when that is full, closed or gone.
pub fn to_stderr(text: &str) {
    let stderr = std::io::stderr();
    // The descriptor itself, past the lock and buffers of std: a panic hook may be the caller.
    let _lost = write_all(stderr.as_fd(), text.as_bytes());
}

/// Writes a command's result to standard output.
///
/// # Errors
/// Status 1 when it could not be written, unless the reader has closed the pipe: then nobody wants the rest.
pub fn result(text: &str) -> Result<(), Failure> {
    match write_all(std::io::stdout().as_fd(), text.as_bytes()) {
        Ok(()) | Err(Errno::PIPE) => Ok(()),
        Err(errno) => Err(Failure::failed(format!("could not write to standard output: {errno}"))),
    }
}

/// Writes one of many results to standard output.
///
/// # Errors
/// Status 1 when it could not be written, also when nobody reads any more: then there is no sense in going on.
pub fn result_until_closed(text: &str) -> Result<(), Failure> {
    write_all(std::io::stdout().as_fd(), text.as_bytes())
        .map_err(|errno| Failure::failed(format!("could not write to standard output: {errno}")))
}

/// Writes to standard output after work that must not be called failed because nobody could be told.
pub fn result_of_work(text: &str) {
    if let Err(failure) = result(text) {
        tracing::warn!("{failure}");
    }
}

/// One JSON object as a line.
pub fn json_line(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map(|text| text + "\n")
        .map_err(|error| Failure::failed(format!("could not write the result as JSON: {error}")))
}

/// How a failure is said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// As one object on standard output.
    pub json: bool,
    /// As a JSON log line on standard error.
    pub json_log: bool,
}

/// Says why the run failed: on standard error, and with `--json` as an object on standard output.
pub fn failure(role: Role, name: &str, failure: &Failure, code: u8, manner: Manner) {
    if manner.json_log {
        tracing::error!(status = code, hint = failure.hint.as_deref(), "{}", failure.error);
    } else {
        let name = if name.is_empty() { "walpoint".to_owned() } else { format!("walpoint {name}") };
        let mut text = format!("{name}: error: {}\n", failure.error);
        if let Some(hint) = &failure.hint {
            text += &format!("hint: {hint}\n");
        }
        to_stderr(&text);
    }
    if manner.json && !role.is_hook() {
        let object = json!({ "status": code, "error": failure.error, "hint": failure.hint });
        let _nobody_reads = result(&format!("{object}\n"));
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A table for people: columns as wide as their widest cell, two spaces between, numbers to the right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = line(&header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>(), &widths);
    for row in rows {
        text += &line(row, &widths);
    }
    text
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
        text += &format!("{cell}{gap}  ");
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            vec![vec!["a".to_owned(), "long cell".to_owned()], vec!["wider".to_owned(), "b".to_owned()]];
        assert_eq!(table(&["x", "y"], &rows), "x      y\na      long cell\nwider  b\n");
    }
}
