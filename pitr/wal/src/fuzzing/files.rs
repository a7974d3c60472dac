//! The small files of a cluster, as they are.

use crate::{BackupLabel, ControlFile, Lsn, TimelineHistory, TimelineId, tablespace_map as map};

/// A history that is accepted says the same when it is written again, and its path has
/// no gap.
pub fn history(data: &[u8]) {
    // The longest history belongs to the last timeline; few ancestors fit before the fourth.
    for number in [u32::MAX, 4] {
        let Some(timeline) = TimelineId::new(number) else { return };
        let Ok(history) = TimelineHistory::parse(timeline, data) else { continue };
        let lines =
            history.ancestors.iter().map(|it| format!("{}\t{}\t{}\n", it.timeline, it.fork, it.reason));
        let again = TimelineHistory::parse(timeline, lines.collect::<String>().as_bytes());
        assert_eq!(again.as_ref(), Ok(&history));
        path_has_no_gap(&history);
    }
}

fn path_has_no_gap(history: &TimelineHistory) {
    let mut begin = Some(Lsn::ZERO);
    for step in history.path() {
        assert_eq!(Some(step.begin), begin);
        assert!(step.end.is_none_or(|end| step.begin < end));
        assert_eq!(step.end, history.fork_from(step.timeline));
        begin = step.end;
    }
    assert_eq!(begin, None);
}

/// A label that is accepted says the same when its lines are written again.
pub fn backup_label(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(label) = BackupLabel::parse(text) else { return };
    let from = if label.from_standby { "standby" } else { "primary" };
    let mut lines = vec![
        format!("START WAL LOCATION: {} (file {})", label.start, label.start_segment),
        format!("CHECKPOINT LOCATION: {}", label.checkpoint),
        format!("BACKUP METHOD: {}", label.method),
        format!("BACKUP FROM: {from}"),
        format!("LABEL: {}", label.label),
    ];
    lines.extend(label.start_timeline.map(|timeline| format!("START TIMELINE: {timeline}")));
    lines.extend(label.incremental_from.map(|lsn| format!("INCREMENTAL FROM LSN: {lsn}")));
    // A label may end with a carriage return, which would be taken for a part of a bare newline.
    assert_eq!(BackupLabel::parse(&(lines.join("\r\n") + "\r\n")), Ok(label));
}

/// A map that is accepted says the same when it is written again.
pub fn tablespace_map(data: &[u8]) {
    if let Ok(tablespaces) = map::parse(data) {
        assert_eq!(map::parse(&map::render(&tablespaces)), Ok(tablespaces));
    }
}

/// A control file is read without a panic, also where its checksum is right.
pub fn control_file(data: &[u8]) {
    let _ = ControlFile::parse(data);
    // Where 13 to 17 and where 18 keep the checksum of what precedes it.
    for at in [288, 292] {
        let mut bytes = data.to_vec();
        let (Some(crc), Some(field)) = (data.get(..at).map(crc32c::crc32c), bytes.get_mut(at..at + 4)) else {
            return;
        };
        field.copy_from_slice(&crc.to_le_bytes());
        let _ = ControlFile::parse(&bytes);
    }
}
