//! A backup with very many pieces takes no more memory to restore than one with few: what is to be fetched is sorted
//! on the disk. Each restore is a process of its own, which says how much it had at most.
//!
//! Pieces are of 64 bytes, parts of frames that lie in other packs and in another order than the files have them, as
//! after many incremental backups: as many pieces as a large cluster has, without its data. The large one is run by
//! scripts/scale:
//!
//!     cargo test --test many_pieces -- --ignored --nocapture very_many

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use walpoint_pitr::progress::Progress;
use walpoint_pitr::restore::{look_into, restore, survey};

mod made;

use made::{FILE, IN_FILE, archive, content_of, name_of, plan, request};

/// Says to a process what to do, and where.
const TASK: &str = "WALPOINT_TEST_MANY_PIECES";

/// What a process may take that looks, and one that restores: 14 and 29 MiB when this was written. Holding 400,000 pieces
/// takes 34 MiB, of which sorting some at a time has 11 already.
const LOOKING: u64 = 28 << 20;
const RESTORING: u64 = 44 << 20;

#[test]
fn memory_does_not_grow_with_the_pieces_of_a_backup() {
    try_with(400_000);
}

#[test]
#[ignore = "makes three million pieces; scripts/scale runs it"]
fn very_many_pieces_are_restored_in_bounded_memory() {
    try_with(3_000_000);
}

/// In a process of its own.
#[test]
#[ignore = "is a part of the other tests, and does nothing by itself"]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let (task, directory) = task.split_once(' ').unwrap();
    carry_out(task, Path::new(directory));
}

fn try_with(pieces: usize) {
    let scratch = tempfile::tempdir().unwrap();
    let files = pieces.div_ceil(IN_FILE);
    let begun = Instant::now();
    made::make(scratch.path(), files);
    println!("{} pieces were made in {:.1?}", files * IN_FILE, begun.elapsed());
    let mut too_much = Vec::new();
    for (task, limit) in
        [("plan", LOOKING), ("survey", LOOKING), ("restore", RESTORING), ("delta", RESTORING)]
    {
        let begun = Instant::now();
        let peak = in_a_process(task, scratch.path());
        println!("{task:<8} {:>8.1?} {:>4} MiB", begun.elapsed(), peak >> 20);
        if peak > limit {
            too_much.push(format!("{task} took {} MiB", peak >> 20));
        }
        if task == "restore" || task == "delta" {
            for file in 0..files {
                let path = scratch.path().join("restored").join(name_of(file));
                assert!(std::fs::read(path).unwrap() == content_of(file, files), "file {file} after {task}");
            }
        }
    }
    assert!(too_much.is_empty(), "{too_much:?}");
}

/// The most memory that it had.
fn in_a_process(task: &str, directory: &Path) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(TASK, format!("{task} {}", directory.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{task}: {said}{}", String::from_utf8_lossy(&output.stderr));
    let peak = said.lines().find_map(|line| line.split_once("peak: ")).unwrap().1;
    peak.trim().parse().unwrap()
}

#[tokio::main]
async fn carry_out(task: &str, directory: &Path) {
    let archive = archive(directory).await;
    let plan = plan(archive.summary(&made::id()).await.unwrap());
    let mut request = request(directory.join("restored"));
    match task {
        "plan" => drop(look_into(&archive, &plan).await.unwrap().unwrap()),
        "survey" => {
            let ground = survey(&archive, &plan, &request.destination()).await.unwrap();
            assert_eq!(ground.refusals, []);
        }
        "restore" => {
            let restored = restore(&archive, &plan, &request, &Progress::new()).await.unwrap();
            assert_eq!(restored.fetched_bytes, restored.bytes);
        }
        "delta" => {
            let changed = request.data_directory.join(name_of(1));
            let mut content = std::fs::read(&changed).unwrap();
            content[FILE / 2] ^= 1;
            std::fs::write(changed, content).unwrap();
            request.delta = true;
            let restored = restore(&archive, &plan, &request, &Progress::new()).await.unwrap();
            let (one, fetched) = (FILE as u64, restored.fetched_bytes);
            assert!((one..one + 65_536).contains(&fetched), "{fetched}");
        }
        _ => panic!("{task}"),
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    println!("peak: {}", peak * 1024);
}
