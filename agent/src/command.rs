//! The commands, one file each: from typed arguments to what is printed.

pub mod backup;
pub mod check;
pub mod expire;
pub mod init;
pub mod list;
pub mod plan;
pub mod resolve;
pub mod restore;
pub mod status;
pub mod take_over;
pub mod verify;
pub mod window;
