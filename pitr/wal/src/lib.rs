//! What PostgreSQL 13 to 18 writes: names, pages, records, control files.
//!
//! Pure: no I/O, no clock, no async. Any bytes may be given to anything here: what is
//! wrong with them comes back as an error, and no memory is reserved for a length that
//! they only claim.
//!
//! # What is where
//!
//! The vocabulary, each word parsed once and here only:
//! [`lsn`] addresses · [`segment`] segment sizes and names · [`timeline`] timelines and their
//! history files · [`file_name`] every name that the archiver or recovery uses ·
//! [`timestamp`] PostgreSQL's clock · [`system_identifier`] which cluster · [`version`] which
//! PostgreSQL.
//!
//! Bytes to meaning, each step using the one before:
//! [`page`] a page's header · [`record`] a record's header and main data · [`event`] what a
//! record means for recovery (`transaction` for commits and aborts) · `stream` pages to
//! records, following PostgreSQL's own reader (`unfinished` a record that spans pages, `halt`
//! where reading stops and whether that is damage, `first_page` is this the file it is named,
//! `carry_over` what one segment leaves for the next).
//!
//! Two ways of driving the stream:
//! [`Surveyor`] is pushed bytes of one segment and sums up ([`survey`] is what it says,
//! `tally` the sums); [`Reader`] is pulled for records and asks for segments.
//!
//! Other files of a cluster: [`control_file`] · [`backup_label`] · [`tablespace_map`] ·
//! [`page_checksum`] of data pages.
//!
//! # What a survey proves
//!
//! That every record which ends in the segment has the content its CRC was taken of and
//! follows the record before it, that every page belongs where it is, and that a segment
//! that was switched is zero to its end. A record that spans in from the segment before
//! is proven only with that segment's [`CarryOver`]. What no check covers is said at
//! `stream`.

mod carry_over;
mod fields;
mod first_page;
mod halt;
mod stream;
mod surveyor;
mod tally;
mod transaction;
mod unfinished;

pub mod backup_label;
pub mod control_file;
pub mod database_names;
pub mod event;
pub mod file_name;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod lsn;
pub mod page;
pub mod page_checksum;
pub mod reader;
pub mod record;
pub mod segment;
pub mod survey;
pub mod system_identifier;
pub mod tablespace_map;
pub mod timeline;
pub mod timestamp;
pub mod version;

pub use backup_label::{BackupLabel, BackupLabelError};
pub use carry_over::{Carry, CarryOver};
pub use control_file::{ControlFile, ControlFileError, DbState};
pub use event::{Event, ParameterChange};
pub use file_name::WalFileName;
pub use lsn::{Lsn, LsnError};
pub use page::{LongHeader, PAGE_SIZE, PageError, PageHeader};
pub use page_checksum::{PageState, page_lsn, verify_page};
pub use reader::{ReadError, Reader, ReaderStart, Start, Step};
pub use record::{Record, RecordError, RecordHeader};
pub use segment::{NameError, SegmentName, SegmentSize, SegmentSizeError};
pub use survey::{Edge, Ending, RestorePoint, STEP_BACK_MICROS, Survey, SurveyError, SurveyOf};
pub use surveyor::Surveyor;
pub use system_identifier::{SystemIdentifier, SystemIdentifierError};
pub use tablespace_map::TablespaceMapError;
pub use timeline::{Ancestor, HistoryError, PathStep, TimelineHistory, TimelineId};
pub use timestamp::{Timestamp, TimestampError};
pub use version::{Major, MajorError};
