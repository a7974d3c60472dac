//! What walpoint keeps: stores, stored format, catalog.

pub mod archive;
pub mod backup_id;
mod buffers;
pub mod catalog;
pub mod cluster;
pub mod compress;
pub mod config;
pub mod content;
mod description;
pub mod durable;
pub mod encrypt;
pub mod envelope;
pub mod error;
pub mod expiry;
pub mod facts;
pub mod fault_point;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod hex;
pub mod idle;
pub mod layout;
pub mod manifest;
pub mod object_key;
pub mod own_directory;
pub mod pack;
mod rare;
pub mod relative_path;
pub mod run_facts;
pub mod store;
pub mod summary;
pub mod tail;
pub mod verification;
pub mod wal_facts;
pub mod writer_id;

pub use archive::{
    Archive, BackupFolders, BackupInventory, BackupListing, ClusterListing, Compared, ExpiryMarks, FileFacts,
    FolderObjects, Neighbours, Onward, PackObjects, PutChunk, PutSource, PutWal, PutWalOutcome,
    SEALED_IN_MEMORY, SegmentObjects, SegmentRead, StandingMark, StoredPart, StoredRecord, TailRemoval,
    Timelines, WalInventory,
};
pub use backup_id::{BackupId, BackupKind};
pub use catalog::{Catalog, CatalogScope, DamagedObject, SegmentState, Usable, Variant};
pub use cluster::Cluster;
pub use content::{ContentHash, ContentId, StoredHash};
pub use encrypt::KeyRing;
pub use envelope::{SealedContent, Sealer, Sealing};
pub use error::ArchiveError;
pub use expiry::{ExpiryMark, MarkedWal};
pub use facts::Common;
pub use idle::IdleProof;
pub use layout::{Entry, Layout};
pub use manifest::{
    EntryKind, ManifestEntry, ManifestHeader, ManifestReader, ManifestWriter, Piece, Windows,
};
pub use object_key::{ObjectKey, Prefix};
pub use pack::{PackWriter, PiecePlace};
pub use rare::Rare;
pub use relative_path::RelativePath;
pub use run_facts::RunFacts;
pub use summary::{BackupHead, BackupSummary};
pub use tail::{Chunk, ChunkName, Tail, TailFacts};
pub use verification::{Proof, Verification, VerificationRecord};
pub use wal_facts::{WalEnding, WalFacts};
pub use writer_id::WriterId;
