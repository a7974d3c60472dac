//! What a test wants of its cluster.

/// Where the configuration files lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayoutKind {
    /// In the data directory, as `initdb` leaves them.
    Plain,
    /// In a directory of their own, as Debian's `pg_createcluster` does it.
    Debian,
}

#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// 1 MiB by default: tests want many segments, not many bytes.
    pub wal_segsize_mb: u32,
    pub checksums: bool,
    pub layout: LayoutKind,
    /// More lines for postgresql.conf.
    pub configuration: String,
    /// More variables for the server, such as S3 credentials for the hooks.
    pub environment: Vec<(String, String)>,
}

impl Default for ClusterOptions {
    fn default() -> ClusterOptions {
        ClusterOptions {
            wal_segsize_mb: 1,
            checksums: true,
            layout: LayoutKind::Plain,
            configuration: String::new(),
            environment: Vec::new(),
        }
    }
}
