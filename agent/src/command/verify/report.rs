//! What `verify` says, for people and for programs.

use crate::config::sizes;
use crate::output;
use serde_json::{Value, json};
use walpoint_archive::Archive;
use walpoint_archive::verification::Proof;
use walpoint_pitr::plan::Moment;
use walpoint_pitr::verify::{Cost, Extent, Finding, Trouble, Verified, VerifyRequest};

/// Most keys of one kind that are listed for people one by one.
const LISTED: usize = 20;

/// What was found, and how it was looked for.
#[derive(Debug)]
pub struct Report<'a> {
    verified: &'a Verified,
    extent: Extent,
    cluster: String,
}

impl<'a> Report<'a> {
    /// Of one run.
    pub fn new(verified: &'a Verified, request: &VerifyRequest, archive: &Archive) -> Self {
        Self { verified, extent: request.extent, cluster: archive.system_identifier().to_string() }
    }

    /// One object.
    pub fn json(&self) -> Value {
        let verified = self.verified;
        let backups = verified.backups.iter().map(|(id, proof)| {
            json!({
                "id": id,
                "verified_at": proof.map(|proof| proof.stored_at),
                "content_verified_at": proof.and_then(|proof| proof.content_at),
            })
        });
        let refused = verified.refused.iter().map(|variant| variant.key().to_string());
        json!({
            "cluster": self.cluster,
            "sound": verified.is_sound(),
            "quick": self.extent == Extent::Listings,
            "findings": verified.findings,
            "ranges": verified.ranges,
            "backups": backups.collect::<Vec<_>>(),
            "read": verified.read,
            "left": verified.left,
            "goes_on_since": verified.goes_on_since,
            "unread": verified.unread,
            "incomplete": verified.incomplete,
            "unreferenced": verified.unreferenced,
            "unfinished": verified.unfinished,
            "refused": refused.collect::<Vec<_>>(),
            "unknown": verified.unknown,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("cluster {}\n", self.cluster);
        for finding in &self.verified.findings {
            text += &finding_text(finding);
        }
        let unread = self.verified.unread.iter().map(|it| format!("{}: {}", it.object, it.why));
        text += &listed("could not be read", &unread.collect::<Vec<_>>());
        text += &self.reachable();
        text += &self.beside();
        text += &self.summing_up();
        text
    }

    fn reachable(&self) -> String {
        let ranges = &self.verified.ranges;
        if ranges.is_empty() {
            return "no moment can be reached\n".to_owned();
        }
        let header = ["timeline", "from", "to", "backup"];
        let rows: Vec<Vec<String>> = ranges
            .iter()
            .map(|it| vec![it.timeline.to_string(), at(&it.from), at(&it.to), it.backup.to_string()])
            .collect();
        output::table(&header, &rows)
    }

    /// What is there and no recovery needs.
    fn beside(&self) -> String {
        let verified = self.verified;
        let mut text = String::new();
        let unreferenced: Vec<String> = verified
            .unreferenced
            .iter()
            .map(|object| format!("{} ({})", object.key, sizes::human(object.size)))
            .collect();
        text += &listed("named by no backup", &unreferenced);
        let unfinished: Vec<String> = verified.unfinished.iter().map(ToString::to_string).collect();
        text += &listed("unfinished", &unfinished);
        let refused: Vec<String> = verified.refused.iter().map(|it| it.key().to_string()).collect();
        text += &listed("refused, read by no recovery", &refused);
        text + &listed("not walpoint's", &verified.unknown)
    }

    fn summing_up(&self) -> String {
        let (verified, mut text) = (self.verified, String::new());
        let (read, left) = (&verified.read, &verified.left);
        match self.extent {
            Extent::Listings => text += "compared the listings; no data were read\n",
            _ => {
                let bytes = sizes::human(read.bytes + read.bytes_along);
                text += &format!("read {bytes} in {} objects\n", read.objects);
            }
        }
        if let Some(since) = verified.goes_on_since {
            text += &format!(
                "went on with a pass that began at {since}: what the notes say was read since was not read again (--anew \
                 believes none)\n"
            );
        }
        if read.edges_closed > 0 {
            text +=
                &format!("{} records over the edge of a segment were checked first now\n", read.edges_closed);
        }
        if read.sealed > 0 {
            text += &format!(
                "of {} objects only the stored bytes were read: set [encryption] identity_file to look into them\n",
                read.sealed
            );
        }
        if read.length_only > 0 {
            text += &format!(
                "of {} of them only the length was checked, which proves nothing: the store keeps no checksum of them\n",
                read.length_only
            );
        }
        if read.undecoded > 0 {
            text += &format!(
                "of {} segments the records were not read: they are of a PostgreSQL that this version does not know\n",
                read.undecoded
            );
        }
        if read.gone > 0 {
            text += &format!("{} objects were taken away while this was at work\n", read.gone);
        }
        if left.bytes > 0 {
            let never = match left.never_bytes {
                0 => String::new(),
                never => format!(", {} of it never verified", sizes::human(never)),
            };
            let oldest =
                left.oldest.map(|time| format!(", the oldest of the rest at {time}")).unwrap_or_default();
            text += &format!("not read this time: {}{never}{oldest}\n", sizes::human(left.bytes));
        }
        let oldest = verified
            .backups
            .iter()
            .map(|(_, proof)| *proof)
            .reduce(|one, other| Some(Proof::weakest(one?, other?)));
        match oldest {
            Some(Some(proof)) => text += &format!("all backups were verified since {}\n", proof.stored_at),
            Some(None) => text += "not every backup was verified as a whole: see walpoint list\n",
            None => {}
        }
        for why in &verified.incomplete {
            text += &format!("not all was done: {why}\n");
        }
        match verified.findings.len() {
            0 if verified.is_sound() => text + "sound\n",
            0 => text + "nothing wrong was found, and not all was read: start it again\n",
            1 => text + "not sound: 1 finding\n",
            found => text + &format!("not sound: {found} findings\n"),
        }
    }
}

fn listed(what: &str, names: &[String]) -> String {
    let mut text: String = names.iter().take(LISTED).map(|name| format!("{what}: {name}\n")).collect();
    if let Some(more) = names.len().checked_sub(LISTED).filter(|more| *more > 0) {
        text += &format!("{what}: and {more} more\n");
    }
    text
}

/// `damaged: KEY: why`, then what it costs.
fn finding_text(finding: &Finding) -> String {
    let mut text = format!("{}: {}: {}\n", word(finding.trouble), finding.object, finding.what);
    if !finding.backups.is_empty() {
        let ids: Vec<String> = finding.backups.iter().map(ToString::to_string).collect();
        text += &format!("  cannot be restored: {}\n", ids.join(", "));
    }
    for cost in &finding.costs {
        text += &format!("  costs {}\n", cost_text(cost));
    }
    if finding.costs.is_empty() {
        text += "  costs no moment\n";
    }
    text
}

fn cost_text(cost: &Cost) -> String {
    match (&cost.from, &cost.to) {
        (Some(from), Some(to)) => {
            format!("on timeline {} what lies between {} and {}", cost.timeline, at(from), at(to))
        }
        _ => format!("all of timeline {}, and what descends from it", cost.timeline),
    }
}

fn at(moment: &Moment) -> String {
    match moment.time {
        Some(time) => format!("{} ({time})", moment.lsn),
        None => moment.lsn.to_string(),
    }
}

fn word(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Damaged => "damaged",
        Trouble::Missing => "missing",
        Trouble::Undecided => "undecided",
        Trouble::Discontinuous => "discontinuous",
        Trouble::Invalid => "invalid",
        Trouble::Sealed => "sealed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walpoint_wal::{Lsn, TimelineId};

    #[test]
    fn a_finding_names_the_object_and_what_it_costs() {
        let moment = |lsn| Some(Moment { lsn: Lsn(lsn), time: None });
        let cost = Cost { timeline: TimelineId::FIRST, from: moment(0x300_0000), to: moment(0x500_0000) };
        let finding = Finding {
            object: "7/wal/x".to_owned(),
            trouble: Trouble::Damaged,
            what: "why".to_owned(),
            backups: vec!["20261121T005909Z-full-66a14c".parse().unwrap()],
            costs: vec![cost],
        };
        assert_eq!(
            finding_text(&finding),
            "damaged: 7/wal/x: why\n  cannot be restored: 20261121T005909Z-full-66a14c\n  \
             costs on timeline 1 what lies between 0/3000000 and 0/5000000\n"
        );
        assert_eq!(serde_json::to_value(&finding).unwrap()["costs"][0]["from"]["lsn"], json!("0/3000000"));
    }
}
