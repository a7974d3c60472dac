//! What PostgreSQL 13 to 18 writes: names, pages, records, control files. Pure: no I/O,
//! no clock, no async. Any bytes may be given to anything here: what is wrong with them
//! comes back as an error, and no memory is reserved for a length that they only claim.

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
pub mod event;
pub mod file_name;
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
