//! One tokio runtime for the whole test process, behind blocking calls.

use std::future::Future;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

/// The shared runtime. It is never shut down: connections and the proxy live
/// on it across tests.
pub fn shared() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let built = Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start tokio")?;
    Ok(RUNTIME.get_or_init(|| built))
}

/// Runs a future to its end from a test's thread.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    shared()?.block_on(future)
}
