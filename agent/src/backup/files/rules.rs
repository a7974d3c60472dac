//! What belongs to a base backup, by name. The rules are those of PostgreSQL's
//! own base backup (`basebackup.c`: `excludeDirContents`, `excludeFiles`,
//! `sendDir`; `reinit.c`: relation file names; 13–18), and our own few.

/// What a directory is, as far as the rules depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The data directory itself.
    Root,
    /// `global`: shared relations.
    Global,
    /// A directory of one database: relations, also temporary and unlogged.
    Database,
    /// `pg_tblspc`.
    Tablespaces,
    /// Any other.
    Other,
}

/// What is done with a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// The server makes it anew, or it belongs to this host only.
    Leave,
    /// The directory itself is kept, and what is in it is left.
    KeepEmpty,
}

/// Emptied or rebuilt when a server starts.
const EMPTY_DIRECTORIES: [&[u8]; 7] = [
    b"pg_stat_tmp",
    b"pg_replslot",
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_subtrans",
];

const LEFT_FILES: [&[u8]; 8] = [
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    b"backup_label",
    b"tablespace_map",
    b"backup_manifest",
    b"postmaster.pid",
    b"postmaster.opts",
    b".DS_Store",
];

/// Rebuilt at start; prefixes, because temporary names carry a number.
const LEFT_PREFIXES: [&[u8]; 2] = [b"pgsql_tmp", b"pg_internal.init"];

/// Who wrote here and what recovery needed: true of this data directory only.
const OUR_PREFIX: &[u8] = b"walpoint.";

/// Decides by the name alone. Unlogged relations need the whole directory:
/// see [`is_unlogged_content`].
pub fn judge(place: Place, name: &[u8]) -> Verdict {
    if LEFT_FILES.contains(&name) || LEFT_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Verdict::Leave;
    }
    if place == Place::Root && name.starts_with(OUR_PREFIX) {
        return Verdict::Leave;
    }
    if EMPTY_DIRECTORIES.contains(&name) || (place == Place::Root && name == b"pg_wal") {
        return Verdict::KeepEmpty;
    }
    if place == Place::Database && is_temporary_relation(name) {
        return Verdict::Leave;
    }
    Verdict::Keep
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    Main,
    FreeSpaceMap,
    VisibilityMap,
    Init,
}

/// A relation's file: `<number>[_<fork>][.<segment>]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationFile {
    pub number: u32,
    pub fork: Fork,
    /// Which of the files of at most 1 GiB each (0 for the first).
    pub segment: u32,
}

impl RelationFile {
    /// Parses a file name of `global` or a database's directory; `None` for
    /// everything else that lies there (`PG_VERSION`, `pg_filenode.map` …).
    pub fn parse(name: &[u8]) -> Option<RelationFile> {
        let (number, rest) = take_number(name)?;
        let (fork, rest) = take_fork(rest)?;
        let segment = match rest.split_first() {
            None => 0,
            Some((b'.', digits)) => match take_number(digits)? {
                (segment, []) => segment,
                _ => return None,
            },
            Some(_) => return None,
        };
        Some(RelationFile { number, fork, segment })
    }
}

/// Main, free space map and visibility map forks of relations that have an
/// init fork are reset from it at start: only the init fork is kept.
pub fn is_unlogged_content(name: &[u8], has_init_fork: impl Fn(u32) -> bool) -> bool {
    RelationFile::parse(name).is_some_and(|file| file.fork != Fork::Init && has_init_fork(file.number))
}

/// `t<backend>_<number>[_<fork>][.<segment>]`.
fn is_temporary_relation(name: &[u8]) -> bool {
    let Some((b't', rest)) = name.split_first() else { return false };
    let Some((_, rest)) = take_digits(rest) else { return false };
    let Some((b'_', rest)) = rest.split_first() else { return false };
    RelationFile::parse(rest).is_some()
}

fn take_digits(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let count = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // Ten digits hold every OID (OIDCHARS).
    if count == 0 || count > 10 { None } else { bytes.split_at_checked(count) }
}

fn take_number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = take_digits(bytes)?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number, rest))
}

fn take_fork(bytes: &[u8]) -> Option<(Fork, &[u8])> {
    const FORKS: [(&[u8], Fork); 4] = [
        (b"_main", Fork::Main),
        (b"_fsm", Fork::FreeSpaceMap),
        (b"_vm", Fork::VisibilityMap),
        (b"_init", Fork::Init),
    ];
    if bytes.first() != Some(&b'_') {
        return Some((Fork::Main, bytes));
    }
    FORKS.iter().find_map(|(name, fork)| Some((*fork, bytes.strip_prefix(*name)?)))
}

/// Is this a directory of one database: all digits, below `base` or below a
/// tablespace's version directory (`PG_15_202209061`)?
pub fn is_database_directory(parents: &[&[u8]], name: &[u8]) -> bool {
    let digits = !name.is_empty() && name.iter().all(u8::is_ascii_digit);
    digits
        && match parents {
            [b"base"] => true,
            [b"pg_tblspc", _oid, version] => version.starts_with(b"PG_"),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_judged_as_postgresql_does() {
        use Place::{Database, Global, Other, Root};
        use Verdict::{Keep, KeepEmpty, Leave};
        let table: &[(Place, &str, Verdict)] = &[
            (Root, "PG_VERSION", Keep),
            (Root, "postgresql.conf", Keep),
            (Root, "postgresql.auto.conf", Keep),
            (Root, "postgresql.auto.conf.tmp", Leave),
            (Root, "current_logfiles", Keep),
            (Root, "current_logfiles.tmp", Leave),
            (Root, "postmaster.pid", Leave),
            (Root, "postmaster.opts", Leave),
            (Root, "backup_label", Leave),
            (Root, "backup_label.old", Keep),
            (Root, "tablespace_map", Leave),
            (Root, "tablespace_map.old", Keep),
            (Root, "backup_manifest", Leave),
            (Root, "standby.signal", Keep),
            (Root, "walpoint.writer", Leave),
            (Root, "walpoint.recovery.json", Leave),
            (Root, "walpoint-config", Keep),
            (Other, "walpoint.notes", Keep),
            (Root, "log", Keep),
            (Root, "pg_wal", KeepEmpty),
            (Other, "pg_wal", Keep),
            (Root, "pg_replslot", KeepEmpty),
            (Root, "pg_dynshmem", KeepEmpty),
            (Root, "pg_notify", KeepEmpty),
            (Root, "pg_serial", KeepEmpty),
            (Root, "pg_snapshots", KeepEmpty),
            (Root, "pg_subtrans", KeepEmpty),
            (Root, "pg_stat_tmp", KeepEmpty),
            (Root, "pg_stat", Keep),
            (Root, "pg_xact", Keep),
            (Root, "pg_twophase", Keep),
            (Root, "pg_logical", Keep),
            (Global, "pg_internal.init", Leave),
            (Global, "pg_internal.init.4711", Leave),
            (Global, "pg_control", Keep),
            (Global, "1262_vm", Keep),
            (Database, "pg_internal.init", Leave),
            (Database, "pg_filenode.map", Keep),
            (Database, "t3_16384", Leave),
            (Database, "t3_16384_fsm", Leave),
            (Database, "t3_16384.1", Leave),
            (Database, "t3_16384_vm.2", Leave),
            (Database, "t3_x", Keep),
            (Database, "t_16384", Keep),
            (Database, "t3_16384x", Keep),
            (Other, "t3_16384", Keep),
            (Other, "pgsql_tmp", Leave),
            (Other, "pgsql_tmp4711.0", Leave),
        ];
        for (place, name, verdict) in table {
            assert_eq!(judge(*place, name.as_bytes()), *verdict, "{place:?} {name}");
        }
    }

    #[test]
    fn relation_files_are_told_from_their_neighbours() {
        let file = |number, fork, segment| Some(RelationFile { number, fork, segment });
        let table: &[(&str, Option<RelationFile>)] = &[
            ("16384", file(16384, Fork::Main, 0)),
            ("16384.3", file(16384, Fork::Main, 3)),
            ("16384_fsm", file(16384, Fork::FreeSpaceMap, 0)),
            ("16384_vm.1", file(16384, Fork::VisibilityMap, 1)),
            ("16384_init", file(16384, Fork::Init, 0)),
            ("4294967295", file(u32::MAX, Fork::Main, 0)),
            ("4294967296", None),
            ("16384.", None),
            ("16384.x", None),
            ("16384_", None),
            ("16384_foo", None),
            ("16384_fsmx", None),
            ("pg_filenode.map", None),
            ("PG_VERSION", None),
            ("", None),
            ("12345678901", None),
        ];
        for (name, expected) in table {
            assert_eq!(RelationFile::parse(name.as_bytes()), *expected, "{name}");
        }
    }

    #[test]
    fn only_the_init_fork_of_an_unlogged_relation_stays() {
        let has_init = |number| number == 7;
        for name in ["7", "7.1", "7_fsm", "7_vm"] {
            assert!(is_unlogged_content(name.as_bytes(), has_init), "{name}");
        }
        for name in ["7_init", "8", "8_vm", "PG_VERSION"] {
            assert!(!is_unlogged_content(name.as_bytes(), has_init), "{name}");
        }
    }

    #[test]
    fn database_directories_are_known_by_where_they_lie() {
        for (path, expected) in [
            ("base/5", true),
            ("base/pgsql_tmp", false),
            ("pg_tblspc/16384/PG_15_202209061/5", true),
            ("pg_tblspc/16384/elsewhere/5", false),
            ("pg_tblspc/16384", false),
            ("5", false),
            ("log/5", false),
        ] {
            let mut parts: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
            let name = parts.pop().unwrap_or_default();
            assert_eq!(is_database_directory(&parts, name), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn every_relation_name_is_parsed_back(
            number: u32,
            fork in 0usize..4,
            segment in 0u32..100_000,
        ) {
            let (text, fork) = [
                ("", Fork::Main),
                ("_fsm", Fork::FreeSpaceMap),
                ("_vm", Fork::VisibilityMap),
                ("_init", Fork::Init),
            ][fork];
            let suffix = if segment == 0 { String::new() } else { format!(".{segment}") };
            let name = format!("{number}{text}{suffix}");
            prop_assert_eq!(
                RelationFile::parse(name.as_bytes()),
                Some(RelationFile { number, fork, segment })
            );
            let temporary = format!("t12_{name}");
            prop_assert_eq!(judge(Place::Database, temporary.as_bytes()), Verdict::Leave);
        }

        #[test]
        fn any_name_is_judged_without_a_panic(name: Vec<u8>) {
            for place in [Place::Root, Place::Global, Place::Database, Place::Other] {
                judge(place, &name);
            }
            RelationFile::parse(&name);
        }
    }
}
