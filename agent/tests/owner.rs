//! As root: what root would leave behind, the server could not read. So root writes for nobody else's cluster
//! and says why. Without root there is nothing to try.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod stage;

use stage::{SMALL, Stage};
use std::os::unix::fs::chown;

/// A stage whose data directory is `nobody`'s; none when this is not root.
fn of_nobody() -> Option<Stage> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can be refused for being root");
        return None;
    }
    let stage = Stage::archived();
    chown(stage.data(), Some(65534), Some(65534)).unwrap();
    stage.configure(&format!("[postgres]\ndata_directory = \"{}\"\n", stage.data().display()));
    Some(stage)
}

#[test]
fn root_is_refused_where_it_would_write_for_another_user() {
    let Some(stage) = of_nobody() else { return };
    let before = stage.keys();
    let data = stage.data().display().to_string();
    for arguments in
        [&["backup"][..], &["take-over"], &["archive-push", &format!("pg_wal/{SMALL}")], &["init"]]
    {
        stage.run(arguments).expect(2).says("as root").says("uid 65534").says("sudo -u");
    }
    let new = stage.path("new.toml").display().to_string();
    let archive = format!("file://{}", stage.path("new archive").display());
    let init = ["--config", &new, "init", "--url", &archive, "--data-directory", &data];
    stage::run(&init).expect(2).says("as root");
    assert!(!stage.path("new.toml").exists() && !stage.path("new archive").exists());

    stage.get(SMALL).expect(255).says("as root");
    assert!(!stage.wal("RECOVERYXLOG").exists());
    assert_eq!(stage.keys(), before);
    // Reading harms nobody.
    stage.run(&["list", "--wal"]).expect(0);
}

#[test]
fn root_is_refused_where_it_would_write_into_another_users_archive() {
    let Some(stage) = of_nobody() else { return };
    // The data directory is root's, or nobody knows one: the archive itself says whose it is.
    chown(stage.data(), Some(0), Some(0)).unwrap();
    chown(stage.archive(), Some(65534), Some(65534)).unwrap();
    let before = stage.keys();
    let archive = stage.archive().display().to_string();
    for arguments in [
        &["resolve", SMALL, "--keep", "0123456789abcdef"][..],
        &["archive-push", &format!("pg_wal/{SMALL}")],
        &["init"],
    ] {
        stage.run(arguments).expect(2).says("as root").says(&archive).says("uid 65534").says("sudo -u");
    }
    stage.configure("");
    stage.run(&["resolve", SMALL, "--keep", "0123456789abcdef"]).expect(2).says("as root").says(&archive);
    assert_eq!(stage.keys(), before);
    // Reading harms nobody.
    stage.run(&["list", "--wal"]).expect(0);
}

#[test]
fn root_sets_up_no_archive_that_would_be_its_own() {
    let Some(stage) = of_nobody() else { return };
    let new = stage.path("new.toml").display().to_string();
    let url = format!("file://{}", stage.path("new archive").display());
    let nowhere = stage.path("nowhere").display().to_string();
    for more in [&[][..], &["--data-directory", &nowhere]] {
        let words = [&["--config", &new, "init", "--url", &url][..], more].concat();
        stage::run(&words).expect(2).says("as root").says("sudo -u");
    }
    assert!(!stage.path("new.toml").exists() && !stage.path("new archive").exists());
}

#[test]
fn root_restores_for_the_owner_of_the_directory_above_and_not_for_itself() {
    let Some(stage) = of_nobody() else { return };
    let restore = |name: &str| {
        let target = stage.path(name).display().to_string();
        stage.run(&["restore", "--latest", "--data-directory", &target])
    };
    restore("new").expect(2).says("belongs to root").says("hint: run restore as the user");
    // Another owner gets as far as the plan: there is no backup here.
    let home = stage.path("home");
    std::fs::create_dir(&home).unwrap();
    chown(&home, Some(65534), Some(65534)).unwrap();
    restore("home/new").expect(6);
}
