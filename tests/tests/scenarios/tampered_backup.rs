//! A backup that somebody rewrote who can write to the archive, with hashes and
//! counts that fit: refused as damaged, in bounded memory, and nothing is
//! written but in the directory that is restored to.

mod forge;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::scratch::write_private;
use walpoint_tests::torture::Tree;

use forge::{Backup, Forge};

/// What a bomb holds, and the memory that a restore may take all the same.
const BOMB: u64 = 320 << 20;
const MEMORY: u64 = 256 << 20;

/// Changes a backup; the path is a directory outside that is not to be touched.
type Change = fn(&mut Backup, &Path) -> Result<()>;

/// A file of no bytes.
fn file(path: &str) -> Value {
    json!({"path": path, "kind": "file", "mode": "0600", "size": 0, "pieces": []})
}

/// A link to a tablespace, and a file below it.
fn through_link(backup: &mut Backup, outside: &Path, below: &str) -> Result<()> {
    let target = outside.display().to_string();
    backup
        .insert(json!({"path": "pg_tblspc/16999", "kind": "tablespace", "oid": 16999, "target": target}))?;
    backup.insert(file(&format!("pg_tblspc/16999/{below}")))
}

/// The first piece of the file, each column by its place in the format.
fn piece<'a>(backup: &'a mut Backup, path: &str, column: usize) -> Result<&'a mut Value> {
    backup.line(path)?["pieces"][0].get_mut(column).context("no piece")
}

const FILE: &str = "PG_VERSION";

const CHANGES: [(&str, Change); 18] = [
    ("a path upwards", |it, _| {
        it.first(file("../escaped"));
        Ok(())
    }),
    ("a path upwards in its middle", |it, _| it.insert(file("base/../../escaped"))),
    ("an absolute path", |it, outside| {
        it.first(file(&outside.join("escaped").display().to_string()));
        Ok(())
    }),
    ("a NUL in a path", |it, _| it.insert(file("base/esc\0aped"))),
    ("a path of 5000 bytes", |it, _| it.insert(file(&format!("base/{}", "e".repeat(5000))))),
    ("a file through a link", |it, outside| through_link(it, outside, "escaped")),
    ("a link at another place", |it, outside| {
        let target = outside.display().to_string();
        it.insert(json!({"path": "base/escape", "kind": "tablespace", "oid": 1, "target": target}))
    }),
    ("a link of a kind that is none", |it, outside| {
        let target = outside.display().to_string();
        it.insert(json!({"path": "base/escape", "kind": "link", "mode": "0777", "target": target}))
    }),
    ("a file in no directory", |it, _| it.insert(file("escape/escaped"))),
    ("a path twice", |it, _| {
        let again = it.line(FILE)?.clone();
        it.insert(again)
    }),
    ("a mode that changes its user", |it, _| {
        it.line(FILE)?["mode"] = "4755".into();
        Ok(())
    }),
    ("a size that its pieces do not have", |it, _| {
        it.line(FILE)?["size"] = 5000.into();
        Ok(())
    }),
    ("the largest size there is", |it, _| {
        it.line(FILE)?["size"] = u64::MAX.into();
        *piece(it, FILE, 1)? = u32::MAX.into();
        Ok(())
    }),
    ("a piece of another length", |it, _| {
        it.line(FILE)?["size"] = 5000.into();
        *piece(it, FILE, 1)? = 5000.into();
        Ok(())
    }),
    ("a piece of another content", |it, _| {
        let other = piece(it, "global/pg_control", 6)?.clone();
        *piece(it, FILE, 6)? = other;
        Ok(())
    }),
    ("a piece behind the pack's end", |it, _| {
        *piece(it, FILE, 4)? = (1u64 << 60).into();
        Ok(())
    }),
    ("a piece that is a bomb", |it, _| {
        let (pack, stored_length) = it.add_bomb(BOMB)?;
        *piece(it, FILE, 3)? = pack.into();
        *piece(it, FILE, 4)? = 0.into();
        *piece(it, FILE, 5)? = stored_length.into();
        Ok(())
    }),
    ("a line without an end", |it, _| {
        it.more = vec![b' '; usize::try_from(BOMB)?];
        Ok(())
    }),
];

#[test]
fn a_backup_that_was_rewritten_is_refused_and_nothing_is_written_elsewhere() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select generate_series(1, 1000)")?;
    scene.backup()?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    // Where everything is that a path could lead to; what may change lies beside it.
    let ground = scene.cluster.scratch().make_dir("ground")?;
    let outside = scene.cluster.scratch().make_dir("ground/outside")?;
    write_private(&outside.join("precious"), "data")?;
    let forge = Forge::new(scene.archive_directory()?, scene.cluster.scratch().path().join("sound"))?;

    for (number, (about, change)) in CHANGES.into_iter().enumerate() {
        forge.tamper(|backup| change(backup, &outside)).context(about)?;
        let target = ground.join(format!("target-{number}"));
        refuse(&scene, &ground, &target).context(about)?;
        // Said before anything is written, where it can be seen in the manifest.
        let seen_in_pack = about.starts_with("a piece of") || about.ends_with("bomb");
        ensure!(seen_in_pack || !target.exists(), "{about}: something was written");
        if target.exists() {
            std::fs::remove_dir_all(&target)?;
        }
    }
    forge.mend()?;
    a_link_in_the_way(&scene, &ground, &outside)?;
    scene.restore_into(&ground.join("whole"), &["--latest"])?.success()?;
    Ok(())
}

fn refuse(scene: &Scene, ground: &Path, target: &Path) -> Result<()> {
    let before = Tree::of(ground)?;
    let outcome = scene.restore_into(target, &["--latest"])?.expect(5)?;
    let below = PathBuf::from(target.file_name().context("a target without a name")?);
    before.unchanged(|path| path.starts_with(&below))?;
    ensure!(outcome.peak_memory < MEMORY, "{} MiB were used", outcome.peak_memory >> 20);
    ensure!(!target.join("global/pg_control").exists(), "a server could start there");
    Ok(())
}

/// A link where the data directory is to be, and one within it: 7, whatever the manifest says.
fn a_link_in_the_way(scene: &Scene, ground: &Path, outside: &Path) -> Result<()> {
    let occupied = scene.cluster.scratch().make_dir("ground/occupied")?;
    for link in [ground.join("linked"), occupied.join("base")] {
        std::os::unix::fs::symlink(outside, &link)?;
    }
    for target in [ground.join("linked"), occupied] {
        let before = Tree::of(ground)?;
        scene.restore_into(&target, &["--latest"])?.expect(7)?;
        before.unchanged(|_| false)?;
    }
    Ok(())
}
