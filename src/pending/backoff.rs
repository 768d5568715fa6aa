//! How long to wait before trying again.

use std::time::Duration;

/// The wait before retry number `failures`, counted from 1: 250 ms, doubled each time, at most
/// 10 s. Quick at first, because a board that restarts is back within a second or two; capped,
/// because a person waits for it.
pub fn delay(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(250);
    const CAP: Duration = Duration::from_secs(10);
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST * 2_u32.pow(doublings)).min(CAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap() {
        let millis: Vec<_> = (1..=8).map(|n| delay(n).as_millis()).collect();
        assert_eq!(millis, [250, 500, 1000, 2000, 4000, 8000, 10000, 10000]);
        assert_eq!(delay(u32::MAX), Duration::from_secs(10));
    }
}
