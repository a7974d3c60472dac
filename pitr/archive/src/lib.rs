//! What walpoint keeps: stores, stored format, catalog.

pub mod backup_id;
pub mod compress;
pub mod config;
pub mod content;
pub mod durable;
pub mod encrypt;
pub mod envelope;
pub mod error;
pub mod facts;
mod hex;
pub mod layout;
pub mod object_key;
pub mod relative_path;
pub mod run_facts;
pub mod store;
pub mod wal_facts;
pub mod writer_id;

pub use backup_id::{BackupId, BackupKind};
pub use content::{ContentHash, ContentId, StoredHash};
pub use encrypt::KeyRing;
pub use envelope::Sealer;
pub use error::ArchiveError;
pub use facts::Common;
pub use layout::{Entry, Layout};
pub use relative_path::RelativePath;
pub use run_facts::RunFacts;
pub use wal_facts::{WalEnding, WalFacts};
pub use writer_id::WriterId;
