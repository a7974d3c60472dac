//! A secret is seen nowhere: in no output and no log at any level, in no error, on no command line, and in
//! nothing that is written. Each secret here is one of a kind, so that any trace of it is found.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::{self, Garage};
use walpoint_tests::process::Outcome;
use walpoint_tests::programs::{self, repository};
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::scratch::write_private;
use walpoint_tests::walpoint::ArchivePlace;

const PASSWORD: &str = "Canary0Connection0Password";
const TOKEN: &str = "Canary0Session0Token0Of0Nobody";
const WRONG_KEY: &str = "Canary0Wrong0Secret0Key0Of0Nobody0000000";

/// Every log there is.
const LOGS: [&[&str]; 4] = [
    &["--log-level", "debug"],
    &["--log-level", "trace"],
    &["--log-level", "trace", "--log-format", "json"],
    &["--log-level", "trace", "--json"],
];

/// The secrets of one scene, and the one who looks for them on command lines.
struct Guard {
    secrets: Vec<String>,
    is_over: Arc<AtomicBool>,
    watcher: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Guard {
    fn new(identity: &str) -> Result<Guard> {
        let key = garage::credentials().into_iter().find(|(name, _)| name == "AWS_SECRET_ACCESS_KEY");
        let (_, key) = key.context("no secret key")?;
        let secrets: Vec<String> =
            vec![PASSWORD.to_owned(), TOKEN.to_owned(), WRONG_KEY.to_owned(), identity.to_owned(), key];
        let is_over = Arc::new(AtomicBool::new(false));
        let (secrets_too, is_over_too) = (secrets.clone(), Arc::clone(&is_over));
        let watcher = std::thread::spawn(move || watch_command_lines(&secrets_too, &is_over_too));
        Ok(Guard { secrets, is_over, watcher: Some(watcher) })
    }

    fn seen_in(&self, text: &str) -> Option<&str> {
        self.secrets.iter().map(String::as_str).find(|secret| text.contains(secret))
    }

    fn holds(&self, what: &str, text: &str) {
        if let Some(secret) = self.seen_in(text) {
            let lines: Vec<&str> = text.lines().filter(|line| line.contains(secret)).take(3).collect();
            panic!("{what} holds {secret}: {lines:#?}");
        }
    }

    fn passes(&self, outcome: &Outcome) {
        self.holds(&outcome.command, &format!("{}\n{}", outcome.stdout, outcome.stderr));
    }

    /// No file below holds a secret.
    fn is_kept_from(&self, directory: &Path) -> Result<usize> {
        let mut files = 0;
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                files += self.is_kept_from(&path)?;
            } else if path.is_file() {
                let bytes = std::fs::read(&path)?;
                self.holds(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
                files += 1;
            }
        }
        Ok(files)
    }

    fn end(mut self) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        let Some(watcher) = self.watcher.take() else { bail!("nobody watched") };
        let seen = watcher.join().ok().context("the watcher panicked")?;
        assert!(seen.is_empty(), "secrets on command lines: {seen:#?}");
        Ok(())
    }
}

/// Looks at every process's command line until it is over.
fn watch_command_lines(secrets: &[String], is_over: &AtomicBool) -> Vec<String> {
    let mut seen = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for line in processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok()) {
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            // The harness gives a Garage its key so; walpoint has no part in it.
            let is_ours = !line.contains(" key import ");
            if is_ours && secrets.iter().any(|secret| line.contains(secret)) && !seen.contains(&line) {
                seen.push(line);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    seen
}

/// The identity of the golden archive: its file, its public key and its secret.
fn identity(cluster: &Cluster) -> Result<(PathBuf, String, String)> {
    let text = std::fs::read_to_string(repository().join("tests/golden/v1/identity"))?;
    let after = |mark: &str| text.lines().find_map(|line| line.strip_prefix(mark)).map(str::to_owned);
    let public = after("# public key: ").context("no public key")?;
    let secret = after("AGE-SECRET-KEY-").context("no secret key")?;
    let file = cluster.scratch().path().join("identity.txt");
    write_private(&file, &text)?;
    Ok((file, public, secret))
}

/// A cluster that archives, encrypted, to S3 with a session token and a password to connect by.
fn scene() -> Result<Option<(Scene, Guard)>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let Some(garage) = Garage::shared()? else { return Ok(None) };
    let mut place = garage.archive()?;
    if let ArchivePlace::S3 { environment, .. } = &mut place {
        environment.push(("AWS_SESSION_TOKEN".to_owned(), TOKEN.to_owned()));
    }
    let mut cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    let (file, public, secret) = identity(&cluster)?;
    let archiving = cluster.archive_to(&place)?;
    archiving.configure(&format!(
        "[encryption]\nrecipients = [\"{public}\"]\nidentity_file = \"{}\"\n[archive_get]\nretry_for = \"20s\"",
        file.display()
    ))?;
    let walpoint =
        archiving.with_config(|text| text.replace("dbname=postgres", &format!("password={PASSWORD}")))?;
    cluster.start()?;
    let command =
        format!("{} --log-level trace --config {}", walpoint.binary().display(), walpoint.config.display());
    cluster.execute(&format!("alter system set archive_command = '{command} archive-push %p'"))?;
    cluster.execute("select pg_reload_conf()")?;
    Ok(Some((Scene::of_parts(cluster, walpoint, place), Guard::new(&secret)?)))
}

#[test]
fn a_secret_is_seen_nowhere_when_all_goes_well() -> Result<()> {
    let Some((mut scene, guard)) = scene()? else { return Ok(()) };
    scene.cluster.execute("create table t as select 1 n")?;
    let backups = LOGS.iter().map(|log| scene.walpoint.ok(&[*log, &["backup"]].concat()));
    for backup in backups.collect::<Result<Vec<_>>>()? {
        guard.passes(&backup);
    }
    let segment = scene.archive_everything()?;
    guard.holds("the server's log of archiving", &scene.cluster.log());

    let directory = scene.fresh_directory();
    let into = directory.to_str().context("the directory's name is not UTF-8")?.to_owned();
    for log in LOGS {
        for args in [
            &["list"][..],
            &["list", "--wal"],
            &["window"],
            &["plan", "--latest"],
            &["check", "--probe"],
            &["init"],
            &["archive-get", &segment, "pg_wal/GOT"],
            &["restore", "--latest", "--dry-run", "--data-directory", &into],
        ] {
            let outcome = scene.walpoint.run_in(scene.cluster.data(), &[log, args].concat())?.success()?;
            assert!(
                log.contains(&"--json") || outcome.stderr.len() > 200,
                "there is a log to look at\n{outcome}"
            );
            guard.passes(&outcome);
        }
    }
    let restore = ["--log-level", "trace", "restore", "--latest", "--data-directory", &into];
    guard.passes(&scene.walpoint.ok(&restore)?);
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = Cluster::restored(&directory, &scene.cluster)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    guard.passes(&scene.walpoint_for(&restored)?.run(&["--log-level", "trace", "take-over"])?.expect(1)?);
    restored.stop(Stop::Fast)?;
    guard.holds("the restored server's log", &restored.log());
    assert!(guard.is_kept_from(&directory)? > 100, "the restored cluster was looked at");
    guard.end()
}

#[test]
fn a_secret_is_seen_nowhere_when_things_go_wrong() -> Result<()> {
    let Some((scene, guard)) = scene()? else { return Ok(()) };
    let edit = |from: &str, to: &str| scene.walpoint.with_config(|text| text.replace(from, to));
    let connection = scene.cluster.connection("walpoint").replace("dbname=postgres", "");
    let with_connection = |text: &str| edit(&format!("{connection}password={PASSWORD}"), text);
    let broken_identity = scene.cluster.scratch().path().join("broken.txt");
    write_private(&broken_identity, &format!("AGE-SECRET-KEY-{}x\n", guard.secrets[3]))?;

    let denied = scene.walpoint.with_environment("AWS_SECRET_ACCESS_KEY", WRONG_KEY);
    let password = format!("password={PASSWORD}");
    let nobody = with_connection(&format!("host=127.0.0.1 port=1 {password}"))?;
    let no_user = with_connection(&connection.replace("user=walpoint", &format!("user=nobody {password}")))?;
    let unreadable = with_connection(&format!("{password} nonsense"))?;
    let by_url = with_connection(&format!("postgresql://walpoint:more@{PASSWORD}@localhost:1/postgres"))?;
    let no_toml = edit(&password, &format!("{password}\" \""))?;
    let no_identity = edit("identity.txt", "broken.txt")?;
    let credentials = edit("s3://", &format!("s3://key:{WRONG_KEY}@"))?;
    for (about, walpoint, args, status) in [
        ("denied", &denied, &["list"][..], 1),
        ("denied", &denied, &["check"], 2),
        ("nobody answers", &nobody, &["backup"], 1),
        ("nobody answers", &nobody, &["check"], 2),
        ("no such user", &no_user, &["backup"], 1),
        ("no connection text", &unreadable, &["backup"], 2),
        ("no connection URL", &by_url, &["backup"], 2),
        ("no TOML", &no_toml, &["list"], 2),
        ("no identity", &no_identity, &["list"], 2),
        ("credentials in the archive's url", &credentials, &["list"], 2),
    ] {
        for log in LOGS {
            let outcome = walpoint.run(&[log, args].concat())?;
            guard.passes(&outcome);
            assert_eq!(outcome.code(), status, "{about}\n{outcome}");
        }
    }
    guard.end()
}

#[test]
fn init_writes_no_secret() -> Result<()> {
    let Some((scene, guard)) = scene()? else { return Ok(()) };
    let connection = format!("{} password={PASSWORD}", scene.cluster.connection("walpoint"));
    let ArchivePlace::S3 { url, endpoint, .. } = &scene.place else { bail!("the archive is a bucket here") };
    let written = scene.walpoint.with_config(|_| String::new())?;
    std::fs::remove_file(&written.config)?;
    let written = written
        .with_environment("WALPOINT_ARCHIVE_URL", url)
        .with_environment("WALPOINT_ARCHIVE_ENDPOINT", endpoint)
        .with_environment("WALPOINT_ARCHIVE_REGION", "garage")
        .with_environment("WALPOINT_POSTGRES_CONNECTION", &connection);
    let outcome = written.ok(&["--log-level", "trace", "init"])?;
    guard.passes(&outcome);
    let text = std::fs::read_to_string(&written.config)?;
    guard.holds("the configuration that init wrote", &text);
    assert!(text.contains(&format!("\nurl = \"{url}\"\n")), "{text}");
    assert!(outcome.stderr.contains("WALPOINT_POSTGRES_CONNECTION"), "what was left out is named\n{outcome}");
    guard.end()
}
