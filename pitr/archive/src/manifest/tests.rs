#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

fn header() -> ManifestHeader {
    ManifestHeader {
        backup: "20261120T214500Z-full-3fa9c1".parse().unwrap(),
        system_identifier: SystemIdentifier(7),
    }
}

fn path(text: impl AsRef<[u8]>) -> RelativePath {
    RelativePath::new(text).unwrap()
}

fn entry(path_text: &str, kind: EntryKind) -> ManifestEntry {
    let (pieces, windows) = Default::default();
    ManifestEntry { path: path(path_text), kind, mode: 0o600, size: 0, pieces, windows }
}

fn dir(path: &str) -> ManifestEntry {
    ManifestEntry { mode: 0o700, ..entry(path, EntryKind::Dir) }
}

fn pieces(count: u64, length: u32) -> Vec<Piece> {
    let piece = |number: u64| Piece {
        file_offset: number * u64::from(length),
        length,
        backup: (number % 3 == 1).then(|| "20261119T214500Z-full-000000".parse().unwrap()),
        pack: number as u32 / 16,
        pack_offset: number * 100,
        stored_length: 100,
        blake3: ContentHash::of(&number.to_le_bytes()),
        part: None,
    };
    (0..count).map(piece).collect()
}

fn file(path: &str, count: u64) -> ManifestEntry {
    let pieces = pieces(count, 8192);
    ManifestEntry { size: count * 8192, pieces, ..entry(path, EntryKind::File) }
}

fn write(entries: &[ManifestEntry]) -> Result<Vec<u8>, ManifestError> {
    let mut writer = ManifestWriter::new(Vec::new(), &header())?;
    for entry in entries {
        writer.entry(entry)?;
    }
    Ok(writer.finish()?.0)
}

fn read(stored: &[u8]) -> Result<Vec<ManifestEntry>, ManifestError> {
    let mut reader = ManifestReader::new(stored)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    assert!(reader.next_entry()?.is_none(), "the end stays the end");
    assert_eq!(reader.totals().entries, entries.len() as u64);
    Ok(entries)
}

fn sample() -> Vec<ManifestEntry> {
    vec![
        file("PG_VERSION", 1),
        dir("base"),
        dir("base/1"),
        file("base/1/1259", 3),
        file("base/1/2619", 0),
        dir("pg_tblspc"),
        ManifestEntry {
            mode: 0,
            ..entry(
                "pg_tblspc/16385",
                EntryKind::Tablespace { oid: 16385, target: PathBuf::from("/mnt/fast disk") },
            )
        },
        dir("pg_tblspc/16385/PG_15_202209061"),
        file("pg_tblspc/16385/PG_15_202209061/16400", 1),
        ManifestEntry {
            kind: EntryKind::Config { original: PathBuf::from("/etc/postgresql/15/main/pg_hba.conf") },
            ..file("walpoint-config/etc/pg_hba.conf", 1)
        },
    ]
}

/// The trailer that fits these lines, so that tests reach what lies behind it.
fn closed(lines: &str, entries: u64, files: u64, bytes: u64) -> Vec<u8> {
    let sha256 = crate::content::StoredHash::of(lines.as_bytes());
    let totals = format!(r#"{{"entries":{entries},"files":{files},"bytes":{bytes},"sha256":"{sha256}"}}"#);
    format!("{lines}{totals}\n").into_bytes()
}

fn header_text() -> String {
    let stored = String::from_utf8(write(&[]).unwrap()).unwrap();
    format!("{}\n", stored.lines().next().unwrap())
}

#[test]
fn entries_come_back() {
    let stored = write(&sample()).unwrap();
    assert_eq!(read(&stored).unwrap(), sample());
    assert_eq!(ManifestReader::new(stored.as_slice()).unwrap().header(), &header());
    assert_eq!(read(&write(&[]).unwrap()).unwrap(), []);
}

#[test]
fn the_lines_are_those_of_format_md() {
    let stored = String::from_utf8(write(&[file("PG_VERSION", 1)]).unwrap()).unwrap();
    let lines: Vec<_> = stored.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"walpoint":"manifest","format":1,"backup":"20261120T214500Z-full-3fa9c1","system_identifier":"7","piece":["file_offset","length","backup","pack","pack_offset","stored_length","blake3"]}"#
    );
    let hash = ContentHash::of(&0u64.to_le_bytes());
    assert_eq!(
        lines[1],
        format!(
            r#"{{"path":"PG_VERSION","kind":"file","mode":"0600","size":8192,"pieces":[[0,8192,null,0,0,100,"{hash}"]]}}"#
        )
    );
    assert!(lines[2].starts_with(r#"{"entries":1,"files":1,"bytes":8192,"sha256":""#), "{}", lines[2]);
}

#[test]
fn a_file_of_very_many_pieces_goes_on_in_further_lines() {
    let large = file("large", PIECES_PER_LINE as u64 * 2 + 1);
    let stored = write(&[large.clone(), file("small", 1)]).unwrap();
    assert!(stored.split(|byte| *byte == b'\n').all(|line| line.len() < MAX_LINE_BYTES));
    assert_eq!(read(&stored).unwrap(), [large, file("small", 1)]);
}

#[test]
fn the_longest_line_that_is_written_can_be_read() {
    let name = vec![0xff; crate::relative_path::MAX_PATH_BYTES];
    let length = MAX_PIECE_BYTES as u32 - 1;
    let piece = |number: u64| Piece {
        file_offset: number * u64::from(length),
        length,
        backup: Some("20261119T214500Z-full-000000".parse().unwrap()),
        pack: u32::MAX,
        pack_offset: u64::MAX,
        stored_length: MAX_STORED_PIECE_BYTES as u32,
        blake3: ContentHash::of(b""),
        part: Some(PartOfFrame { skip: 1, frame_length: MAX_PIECE_BYTES as u32 }),
    };
    let pieces: Vec<_> = (0..PIECES_PER_LINE as u64).map(piece).collect();
    let size = PIECES_PER_LINE as u64 * u64::from(length);
    let windows = Windows::new(vec![Some(ContentHash::of(b"")); WINDOWS_PER_LINE]);
    let longest =
        ManifestEntry { path: path(&name), kind: EntryKind::File, mode: 0o600, size, pieces, windows };
    let stored = write(std::slice::from_ref(&longest)).unwrap();
    assert_eq!(read(&stored).unwrap(), [longest]);
}

#[test]
fn hashes_of_windows_go_on_in_further_lines_beside_pieces_and_without_them() {
    const MIB: u64 = MAX_PIECE_BYTES as u64;
    let hash = |number: u64| (!number.is_multiple_of(3)).then(|| ContentHash::of(&number.to_le_bytes()));
    for count in [1, 2, WINDOWS_PER_LINE as u64 + 1, PIECES_PER_LINE as u64 * 2 + 3] {
        let pieces = pieces(count, MAX_PIECE_BYTES as u32);
        let windows = Windows::new((0..count).map(hash).collect());
        let large = ManifestEntry { size: count * MIB, pieces, windows, ..entry("large", EntryKind::File) };
        let stored = write(&[large.clone(), file("small", 1)]).unwrap();
        assert!(stored.split(|byte| *byte == b'\n').all(|line| line.len() < MAX_LINE_BYTES));
        assert_eq!(read(&stored).unwrap(), [large, file("small", 1)]);
    }
}

#[test]
fn a_file_has_no_more_windows_than_its_size_makes_and_others_have_none() {
    let windows = |count| Windows::new(vec![Some(ContentHash::of(b"")); count]);
    let table =
        [(file("a", 1), 1), (file("a", 128), 1), (file("a", 129), 2), (file("a", 0), 0), (dir("a"), 0)];
    for (entry, most) in table {
        for count in 0..4 {
            let with = ManifestEntry { windows: windows(count), ..entry.clone() };
            let written = write(std::slice::from_ref(&with));
            assert_eq!(written.is_ok(), count <= most, "{count} of {}", entry.size);
            assert!(written.is_err() || read(&written.unwrap()).unwrap() == [with]);
        }
    }
    let stored = String::from_utf8(write(&[file("a", 1)]).unwrap()).unwrap();
    let line = stored.lines().nth(1).unwrap().strip_suffix('}').unwrap().to_owned();
    let hash = ContentHash::of(b"");
    let of =
        |windows: &str| closed(&format!("{}{line},\"windows\":{windows}}}\n", header_text()), 1, 1, 8192);
    for (text, found) in [("[]".to_owned(), 0), ("[null]".to_owned(), 0), (format!("[\"{hash}\"]"), 1)] {
        let entries = read(&of(&text)).unwrap();
        assert_eq!(entries[0].windows.as_slice().len(), found, "{text}");
        // It is one that would be written.
        assert_eq!(read(&write(&entries).unwrap()).unwrap(), entries);
    }
    for text in [
        format!("[null,\"{hash}\"]"),
        "[null,null]".to_owned(),
        "[1]".to_owned(),
        "[\"x\"]".to_owned(),
        "{}".to_owned(),
    ] {
        assert!(read(&of(&text)).is_err(), "{text}");
    }
}

#[test]
fn no_part_of_a_manifest_holds_more_than_a_line() {
    let count = PIECES_PER_LINE as u64 * 2 + 3;
    let hash = |number: u64| Some(ContentHash::of(&number.to_le_bytes()));
    let windows = Windows::new((0..count).map(hash).collect());
    let pieces = pieces(count, MAX_PIECE_BYTES as u32);
    let large = ManifestEntry { size: count << 20, pieces, windows, ..entry("large", EntryKind::File) };
    let entries = [dir("dir"), file("empty", 0), large, file("small", 1)];
    let stored = write(&entries).unwrap();
    let mut reader = ManifestReader::new(stored.as_slice()).unwrap();
    let mut put_together: Vec<(ManifestEntry, Vec<Option<ContentHash>>)> = Vec::new();
    while let Some(part) = reader.next_part().unwrap() {
        match part {
            ManifestPart::Entry(entry) => put_together.push((*entry, Vec::new())),
            ManifestPart::Content(content) => {
                assert!(content.pieces.len() <= PIECES_PER_LINE);
                assert!(content.windows.len() <= WINDOWS_PER_LINE);
                let (entry, windows) = put_together.last_mut().unwrap();
                entry.pieces.extend(content.pieces);
                windows.extend(content.windows);
            }
        }
    }
    assert!(reader.next_part().unwrap().is_none(), "the end stays the end");
    assert_eq!(reader.totals().entries, 4);
    let whole = |(entry, windows)| ManifestEntry { windows: Windows::new(windows), ..entry };
    assert_eq!(put_together.into_iter().map(whole).collect::<Vec<_>>(), entries);
}

/// Whichever way they are asked for: who takes parts has them before the whole is known to be sound.
#[test]
fn what_is_damage_of_an_entry_is_damage_of_its_parts() {
    let stored = String::from_utf8(write(&[file("a", 2), file("b", 1)]).unwrap()).unwrap();
    let lines: Vec<&str> = stored.lines().collect();
    let pieces_of = |line: &str| line.split_once("\"pieces\":").unwrap().1.trim_end_matches('}').to_owned();
    let more = |pieces: &str| format!("{{\"more\":{pieces}}}");
    let sound = [lines[0], lines[1], lines[2]].map(str::to_owned);
    let cases = [
        // Pieces of no file, and behind the end of one.
        vec![sound[0].clone(), more(&pieces_of(lines[2])), sound[1].clone(), sound[2].clone()],
        vec![sound[0].clone(), sound[1].clone(), more(&pieces_of(lines[2])), sound[2].clone()],
        // Too few.
        vec![sound[0].clone(), sound[1].replace("\"size\":16384", "\"size\":24576"), sound[2].clone()],
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let stored = closed(&(case.join("\n") + "\n"), 2, 2, 24576);
        assert!(read(&stored).is_err(), "case {number}");
        let mut reader = ManifestReader::new(stored.as_slice()).unwrap();
        let ended = std::iter::repeat_with(|| reader.next_part()).find(|part| !matches!(part, Ok(Some(_))));
        assert!(matches!(ended, Some(Err(ManifestError::Damaged { .. }))), "case {number}: {ended:?}");
    }
}

/// As a version of before there were windows reads it.
#[test]
fn a_line_of_windows_alone_is_one_of_pieces_to_who_does_not_know_them() {
    let count = WINDOWS_PER_LINE as u64 + 1;
    let windows = Windows::new(vec![Some(ContentHash::of(b"")); count as usize]);
    let pieces = pieces(count, MAX_PIECE_BYTES as u32);
    let large = ManifestEntry { size: count << 20, pieces, windows, ..entry("large", EntryKind::File) };
    let stored = String::from_utf8(write(std::slice::from_ref(&large)).unwrap()).unwrap();
    assert!(stored.lines().nth(2).unwrap().starts_with("{\"more\":[],\"windows\":[\""), "{stored}");
    let renamed = stored.replace("\"windows\":", "\"unknown\":");
    let end = renamed.trim_end().rfind('\n').unwrap() + 1;
    let read = read(&closed(&renamed[..end], 1, 1, large.size)).unwrap();
    assert_eq!(read, [ManifestEntry { windows: Windows::default(), ..large }]);
}

/// An incremental's file: the third of four pages changed since an older backup stored all
/// four in one frame.
#[test]
fn a_piece_may_be_a_part_of_an_older_backups_frame() {
    let older: Vec<Piece> = pieces(2, 8192).split_off(1);
    let part = |skip, length| {
        let part = Some(PartOfFrame { skip, frame_length: 4 * 8192 });
        Piece { file_offset: skip.into(), length, part, ..older[0].clone() }
    };
    let one = pieces(1, 8192).remove(0);
    let changed = Piece { file_offset: 2 * 8192, ..one.clone() };
    let pieces = vec![part(0, 2 * 8192), changed, part(3 * 8192, 8192)];
    let mixed = ManifestEntry { size: 4 * 8192, pieces, ..entry("1259", EntryKind::File) };
    let stored = write(std::slice::from_ref(&mixed)).unwrap();
    let text = String::from_utf8(stored.clone()).unwrap();
    assert!(text.contains("[0,16384,\"20261119T214500Z-full-000000\",0,100,100,"), "{text}");
    assert!(text.contains("\",0,32768],[16384,8192,null,0,0,100,"), "{text}");
    assert_eq!(read(&stored).unwrap(), std::slice::from_ref(&mixed));
    for (skip, length, frame_length) in
        [(0, 8192, 8192), (8192, 8192, 8192), (u32::MAX, 8192, 32768), (0, 8192, MAX_PIECE_BYTES as u32 + 1)]
    {
        let part = Some(PartOfFrame { skip, frame_length });
        let pieces = vec![Piece { length, part, ..one.clone() }];
        assert!(write(&[ManifestEntry { size: 8192, pieces, ..mixed.clone() }]).is_err(), "{part:?}");
    }
}

#[test]
fn a_piece_with_another_number_of_columns_is_refused() {
    let stored = String::from_utf8(write(&[file("a", 1)]).unwrap()).unwrap();
    for columns in ["\",1]]", "\",1,2,3]]", "\",1,2,\"x\"]]"] {
        let changed = stored.replacen("\"]]", columns, 1);
        assert!(matches!(read(changed.as_bytes()), Err(ManifestError::Damaged { line: 2, .. })), "{columns}");
    }
}

#[test]
fn names_that_are_not_utf8_come_back() {
    let target = PathBuf::from(OsStr::from_bytes(b"/mnt/caf\xe9"));
    let entries = vec![
        ManifestEntry { path: path(b"caf\xe9"), ..file("x", 1) },
        dir("pg_tblspc"),
        ManifestEntry { mode: 0, ..entry("pg_tblspc/5", EntryKind::Tablespace { oid: 5, target }) },
    ];
    let stored = write(&entries).unwrap();
    assert!(String::from_utf8(stored.clone()).unwrap().contains(r#"{"path_hex":"636166e9","#));
    assert_eq!(read(&stored).unwrap(), entries);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let stored = write(&sample()[..4]).unwrap();
    for byte in 0..stored.len() {
        for bit in 0..8 {
            let mut flipped = stored.clone();
            flipped[byte] ^= 1 << bit;
            assert!(read(&flipped).is_err(), "byte {byte} bit {bit}");
        }
    }
}

#[test]
fn every_truncation_and_anything_appended_is_noticed() {
    let stored = write(&sample()).unwrap();
    for end in 0..stored.len() {
        assert!(read(&stored[..end]).is_err(), "cut at {end}");
    }
    for rest in ["\n", "{}\n", "x"] {
        assert!(read(&[&stored, rest.as_bytes()].concat()).is_err());
    }
}

#[test]
fn entries_out_of_order_twice_or_nowhere_are_neither_written_nor_read() {
    let header = header_text();
    let line = |path: &str, kind: &str| {
        format!(r#"{{"path":"{path}","kind":"{kind}","mode":"0600","size":0,"pieces":[]}}"#)
    };
    for (first, second) in [("b", "a"), ("a", "a"), ("a", "a/b"), ("a", "c/b"), ("a-b", "a")] {
        let lines = format!("{header}{}\n{}\n", line(first, "file"), line(second, "file"));
        assert!(read(&closed(&lines, 2, 2, 0)).is_err(), "{first} {second}");
        assert!(write(&[file(first, 0), file(second, 0)]).is_err(), "{first} {second}");
    }
    // Between a directory and what is in it others may come.
    assert_eq!(read(&write(&[dir("a"), file("a-b", 1), file("a/b", 1)]).unwrap()).unwrap().len(), 3);
    let lines = format!("{header}{}\n{}\n", line("a", "dir"), line("a/b", "file"));
    assert!(read(&closed(&lines, 2, 1, 0)).is_ok());
    assert!(read(&closed(&lines, 3, 1, 0)).is_err(), "another number of entries");
    assert!(read(&closed(&lines, 2, 2, 0)).is_err(), "another number of files");
    assert!(read(&closed(&lines, 2, 1, 1)).is_err(), "another number of bytes");
}

#[test]
fn hostile_lines_are_refused() {
    let header = header_text();
    let hash = ContentHash::of(b"");
    let piece = |offset: u64, length: u64| format!(r#"[{offset},{length},null,0,0,9,"{hash}"]"#);
    let file = |size: &str, pieces: &str| {
        format!(r#"{{"path":"a","kind":"file","mode":"0600","size":{size},"pieces":[{pieces}]}}"#)
    };
    for line in [
        r#"{"path":"../a","kind":"dir","mode":"0700"}"#.to_owned(),
        r#"{"path":"/a","kind":"dir","mode":"0700"}"#.to_owned(),
        r#"{"path":"","kind":"dir","mode":"0700"}"#.to_owned(),
        r#"{"path":"a\u0000b","kind":"dir","mode":"0700"}"#.to_owned(),
        r#"{"path_hex":"2e2e","kind":"dir","mode":"0700"}"#.to_owned(),
        r#"{"path":"a","path_hex":"61","kind":"dir","mode":"0700"}"#.to_owned(),
        r#"{"kind":"dir","mode":"0700"}"#.to_owned(),
        r#"{"path":"a","kind":"fifo","mode":"0700"}"#.to_owned(),
        r#"{"path":"a","kind":"dir","mode":"4700"}"#.to_owned(),
        r#"{"path":"a","kind":"dir"}"#.to_owned(),
        r#"{"path":"a","kind":"file","mode":"0600","size":0}"#.to_owned(),
        r#"{"path":"a","kind":"tablespace","oid":5,"target":"/mnt"}"#.to_owned(),
        r#"{"path":"walpoint-config","kind":"config","mode":"0600","original":"/a","size":0,"pieces":[]}"#
            .to_owned(),
        r#"{"path":"base","kind":"config","mode":"0600","original":"/a","size":0,"pieces":[]}"#.to_owned(),
        r#"{"path":"walpoint-config/a","kind":"config","mode":"0600","original":"a","size":0,"pieces":[]}"#
            .to_owned(),
        r#"{"more":[]}"#.to_owned(),
        file("5", ""),
        file("5", &piece(0, 6)),
        file("5", &piece(1, 5)),
        file("10", &format!("{},{}", piece(0, 5), piece(6, 5))),
        file("10", &format!("{},{}", piece(0, 5), piece(4, 5))),
        file("0", &piece(0, 0)),
        file("2097152", &piece(0, 2_097_152)),
        file("4294967301", &piece(0, 4_294_967_301)),
        file("18446744073709551615", &piece(0, 5)),
        file("-1", ""),
        "[]".to_owned(),
        "{".to_owned(),
        String::new(),
    ] {
        let (files, bytes) = (u64::from(line.contains("\"file\"")), 0);
        let stored = closed(&format!("{header}{line}\n"), 1, files, bytes);
        assert!(read(&stored).is_err(), "{line} was accepted");
    }
    let endless = [header.clone().into_bytes(), vec![b' '; MAX_LINE_BYTES + 1]].concat();
    assert!(
        matches!(read(&endless), Err(ManifestError::Damaged { line: 2, what }) if what == "it is too long")
    );
    let tablespace = format!(
        "{header}{}\n{}\n",
        r#"{"path":"pg_tblspc","kind":"dir","mode":"0700"}"#,
        r#"{"path":"pg_tblspc/5","kind":"tablespace","oid":6,"target":"/mnt"}"#
    );
    assert!(read(&closed(&tablespace, 2, 0, 0)).is_err());
}

#[test]
fn a_later_format_is_told_from_damage() {
    let later = header_text().replace("\"format\":1", "\"format\":2");
    assert!(matches!(read(later.as_bytes()), Err(ManifestError::UnknownFormat(2))));
    assert!(matches!(read(b"{\"format\":1}\n"), Err(ManifestError::Damaged { line: 1, .. })));
}

#[test]
fn what_later_versions_add_does_no_harm() {
    let header = header_text().replace("\"format\":1", "\"format\":1,\"new\":[1]");
    let line = r#"{"path":"a","kind":"dir","mode":"0700","colour":"blue"}"#;
    assert_eq!(read(&closed(&format!("{header}{line}\n"), 1, 0, 0)).unwrap(), [dir("a")]);
}

proptest! {
    #[test]
    fn any_files_come_back(
        names in proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 1..12), 0..12),
        counts in proptest::collection::vec(0u64..5, 12),
    ) {
        let paths = names.iter().filter(|name| !name.contains(&b'/')).filter_map(|name| RelativePath::new(name).ok());
        let entries: Vec<_> = paths
            .zip(counts)
            .map(|(path, count)| ManifestEntry { path, ..file("x", count) })
            .collect();
        prop_assert_eq!(read(&write(&entries).unwrap()).unwrap(), entries);
    }

    #[test]
    fn any_windows_come_back(
        seeds in proptest::collection::vec(proptest::option::weighted(0.6, any::<u64>()), 0..40),
        counts in proptest::collection::vec(0usize..40, 1..4),
    ) {
        let hash = |seed: u64| ContentHash::of(&seed.to_le_bytes());
        let entries: Vec<_> = (0..).zip(counts).map(|(name, count)| {
            let windows = seeds.iter().take(count).map(|seed| seed.map(hash)).collect();
            let (pieces, windows) = (pieces(count as u64, MAX_PIECE_BYTES as u32), Windows::new(windows));
            let size = (count as u64) << 20;
            ManifestEntry { size, pieces, windows, ..entry(&format!("f{name}"), EntryKind::File) }
        }).collect();
        let found = read(&write(&entries).unwrap()).unwrap();
        for (entry, count) in found.iter().zip(entries.iter().map(|entry| entry.pieces.len())) {
            for number in 0..count + 1 {
                let expected = seeds.get(number).copied().flatten().filter(|_| number < count).map(hash);
                prop_assert_eq!(entry.windows.hash(number), expected);
            }
        }
        prop_assert_eq!(found, entries);
    }

    #[test]
    fn any_bytes_give_an_error(bytes in any::<Vec<u8>>(), line in "[ -~]{0,80}") {
        prop_assert!(read(&bytes).is_err());
        let header = header_text();
        let _ = read(&closed(&format!("{header}{line}\n"), 1, 1, 0));
    }
}
