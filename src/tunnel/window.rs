//! How much a peer may send ahead of its reader. Pure: times are given, nothing is looked up.
//!
//! A stream that has the tunnel to itself gets as much as its speed needs. Where several speak in turns, what one of them has in flight stands in
//! the way of the others: on a near tunnel each then gets no more than what the specification gives it anyway, which is plenty there.

use std::time::{Duration, Instant};

use super::frame::INITIAL_WINDOW;

/// A peer that answers sooner is near.
const NEAR: Duration = Duration::from_millis(5);
/// Where streams took turns twice within this time the tunnel counts as shared. Once is no more than the end of one and the begin of another.
const SHARED_FOR: Duration = Duration::from_millis(100);
/// A window that is used up in less than so many round trips is what holds the peer back.
const ROUND_TRIPS: u32 = 4;

/// What a tunnel's traffic says about its windows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    /// The shortest time that the peer took to answer.
    pub(super) round_trip: Option<Duration>,
    last: u32,
    /// When streams took turns, and when they did before.
    turns: [Option<Instant>; 2],
}

impl Traffic {
    /// The peer answered after this time.
    pub(super) fn answered(&mut self, after: Duration) {
        self.round_trip = Some(self.round_trip.map_or(after, |best| best.min(after)));
    }

    /// A stream sent or received bytes.
    pub(super) fn carries(&mut self, stream: u32, now: Instant) {
        if self.last != stream {
            self.last = stream;
            self.turns = [Some(now), self.turns[0]];
        }
    }

    fn is_shared(&self, now: Instant) -> bool {
        let near = self.round_trip.is_some_and(|time| time < NEAR);
        near && self.turns[1].is_some_and(|moment| now < moment + SHARED_FOR)
    }
}

/// One stream's window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// What the peer may have in flight, all told.
    size: usize,
    /// What of it the peer may still send.
    credit: usize,
    granted: Instant,
}

impl Window {
    /// The window of a new stream.
    pub(super) fn new(now: Instant) -> Self {
        Window {
            size: INITIAL_WINDOW,
            credit: INITIAL_WINDOW,
            granted: now,
        }
    }

    /// Counts what came; `false` when it was more than was granted.
    #[must_use]
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        match self.credit.checked_sub(bytes) {
            Some(left) => self.credit = left,
            None => return false,
        }
        true
    }

    /// Whether it is time to grant more, when so much lies unread.
    pub(super) fn is_due(&self, unread: usize) -> bool {
        self.credit + unread <= self.size / 2
    }

    /// What to grant now. `headroom` is what windows of this tunnel may still grow by; growth is taken from it.
    pub(super) fn grant(&mut self, unread: usize, traffic: &Traffic, headroom: &mut usize, now: Instant) -> usize {
        let quickly = traffic
            .round_trip
            .is_some_and(|time| now.duration_since(self.granted) < time * ROUND_TRIPS);
        let shared = traffic.is_shared(now);
        if quickly && !shared {
            let growth = self.size.min(*headroom);
            *headroom -= growth;
            self.size += growth;
        }
        let wanted = if shared { INITIAL_WINDOW } else { self.size };
        let outstanding = self.credit + unread;
        if outstanding > wanted / 2 {
            return 0;
        }
        let granted = wanted - outstanding;
        self.credit += granted;
        self.granted = now;
        granted
    }

    /// What it has grown by, to be given back.
    pub(super) fn grown(&self) -> usize {
        self.size - INITIAL_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A reader that takes everything at once, window after window; what the peer may have in flight then.
    fn after_rounds(traffic: &mut Traffic, turns: bool, each: Duration) -> usize {
        let mut now = Instant::now();
        let (mut window, mut headroom) = (Window::new(now), 4 << 20);
        for round in 0..20 {
            now += each;
            if turns {
                traffic.carries(round % 2 + 1, now);
            }
            let all = window.credit;
            assert!(window.take(all));
            window.grant(0, traffic, &mut headroom, now);
        }
        window.credit
    }

    #[test]
    fn who_is_alone_and_quick_gets_more() {
        let mut near = Traffic::default();
        assert_eq!(after_rounds(&mut near, false, MS), INITIAL_WINDOW, "nothing is known yet");
        near.answered(3 * MS);
        near.answered(MS);
        near.answered(9 * MS);
        assert_eq!(near.round_trip, Some(MS));
        assert_eq!(after_rounds(&mut near, false, MS), INITIAL_WINDOW + (4 << 20));
        assert_eq!(after_rounds(&mut near, false, 5 * MS), INITIAL_WINDOW, "it is slow");
        assert_eq!(after_rounds(&mut near, true, MS), INITIAL_WINDOW, "it is not alone");
        let mut far = Traffic::default();
        far.answered(80 * MS);
        assert_eq!(
            after_rounds(&mut far, true, 80 * MS),
            INITIAL_WINDOW + (4 << 20),
            "it is far away"
        );
    }

    #[test]
    fn a_grown_window_shrinks_while_others_speak() {
        let now = Instant::now();
        let mut traffic = Traffic::default();
        traffic.answered(MS);
        let (mut window, mut headroom) = (Window::new(now), 1 << 20);
        assert!(window.take(INITIAL_WINDOW));
        assert_eq!(window.grant(0, &traffic, &mut headroom, now), 2 * INITIAL_WINDOW);
        traffic.carries(1, now);
        traffic.carries(2, now);
        assert!(window.take(INITIAL_WINDOW));
        assert!(window.is_due(0));
        assert_eq!(window.grant(0, &traffic, &mut headroom, now), 0, "as much is still under way");
        assert!(window.take(INITIAL_WINDOW));
        assert_eq!(window.grant(0, &traffic, &mut headroom, now), INITIAL_WINDOW);
        assert!(window.take(INITIAL_WINDOW));
        assert_eq!(window.grant(0, &traffic, &mut headroom, now + SHARED_FOR), 2 * INITIAL_WINDOW);
    }

    proptest! {
        #[test]
        fn nobody_waits_for_ever_and_nobody_exceeds(steps in proptest::collection::vec((0usize..300_000, any::<bool>(), 0u64..20), 1..200)) {
            let mut now = Instant::now();
            let mut traffic = Traffic::default();
            traffic.answered(MS);
            let (mut window, mut headroom, mut unread) = (Window::new(now), 1usize << 20, 0);
            for (bytes, turn, ms) in steps {
                now += MS * u32::try_from(ms).unwrap_or(0);
                if turn {
                    traffic.carries(traffic.last + 1, now);
                }
                let sent = bytes.min(window.credit);
                prop_assert!(window.take(sent));
                prop_assert!(!window.take(window.credit + 1), "more than granted");
                unread += sent;
                let read = bytes.min(unread);
                unread -= read;
                if window.is_due(unread) {
                    window.grant(unread, &traffic, &mut headroom, now);
                }
                prop_assert!(window.credit + unread <= INITIAL_WINDOW + (1 << 20));
                prop_assert_eq!(headroom + window.grown(), 1 << 20);
                prop_assert!(window.credit > 0 || unread > 0, "a peer without credit waits for nobody");
            }
        }
    }
}
