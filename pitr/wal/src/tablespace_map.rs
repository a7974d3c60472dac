//! `tablespace_map`: the tablespaces of a backup, from which a starting server
//! makes its symbolic links.

/// The bytes are not a `tablespace_map` that PostgreSQL would accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not read tablespace_map: line {line} {problem}")]
pub struct TablespaceMapError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Reads the content of a `tablespace_map` file: object identifier and path of each
/// tablespace (`read_tablespace_map`, access/transam/xlogrecovery.c, in 13 and 14
/// xlog.c). In a path `\n`, `\r` and `\` have a backslash before them. The last line
/// must be ended, or the file was cut.
pub fn parse(bytes: &[u8]) -> Result<Vec<(u32, String)>, TablespaceMapError> {
    let mut tablespaces = Vec::new();
    let mut line = Vec::new();
    let mut number = 1;
    let mut escaped = false;
    for &byte in bytes {
        match byte {
            b'\n' | b'\r' if !escaped => {
                // A carriage return with its newline ends one line, not two.
                if !line.is_empty() {
                    tablespaces.push(parse_line(&line).map_err(|problem| refused(number, problem))?);
                    line.clear();
                    number += 1;
                }
            }
            b'\\' if !escaped => escaped = true,
            _ => {
                line.push(byte);
                escaped = false;
            }
        }
    }
    if line.is_empty() && !escaped { Ok(tablespaces) } else { Err(refused(number, "is not ended")) }
}

fn refused(line: usize, problem: &'static str) -> TablespaceMapError {
    TablespaceMapError { line, problem }
}

fn parse_line(line: &[u8]) -> Result<(u32, String), &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8")?;
    let (oid, path) = text.split_once(' ').ok_or("has no path")?;
    let digits = oid.bytes().all(|b| b.is_ascii_digit());
    let oid = if digits { oid.parse().ok() } else { None };
    let oid = oid.ok_or("does not begin with an object identifier")?;
    if path.is_empty() { Err("has no path") } else { Ok((oid, path.to_owned())) }
}

/// Writes a `tablespace_map` file that [`parse`] and PostgreSQL read back.
pub fn render(tablespaces: &[(u32, String)]) -> Vec<u8> {
    let mut text = String::new();
    for (oid, path) in tablespaces {
        text.push_str(&oid.to_string());
        text.push(' ');
        for c in path.chars() {
            if matches!(c, '\n' | '\r' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push('\n');
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn odd_paths_come_back() {
        let tablespaces = vec![(16384, "/srv/a b".to_owned()), (16385, " lead\\ing\nnew\rline".to_owned())];
        assert_eq!(parse(&render(&tablespaces)).unwrap(), tablespaces);
        assert_eq!(render(&tablespaces[1..]), b"16385  lead\\\\ing\\\nnew\\\rline\n");
    }

    #[test]
    fn what_postgresql_refuses_is_refused() {
        for wrong in ["16384 /srv", "16384\n", "16384 \n", "x /srv\n", "16384 /srv\\", " /srv\n", "-1 /srv\n"]
        {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert_eq!(parse(b"").unwrap(), []);
        assert_eq!(parse(b"1 /a\r\n\n2 /b\n").unwrap().len(), 2);
    }
}
