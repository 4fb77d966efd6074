//! When a safe request without a body is sent a second time while the first is still out.
//!
//! After what nineteen of twenty answers take at most: then a second copy costs at most one request
//! in twenty, and saves a client from the slowest of them, or from an instance that will never
//! answer. The first answer wins, and the other try is ended. Second copies come out of the same
//! budget as retries (Envoy and Linkerd count them there, too), so that they cannot make an overload
//! worse; beyond it, the request waits for what it has.

use core::time::Duration;

/// No sooner than this, however fast a service is: below it, what looks like a slow instance is the
/// scheduler of a busy machine.
pub const HEDGE_AFTER_MIN: Duration = Duration::from_millis(5);
/// As long as nothing is known of a service: long for an answer, and a third of the 300 ms in which a
/// client is to have one if an instance is frozen.
pub const HEDGE_AFTER_UNKNOWN: Duration = Duration::from_millis(100);
/// No later than this: a service of long answers can have a frozen instance, too. What it costs is
/// bounded by the budget.
pub const HEDGE_AFTER_MAX: Duration = Duration::from_secs(10);
/// When one was refused, for want of budget or of an endpoint, how soon it is tried again at least.
pub const HEDGE_AGAIN: Duration = Duration::from_millis(50);
/// Above this share of what the instances may work on at once, there are none: the slow answers come
/// from the load then, and second copies are more of it.
pub const HEDGE_LOAD_MAX: f64 = 0.8;
/// How long a connection may take before another endpoint is tried beside it. Nothing was sent, so
/// that any method may; the first to come about is used. A handshake in one network takes well under
/// a millisecond, so this is long; the first repeat of a lost SYN would come after a second.
/// (RFC 8305 takes 250 ms between addresses of one host on the whole internet, and 100 ms at least.)
pub const CONNECT_PATIENCE: Duration = Duration::from_millis(75);

/// How long a request is waited for before a second copy goes out, by what is known of the service.
pub fn after(p95: Option<Duration>) -> Duration {
    match p95 {
        Some(known) => known.clamp(HEDGE_AFTER_MIN, HEDGE_AFTER_MAX),
        None => HEDGE_AFTER_UNKNOWN,
    }
}

/// Why a second copy would go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The first is late, and its endpoint is as good as others.
    Late,
    /// Its endpoint has been ejected, or is on probation: that is no second copy of work that is
    /// being done.
    Forsaken,
}

/// How the endpoints of a service are, for this decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crowd {
    /// Whether so few are left that all are used.
    pub panic: Panic,
    /// Requests that wait for an answer.
    pub waiting: u32,
    /// How many may.
    pub limit: u32,
}

/// Whether fewer than half of the endpoints are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panic {
    /// It is so.
    Yes,
    /// It is not.
    No,
}

/// Whether the endpoints can bear a second copy. The budget is asked after this.
pub fn is_bearable(crowd: Crowd, reason: Reason) -> bool {
    match (reason, crowd.panic) {
        (Reason::Forsaken, Panic::Yes | Panic::No) => true,
        (Reason::Late, Panic::Yes) => false,
        (Reason::Late, Panic::No) => {
            f64::from(crowd.waiting) <= f64::from(crowd.limit) * HEDGE_LOAD_MAX
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_is_waited_for_as_long_as_nearly_all_take_within_bounds() {
        assert_eq!(after(Some(MS * 40)), MS * 40);
        assert_eq!(after(Some(MS / 2)), HEDGE_AFTER_MIN);
        assert_eq!(after(Some(MS * 60_000)), HEDGE_AFTER_MAX);
        assert_eq!(after(None), HEDGE_AFTER_UNKNOWN);
    }

    #[test]
    fn not_in_panic_and_not_above_four_fifths_unless_the_first_is_forsaken() {
        let crowd = |panic, waiting| Crowd {
            panic,
            waiting,
            limit: 100,
        };
        assert!(is_bearable(crowd(Panic::No, 80), Reason::Late));
        assert!(!is_bearable(crowd(Panic::No, 81), Reason::Late));
        assert!(!is_bearable(crowd(Panic::Yes, 0), Reason::Late));
        assert!(is_bearable(crowd(Panic::Yes, 99), Reason::Forsaken));
    }
}
