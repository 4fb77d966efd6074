//! A new endpoint beside others gets its share of traffic by and by: caches are cold, pools empty.

use core::time::Duration;

use mainstay_ids::Instant;

/// How long it takes to the full share.
pub const WINDOW: Duration = Duration::from_secs(10);
/// The share at the beginning: enough to warm up with.
pub const SHARE_MIN: f64 = 0.1;

/// Whether an endpoint that joined at `joined` takes a request for which it was chosen. `random`
/// lies in 0..1. A refusal costs nothing: the request goes to the other of the two candidates.
pub fn accepts(joined: Instant, now: Instant, random: f64) -> bool {
    random < (now.since(joined).as_secs_f64() / WINDOW.as_secs_f64()).max(SHARE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_from_a_tenth_to_all_within_the_window() {
        let after = |seconds, random| {
            let now = Instant::START.after(Duration::from_secs(seconds));
            accepts(Instant::START, now, random)
        };
        assert!(after(0, 0.09) && !after(0, 0.11));
        assert!(after(5, 0.49) && !after(5, 0.51));
        assert!(after(10, 0.999));
    }
}
