//! How often the archive is asked for what is on its way to it.

use std::time::Duration;

/// The time to the next look: an eighth of what was waited so far, so that what arrives is seen soon after it did, and
/// what is late is not asked for all the time.
pub fn pause(waited: Duration, shortest: Duration, longest: Duration) -> Duration {
    (waited / 8).clamp(shortest, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_seen_within_an_eighth_of_its_time() {
        let (shortest, longest) = (Duration::from_millis(50), Duration::from_secs(5));
        let mut waited = Duration::ZERO;
        let mut looks = 0;
        while waited < Duration::from_secs(300) {
            let pause = pause(waited, shortest, longest);
            assert!(pause <= longest && pause <= shortest.max(waited / 8), "{pause:?} after {waited:?}");
            waited += pause;
            looks += 1;
        }
        assert!(looks < 120, "{looks} looks in five minutes");
    }
}
