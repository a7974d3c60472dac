//! What walpoint keeps: stores, stored format, catalog.

pub mod backup_id;
pub mod compress;
pub mod config;
pub mod content;
pub mod durable;
pub mod encrypt;
pub mod envelope;
pub mod facts;
mod hex;
pub mod layout;
pub mod object_key;
pub mod run_facts;
pub mod store;
pub mod wal_facts;
pub mod writer_id;
