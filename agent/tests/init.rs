//! `init`: what it writes, and over what it never writes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod stage;

use stage::{SMALL, Stage, fixture, program, ran};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn init(config: &Path, arguments: &[&str]) -> Command {
    let mut command = program();
    // As root too the tests know whose the archive is: the owner of this one.
    command.env("WALPOINT_POSTGRES_DATA_DIRECTORY", config.with_file_name("data"));
    command.arg("init").arg("--config").arg(config).args(arguments);
    command
}

fn place() -> (Stage, String, String) {
    let stage = Stage::new();
    std::fs::remove_file(stage.config()).unwrap();
    let url = format!("file://{}", stage.path("new/archive").display());
    let data = stage.data().display().to_string();
    (stage, url, data)
}

#[test]
fn init_writes_a_configuration_that_the_hooks_work_with() {
    let (stage, url, data) = place();
    let said = ran(&mut init(&stage.config(), &["--url", &url, "--data-directory", &data, "--json"]))
        .expect(0)
        .json();
    assert_eq!(
        (said["written"].as_bool(), said["archive"]["create_only"].as_bool()),
        (Some(true), Some(true))
    );
    assert_eq!(said["archive"]["checksum"], "not-sent");
    let command = said["postgresql"]["archive_command"].as_str().unwrap();
    let config = stage.config().display().to_string();
    assert_eq!(command, format!("{} --config {config} archive-push %p", env!("CARGO_BIN_EXE_walpoint")));
    let mode = std::fs::metadata(stage.config()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        std::fs::read_dir(stage.path("new/archive")).unwrap().count(),
        0,
        "the trial left something behind"
    );

    let pushed = Command::new("sh")
        .args(["-c", &command.replace("%p", &format!("pg_wal/{SMALL}"))])
        .current_dir(&data)
        .status();
    assert!(pushed.unwrap().success());
    stage.get(SMALL).expect(0);
    assert!(stage.delivered() == fixture(SMALL));
}

#[test]
fn init_prints_the_lines_for_postgresql_conf() {
    let (stage, url, _) = place();
    let said = ran(&mut init(&stage.config(), &["--url", &url])).expect(0).stdout;
    for line in [
        "archive_mode = 'on'",
        "archive_command = '/",
        "archive-push %p'",
        "archive_mode takes effect when PostgreSQL is restarted",
        "writes, reads back, lists and deletes",
        "refuses to overwrite an object",
        "fsync",
        "not encrypted",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn init_never_writes_over_a_file() {
    let (stage, url, _) = place();
    std::fs::write(stage.config(), format!("[archive]\nurl = \"{url}\"\n")).unwrap();
    let before = std::fs::read(stage.config()).unwrap();
    ran(&mut init(&stage.config(), &["--url", &url])).expect(2).says("exists already");
    // Without anything to write it tries what is configured.
    let said = ran(&mut init(&stage.config(), &["--json"])).expect(0).json();
    assert_eq!(said["written"], false);
    assert_eq!(std::fs::read(stage.config()).unwrap(), before);
}

#[test]
fn what_the_environment_says_goes_into_the_file() {
    let (stage, url, _) = place();
    let mut command = init(&stage.config(), &[]);
    ran(command.env("WALPOINT_ARCHIVE_URL", &url).env("WALPOINT_COMPRESSION_LEVEL", "3")).expect(0);
    let text = std::fs::read_to_string(stage.config()).unwrap();
    assert!(text.contains(&format!("\nurl = \"{url}\"\n")) && text.contains("\nlevel = 3\n"), "{text}");
}

#[test]
fn the_archive_is_its_owners_alone_whatever_the_umask() {
    let (stage, url, _) = place();
    let line = "umask 0277; exec \"$0\" \"$@\"";
    let plain = init(&stage.config(), &["--url", &url]);
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    ran(&mut shell).expect(0);
    for directory in ["new", "new/archive"] {
        let mode = std::fs::metadata(stage.path(directory)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{directory}");
    }
}

#[test]
fn an_archive_that_does_not_work_leaves_no_configuration() {
    let (stage, _, _) = place();
    std::fs::write(stage.path("file"), "").unwrap();
    let url = format!("file://{}", stage.path("file/archive").display());
    ran(&mut init(&stage.config(), &["--url", &url])).expect(1).says("hint: ");
    ran(&mut init(&stage.config(), &[])).expect(2).says("--url");
    assert!(!stage.config().exists());
}
