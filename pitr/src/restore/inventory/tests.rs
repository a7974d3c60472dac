#![allow(clippy::unwrap_used, clippy::panic)]

use walpoint_archive::Layout;
use walpoint_archive::content::StoredHasher;
use walpoint_wal::SystemIdentifier;

use super::*;
use crate::restore::tests::fixture;

fn layout() -> Layout {
    Layout::new(SystemIdentifier(7))
}

/// A manifest with these lines, whatever they say; the trailer counts them as it must.
fn manifest(lines: &[String]) -> Vec<u8> {
    let id = fixture::summary(&layout()).id;
    let mut text = format!(
        "{{\"walpoint\":\"manifest\",\"format\":1,\"backup\":\"{id}\",\"system_identifier\":\"7\"}}\n"
    );
    let mut files = 0;
    let mut bytes = 0u64;
    for line in lines {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(size) = value["size"].as_u64() {
            files += 1;
            bytes = bytes.saturating_add(size);
        }
        text.push_str(line);
        text.push('\n');
    }
    let mut hasher = StoredHasher::new();
    hasher.update(text.as_bytes());
    let entries = lines.len();
    let sha256 = hasher.finish();
    text.push_str(&format!(
        "{{\"entries\":{entries},\"files\":{files},\"bytes\":{bytes},\"sha256\":\"{sha256}\"}}\n"
    ));
    text.into_bytes()
}

fn dir(path: &str) -> String {
    format!("{{\"path\":\"{path}\",\"kind\":\"dir\",\"mode\":\"0700\"}}")
}

fn piece(length: u64, pack: u32, offset: u64, stored: u64) -> String {
    let hash = "00".repeat(32);
    format!("[0,{length},null,{pack},{offset},{stored},\"{hash}\"]")
}

fn file(path: &str, size: u64) -> String {
    let pieces = if size == 0 { String::new() } else { piece(size, 0, 0, 10) };
    file_of(path, size, &pieces)
}

fn file_of(path: &str, size: u64, pieces: &str) -> String {
    format!(
        "{{\"path\":\"{path}\",\"kind\":\"file\",\"mode\":\"0600\",\"size\":{size},\"pieces\":[{pieces}]}}"
    )
}

fn link(oid: u32, target: &str) -> String {
    format!("{{\"path\":\"pg_tblspc/{oid}\",\"kind\":\"tablespace\",\"oid\":{oid},\"target\":\"{target}\"}}")
}

/// What every backup has, with these lines put where they belong.
fn cluster(more: &[String]) -> Vec<String> {
    let mut lines = vec![
        file("PG_VERSION", 3),
        file(BACKUP_LABEL, 200),
        dir("global"),
        file("global/pg_control", 8192),
        dir("pg_tblspc"),
    ];
    lines.extend_from_slice(more);
    lines.sort_by_key(|line| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["path"].as_str().unwrap().as_bytes().to_vec()
    });
    lines
}

fn read_lines(lines: &[String]) -> Result<Inventory, RestoreError> {
    read_kept(lines, Keep::All)
}

fn read_kept(lines: &[String], keep: Keep) -> Result<Inventory, RestoreError> {
    read_text(&manifest(lines), keep)
}

fn read_text(text: &[u8], keep: Keep) -> Result<Inventory, RestoreError> {
    let summary = fixture::summary(&layout());
    let table = Arc::new(PackTable::new(&summary, &layout()).unwrap());
    read(text, &ManifestOf::new(&summary), table, keep)
}

fn refused_for(expected: &str, lines: &[String]) {
    match read_lines(lines) {
        Err(RestoreError::Damaged { what, .. }) => assert!(what.contains(expected), "{expected}: {what}"),
        other => panic!("{expected}: {other:?}"),
    }
}

#[test]
fn a_sound_manifest_becomes_work() {
    let lines = cluster(&[
        dir("base"),
        file("base/1", 100),
        dir("pg_tblspc/16384/PG_15_1"),
        file("pg_tblspc/16384/PG_15_1/x", 7),
        link(16384, "/srv/fast"),
        file("standby.signal", 0),
        file("walpoint.writer", 17),
        file("tablespace_map", 20),
    ]);
    let inventory = read_lines(&lines).unwrap();
    assert_eq!(inventory.tablespaces, [(16384, PathBuf::from("/srv/fast"))]);
    assert_eq!(inventory.left_out, ["standby.signal", "tablespace_map", "walpoint.writer"]);
    assert_eq!(inventory.bytes, 3 + 200 + 8192 + 100 + 7);
    let in_tablespace = Place { tree: 1, path: PathBuf::from("PG_15_1/x") };
    assert!(inventory.files.iter().any(|file| file.place == in_tablespace));
    let made: Vec<&Path> = inventory.directories.iter().map(|it| it.place.path.as_path()).collect();
    assert!(made.contains(&Path::new("pg_wal/archive_status")), "{made:?}");
    // Those that may be configuration, and no table's.
    let kept: Vec<&Path> =
        inventory.pieces.keys().map(|number| inventory.files[*number].place.path.as_path()).collect();
    assert_eq!(kept, ["PG_VERSION", BACKUP_LABEL, "base/1", CONTROL_FILE, "PG_15_1/x"].map(Path::new));
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for path in ["../x", "/etc/passwd", "base/../../x", "a//b", "./x", "base/.."] {
        refused_for("not a path within a data directory", &[file(path, 1)]);
    }
    refused_for("not a path within a data directory", &[file("a\\u0000b", 1)]);
}

#[test]
fn a_tablespace_is_a_link_at_its_own_place_and_nothing_else_is() {
    let at = |path: &str, target: &str| {
        format!("{{\"path\":\"{path}\",\"kind\":\"tablespace\",\"oid\":1,\"target\":\"{target}\"}}")
    };
    for (path, target) in [
        ("base/1", "/srv/x"),
        ("pg_tblspc/2", "/srv/x"),
        ("pg_tblspc/1", "srv/x"),
        ("pg_tblspc/1", "/srv/../etc"),
        ("pg_tblspc/1", "/"),
    ] {
        assert!(read_lines(&cluster(&[dir("base"), at(path, target)])).is_err(), "{path} {target}");
    }
    let symlink = "{\"path\":\"x\",\"kind\":\"symlink\",\"mode\":\"0777\",\"target\":\"/etc\"}".to_owned();
    refused_for("no known kind", &cluster(&[symlink]));
}

#[test]
fn a_tablespace_takes_only_the_servers_own_directory() {
    let foreign = cluster(&[link(1, "/root/.ssh"), file("pg_tblspc/1/authorized_keys", 10)]);
    refused_for("begin with PG_", &foreign);
    refused_for("begin with PG_", &cluster(&[link(1, "/srv"), dir("pg_tblspc/1/other")]));
}

#[test]
fn files_that_contradict_each_other_are_refused() {
    refused_for("comes after", &[file("PG_VERSION", 3), file("PG_VERSION", 3)]);
    refused_for("no directory", &cluster(&[file("a", 1), file("a/b", 1)]));
    refused_for("no directory", &cluster(&[file("missing/b", 1)]));
}

#[test]
fn sizes_that_lie_are_refused() {
    refused_for(
        "expected was",
        &cluster(&[file_of("x", 20, &[piece(10, 0, 0, 10), piece(10, 0, 0, 10)].join(","))]),
    );
    refused_for("its size is", &cluster(&[file_of("x", 1 << 60, &piece(10, 0, 0, 10))]));
    refused_for("a piece has", &cluster(&[file_of("x", 1 << 30, &piece(1 << 30, 0, 0, 10))]));
    refused_for("a piece has", &cluster(&[file_of("x", 10, &piece(10, 0, 0, 1 << 30))]));
    refused_for("outside of", &cluster(&[file_of("x", 10, &piece(10, 0, u64::MAX, 10))]));
    refused_for("outside of", &cluster(&[file_of("x", 10, &piece(10, 0, 999_999, 10))]));
    refused_for("names pack 9", &cluster(&[file_of("x", 10, &piece(10, 9, 0, 10))]));
}

#[test]
fn a_manifest_of_another_backup_or_cut_short_is_refused() {
    let text = String::from_utf8(manifest(&cluster(&[]))).unwrap();
    let read_text = |text: &str| read_text(text.as_bytes(), Keep::All).map(|_| ());
    read_text(&text).unwrap();
    let foreign = text.replace("\"system_identifier\":\"7\"", "\"system_identifier\":\"8\"");
    assert!(matches!(read_text(&foreign), Err(RestoreError::Damaged { .. })));
    for lines in 0..text.lines().count() {
        let cut: String = text.split_inclusive('\n').take(lines).collect();
        assert!(matches!(read_text(&cut), Err(RestoreError::Damaged { .. })), "{lines} lines");
    }
    let changed = text.replace("\"mode\":\"0700\"", "\"mode\":\"0750\"");
    assert!(matches!(read_text(&changed), Err(RestoreError::Damaged { .. })));
}

/// What was found sound once is not the archive's fault when it comes back from the disk as something else.
#[test]
fn a_copy_that_this_host_damaged_is_no_damage_of_the_archive() {
    let text = manifest(&cluster(&[]));
    let (summary, cut) = (fixture::summary(&layout()), text.len() - 5);
    let of = |of: ManifestOf| of.each_part(&text[..cut], |_| Ok::<_, String>(())).unwrap_err();
    assert!(matches!(of(ManifestOf::new(&summary)), RestoreError::Damaged { .. }));
    let error = of(ManifestOf::new(&summary).copy_in(Path::new("/data")));
    assert!(matches!(&error, RestoreError::Io { path, .. } if path == Path::new("/data")), "{error}");
}

#[test]
fn a_backup_without_the_files_that_make_it_one_is_refused() {
    for missing in ["PG_VERSION", BACKUP_LABEL, "global/pg_control"] {
        let lines: Vec<String> =
            cluster(&[]).into_iter().filter(|line| !line.contains(&format!("\"{missing}\""))).collect();
        refused_for(missing, &lines);
    }
    let short: Vec<String> = cluster(&[]).into_iter().map(|line| line.replace("8192", "8191")).collect();
    refused_for("global/pg_control", &short);
}

#[test]
fn wal_has_no_place_in_a_backup() {
    let name = "pg_wal/000000010000000000000001";
    refused_for("no WAL", &cluster(&[dir("pg_wal"), file(name, 10)]));
}

#[test]
fn the_group_may_read_only_where_it_could() {
    let open: Vec<String> = cluster(&[]).into_iter().map(|line| line.replace("0700", "0750")).collect();
    assert_eq!(read_lines(&open).unwrap().group, GroupAccess::Allowed);
    assert_eq!(read_lines(&cluster(&[])).unwrap().group, GroupAccess::Denied);
}

fn config(original: &str) -> String {
    format!(
        "{{\"path\":\"walpoint-config{original}\",\"kind\":\"config\",\"original\":\"{original}\",\
         \"mode\":\"0644\",\"size\":0,\"pieces\":[]}}"
    )
}

#[test]
fn configuration_from_outside_brings_its_directories() {
    let lines = [config("/etc/pg/conf.d/a.conf"), config("/etc/pg/postgresql.conf")];
    let inventory = read_lines(&cluster(&lines)).unwrap();
    let places: Vec<&str> =
        inventory.configuration.iter().map(|(place, _)| place.to_str().unwrap()).collect();
    assert_eq!(places, ["walpoint-config/conf.d/a.conf", "walpoint-config/postgresql.conf"]);
    let made: Vec<&Path> = inventory.directories.iter().map(|it| it.place.path.as_path()).collect();
    let folder = made.iter().position(|it| *it == Path::new("walpoint-config")).unwrap();
    let below = made.iter().position(|it| *it == Path::new("walpoint-config/conf.d")).unwrap();
    assert!(folder < below);
    let misplaced = config("/postgresql.conf").replace("walpoint-config/postgresql.conf", "postgresql.conf");
    assert!(read_lines(&cluster(&[misplaced])).is_err());
}

#[test]
fn configuration_from_outside_takes_no_place_that_the_data_directory_has_filled() {
    let lines =
        [config("/etc/pg/pg_hba.conf"), dir("walpoint-config"), file("walpoint-config/pg_hba.conf", 10)];
    let inventory = read_lines(&cluster(&lines)).unwrap();
    let place = Path::new("walpoint-config/etc/pg/pg_hba.conf");
    assert_eq!(inventory.configuration, [(place.to_owned(), PathBuf::from("/etc/pg/pg_hba.conf"))]);
}

fn counted_of(files: u64, bytes: u64) -> Counted {
    Counted { files, bytes, holes: 0 }
}

#[test]
fn of_what_is_only_counted_all_is_checked_and_its_room_is_known() {
    let lines = cluster(&[
        dir("base"),
        dir("base/5"),
        dir("base/6"),
        file("base/5/1", 100),
        file("base/5/2", 11),
        file("base/6/1", 1000),
        dir("pg_tblspc/16384/PG_15_1"),
        dir("pg_tblspc/16384/PG_15_1/5"),
        file("pg_tblspc/16384/PG_15_1/5/x", 7),
        link(16384, "/srv/fast"),
        file("postgresql.conf", 70),
    ]);
    let (all, counted) = (read_lines(&lines).unwrap(), read_kept(&lines, Keep::OutsideDatabases).unwrap());
    assert_eq!(all.counted, BTreeMap::new());
    let (of_5, of_6) = (counted_of(2, 111), counted_of(1, 1000));
    let in_tablespace = counted_of(1, 7);
    assert_eq!(counted.counted, [((0, 5), of_5), ((0, 6), of_6), ((1, 5), in_tablespace)].into());
    assert_eq!((all.bytes, all.files.len()), (counted.bytes, counted.files.len() + 4));
    assert_eq!(all.directories, counted.directories);
    for (path, there) in [("base/5/1", true), ("postgresql.conf", true), ("global", true), ("no", false)] {
        let place = Place::in_data_directory(path);
        assert_eq!((all.has(&place), counted.has(&place)), (there, there), "{path}");
    }
    // Nobody can say without the names.
    assert!(counted.has(&Place::in_data_directory("base/5/3")));
    let outside = file_of("base/5/3", 10, &piece(10, 0, 999_999, 10));
    let mut lines = [lines, vec![outside]].concat();
    lines.sort_by_key(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].to_string());
    let error = read_kept(&lines, Keep::OutsideDatabases).unwrap_err().to_string();
    assert!(error.contains("outside of"), "{error}");
}

#[test]
fn of_too_many_small_files_no_piece_is_kept() {
    let many = |count: usize| {
        let mut lines = vec![dir("pg_multixact")];
        lines.extend((0..count).map(|number| file(&format!("pg_multixact/{number:05}"), 10)));
        read_lines(&cluster(&lines)).unwrap().pieces.len()
    };
    assert_eq!(many(MOST_PIECES - 3), MOST_PIECES);
    assert_eq!(many(MOST_PIECES - 2), 0);
    assert_eq!(many(3 * MOST_PIECES), 0);
}
