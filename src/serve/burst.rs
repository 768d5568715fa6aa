//! When what has changed is published: no clock, no I/O.

use std::time::{Duration, Instant};

/// A burst is over when nothing has happened for this long: whatever writes many files goes on to
/// the next one sooner.
const LULL: Duration = Duration::from_millis(10);

/// What settles so soon is part of the burst.
const SOON: Duration = Duration::from_millis(40);

/// What has gone no longer before its first change belongs to a burst.
const NEAR: Duration = Duration::from_millis(60);

/// However long a burst lasts, a change waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// When a burst is to be published: all of it at once, so that no board gets the half of a checkout.
#[derive(Debug, Default)]
pub struct Burst {
    /// When the first change came that is not published.
    begun: Option<Instant>,
    /// When something happened last.
    stirred: Option<Instant>,
    /// All is being made anew.
    is_patient: bool,
}

/// What may belong to a burst.
pub struct Since {
    /// What scripts leave behind that were started since then.
    pub scripts: Instant,
    /// What has gone since then.
    pub removals: Instant,
}

impl Burst {
    /// Something happens that a change may come of.
    pub fn stir(&mut self, now: Instant) {
        self.stirred = Some(now);
    }

    /// A change has come.
    pub fn grow(&mut self, now: Instant) {
        self.begun.get_or_insert(now);
    }

    /// There was nothing left to publish, or there is again: until then a pause has to be long to be
    /// the end.
    pub fn be_patient(&mut self, is_patient: bool) {
        self.is_patient = is_patient;
    }

    /// What belongs to it, if it has begun.
    pub fn since(&self) -> Option<Since> {
        let begun = self.begun?;
        Some(Since { scripts: begun.checked_sub(PATIENCE)?, removals: begun.checked_sub(NEAR)? })
    }

    /// When it is over, as far as is known now. More of it may be about to settle at `next`; or it
    /// `has_more`, from scripts or of what has gone.
    pub fn ends(&self, next: Option<Instant>, has_more: bool) -> Option<Instant> {
        let begun = self.begun?;
        let (lull, patience) = match self.is_patient {
            true => (PATIENCE, 10 * PATIENCE),
            false => (LULL, PATIENCE),
        };
        let latest = begun + patience;
        let stirred = self.stirred.unwrap_or(begun);
        let soon = stirred.max(begun) + SOON;
        let is_under_way = has_more || next.is_some_and(|next| next < soon);
        Some(if is_under_way { latest } else { latest.min(stirred + lull) })
    }

    /// It is over.
    pub fn end(&mut self) {
        self.begun = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_published_as_a_whole() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut burst = Burst::default();
        burst.stir(ms(0));
        assert_eq!(burst.ends(None, false), None, "nothing has changed");
        burst.grow(ms(0));
        assert_eq!(burst.ends(None, false), Some(ms(10)));
        assert_eq!(burst.ends(Some(ms(900)), false), Some(ms(10)), "that is something else");
        assert_eq!(burst.ends(Some(ms(30)), false), Some(ms(1000)), "more is about to settle");
        assert_eq!(burst.ends(None, true), Some(ms(1000)), "a script runs");
        burst.stir(ms(8));
        assert_eq!(burst.ends(None, false), Some(ms(18)));
        burst.grow(ms(38));
        assert_eq!(burst.ends(None, false), Some(ms(18)), "it has settled: at once");
        assert_eq!(burst.ends(Some(ms(40)), false), Some(ms(1000)), "more of it is to settle");
        burst.stir(ms(995));
        assert_eq!(burst.ends(None, false), Some(ms(1000)), "it has waited long enough");
        burst.end();
        assert_eq!(burst.ends(None, false), None);
        burst.be_patient(true);
        burst.stir(ms(2000));
        burst.grow(ms(2000));
        assert_eq!(burst.ends(None, false), Some(ms(3000)), "all is made anew");
    }
}
