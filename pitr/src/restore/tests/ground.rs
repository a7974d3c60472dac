//! What is said before anything is written.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::restore::ground::{BYTES_PER_FILE, needs};
use crate::restore::inventory::Keep;
use crate::restore::read_manifest;

async fn looked_at(stage: &Stage, contents: &Contents) -> Ground {
    let plan = fixture::plan(contents.store(&stage.archive).await);
    let destination = fixture::request(stage.target()).destination();
    let ground = survey(&stage.archive, &plan, &destination).await.unwrap();
    assert!(!stage.target().exists());
    ground
}

#[tokio::test]
async fn what_the_configuration_names_and_the_machine_lacks_is_said_before_anything_is_written() {
    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    let main = b"ssl = on\nssl_cert_file = '/nowhere/server.crt'\nssl_key_file = 'server.key'\n\
                 ssl_ca_file = 'root.crt'\nlogging_collector = on\nlog_directory = '/nowhere/log'\n\
                 unix_socket_directories = '/tmp, /nowhere/run, @abstract'\nmax_connections = 20\n\
                 max_wal_senders = 10\ninclude_dir 'conf.d'\ninclude 'more/there.conf'\n";
    contents
        .file("postgresql.conf", main)
        .file("server.key", b"key")
        .directory("more")
        .file("more/there.conf", b"include 'gone.conf'\n");
    let ground = looked_at(&stage, &contents).await;
    assert_eq!(ground.refusals, []);
    assert_eq!(
        ground.warnings,
        [
            "more/there.conf includes \"gone.conf\", which is not here",
            "postgresql.conf includes \"conf.d\", which is not here",
            "postgresql.conf sets ssl_cert_file to \"/nowhere/server.crt\", which is not here",
            "postgresql.conf sets ssl_ca_file to \"root.crt\", which is not here",
            "postgresql.conf sets log_directory to \"/nowhere/log\", which is not here",
            "postgresql.conf names \"/nowhere/run\" in unix_socket_directories, which is not here",
            "postgresql.conf sets max_connections to 20, and the original ran with 100: recovery stops at that",
        ]
    );
}

#[tokio::test]
async fn files_that_are_not_used_are_not_asked_for() {
    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    contents.file(
        "postgresql.conf",
        b"ssl = off\nssl_cert_file = '/nowhere/x'\nlog_directory = '/nowhere/log'\nhba_file = ''\n",
    );
    assert_eq!(looked_at(&stage, &contents).await.warnings, Vec::<String>::new());
}

#[tokio::test]
async fn everything_that_is_in_the_way_is_said_at_once() {
    let stage = Stage::new().await;
    let used = stage.scratch.path().join("used");
    std::fs::create_dir(&used).unwrap();
    std::fs::write(used.join("mine"), "").unwrap();
    let mut contents = Contents::cluster();
    contents.tablespace(16384, &used).tablespace(16385, Path::new("/nowhere/at/all"));
    let plan = fixture::plan(contents.store(&stage.archive).await);
    let request = fixture::request(used.join("data"));
    let destination = Destination { data_directory: stage.target(), ..request.destination() };
    let refusals = survey(&stage.archive, &plan, &destination).await.unwrap().refusals;
    let reasons: Vec<&str> = refusals.iter().map(|refusal| refusal.why.as_str()).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons[0].contains("used") && reasons[0].contains("not empty"), "{reasons:?}");
    assert!(reasons[1].contains("/nowhere/at/all"), "{reasons:?}");
    let request = fixture::request(stage.target());
    let error = restore(&stage.archive, &plan, &request, &Progress::new()).await.unwrap_err().to_string();
    assert!(reasons.iter().all(|reason| error.contains(reason)), "{error}");
    assert!(!stage.target().exists());
}

#[tokio::test]
async fn subscriptions_are_named_unless_the_copy_takes_over() {
    let stage = Stage::new().await;
    let mut backup = Contents::cluster().store(&stage.archive).await;
    backup.subscriptions = Some(vec!["orders".to_owned()]);
    let plan = fixture::plan(backup);
    for (take_over, expected) in [(false, vec!["subscription orders"]), (true, vec![])] {
        let request = RestoreRequest { take_over, ..fixture::request(stage.target()) };
        let ground = survey(&stage.archive, &plan, &request.destination()).await.unwrap();
        assert_eq!(ground.neutralised.unwrap(), expected);
        restore(&stage.archive, &plan, &request, &Progress::new()).await.unwrap();
        let workers = value_of(&stage.read("postgresql.auto.conf"), "max_logical_replication_workers");
        assert_eq!(workers.as_deref(), (!take_over).then_some("0"));
        std::fs::remove_dir_all(stage.target()).unwrap();
    }
}

#[tokio::test]
async fn what_a_backup_brings_along_is_known_before_a_place_is_chosen() {
    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    contents
        .file("postgresql.conf", b"max_connections = 20\nssl_cert_file = '/nowhere'\narchive_mode = on\n")
        .file("standby.signal", b"");
    let mut backup = contents.store(&stage.archive).await;
    backup.subscriptions = Some(vec!["orders".to_owned()]);
    let brought = look_into(&stage.archive, &fixture::plan(backup)).await.unwrap().unwrap();
    let neutralised = ["standby.signal", "archive_mode in postgresql.conf", "subscription orders"];
    assert_eq!(brought.neutralised, neutralised);
    let low =
        "postgresql.conf sets max_connections to 20, and the original ran with 100: recovery stops at that";
    assert_eq!(brought.warnings, [low]);

    let sealer = fixture::sealer(Some(stage.scratch.path()));
    let archive = Archive::new(Arc::clone(&stage.store), fixture::CLUSTER, sealer);
    let sealed = fixture::plan(contents.store(&archive).await);
    assert_eq!(look_into(&stage.archive, &sealed).await.unwrap(), None);
}

#[tokio::test]
async fn without_the_key_it_is_said_that_nobody_looked() {
    let stage = Stage::new().await;
    let sealer = fixture::sealer(Some(stage.scratch.path()));
    let archive = Archive::new(Arc::clone(&stage.store), fixture::CLUSTER, sealer);
    let plan = fixture::plan(Contents::cluster().store(&archive).await);
    std::fs::create_dir(stage.target()).unwrap();
    std::fs::write(stage.target().join("mine"), "").unwrap();
    let destination = fixture::request(stage.target()).destination();
    let ground = survey(&stage.archive, &plan, &destination).await.unwrap();
    assert!(ground.refusals[0].why.contains("not empty"), "{:?}", ground.refusals);
    assert!(ground.warnings[0].contains("not looked at"), "{:?}", ground.warnings);
}

#[tokio::test]
async fn files_are_counted_as_they_are_completed() {
    let stage = Stage::new().await;
    let plan = fixture::plan(Contents::cluster().store(&stage.archive).await);
    // The second pack that is fetched for good does not come: the first one's files count.
    let faulty = Faulty::new(Arc::clone(&stage.store));
    let calls_before = {
        let archive = fixture::archive(Arc::new(faulty.clone()));
        let request = fixture::request(stage.target());
        prepare(&archive, &plan, &request.destination()).await.unwrap();
        faulty.calls(Verb::Get)
    };
    faulty.fail(Verb::Get, calls_before * 2 + 2, Fault::Before(StoreErrorKind::Transient));
    let archive = fixture::archive(Arc::new(faulty.clone()));
    let mut request = fixture::request(stage.target());
    request.workers = std::num::NonZeroUsize::MIN;
    let progress = Progress::new();
    restore(&archive, &plan, &request, &progress).await.unwrap_err();
    let now = progress.now();
    assert!(now.done_files > 1 && now.done_files < now.total_files, "{now:?}");
    std::fs::remove_dir_all(stage.target()).unwrap();
    let progress = Progress::new();
    restore(&stage.archive, &plan, &request, &progress).await.unwrap();
    assert_eq!(progress.now().done_files, progress.now().total_files);
}

/// Of a large file, and of one among many, the manifest is asked again where it lies.
#[tokio::test]
async fn configuration_is_read_wherever_it_lies_and_however_large_it_is() {
    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    let comment = format!("# {}\n", "x".repeat(3_000_000));
    contents
        .file("postgresql.conf", format!("{comment}include_dir 'conf.d'\n").as_bytes())
        .directory("conf.d")
        .file("conf.d/99.conf", b"archive_cleanup_command = 'x'\n");
    for many in [0, 100] {
        for number in 0..many {
            contents.file(&format!("conf.d/{number:02}.conf"), b"port = 1\n");
        }
        let mut contents = contents.clone();
        contents.file("conf.d/99.conf", b"archive_cleanup_command = 'x'\n");
        let plan = fixture::plan(contents.store(&stage.archive).await);
        let brought = look_into(&stage.archive, &plan).await.unwrap().unwrap();
        assert_eq!(brought.neutralised, ["archive_cleanup_command in conf.d/99.conf"]);
        let destination = fixture::request(stage.target()).destination();
        let ground = survey(&stage.archive, &plan, &destination).await.unwrap();
        assert_eq!(ground.neutralised.unwrap(), brought.neutralised);
    }
}

#[tokio::test]
async fn a_manifest_for_which_there_is_no_room_is_refused_before_anything_is_written() {
    let stage = Stage::new().await;
    let mut backup = Contents::cluster().store(&stage.archive).await;
    backup.manifest.plain_size = u64::MAX / 2;
    let (plan, request) = (fixture::plan(backup), fixture::request(stage.target()));
    let refused = |refusals: &[Refusal]| refusals.len() == 1 && refusals[0].why.contains("bytes are needed");
    let ground = survey(&stage.archive, &plan, &request.destination()).await.unwrap();
    assert!(refused(&ground.refusals), "{ground:?}");
    let error = restore(&stage.archive, &plan, &request, &Progress::new()).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Refused(refusal) if refused(std::slice::from_ref(refusal))));
    assert!(!stage.target().exists());
}

/// A relation can be nearly all hole, and larger than the disk.
#[tokio::test]
async fn holes_need_no_room_and_take_none() {
    const MIB: usize = 1 << 20;
    let stage = Stage::new().await;
    let with = |content: &[u8]| {
        let mut contents = Contents::cluster();
        contents.directory("base/5").file("base/5/1", content);
        contents
    };
    let sparse = [noise(MIB), vec![0; 2 * MIB], noise(MIB / 2), vec![0; MIB / 2]].concat();
    let dense = noise(sparse.len());
    let mut needed = Vec::new();
    for content in [&sparse, &dense] {
        let plan = fixture::plan(with(content).store(&stage.archive).await);
        let room = async |keep| {
            let inventory = read_manifest(&stage.archive, &plan, keep).await.unwrap();
            needs(&inventory, &[&stage.target()], false, 0).remove(0).bytes
        };
        let room = [room(Keep::All).await, room(Keep::OutsideDatabases).await];
        assert_eq!(room[0], room[1]);
        needed.push(room[0]);
        restore(&stage.archive, &plan, &fixture::request(stage.target()), &Progress::new()).await.unwrap();
        let path = stage.target().join("base/5/1");
        assert!(std::fs::read(&path).unwrap() == *content);
        let holes = if content == &sparse { 2 * MIB } else { 0 };
        let taken = path.metadata().unwrap().blocks() * 512;
        assert!(taken <= (content.len() - holes) as u64 + BYTES_PER_FILE, "{taken}");
        std::fs::remove_dir_all(stage.target()).unwrap();
    }
    assert_eq!(needed[1] - needed[0], 2 * MIB as u64);
}

/// A plan counts the files of databases and a restore has them all: both say the same of the room.
#[tokio::test]
async fn a_plan_knows_the_databases_that_are_left_out_as_a_restore_does() {
    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    contents.directory("base/16384").file("base/16384/1", &noise(1000));
    let plan = fixture::plan(contents.store(&stage.archive).await);
    let mut destination = fixture::request(stage.target()).destination();
    destination.databases = vec!["16384".to_owned()];
    survey(&stage.archive, &plan, &destination).await.unwrap();
    destination.databases = vec!["16385".to_owned()];
    let error = survey(&stage.archive, &plan, &destination).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Database { there, .. } if there.contains("16384")), "{error:?}");
    contents.directory("base/16385").file("base/16385/1", &noise(3000));
    let plan = fixture::plan(contents.store(&stage.archive).await);
    let mut request = fixture::request(stage.target());
    request.databases = vec!["16384".to_owned()];
    let prepared = prepare(&stage.archive, &plan, &request.destination()).await.unwrap();
    let restored = restore(&stage.archive, &plan, &request, &Progress::new()).await.unwrap();
    assert_eq!(prepared.inventory.bytes, restored.bytes);
    assert_eq!(restored.fetched_bytes, restored.bytes);
    assert_eq!(stage.read("base/16385/1"), vec![0; 3000]);
    assert_eq!(stage.read("base/16384/1"), noise(1000));
}
