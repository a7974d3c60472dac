//! Days, weeks, months and years of a time zone, and the backup that stands for each of them.

use super::policy::{Calendar, Unit};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use walpoint_wal::Timestamp;

/// What of the calendar a moment belongs to, so that later stretches are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stretch(i16, i16);

/// For each stretch of the calendar that is asked for, the one that stands for it: the last in it. `times` are
/// in the order of age, oldest first. Stretches without any are not counted: when backups cease for a month, the
/// days before that are still the last ones there are.
pub fn picked(calendar: &Calendar, times: &[Timestamp]) -> Vec<(usize, Unit)> {
    let mut picked = Vec::new();
    for (count, unit) in calendar.asked() {
        let mut seen: Vec<Stretch> = Vec::new();
        for (index, time) in times.iter().enumerate().rev() {
            let Some(stretch) = stretch(*time, unit, &calendar.zone) else { continue };
            if seen.len() as u64 >= u64::from(count) {
                break;
            }
            if !seen.contains(&stretch) {
                seen.push(stretch);
                picked.push((index, unit));
            }
        }
    }
    picked
}

fn stretch(time: Timestamp, unit: Unit, zone: &TimeZone) -> Option<Stretch> {
    let moment = jiff::Timestamp::from_microsecond(time.to_unix_micros()?).ok()?;
    let date: Date = moment.to_zoned(zone.clone()).date();
    Some(match unit {
        Unit::Day => Stretch(date.year(), date.day_of_year()),
        // ISO 8601: a week belongs to the year of its Thursday.
        Unit::Week => {
            let week = date.iso_week_date();
            Stretch(week.year(), i16::from(week.week()))
        }
        Unit::Month => Stretch(date.year(), i16::from(date.month())),
        Unit::Year => Stretch(date.year(), 0),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn calendar(daily: u32, weekly: u32, monthly: u32, yearly: u32, zone: &str) -> Calendar {
        Calendar { daily, weekly, monthly, yearly, zone: TimeZone::get(zone).unwrap() }
    }

    fn chosen(calendar: &Calendar, times: &[&str]) -> Vec<(usize, Unit)> {
        let times: Vec<Timestamp> = times.iter().map(|time| time.parse().unwrap()).collect();
        picked(calendar, &times)
    }

    #[test]
    fn the_last_backup_of_a_stretch_stands_for_it_and_empty_stretches_do_not_count() {
        let times = [
            "2026-01-01T01:00:00Z",
            "2026-01-01T23:00:00Z",
            "2026-01-02T01:00:00Z",
            "2026-02-10T01:00:00Z",
            "2026-02-10T02:00:00Z",
        ];
        assert_eq!(
            chosen(&calendar(3, 0, 0, 0, "UTC"), &times),
            [(4, Unit::Day), (2, Unit::Day), (1, Unit::Day)]
        );
        assert_eq!(chosen(&calendar(0, 0, 2, 0, "UTC"), &times), [(4, Unit::Month), (2, Unit::Month)]);
        assert_eq!(chosen(&calendar(0, 0, 0, 5, "UTC"), &times), [(4, Unit::Year)]);
        assert_eq!(chosen(&calendar(0, 0, 0, 0, "UTC"), &times), []);
    }

    #[test]
    fn days_are_those_of_the_time_zone() {
        // One day in Berlin, two in UTC; on the day when clocks go forward, too.
        for times in [
            ["2026-06-01T22:30:00Z", "2026-06-02T21:30:00Z"],
            ["2026-03-28T23:30:00Z", "2026-03-29T21:30:00Z"],
        ] {
            assert_eq!(chosen(&calendar(2, 0, 0, 0, "Europe/Berlin"), &times), [(1, Unit::Day)]);
            assert_eq!(chosen(&calendar(2, 0, 0, 0, "UTC"), &times), [(1, Unit::Day), (0, Unit::Day)]);
        }
    }

    #[test]
    fn a_week_at_the_turn_of_the_year_is_one_week() {
        let times = ["2026-12-31T12:00:00Z", "2027-01-01T12:00:00Z", "2027-01-04T12:00:00Z"];
        assert_eq!(chosen(&calendar(0, 5, 0, 0, "UTC"), &times), [(2, Unit::Week), (1, Unit::Week)]);
    }
}
