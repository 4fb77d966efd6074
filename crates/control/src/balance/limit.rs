//! How many requests one instance may be working on at once: found out from how long its answers
//! take, so that an overload waits at the gateway, where it can be refused, and not in the instance,
//! where it makes every answer late.
//!
//! Gradient2 of Netflix's concurrency-limits (`Gradient2Limit`, its defaults unless a constant says
//! otherwise): a short average of the latency against a long one. While the short one is not much
//! longer, the limit grows by a few; when it is, the limit shrinks in proportion. Unlike Envoy's
//! gradient it never lowers the limit only to measure the latency without load, which would refuse
//! requests that nothing stands against.
//!
//! What counts is requests that wait for the head of their answer. Bodies that stream and upgraded
//! connections keep no thread of an instance busy for as long as they last: five hundred open
//! WebSockets must not close a service.

use core::time::Duration;

use mainstay_ids::Instant;

/// How much longer than usual answers may take before the limit shrinks (`rttTolerance`).
pub const TOLERANCE: f64 = 1.5;
/// The most by which one window shrinks the limit, before smoothing: one bad window is weak proof.
pub const GRADIENT_MIN: f64 = 0.5;
/// By how much it grows while nothing queues (`queueSize`).
pub const GROWTH: f64 = 4.0;
/// How much of a new limit is taken over at once (`smoothing`).
pub const SMOOTHING: f64 = 0.2;
/// The limit says nothing about itself while less than this share of it is used, and stays.
pub const USED_MIN: f64 = 0.5;
/// When the long average is this many times the short one, a time of overload is over.
pub const RECOVERY_RATIO: f64 = 2.0;
/// By how much the long average is cut then, for each window.
pub const RECOVERY: f64 = 0.95;
/// The length of the long average in windows (`longWindow`): one minute of a busy instance.
pub const LONG_WINDOWS: f64 = 600.0;
/// Windows until the long average is a plain mean of what there was.
pub const WARM_UP: u32 = 10;

/// How long answers are gathered for one step. Netflix takes 1 s; a gateway sees more requests, and
/// takes the 100 ms of Envoy's sample configuration, so that a limit follows within a second.
pub const WINDOW: Duration = Duration::from_millis(100);
/// And how many at least (`windowSize`): the mean of fewer says nothing.
pub const SAMPLES_MIN: u32 = 10;

/// The limit of an instance of which nothing is known: Netflix's highest (`maxConcurrency`). It is no
/// lower, since before anything is known the only thing that a low limit does is to refuse requests
/// that would have been answered.
pub const LIMIT_START: f64 = 200.0;
/// The lowest: Netflix's (`minLimit`). Answers of very different length look like a queue, and a
/// limit that could sink to one would then stop a healthy instance.
pub const LIMIT_MIN: f64 = 20.0;
/// The highest: about what Envoy lets through to a whole cluster (`max_requests` 1,024). More that
/// wait for one instance are waiting for something else than the instance.
pub const LIMIT_MAX: f64 = 1_000.0;

/// The limit of one instance as one worker sees it. What it is held against is shared by all.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(
    clippy::struct_field_names,
    reason = "it is the limit itself, beside what it was made from"
)]
pub struct Limit {
    most: f64,
    long: f64,
    windows: u32,
    window: Window,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Window {
    began: Instant,
    sum: f64,
    count: u32,
    waiting_max: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            sum: 0.0,
            count: 0,
            waiting_max: 0,
        }
    }
}

impl Limit {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Self {
            most: LIMIT_START,
            long: 0.0,
            windows: 0,
            window: Window::new(now),
        }
    }

    /// How many requests may wait for the instance.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between LIMIT_MIN and LIMIT_MAX"
    )]
    pub fn current(&self) -> u32 {
        self.most as u32
    }

    /// The head of an answer came after `took`, when `waiting` requests waited for the instance, this
    /// one included.
    pub fn observe(&mut self, now: Instant, took: Duration, waiting: u32) {
        let window = &mut self.window;
        window.sum += took.as_secs_f64();
        window.count += 1;
        window.waiting_max = window.waiting_max.max(waiting);
        if window.count >= SAMPLES_MIN && now.since(window.began) >= WINDOW {
            let short = window.sum / f64::from(window.count);
            let waiting = f64::from(window.waiting_max);
            self.window = Window::new(now);
            self.step(short, waiting);
        }
    }

    fn step(&mut self, short: f64, waiting: f64) {
        self.learn_long(short, waiting);
        if self.long > RECOVERY_RATIO * short {
            self.long *= RECOVERY;
        }
        if waiting < self.most * USED_MIN {
            return;
        }
        let gradient =
            (TOLERANCE * self.long / short.max(f64::MIN_POSITIVE)).clamp(GRADIENT_MIN, 1.0);
        let wanted = self.most * gradient + GROWTH;
        let smoothed = self.most * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        self.most = smoothed.clamp(LIMIT_MIN, LIMIT_MAX);
    }

    fn learn_long(&mut self, short: f64, waiting: f64) {
        self.windows = self.windows.saturating_add(1);
        // A full instance whose answers get late has a queue, most likely: it must not pass for usual
        // because it came early.
        let may_queue = waiting >= self.most * USED_MIN && short > TOLERANCE * self.long;
        let weight = match self.windows {
            1 => 1.0,
            windows if windows <= WARM_UP && !may_queue => 1.0 / f64::from(windows),
            _ => 2.0 / (LONG_WINDOWS + 1.0),
        };
        self.long += (short - self.long) * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays an instance of `slots` that work `work` long each while `clients` always wait for an
    /// answer, each asking again at once; those beyond the limit wait outside.
    fn play(
        limit: &mut Limit,
        from: Instant,
        seconds: u64,
        slots: u32,
        work: Duration,
        clients: u32,
    ) {
        let end = from.after(Duration::from_secs(seconds));
        let mut now = from;
        while now < end {
            let inside = clients.min(limit.current());
            // What does not fit into the slots queues inside.
            let rounds = f64::from(inside) / f64::from(slots.min(inside));
            let pause = work.div_f64(f64::from(slots.min(inside)));
            now = now.after(pause);
            limit.observe(now, work.mul_f64(rounds), inside);
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_healthy_instance_is_never_limited_below_what_it_is_asked() {
        let mut limit = Limit::new(Instant::START);
        // 64 clients on keep-alive at full speed, each answered within 2 ms.
        play(&mut limit, Instant::START, 20, 64, MS * 2, 64);
        assert!(limit.current() >= 64, "{limit:?}");
        play(
            &mut limit,
            Instant::from_start(MS * 20_000),
            20,
            400,
            MS * 2,
            300,
        );
        assert!(
            limit.current() > 300,
            "it grows where more are answered: {limit:?}"
        );
    }

    #[test]
    fn the_limit_shrinks_while_answers_get_late_and_grows_back() {
        let mut limit = Limit::new(Instant::START);
        play(&mut limit, Instant::START, 60, 16, MS * 10, 16);
        let before = limit.current();
        let from = Instant::from_start(MS * 60_000);
        play(&mut limit, from, 5, 16, MS * 10, 500);
        let under = limit.current();
        assert!(under < before / 2, "{before} -> {under}");
        play(&mut limit, from.after(MS * 5_000), 60, 600, MS * 10, 500);
        assert!(limit.current() > under, "{limit:?}");
    }

    #[test]
    fn an_overload_that_begins_after_two_windows_does_not_pass_for_usual() {
        let mut limit = Limit::new(Instant::START);
        play(&mut limit, Instant::START, 1, 2, MS * 100, 2);
        assert!(limit.windows <= 3, "{limit:?}");
        // It fills by and by, as clients do not stop to ask.
        for clients in 1..400 {
            let from = Instant::from_start(MS * (1_000 + 25 * clients));
            let waiting = clients.min(limit.current());
            limit.observe(from, MS * 50 * waiting, waiting);
        }
        assert!(limit.current() <= 60, "{limit:?}");
    }

    #[test]
    fn what_is_hardly_used_stays_as_it_is() {
        let mut limit = Limit::new(Instant::START);
        play(&mut limit, Instant::START, 5, 4, MS * 5, 4);
        play(
            &mut limit,
            Instant::from_start(MS * 5_000),
            5,
            4,
            MS * 500,
            40,
        );
        assert_eq!(limit.current(), 200);
    }

    #[test]
    fn it_never_leaves_its_bounds() {
        let mut limit = Limit::new(Instant::START);
        for ms in 0..20_000_u32 {
            limit.observe(Instant::from_start(MS * ms * 10), MS * ms, 1_000);
            assert!((LIMIT_MIN..=LIMIT_MAX).contains(&limit.most));
        }
        for ms in 20_000..400_000_u32 {
            limit.observe(Instant::from_start(MS * ms * 10), MS, 1_000);
        }
        assert_eq!(limit.current(), 1_000);
    }
}
