//! When the newest transactions ran.

use std::collections::VecDeque;

use base::Revision;

/// Runs that are kept: a minute of a log that gets something every millisecond.
const RUNS_MAX: usize = 64 << 10;

/// Which revision was the last at or before a time, of those that passed by.
///
/// Revisions are stamped by several threads, whose clocks are read a little
/// earlier, and clocks may go back. What is asked for is the last revision with
/// a stamp at or before a time, so only those matter that nothing with an
/// earlier stamp follows: whatever comes takes all runs away that are later
/// than it.
#[derive(Debug)]
pub(crate) struct Times {
    /// A stamp, and the first revision after the run before. The last revision
    /// of a run has its stamp; both rise.
    runs: VecDeque<(u64, Revision)>,
    runs_max: usize,
}

impl Default for Times {
    fn default() -> Times {
        Times { runs: VecDeque::new(), runs_max: RUNS_MAX }
    }
}

impl Times {
    /// The stamp of the newest run: a revision with the same one needs no
    /// [`Times::note`].
    pub(crate) fn newest_ms(&self) -> Option<u64> {
        self.runs.back().map(|(time_ms, _)| *time_ms)
    }

    /// The next revision has this stamp. Every one must be noted whose stamp is
    /// not that of the one before.
    pub(crate) fn note(&mut self, revision: Revision, time_ms: u64) {
        let mut first = revision;
        while let Some(&(later_ms, of_later)) = self.runs.back()
            && later_ms > time_ms
        {
            first = of_later;
            self.runs.pop_back();
        }
        if self.newest_ms() == Some(time_ms) {
            return;
        }
        if self.runs.len() >= self.runs_max {
            self.runs.pop_front();
        }
        self.runs.push_back((time_ms, first));
    }

    /// The last revision stamped at or before a time, up to `newest`, if that is
    /// one that passed by.
    pub(crate) fn at(&self, time_ms: u64, newest: Revision) -> Option<Revision> {
        let later = self.runs.partition_point(|&(stamp_ms, _)| stamp_ms <= time_ms);
        later.checked_sub(1)?;
        Some(self.runs.get(later).map_or(newest, |&(_, first)| Revision(first.0 - 1)))
    }
}

#[cfg(test)]
mod tests {
    use base::{Rng, SeededRng};

    use super::*;

    #[test]
    fn the_last_at_or_before_a_time_is_found_whatever_the_clock_does() {
        let mut rng = SeededRng::new(1);
        for runs_max in [3, 1000] {
            let mut times = Times { runs_max, ..Times::default() };
            let (mut stamps, mut now_ms) = (Vec::new(), 100u64);
            let (mut known, mut asked) = (0, 0);
            for number in 0..2000u64 {
                now_ms = match rng.below(20) {
                    0 => now_ms.saturating_sub(rng.below(9)),
                    1..6 => now_ms + rng.below(3),
                    _ => now_ms,
                };
                stamps.push(now_ms);
                // Revisions 1, 2 and so on.
                let newest = Revision(number + 1);
                if times.newest_ms() != Some(now_ms) {
                    times.note(newest, now_ms);
                }
                let time_ms = now_ms.saturating_sub(20) + rng.below(30);
                let last = stamps.iter().rposition(|&stamp_ms| stamp_ms <= time_ms);
                let found = times.at(time_ms, newest);
                if let Some(found) = found {
                    assert_eq!(Some(found.0 as usize - 1), last, "of {number} at {time_ms}");
                }
                assert!(runs_max < 1000 || found.is_some() == last.is_some());
                (known, asked) = (known + usize::from(found.is_some()), asked + 1);
                assert!(times.runs.len() <= runs_max);
            }
            assert!(known > asked / 4, "{known} of {asked}");
        }
    }
}
