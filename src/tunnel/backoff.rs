//! How long to wait before dialling again. A pure function of the attempt and a random number that the caller draws.

use std::time::Duration;

/// How much longer each bound is than the one before.
const GROWTH: f64 = 1.5;
/// After so many attempts every bound in use has reached its longest.
const MOST_GROWTH: u32 = 40;

/// The bounds of the delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first delay.
    pub first: Duration,
    /// So many delays are as short as the first one; then they grow.
    pub steady: u32,
    /// The longest delay of all.
    pub longest: Duration,
}

impl Default for Backoff {
    /// A hub that is away for some seconds is found again within one; later the bound follows the time for which it has been away.
    fn default() -> Self {
        Backoff {
            first: Duration::from_millis(600),
            steady: 10,
            longest: Duration::from_secs(15),
        }
    }
}

impl Backoff {
    /// The delay before attempt `attempt` (from 0), with full jitter: anything from nothing to the bound, which grows by half with each
    /// attempt after the steady ones. So the bound stays about as long as the peer has been away; were it doubled, it would be twice that. `random` is drawn
    /// evenly from 0.0 to 1.0.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let bound = self
            .first
            .mul_f64(GROWTH.powi(attempt.saturating_sub(self.steady).min(MOST_GROWTH).cast_signed()))
            .min(self.longest);
        bound.mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_the_longest_and_are_spread_from_nothing() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(0, 1.0), Duration::from_millis(600));
        assert_eq!(backoff.delay(10, 1.0), Duration::from_millis(600));
        assert_eq!(backoff.delay(12, 1.0), Duration::from_millis(1_350));
        assert_eq!(backoff.delay(12, 0.5), Duration::from_millis(675));
        assert_eq!(backoff.delay(u32::MAX, 1.0), Duration::from_secs(15));
        assert_eq!(backoff.delay(9, 0.0), Duration::ZERO);
        assert_eq!(backoff.delay(0, f64::from(7)), Duration::from_millis(600));
    }
}
