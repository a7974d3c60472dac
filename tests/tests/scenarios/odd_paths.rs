//! Directories and files may have any name: quotes, blanks, percent signs, backslashes and what a shell would
//! run pass unchanged from the command line into settings, and from there through the server's shell.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, LayoutKind, Stop};
use walpoint_tests::process::{Outcome, run};
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::{ARCHIVING_LIMIT, RECOVERY_LIMIT, Scene};
use walpoint_tests::scratch::{Scratch, make_private_dir, write_private};
use walpoint_tests::user::User;
use walpoint_tests::wait;
use walpoint_tests::walpoint::{ArchivePlace, Walpoint};

const ODD: &str = r#"it's "a" 100%p %f\n $(touch pwned) ü;&#x"#;

/// A directory with the odd name and its own copy of the program.
struct OddPlace {
    scratch: Scratch,
    directory: PathBuf,
    program: PathBuf,
}

impl OddPlace {
    fn new() -> Result<OddPlace> {
        let scratch = Scratch::new("odd")?;
        let directory = scratch.path().join(ODD);
        make_private_dir(&directory)?;
        let program = directory.join("walpoint");
        std::fs::copy(programs::walpoint()?, &program).context("copy the program")?;
        User::current()?.own(&program)?;
        Ok(OddPlace { scratch, directory, program })
    }

    fn archive(&self) -> Result<PathBuf> {
        let archive = self.directory.join("archive");
        if !archive.exists() {
            make_private_dir(&archive)?;
        }
        Ok(archive)
    }

    /// A configuration in the odd directory for the server of this data directory.
    fn walpoint(&self, like: &Walpoint, cluster: &Cluster, name: &str) -> Result<Walpoint> {
        let archive = self.archive()?.display().to_string().replace('%', "%25");
        let text = format!(
            "[postgres]\ndata_directory = {}\nconnection = {}\n[archive]\nurl = {}\n",
            toml(&cluster.data().display().to_string()),
            toml(&cluster.connection("walpoint")),
            toml(&format!("file://{archive}")),
        );
        let config = self.directory.join(name);
        write_private(&config, &text)?;
        let mut walpoint = like.with_binary(self.program.clone());
        walpoint.config = config;
        Ok(walpoint)
    }
}

fn toml(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn life(layout: LayoutKind) -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let odd = OddPlace::new()?;
    let options = ClusterOptions { layout, ..ClusterOptions::default() };
    // The harness writes its own configuration for the hooks, which does not quote: it names the archive by
    // a link.
    let plain = odd.scratch.path().join("archive");
    std::os::unix::fs::symlink(odd.archive()?, &plain)?;
    let scene = Scene::start(Cluster::init(&postgres, options)?, ArchivePlace::Directory(plain))?;
    let mut original = scene.cluster;
    let walpoint = odd.walpoint(&scene.walpoint, &original, "first.toml")?;
    original.execute("create table t as select 1 as n")?;
    walpoint.ok(&["backup"])?;
    original.execute("insert into t values (2)")?;
    original.switch_and_wait_archived(ARCHIVING_LIMIT)?;
    original.stop(Stop::Fast)?;

    // Restored to an odd place by an odd program with an odd configuration: recovery runs all three.
    let data = odd.directory.join("data");
    restore(&walpoint, &data)?;
    let mut copy = Cluster::restored(&data, &original)?;
    copy.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(copy.value("select count(*) from t")?, "2");

    // What no configuration file can name is refused before anything is written.
    let broken = odd.scratch.path().join("two\nlines");
    let args = ["restore", "--latest", "--data-directory", broken.to_str().context("a path")?];
    let refused = walpoint.run(&args)?.expect(2)?;
    assert!(refused.stderr.contains("line break") && !broken.exists(), "{refused}");

    // It takes over: archive_command is now as odd.
    let second = odd.walpoint(&walpoint, &copy, "second.toml")?;
    copy.execute("alter system set archive_command = ''")?;
    copy.execute("select pg_reload_conf()")?;
    let told = second.run(&["take-over"])?.expect(1)?;
    assert!(told.stderr.contains("restart"), "{told}");
    copy.stop(Stop::Fast)?;
    copy.start_expect_ready(RECOVERY_LIMIT)?;
    assert!(copy.value("show archive_command")?.contains("100%%p"));
    second.ok(&["take-over"])?;
    copy.execute("insert into t values (3)")?;
    copy.switch_and_wait_archived(ARCHIVING_LIMIT)?;
    copy.stop(Stop::Fast)?;

    // The command that restore prints starts it, also where pg_ctl would hand the path to a shell.
    let plain = odd.scratch.path().join("it's 100%p %f ü;&#x again");
    let odder = odd.scratch.path().join(format!("{ODD} again"));
    for data in [&plain, &odder] {
        let start = restore(&second, data)?;
        shell(&postgres, &start)?;
        let rows = wait::until("the server to answer", RECOVERY_LIMIT, || {
            Ok(original.is_open().then(|| original.value("select count(*) from t")))
        });
        stop(&postgres, data)?;
        assert_eq!(rows??, "3", "{start}");
    }

    for directory in [odd.scratch.path(), &odd.directory, original.data(), copy.data(), &plain, &odder] {
        assert!(!directory.join("pwned").exists(), "a shell ran the name of a directory");
    }
    Ok(())
}

/// The copy listens where its original did, which is down.
fn shell(postgres: &Postgres, command: &str) -> Result<Outcome> {
    let mut shell = User::current()?.command(Path::new("/bin/sh"));
    let programs = postgres.tool("pg_ctl").parent().context("pg_ctl lies nowhere")?.display().to_string();
    shell.env("PATH", format!("{programs}:/usr/bin:/bin")).current_dir("/").args(["-c", command]);
    run(shell, RECOVERY_LIMIT)?.success()
}

/// Stopping needs no shell of `pg_ctl`'s.
fn stop(postgres: &Postgres, data: &Path) -> Result<Outcome> {
    let mut command = User::current()?.command(&postgres.tool("pg_ctl"));
    command.arg("-D").arg(data).args(["-m", "fast", "stop"]).current_dir("/");
    run(command, RECOVERY_LIMIT)?.success()
}

fn restore(walpoint: &Walpoint, data: &Path) -> Result<String> {
    let directory = data.to_str().context("a path")?;
    let outcome = walpoint.ok(&["restore", "--latest", "--data-directory", directory])?;
    Ok(outcome.last_line()?.to_owned())
}

#[test]
fn odd_names_pass_through_every_command() -> Result<()> {
    life(LayoutKind::Plain)
}

#[test]
fn odd_names_pass_where_the_configuration_lay_elsewhere() -> Result<()> {
    life(LayoutKind::Debian)
}
