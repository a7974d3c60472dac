//! Cleans up after a test process, however it ends.
//!
//! Statics are never dropped, a panic may abort and Ctrl-C skips destructors,
//! so a small shell process waits at the other end of a pipe. When the test
//! process is gone the pipe closes, and the keeper kills every server whose
//! pid file lies in a registered directory and removes the directory.

use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result};

// Only directories whose name is ours are removed, whatever the pipe says.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
dirs=
while IFS= read -r dir; do
    case $dir in */wp-*) dirs="$dirs $dir" ;; esac
done
for dir in $dirs; do
    [ -d "$dir" ] || continue
    for pid_file in $(find "$dir" -maxdepth 3 -name '*.pid' 2>/dev/null); do
        pid=$(head -n 1 "$pid_file")
        # A pid file may be stale: only a process that mentions the directory is ours.
        if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$dir"; then
            kill -CONT "$pid" 2>/dev/null
            kill -QUIT "$pid" 2>/dev/null
            sleep 1
            kill -KILL "$pid" 2>/dev/null
        fi
    done
    rm -rf "$dir"
done
"#;

struct Keeper {
    pipe: ChildStdin,
    _shell: Child,
}

/// Has the directory removed, with the servers in it, when this process ends.
/// The directory's name must start with `wp-`.
pub fn register(dir: &Path) -> Result<()> {
    static KEEPER: OnceLock<Mutex<Keeper>> = OnceLock::new();
    let keeper = match KEEPER.get() {
        Some(keeper) => keeper,
        None => {
            let started = start()?;
            KEEPER.get_or_init(|| Mutex::new(started))
        }
    };
    let mut keeper = keeper.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(keeper.pipe, "{}", dir.display()).context("tell the keeper of a directory")
}

fn start() -> Result<Keeper> {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", SCRIPT])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start the keeper")?;
    let pipe = shell.stdin.take().context("the keeper has no pipe")?;
    Ok(Keeper { pipe, _shell: shell })
}
