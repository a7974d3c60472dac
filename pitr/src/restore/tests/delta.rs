//! What `--delta` must not destroy, and what it has to be able to go on with.

use super::*;
use fixture::windows_of;
use walpoint_archive::{ContentHash, Windows};

/// A cluster with a tablespace, of which something has to be fetched.
fn with_tablespace(directory: &Path) -> Contents {
    let mut contents = Contents::cluster();
    contents
        .tablespace(16384, directory)
        .directory("pg_tblspc/16384/PG_15_202209061")
        .file("pg_tblspc/16384/PG_15_202209061/a", &noise(300_000))
        .file("tablespace_map", format!("16384 {}\n", directory.display()).as_bytes());
    contents
}

fn refusal(error: RestoreError) -> String {
    match error {
        RestoreError::Refused(refusal) => refusal.why,
        error => panic!("{error}"),
    }
}

/// Whatever request the first one and the second one end at, the third goes on.
#[tokio::test]
async fn a_restore_of_tablespaces_that_was_broken_off_is_gone_on_with() {
    let mut broken_off = 0;
    for index in 0..40 {
        let stage = Stage::new().await;
        let space = stage.scratch.path().join("space");
        let plan = fixture::plan(with_tablespace(&space).store(&stage.archive).await);
        let faulty = Faulty::new(Arc::clone(&stage.store));
        faulty.fail(Verb::Get, index, Fault::Before(StoreErrorKind::Transient));
        let archive = fixture::archive(Arc::new(faulty.clone()));
        let mut request = fixture::request(stage.target());
        let first = restore(&archive, &plan, &request, &Progress::new()).await;
        request.delta = true;
        if first.is_ok() {
            break;
        }
        faulty.fail(Verb::Get, faulty.calls(Verb::Get) + index, Fault::Before(StoreErrorKind::Transient));
        let _ = restore(&archive, &plan, &request, &Progress::new()).await;
        broken_off += usize::from(stage.target().join(UNFINISHED_MARKER).exists());
        // Its own directory is known by the link that it made first.
        request.is_configured = true;
        let last = restore(&stage.archive, &plan, &request, &Progress::new()).await;
        assert!(last.is_ok(), "{index}: {last:?}");
        assert_eq!(std::fs::read(space.join("PG_15_202209061/a")).unwrap(), noise(300_000), "{index}");
        assert_eq!(std::fs::read_link(stage.target().join("pg_tblspc/16384")).unwrap(), space, "{index}");
    }
    assert!(broken_off > 1, "{broken_off}");
}

/// A store that goes away just then costs nothing of what is there.
#[tokio::test]
async fn nothing_of_a_cluster_is_touched_before_all_of_the_manifest_is_here() {
    let stage = Stage::new().await;
    stage.restore(&Contents::cluster()).await.unwrap();
    let there = tree(&stage.target());
    let mut changed = Contents::cluster();
    changed.file("base/5/16386", b"new").without("base/5/16385");
    let plan = fixture::plan(changed.store(&stage.archive).await);
    let faulty = Faulty::new(Arc::clone(&stage.store));
    let archive = fixture::archive(Arc::new(faulty.clone()));
    let mut request = fixture::request(stage.target());
    request.delta = true;
    prepare(&archive, &plan, &request.destination()).await.unwrap();
    let of_preparing = faulty.calls(Verb::Get);
    for index in 0..=of_preparing {
        faulty.fail(Verb::Get, faulty.calls(Verb::Get) + index, Fault::Before(StoreErrorKind::Transient));
        restore(&archive, &plan, &request, &Progress::new()).await.unwrap_err();
        assert!(tree(&stage.target()) == there, "request {index}");
    }
    restore(&archive, &plan, &request, &Progress::new()).await.unwrap();
    assert_eq!(stage.read("base/5/16386"), b"new");
}

/// As many as do not stand in one line of a manifest are compared a part at a time.
#[tokio::test]
async fn of_a_file_of_very_many_pieces_those_that_differ_are_fetched() {
    const LENGTH: usize = 64;
    let (stage, table) = (Stage::new().await, noise(6000 * LENGTH));
    let mut contents = Contents::cluster();
    contents.small_pieces(TABLE, &table, LENGTH);
    stage.restore(&contents).await.unwrap();
    for places in [vec![], vec![0], vec![4095, 4096], vec![4097, 5999], vec![1, 2, 4100, 4200, 5000]] {
        let mut changed = table.clone();
        places.iter().for_each(|place| changed[place * LENGTH + 7] ^= 1);
        std::fs::write(stage.target().join(TABLE), &changed).unwrap();
        let again = delta(&stage, &contents).await;
        let least = (places.len() * LENGTH) as u64;
        assert!((least..least + LITTLE).contains(&again.fetched_bytes), "{places:?}: {again:?}");
        assert!(stage.read(TABLE) == table, "{places:?}");
    }
}

/// A copy of a data directory has the links of the original, to the original's tablespaces.
#[tokio::test]
async fn the_tablespace_of_the_original_is_not_written_into_by_way_of_a_copy() {
    let stage = Stage::new().await;
    let space = stage.scratch.path().join("space");
    let contents = with_tablespace(&space);
    stage.restore(&contents).await.unwrap();
    std::fs::write(space.join("PG_15_202209061/a"), "the original's").unwrap();
    let plan = fixture::plan(contents.store(&stage.archive).await);
    let mut request = fixture::request(stage.target());
    request.delta = true;
    let error = restore(&stage.archive, &plan, &request, &Progress::new()).await.unwrap_err();
    assert!(refusal(error).contains("may be a copy"));
    assert_eq!(std::fs::read(space.join("PG_15_202209061/a")).unwrap(), b"the original's");
    assert!(stage.target().join(CONTROL_FILE).exists());
    // Who names it knows whose it is; and the directory in the configuration is no copy.
    let named = TablespaceMapping { from: "16384".to_owned(), to: space.clone() };
    let by_name = RestoreRequest { tablespaces: vec![named], ..request.clone() };
    restore(&stage.archive, &plan, &by_name, &Progress::new()).await.unwrap();
    let configured = RestoreRequest { is_configured: true, ..request };
    restore(&stage.archive, &plan, &configured, &Progress::new()).await.unwrap();
    assert_eq!(std::fs::read(space.join("PG_15_202209061/a")).unwrap(), noise(300_000));
}

#[tokio::test]
async fn wal_that_is_nowhere_else_is_given_up_only_when_that_is_said() {
    let stage = Stage::new().await;
    let contents = Contents::cluster();
    stage.restore(&contents).await.unwrap();
    let segment = "000000010000000000000003";
    let status = stage.target().join("pg_wal/archive_status");
    std::fs::create_dir_all(&status).unwrap();
    std::fs::write(stage.target().join("pg_wal").join(segment), "committed").unwrap();
    std::fs::write(status.join(format!("{segment}.ready")), "").unwrap();
    let plan = fixture::plan(contents.store(&stage.archive).await);
    let mut request = fixture::request(stage.target());
    request.delta = true;
    let error = restore(&stage.archive, &plan, &request, &Progress::new()).await.unwrap_err();
    assert!(refusal(error).contains(segment));
    assert_eq!(stage.read(&format!("pg_wal/{segment}")), b"committed");
    assert!(stage.target().join(CONTROL_FILE).exists());
    request.discard_wal = true;
    restore(&stage.archive, &plan, &request, &Progress::new()).await.unwrap();
    assert!(!stage.target().join("pg_wal").join(segment).exists());
}

/// PostgreSQL allows a `server.key` that its owner may only read.
#[tokio::test]
async fn a_file_that_may_not_be_written_into_is_made_anew() {
    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    contents.file("server.key", b"secret");
    stage.restore(&contents).await.unwrap();
    let key = stage.target().join("server.key");
    std::fs::write(&key, "another").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o400)).unwrap();
    stage.restore_as(&contents, |request| request.delta = true).await.unwrap();
    assert_eq!(stage.read("server.key"), b"secret");
}

/// The natural misreading of the two options together.
#[tokio::test]
async fn one_database_is_not_restored_into_a_cluster_that_has_others() {
    let stage = Stage::new().await;
    let contents = Contents::cluster();
    stage.restore(&contents).await.unwrap();
    let plan = fixture::plan(contents.store(&stage.archive).await);
    let mut destination = fixture::request(stage.target()).destination();
    destination.delta = true;
    assert_eq!(survey(&stage.archive, &plan, &destination).await.unwrap().refusals, []);
    destination.databases = vec!["5".to_owned()];
    let refusals = survey(&stage.archive, &plan, &destination).await.unwrap().refusals;
    assert!(refusals.iter().any(|it| it.why.contains("would be lost")), "{refusals:?}");
}

/// Zeros of a new file need not be written; where other bytes lie they have to be.
#[tokio::test]
async fn zeros_of_the_backup_replace_what_lies_in_their_place() {
    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    let sparse = [vec![1; 1 << 20], vec![0; 3 << 20], vec![2; 100]].concat();
    contents.file("base/5/16386", &sparse);
    stage.restore(&contents).await.unwrap();
    let file = stage.target().join("base/5/16386");
    let on_disk = || std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&file).unwrap()) * 512;
    assert!(stage.read("base/5/16386") == sparse && on_disk() < 2 << 20, "{}", on_disk());
    // All of it, a part of one piece, and a file that ends within.
    for old in
        [vec![7; 4 << 20], [sparse[..(2 << 20) + 1].to_vec(), vec![7; 8192]].concat(), vec![7; 3 << 19]]
    {
        std::fs::write(&file, old).unwrap();
        stage.restore_as(&contents, |request| request.delta = true).await.unwrap();
        assert!(stage.read("base/5/16386") == sparse);
    }
}

const PAGE: usize = 8192;
const MIB: usize = 1 << 20;
const TABLE: &str = "base/5/16390";
/// More than the files that every restore changes.
const LITTLE: u64 = 100_000;

/// A table of three windows and a half by a full backup and three incrementals, each with every ninth page changed.
fn versions() -> Vec<Vec<u8>> {
    let mut versions = vec![noise(3 * MIB + MIB / 2)];
    for number in 1..4 {
        let mut next = versions.last().unwrap().clone();
        for page in next.chunks_mut(PAGE).skip(number * 2).step_by(9) {
            page.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
        }
        // A run over the edge of two windows, which is one piece.
        next[MIB - PAGE..MIB + PAGE].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(3));
        versions.push(next);
    }
    versions
}

/// A cluster with that table, and these hashes of its windows.
fn with_chain(windows: Windows) -> Contents {
    let mut contents = Contents::cluster();
    contents.chain(TABLE, &versions(), windows);
    contents
}

async fn delta(stage: &Stage, contents: &Contents) -> Restored {
    stage.restore_as(contents, |request| request.delta = true).await.unwrap()
}

#[tokio::test]
async fn over_a_chain_of_parts_nothing_is_fetched_of_what_is_there() {
    let (stage, table) = (Stage::new().await, versions().pop().unwrap());
    let contents = with_chain(windows_of(&table));
    let whole = stage.restore(&contents).await.unwrap();
    assert!(stage.read(TABLE) == table && whole.fetched_bytes > table.len() as u64);
    let again = delta(&stage, &contents).await;
    assert!(again.fetched_bytes < LITTLE, "{}", again.fetched_bytes);
    assert!(stage.read(TABLE) == table);
}

#[tokio::test]
async fn of_a_window_with_one_changed_page_all_is_fetched_and_of_the_others_nothing() {
    let (stage, table) = (Stage::new().await, versions().pop().unwrap());
    let contents = with_chain(windows_of(&table));
    stage.restore(&contents).await.unwrap();
    // Either side of the edge of two windows, too, over which a piece lies.
    let cases = [
        (0, MIB),
        (MIB - 1, MIB),
        (MIB, MIB),
        (2 * MIB - 1, MIB),
        (2 * MIB + 5, MIB),
        (table.len() - 1, MIB / 2),
    ];
    for (at, most) in cases {
        let mut changed = table.clone();
        changed[at] ^= 1;
        std::fs::write(stage.target().join(TABLE), &changed).unwrap();
        let again = delta(&stage, &contents).await;
        let range = (MIB / 2) as u64..(most + PAGE) as u64 + LITTLE;
        assert!(range.contains(&again.fetched_bytes), "{at}: {}", again.fetched_bytes);
        assert!(stage.read(TABLE) == table, "{at}");
    }
}

/// Torn files of all lengths, zeros in places, pages of older versions: the result is the backup's.
#[tokio::test]
async fn whatever_lies_there_it_becomes_what_the_backup_has() {
    let (stage, versions) = (Stage::new().await, versions());
    let table = versions.last().unwrap();
    let mut seed = 7usize;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let contents = with_chain(windows_of(table));
    stage.restore(&contents).await.unwrap();
    for round in 0..12 {
        let mut old = table.clone();
        for _ in 0..random(6) {
            let (at, length) = (random(old.len()), random(3 * MIB));
            let end = old.len().min(at + length);
            match random(3) {
                0 => old[at..end].fill(0),
                1 => old[at..end].copy_from_slice(&versions[random(4)][at..end]),
                _ => old[at] ^= 1,
            }
        }
        let same = |number: usize| {
            old[number * MIB..].chunks(MIB).next() == table[number * MIB..].chunks(MIB).next()
        };
        // What an edge of two windows shares is fetched with either.
        let most = (0..4).filter(|number| !same(*number)).count() as u64 * (MIB + 2 * PAGE) as u64;
        if random(2) == 0 {
            old.resize(random(5 * MIB), 9);
        }
        let is_cut = old.len() < table.len();
        std::fs::write(stage.target().join(TABLE), &old).unwrap();
        let again = delta(&stage, &contents).await;
        assert!(stage.read(TABLE) == *table, "round {round}");
        assert!(is_cut || again.fetched_bytes < most + LITTLE, "round {round}: {}", again.fetched_bytes);
    }
}

/// Of a manifest of before there were windows, parts are fetched as ever; of one that lies, all of it is.
#[tokio::test]
async fn without_hashes_of_windows_or_with_wrong_ones_it_is_fetched_and_right() {
    let table = versions().pop().unwrap();
    let wrong = Windows::new(vec![Some(ContentHash::of(b"hostile")); 4]);
    for windows in [Windows::default(), wrong] {
        let stage = Stage::new().await;
        let contents = with_chain(windows);
        stage.restore(&contents).await.unwrap();
        let again = delta(&stage, &contents).await;
        assert!(stage.read(TABLE) == table);
        assert!(again.fetched_bytes > 3 * MIB as u64, "{}", again.fetched_bytes);
    }
}

/// Hints: what was read is other than what the pieces give, and as good.
#[tokio::test]
async fn a_window_as_the_backup_read_it_is_left_as_it_is() {
    let (stage, table) = (Stage::new().await, versions().pop().unwrap());
    let mut read = table.clone();
    read[MIB + 100] ^= 4;
    let contents = with_chain(windows_of(&read));
    stage.restore(&contents).await.unwrap();
    assert!(stage.read(TABLE) == table, "a whole restore goes by the pieces");
    std::fs::write(stage.target().join(TABLE), &read).unwrap();
    let again = delta(&stage, &contents).await;
    assert!(stage.read(TABLE) == read && again.fetched_bytes < LITTLE, "{}", again.fetched_bytes);
}

/// A piece is read by range there, too: the header, and the chunks that hold it.
#[tokio::test]
async fn of_an_encrypted_pack_no_more_is_fetched_than_what_differs_lies_in() {
    let stage = Stage::new().await;
    let sealer = fixture::sealer(Some(stage.scratch.path()));
    let archive = Archive::new(Arc::clone(&stage.store), fixture::CLUSTER, sealer);
    let table = noise(12 * MIB);
    let mut contents = Contents::cluster();
    contents.file(TABLE, &table);
    let plan = fixture::plan(contents.store(&archive).await);
    let mut request = fixture::request(stage.target());
    let whole = restore(&archive, &plan, &request, &Progress::new()).await.unwrap();
    assert!(whole.transferred_bytes > table.len() as u64);
    assert!(stage.read(TABLE) == table);
    request.delta = true;
    for at in [0, 5 * MIB + 17, 9 * MIB - 1] {
        let mut changed = table.clone();
        changed[at] ^= 1;
        std::fs::write(stage.target().join(TABLE), &changed).unwrap();
        let again = restore(&archive, &plan, &request, &Progress::new()).await.unwrap();
        assert!(stage.read(TABLE) == table, "{at}");
        let most = (MIB + 300_000) as u64 + LITTLE;
        assert!(again.transferred_bytes < most, "{at}: {}", again.transferred_bytes);
    }
}
