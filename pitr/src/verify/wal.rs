//! Reads segments back: their content, the records in it, that these are what the metadata say, and that each segment
//! continues the one before it. What push could not see, having only the file, is seen here.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

use walpoint_archive::verification::Depth;
use walpoint_archive::{
    Archive, ArchiveError, Catalog, Compared, SegmentState, Usable, Variant, WalEnding, WalFacts,
};
use walpoint_wal::{
    Carry, CarryOver, Edge, Ending, Lsn, SegmentName, SegmentSize, Survey, SurveyError, SurveyOf, Surveyor,
    TimelineId,
};

use super::finding::{Fault, Touches, Trouble};
use super::looked::{Looked, looked};
use super::unread::SetAside;
use crate::path::TimelinePath;
use crate::progress::Progress;

/// How far back the beginning of a record is looked for, in bytes: no record is longer.
const LONGEST_RECORD: u64 = 1 << 30;

/// What reading some segments came to.
#[derive(Debug, Default)]
pub(super) struct WalRead {
    pub faults: Vec<Fault>,
    pub objects: u64,
    pub bytes: u64,
    /// Records over a segment's edge that push had left unchecked and that were checked now.
    pub edges_closed: u64,
    /// Segments of which only the stored bytes were read.
    pub sealed: u64,
    /// Those of them whose stored bytes could be compared with nothing but their number.
    pub length_only: BTreeSet<u64>,
    /// Segments that no one here can decode.
    pub undecoded: u64,
    /// They were not there any more.
    pub gone: u64,
    /// What is there now of the segments of which something went away.
    pub changed: BTreeMap<u64, SegmentState>,
    /// Whether all of them were looked into, and not only at their stored bytes.
    pub is_deep: bool,
    /// The segments with which something is wrong, or that could not be read.
    pub wrong: BTreeSet<u64>,
}

/// What a segment leaves for the next one.
enum Left {
    Carry(CarryOver),
    /// It is the middle of a record that began before it.
    WithinRecord,
    Nothing,
}

/// What segments are read with.
#[derive(Debug, Clone)]
pub(super) struct WalReader {
    pub archive: Archive,
    pub catalog: Arc<Catalog>,
    pub progress: Arc<Progress>,
    pub set_aside: Arc<SetAside>,
}

impl WalReader {
    fn size(&self) -> SegmentSize {
        self.catalog.cluster.segment_size
    }

    /// Reads the segments of a timeline from one number to another.
    pub async fn read(&self, timeline: TimelineId, first: u64, last: u64) -> Result<WalRead, ArchiveError> {
        let mut read = WalRead { is_deep: true, ..WalRead::default() };
        let mut carry = None;
        for number in first..=last {
            let Some(state) = self.state(timeline, number) else { continue };
            let Some(name) = SegmentName::from_number(timeline, number, self.size()) else { continue };
            let before_it = (read.faults.len(), read.gone);
            match self.read_segment(name, state, carry.take(), &mut read).await {
                Ok(left) => {
                    self.set_aside.answered();
                    carry = Some(left);
                }
                Err(error) => {
                    self.set_aside.take(&self.archive, error).await?;
                    read.wrong.insert(number);
                }
            }
            if (read.faults.len(), read.gone) != before_it {
                read.wrong.insert(number);
            }
        }
        Ok(read)
    }

    /// All contents of one segment; returns what it leaves for the next.
    async fn read_segment(
        &self,
        name: SegmentName,
        state: &SegmentState,
        before: Option<Carry>,
        read: &mut WalRead,
    ) -> Result<Carry, ArchiveError> {
        let number = name.number(self.size()).unwrap_or_default();
        let before = match before {
            Some(carry) => carry,
            None => self.carry_into(name.timeline, number).await?,
        };
        let left = match state.available() {
            Usable::One(variant) => self.read_one(name, variant, before, read).await?,
            _ => Carry::Unknown,
        };
        for variant in others(state) {
            self.read_aside(name, variant, read).await?;
        }
        Ok(left)
    }

    /// An object that was listed, and of which the store says that it is not there: when it is listed all the same,
    /// it is lost; when it is not, somebody took it away, and what is there now counts.
    async fn gone(
        &self,
        name: SegmentName,
        variant: &Variant,
        touches: Touches,
        read: &mut WalRead,
    ) -> Result<(), ArchiveError> {
        let now = self.archive.segment_state(&name).await?;
        if now.variants.iter().chain(now.tail.as_deref()).any(|it| it.key() == variant.key()) {
            let what = "it is listed, and the store says that there is no such object";
            read.faults.push(Fault::of(&variant.key(), Depth::Stored, Trouble::Missing, what, touches));
            return Ok(());
        }
        read.gone += 1;
        if let Ok(number) = name.number(self.size()) {
            read.changed.insert(number, now);
        }
        Ok(())
    }

    fn state(&self, timeline: TimelineId, number: u64) -> Option<&SegmentState> {
        self.catalog.wal.get(&timeline)?.get(&number)
    }

    /// The content that recovery uses; returns what it leaves for the next segment.
    async fn read_one(
        &self,
        name: SegmentName,
        variant: &Variant,
        before: Carry,
        read: &mut WalRead,
    ) -> Result<Carry, ArchiveError> {
        let key = &variant.key();
        read.objects += 1;
        let was_known = matches!(before, Carry::Known(_));
        let touches = self.touches(name, self.start(name));
        let (facts, survey) = match looked(key, self.survey(name, variant, before).await)? {
            Looked::Sound(surveyed) => surveyed,
            Looked::Unsound(trouble, what) => {
                read.faults.push(Fault::of(key, Depth::Stored, trouble, what, touches));
                self.count(variant, read);
                return Ok(Carry::Unknown);
            }
            Looked::Gone => {
                self.gone(name, variant, touches, read).await?;
                return Ok(Carry::Unknown);
            }
            Looked::NoKey => {
                self.read_sealed(name, variant, touches, read).await?;
                return Ok(Carry::Unknown);
            }
        };
        self.count(variant, read);
        let survey = match survey {
            Ok(survey) => survey,
            Err(SurveyError::UnknownMagic(_) | SurveyError::UnknownPageSize { .. }) => {
                read.undecoded += 1;
                return Ok(Carry::Unknown);
            }
            Err(error) => {
                read.faults.push(Fault::of(
                    key,
                    Depth::Content,
                    Trouble::Damaged,
                    error.to_string(),
                    touches,
                ));
                return Ok(Carry::Unknown);
            }
        };
        if survey.edge == Edge::Checked && facts.as_ref().is_some_and(|facts| !facts.edge_checked) {
            read.edges_closed += 1;
        }
        let mut left = survey.carry_out.clone();
        let fault = match &survey.ending {
            Ending::Damaged { at, reason } => {
                let alone = match was_known {
                    true => self.survey(name, variant, Carry::Unknown).await?.1.ok(),
                    false => None,
                };
                let is_sound = |alone: &&Survey| !matches!(alone.ending, Ending::Damaged { .. });
                let alone = alone.as_ref().filter(is_sound);
                left = alone.and_then(|alone| alone.carry_out.clone());
                Some(self.invalid(name, variant, facts.as_ref(), alone.is_some(), *at, reason))
            }
            Ending::Open { at } if self.goes_on_behind(name) && variant.tail.is_none() => {
                let what = format!("its WAL ends at {at} without a switch, and there is later WAL");
                Some(Fault::of(key, Depth::Content, Trouble::Invalid, what, self.touches(name, *at)))
            }
            _ => facts
                .as_ref()
                .and_then(|facts| contradiction(facts, &survey))
                .map(|what| Fault::of(key, Depth::Content, Trouble::Damaged, what, touches)),
        };
        read.faults.extend(fault);
        Ok(left.map_or(Carry::Unknown, Carry::Known))
    }

    /// A segment in which something is no record, or does not follow what comes before it: that is so when it is
    /// sound alone.
    fn invalid(
        &self,
        name: SegmentName,
        variant: &Variant,
        facts: Option<&WalFacts>,
        is_sound_alone: bool,
        at: Lsn,
        reason: &str,
    ) -> Fault {
        let key = &variant.key();
        if is_sound_alone {
            let what = format!("it does not continue the segment before it: at {at} {reason}");
            let start = self.start(name);
            let touches = Touches::Segment { name, stop: start, beyond: start };
            return Fault::of(key, Depth::Content, Trouble::Discontinuous, what, touches);
        }
        let is_known = facts.is_some_and(|facts| matches!(facts.ending, WalEnding::Damaged { .. }));
        let when = if is_known { "was archived so" } else { "its metadata do not say so" };
        let what = format!("its WAL is damaged at {at} ({when}): {reason}");
        let trouble = if is_known { Trouble::Invalid } else { Trouble::Damaged };
        Fault::of(key, Depth::Content, trouble, what, self.touches(name, at))
    }

    /// Another content under the name of a segment: a rival, or the same encrypted for others.
    async fn read_aside(
        &self,
        name: SegmentName,
        variant: &Variant,
        read: &mut WalRead,
    ) -> Result<(), ArchiveError> {
        let touches = match variant.refused {
            true => Touches::Nothing,
            false => self.touches(name, self.start(name)),
        };
        let limit = self.size().bytes();
        read.objects += 1;
        let fetched = self.archive.fetch_wal(variant, &mut io::sink(), limit).await.map(|_| ());
        match looked(&variant.key(), fetched)? {
            Looked::Sound(()) => self.count(variant, read),
            Looked::Unsound(trouble, what) => {
                read.faults.push(Fault::of(&variant.key(), Depth::Stored, trouble, what, touches));
                self.count(variant, read);
            }
            Looked::Gone => self.gone(name, variant, touches, read).await?,
            Looked::NoKey => self.read_sealed(name, variant, touches, read).await?,
        }
        Ok(())
    }

    async fn read_sealed(
        &self,
        name: SegmentName,
        variant: &Variant,
        touches: Touches,
        read: &mut WalRead,
    ) -> Result<(), ArchiveError> {
        (read.sealed, read.is_deep) = (read.sealed + 1, false);
        let keys: Vec<_> = match &variant.tail {
            // The pieces' names say what is in them; without the key they are read as they are.
            Some(tail) => tail.chunks.iter().map(|chunk| chunk.key.clone()).collect(),
            None => vec![variant.key()],
        };
        for key in &keys {
            let compared = match &variant.tail {
                Some(_) => self.archive.read_compared(key).await,
                None => self.archive.read_sealed(variant).await,
            };
            match looked(key, compared)? {
                Looked::Sound(Compared::Length) => {
                    read.length_only.extend(name.number(self.size()));
                }
                Looked::Sound(Compared::Checksum) | Looked::NoKey => {}
                Looked::Unsound(trouble, what) => {
                    read.faults.push(Fault::of(key, Depth::Stored, trouble, what, touches.clone()));
                }
                Looked::Gone => self.gone(name, variant, touches.clone(), read).await?,
            }
        }
        self.count(variant, read);
        Ok(())
    }

    fn count(&self, variant: &Variant, read: &mut WalRead) {
        read.bytes += variant.stored_size;
        self.progress.add_bytes(variant.stored_size);
    }

    /// Fetches a segment and reads its records as it comes.
    async fn survey(
        &self,
        name: SegmentName,
        variant: &Variant,
        carry: Carry,
    ) -> Result<(Option<WalFacts>, Result<Survey, SurveyError>), ArchiveError> {
        let file_size = self.size().bytes();
        let expected = Some(self.archive.system_identifier());
        let mut surveying =
            Surveying(Surveyor::new(SurveyOf { name, partial: false, file_size, expected, carry }));
        let read = self.archive.fetch_segment(variant, &mut surveying, file_size).await?;
        Ok((read.facts, surveying.0.finish()))
    }

    /// What the WAL before a segment leaves for it. Where a record begins further back, it is read from there.
    async fn carry_into(&self, timeline: TimelineId, number: u64) -> Result<Carry, ArchiveError> {
        let most = LONGEST_RECORD / self.size().bytes() + 2;
        let mut passed: Vec<(SegmentName, &Variant)> = Vec::new();
        let mut at = (timeline, number);
        let mut carry = loop {
            let before = self.before(at.0, at.1).filter(|_| (passed.len() as u64) < most);
            let Some((name, variant)) = before else { return Ok(Carry::Unknown) };
            match self.left_by(name, variant, Carry::Unknown).await? {
                Left::Carry(left) => break Carry::Known(left),
                Left::Nothing => return Ok(Carry::Unknown),
                Left::WithinRecord => passed.push((name, variant)),
            }
            at = (name.timeline, at.1.saturating_sub(1));
        };
        // The segments that the record goes through, now that its beginning is known.
        for (name, variant) in passed.iter().rev() {
            carry = match self.left_by(*name, variant, carry).await? {
                Left::Carry(left) => Carry::Known(left),
                Left::WithinRecord | Left::Nothing => return Ok(Carry::Unknown),
            };
        }
        Ok(carry)
    }

    /// What one segment leaves; nothing when it cannot be read, which is said where it is read for itself.
    async fn left_by(
        &self,
        name: SegmentName,
        variant: &Variant,
        carry: Carry,
    ) -> Result<Left, ArchiveError> {
        let Looked::Sound((_, Ok(survey))) = looked(&variant.key(), self.survey(name, variant, carry).await)?
        else {
            return Ok(Left::Nothing);
        };
        Ok(match (survey.carry_out, survey.ending) {
            (Some(carry), _) => Left::Carry(carry),
            (None, Ending::Full) => Left::WithinRecord,
            (None, _) => Left::Nothing,
        })
    }

    /// The segment that a recovery reads before this one, on the timeline or on the one it comes from.
    fn before(&self, timeline: TimelineId, number: u64) -> Option<(SegmentName, &Variant)> {
        let before = number.checked_sub(1)?;
        let usable = |timeline: TimelineId| {
            let state = self.state(timeline, before)?;
            let Usable::One(variant) = state.available() else { return None };
            // What a tail does not have is not known.
            variant.reaches(self.size().bytes()).then_some(())?;
            Some((SegmentName::from_number(timeline, before, self.size())?, variant))
        };
        if let Some(own) = usable(timeline) {
            return Some(own);
        }
        let path = TimelinePath::to(&self.catalog, timeline).ok()?;
        let start = Lsn(number.checked_mul(self.size().bytes())?);
        // Up to the border; where a fork lies inside, the rest of that segment is the parent's own.
        let step = path.steps.iter().rev().find(|step| step.begin < start && step.timeline != timeline)?;
        step.end.is_none_or(|end| end >= start).then_some(())?;
        usable(step.timeline)
    }

    /// Whether a later segment of the same timeline is there.
    fn goes_on_behind(&self, name: SegmentName) -> bool {
        let later = name.number(self.size()).ok().and_then(|number| number.checked_add(1));
        let segments = later.zip(self.catalog.wal.get(&name.timeline));
        segments.is_some_and(|(later, segments)| segments.range(later..).next().is_some())
    }

    fn start(&self, name: SegmentName) -> Lsn {
        name.start(self.size()).unwrap_or(Lsn::ZERO)
    }

    fn touches(&self, name: SegmentName, stop: Lsn) -> Touches {
        let beyond = self.start(name).checked_add(self.size().bytes()).unwrap_or(Lsn(u64::MAX));
        Touches::Segment { name, stop, beyond }
    }
}

/// The objects of a name beside the one that recovery uses.
fn others(state: &SegmentState) -> impl Iterator<Item = &Variant> {
    let used = match state.available() {
        Usable::One(variant) => Some(variant.key()),
        _ => None,
    };
    state.variants.iter().filter(move |variant| Some(variant.key()) != used)
}

/// What of a segment's metadata is not true of its content.
fn contradiction(facts: &WalFacts, survey: &Survey) -> Option<String> {
    if !facts.validated {
        return None;
    }
    let said = |name: &str, is: String, should: String| {
        Some(format!("its metadata say {name} {is}, its content says {should}"))
    };
    if facts.start != survey.start {
        return said("that it begins at", facts.start.to_string(), survey.start.to_string());
    }
    // Who saw the beginning of a record that spans in saw more.
    if facts.edge_checked != !matches!(survey.edge, Edge::Unchecked { .. }) {
        return None;
    }
    if facts.end != survey.end {
        return said("that it ends at", facts.end.to_string(), survey.end.to_string());
    }
    if facts.ending != WalEnding::from(&survey.ending) {
        return said("it ends", format!("{:?}", facts.ending), format!("{:?}", survey.ending));
    }
    let counts = |commits: u64, aborts: u64| format!("{commits} commits and {aborts} aborts");
    if (facts.commits, facts.aborts) != (survey.commits, survey.aborts) {
        return said("it has", counts(facts.commits, facts.aborts), counts(survey.commits, survey.aborts));
    }
    let times = (facts.time_low, facts.time_high);
    let found = (survey.times.map(|(low, _)| low), survey.times.map(|(_, high)| high));
    if times != found {
        return said("its times are", format!("{times:?}"), format!("{found:?}"));
    }
    None
}

struct Surveying(Surveyor);

impl Write for Surveying {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
