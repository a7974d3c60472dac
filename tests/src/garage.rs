//! A real single-node Garage as the S3 store.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Outcome, run};
use crate::programs;
use crate::scratch::{Scratch, write_private};
use crate::user::User;
use crate::wait;
use crate::walpoint::ArchivePlace;

pub const REGION: &str = "garage";

const START_LIMIT: Duration = Duration::from_secs(60);
const CLI_LIMIT: Duration = Duration::from_secs(60);

// Imported, not created, so that no output has to be parsed. Worth nothing
// outside the loopback interface and this process's lifetime.
const KEY_ID: &str = "GK31c2f218a2e44f485b94239e";
const KEY_SECRET: &str = "b892c0665f0ada8a4755dae98baa3b133590e11dae3bcc1f9d769d67f16c3835";

/// One server with its own data, wiped on drop.
#[derive(Debug)]
pub struct Garage {
    binary: PathBuf,
    config: PathBuf,
    scratch: Scratch,
    s3: SocketAddr,
    server: Mutex<Option<Child>>,
    buckets: AtomicU32,
}

impl Garage {
    /// Starts a server. `None` when Garage is not installed, said on stdout.
    pub fn start() -> Result<Option<Garage>> {
        let Some(binary) = programs::garage()? else { return Ok(None) };
        let scratch = Scratch::new("s3")?;
        let [rpc, s3] = free_ports()?;
        let config = scratch.path().join("garage.toml");
        write_private(&config, &configuration(scratch.path(), rpc, s3))?;
        let garage =
            Garage { binary, config, scratch, s3, server: Mutex::new(None), buckets: AtomicU32::new(0) };
        garage.resume_server()?;
        garage.assign_layout()?;
        garage.cli(&["key", "import", "--yes", "-n", "walpoint", KEY_ID, KEY_SECRET])?;
        Ok(Some(garage))
    }

    /// The one server that the tests of this process share; each takes a
    /// bucket of its own. Tests that stop or pause a server start their own.
    pub fn shared() -> Result<Option<&'static Garage>> {
        static SHARED: OnceLock<Option<Garage>> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        let _one_starts = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(garage) = SHARED.get() {
            return Ok(garage.as_ref());
        }
        let started = Garage::start()?;
        Ok(SHARED.get_or_init(|| started).as_ref())
    }

    /// A new empty bucket that the key may read and write.
    pub fn bucket(&self) -> Result<String> {
        let name = format!("bucket-{}", self.buckets.fetch_add(1, Ordering::Relaxed));
        self.cli(&["bucket", "create", &name])?;
        self.cli(&["bucket", "allow", "--read", "--write", "--owner", &name, "--key", KEY_ID])?;
        Ok(name)
    }

    /// Takes the right to a bucket away: the store answers 403 from now on.
    pub fn deny(&self, bucket: &str) -> Result<()> {
        self.cli(&["bucket", "deny", "--read", "--write", "--owner", bucket, "--key", KEY_ID]).map(drop)
    }

    /// An archive in a new bucket, under a prefix.
    pub fn archive(&self) -> Result<ArchivePlace> {
        let bucket = self.bucket()?;
        Ok(self.archive_in(&bucket, &self.endpoint()))
    }

    /// An archive in this bucket behind another address, such as a proxy's.
    pub fn archive_in(&self, bucket: &str, endpoint: &str) -> ArchivePlace {
        ArchivePlace::S3 {
            url: format!("s3://{bucket}/archive"),
            endpoint: endpoint.to_owned(),
            environment: credentials(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.s3
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.s3)
    }

    /// Kills the server; what it acknowledged stays on its disk.
    pub fn stop(&self) -> Result<()> {
        let child = self.server().take();
        let Some(mut child) = child else { return Ok(()) };
        child.kill().context("kill garage")?;
        child.wait().context("wait for garage")?;
        Ok(())
    }

    /// Starts the server again after [`Garage::stop`].
    pub fn resume_server(&self) -> Result<()> {
        let mut command = User::current()?.command(&self.binary);
        command.arg("-c").arg(&self.config).arg("server").env("RUST_LOG", "garage=warn");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .context("open garage's log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/").process_group(0);
        let child = command.spawn().context("start garage")?;
        write_private(&self.scratch.path().join("garage.pid"), &format!("{}\n", child.id()))?;
        *self.server() = Some(child);
        self.wait_up()
    }

    /// SIGSTOP: connections are accepted by the kernel and never answered.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub fn unpause(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Runs `garage` as its operator would.
    pub fn cli(&self, args: &[&str]) -> Result<Outcome> {
        let mut command = User::current()?.command(&self.binary);
        command.arg("-c").arg(&self.config).args(args).current_dir("/").env("RUST_LOG", "error");
        run(command, CLI_LIMIT)?.success()
    }

    fn wait_up(&self) -> Result<()> {
        wait::until_true("garage to listen", START_LIMIT, || {
            if let Some(child) = self.server().as_mut()
                && let Some(status) = child.try_wait()?
            {
                let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
                bail!("garage ended with {status}\n{log}");
            }
            Ok(TcpStream::connect_timeout(&self.s3, Duration::from_secs(1)).is_ok())
        })
    }

    fn assign_layout(&self) -> Result<()> {
        let node = self.cli(&["node", "id", "-q"])?.stdout;
        let node = node.trim().split('@').next().unwrap_or_default().to_owned();
        self.cli(&["layout", "assign", "-z", "here", "-c", "10GB", &node])?;
        self.cli(&["layout", "apply", "--version", "1"])?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.server().as_ref().map(Child::id).context("garage is not running")?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("garage has no pid")?;
        kill_process(pid, signal).context("signal garage")
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("garage.log")
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        // Best effort: the keeper ends what this could not.
        let _ = self.stop();
    }
}

/// What a client needs in its environment. IMDS is switched off, so that a
/// missing credential fails at once.
pub fn credentials() -> Vec<(String, String)> {
    [
        ("AWS_ACCESS_KEY_ID", KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", KEY_SECRET),
        ("AWS_REGION", REGION),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

fn configuration(dir: &Path, rpc: SocketAddr, s3: SocketAddr) -> String {
    let dir = dir.display();
    format!(
        "metadata_dir = \"{dir}/meta\"\ndata_dir = \"{dir}/blocks\"\ndb_engine = \"sqlite\"\n\
         replication_factor = 1\nrpc_bind_addr = \"{rpc}\"\nrpc_public_addr = \"{rpc}\"\n\
         rpc_secret = \"1799bccfd7411eddcf9ebd316bc1f5287ad12a68094e1c6ac6abde7e6feae1ec\"\n\
         metadata_fsync = true\ndata_fsync = true\n\
         [s3_api]\ns3_region = \"{REGION}\"\napi_bind_addr = \"{s3}\"\n"
    )
}

/// Ports that were free a moment ago, held together so that they differ.
fn free_ports() -> Result<[SocketAddr; 2]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port");
    let (first, second) = (bind()?, bind()?);
    Ok([first.local_addr()?, second.local_addr()?])
}
