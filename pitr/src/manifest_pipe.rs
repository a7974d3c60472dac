//! Reads a manifest while it is fetched: through a pipe, so that only what is made of it takes memory.

use std::io::{BufReader, ErrorKind, PipeReader};

use walpoint_archive::{Archive, ArchiveError, BackupSummary};

/// Fetches a backup's manifest, verified, and has `read` read it where blocking holds up nothing else. What `read`
/// made of it counts only with `Ok`: then the manifest is whole.
///
/// # Errors
/// The archive could not give the manifest. What `read` itself refuses is the inner error; so is one that it gave
/// before the fetching ended.
pub(crate) async fn read_piped<P, T, E>(
    archive: &Archive,
    summary: &BackupSummary<P>,
    read: impl FnOnce(BufReader<PipeReader>) -> Result<T, E> + Send + 'static,
    stopped: impl FnOnce() -> E,
) -> Result<Result<T, E>, ArchiveError>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let piped = |source| ArchiveError::Io { verb: "make", what: "a pipe".to_owned(), source };
    let (reader, mut writer) = std::io::pipe().map_err(piped)?;
    let reading = tokio::task::spawn_blocking(move || read(BufReader::new(reader)));
    let fetched = archive.fetch_manifest(summary, &mut writer).await;
    drop(writer);
    let read = reading.await.unwrap_or_else(|_| Err(stopped()));
    match fetched {
        // Nobody reads on: the manifest was refused. Any other failure cut it short, and nothing is
        // wrong with it.
        Err(ArchiveError::Io { verb: "write", source, .. })
            if source.kind() == ErrorKind::BrokenPipe && read.is_err() =>
        {
            Ok(read)
        }
        Err(error) => Err(error),
        Ok(()) => Ok(read),
    }
}
