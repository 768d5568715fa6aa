//! When what has changed is published: no clock, no I/O.

use std::time::{Duration, Instant};

/// A burst is over when nothing has happened for this long: whatever writes many files goes on to
/// the next one sooner.
const LULL: Duration = Duration::from_millis(10);

/// What settles so soon is part of the burst.
const SOON: Duration = Duration::from_millis(50);

/// However long a burst lasts, a change waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// When a burst is to be published: all of it at once, so that no board gets the half of a checkout.
#[derive(Debug, Default)]
pub struct Burst {
    /// When its first change came that is not published, and when its last did.
    span: Option<(Instant, Instant)>,
}

impl Burst {
    /// A change came.
    pub fn grow(&mut self, now: Instant) {
        let begun = self.span.map_or(now, |(begun, _)| begun);
        self.span = Some((begun, now));
    }

    /// Something else goes on that may belong to it.
    pub fn stir(&mut self, now: Instant) {
        if let Some((_, last)) = &mut self.span {
            *last = now;
        }
    }

    /// When it is over, as far as is known now. More of it may be about to settle at `next`, or be
    /// what scripts leave behind that run.
    pub fn ends(&self, next: Option<Instant>, has_scripts: bool) -> Option<Instant> {
        let (begun, last) = self.span?;
        let latest = begun + PATIENCE;
        let is_under_way = has_scripts || next.is_some_and(|next| next < last + SOON);
        Some(if is_under_way { latest } else { latest.min(last + LULL) })
    }

    /// It is over.
    pub fn end(&mut self) {
        self.span = None;
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
        assert_eq!(burst.ends(None, false), None);
        burst.stir(ms(0));
        assert_eq!(burst.ends(None, false), None, "nothing has changed");
        burst.grow(ms(0));
        assert_eq!(burst.ends(None, false), Some(ms(10)));
        assert_eq!(burst.ends(Some(ms(900)), false), Some(ms(10)), "that is something else");
        assert_eq!(burst.ends(Some(ms(30)), false), Some(ms(1000)), "more is about to settle");
        assert_eq!(burst.ends(None, true), Some(ms(1000)), "a script runs");
        burst.grow(ms(8));
        burst.stir(ms(12));
        assert_eq!(burst.ends(None, false), Some(ms(22)));
        burst.grow(ms(995));
        assert_eq!(burst.ends(None, false), Some(ms(1000)), "it has waited long enough");
        burst.end();
        assert_eq!(burst.ends(None, false), None);
    }
}
