//! Producers that keep so many publishes under way, and a consumer that acknowledges.

use anyhow::{Result, bail};
use mainstay_prove::amqp::{Heard, Template, Wire};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// What a consumer may hold.
const PREFETCH: u16 = 500;
/// It acknowledges so many at once.
const ACK_EVERY: u64 = 50;
/// After its producers ended, a consumer has this long for the rest.
const DRAIN: Duration = Duration::from_secs(30);
/// Between two looks whether all has come.
const LOOK: Duration = Duration::from_millis(20);

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) producers: usize,
    /// Publishes that one of them has under way.
    pub(super) window: usize,
    pub(super) lasts: Duration,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// Messages that were confirmed and consumed.
    pub(super) messages: u64,
    /// Of these, from the first publish to the last delivery.
    pub(super) per_s: f64,
    /// From publish to confirm, in milliseconds.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// Runs a load against a new queue, which is deleted afterwards.
pub(super) fn run(address: SocketAddr, queue: &str, load: Load) -> Result<Measured> {
    let mut owner = Wire::connect(address)?;
    owner.declare(queue)?;
    let confirmed = AtomicU64::new(0);
    let working = AtomicU64::new(load.producers as u64);
    let start = Instant::now();
    let outcome = thread::scope(|scope| {
        let consumer = scope.spawn(|| consume(address, queue, &confirmed, &working));
        let producers: Vec<_> = (0..load.producers)
            .map(|_| scope.spawn(|| produce(address, queue, load, &confirmed, &working)))
            .collect();
        let mut latencies = Vec::new();
        for producer in producers {
            latencies.append(&mut producer.join().expect("a producer panicked")?);
        }
        let ended = consumer.join().expect("the consumer panicked")?;
        anyhow::Ok((latencies, ended))
    });
    let (latencies, ended) = outcome?;
    owner.delete(queue)?;
    let messages = confirmed.load(Ordering::Relaxed);
    let (p50_ms, p99_ms) = percentiles(latencies);
    #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
    Ok(Measured {
        messages,
        per_s: messages as f64 / ended.duration_since(start).as_secs_f64(),
        p50_ms,
        p99_ms,
    })
}

/// Publishes for as long as the load lasts and hears all confirms; the latencies in nanoseconds.
fn produce(
    address: SocketAddr,
    queue: &str,
    load: Load,
    all_confirmed: &AtomicU64,
    working: &AtomicU64,
) -> Result<Vec<u64>> {
    // Whatever happens here, the consumer must not wait for more.
    let _done = Done(working);
    let mut wire = Wire::connect(address)?;
    wire.select_confirms()?;
    let template = Template::new(queue);
    let mut window = Window::default();
    let mut latencies = Vec::new();
    let until = Instant::now() + load.lasts;
    loop {
        if Instant::now() < until {
            while window.under_way < load.window {
                wire.publish(&template, window.next());
            }
            wire.flush()?;
        } else if window.under_way == 0 {
            break;
        }
        if !wire.receive()? {
            bail!("confirms do not come");
        }
        let now = Instant::now();
        let before = latencies.len();
        while let Some(heard) = wire.heard()? {
            match heard {
                Heard::Confirmed { tag, multiple } => {
                    window.confirm(tag, multiple, |sent| {
                        let took = now.duration_since(sent).as_nanos();
                        latencies.push(u64::try_from(took).unwrap_or(u64::MAX));
                    });
                }
                Heard::Refused { tag } => bail!("publish {tag} was refused"),
                Heard::Delivered { .. } => bail!("a producer is no consumer"),
            }
        }
        all_confirmed.fetch_add((latencies.len() - before) as u64, Ordering::Relaxed);
    }
    Ok(latencies)
}

struct Done<'a>(&'a AtomicU64);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Publishes under way, by their tags.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// When each was sent, from the lowest tag that is not confirmed; `None`: confirmed out of turn.
    sent: VecDeque<Option<Instant>>,
    /// The tag of the first of them, less one.
    before: u64,
    under_way: usize,
}

impl Window {
    /// One more goes out; its tag.
    fn next(&mut self) -> u64 {
        self.sent.push_back(Some(Instant::now()));
        self.under_way += 1;
        self.before + self.sent.len() as u64
    }

    /// These are safe; `each` hears when they were sent.
    fn confirm(&mut self, tag: u64, multiple: bool, mut each: impl FnMut(Instant)) {
        let Some(index) = tag
            .checked_sub(self.before + 1)
            .and_then(|index| usize::try_from(index).ok())
        else {
            return;
        };
        let from = if multiple { 0 } else { index };
        for slot in self.sent.range_mut(from..=index) {
            if let Some(sent) = slot.take() {
                self.under_way -= 1;
                each(sent);
            }
        }
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.before += 1;
        }
    }
}

/// Consumes until nobody produces and all that is confirmed has come; when that was.
fn consume(
    address: SocketAddr,
    queue: &str,
    confirmed: &AtomicU64,
    working: &AtomicU64,
) -> Result<Instant> {
    let mut wire = Wire::connect(address)?;
    wire.consume(queue, PREFETCH)?;
    wire.set_patience(LOOK)?;
    let (mut came, mut acked) = (0, 0);
    let mut last = Instant::now();
    let mut give_up = None;
    loop {
        if wire.receive()? {
            while let Some(heard) = wire.heard()? {
                let Heard::Delivered { tag, .. } = heard else {
                    bail!("a consumer hears {heard:?}");
                };
                came = tag;
            }
            last = Instant::now();
        }
        let ends = working.load(Ordering::Acquire) == 0;
        if came >= acked + ACK_EVERY || (ends && came > acked) {
            wire.ack(came, true);
            wire.flush()?;
            acked = came;
        }
        if ends && came >= confirmed.load(Ordering::Relaxed) {
            return Ok(last);
        }
        if ends && *give_up.get_or_insert_with(|| Instant::now() + DRAIN) < Instant::now() {
            bail!("{came} of {confirmed:?} confirmed messages came");
        }
    }
}

fn percentiles(mut nanos: Vec<u64>) -> (f64, f64) {
    nanos.sort_unstable();
    let at = |percent: usize| {
        let index = (nanos.len() * percent / 100).min(nanos.len().saturating_sub(1));
        #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
        nanos
            .get(index)
            .map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
    };
    (at(50), at(99))
}

/// Publishes so many, confirmed, into a durable queue that nobody consumes.
pub(super) fn fill(address: SocketAddr, queue: &str, messages: u64) -> Result<()> {
    const UNDER_WAY: usize = 1000;
    let mut wire = Wire::connect(address)?;
    wire.declare(queue)?;
    wire.select_confirms()?;
    let template = Template::new(queue);
    let mut window = Window::default();
    let (mut sent, mut confirmed) = (0, 0);
    while confirmed < messages {
        while sent < messages && window.under_way < UNDER_WAY {
            sent = window.next();
            wire.publish(&template, sent);
        }
        wire.flush()?;
        if !wire.receive()? {
            bail!("confirms do not come");
        }
        while let Some(heard) = wire.heard()? {
            let Heard::Confirmed { tag, multiple } = heard else {
                bail!("a filler hears {heard:?}");
            };
            window.confirm(tag, multiple, |_| confirmed += 1);
        }
    }
    let there = Wire::connect(address)?.declare(queue)?;
    if u64::from(there) != messages {
        bail!("{there} of {messages} confirmed messages are there");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirms_may_come_out_of_turn_and_several_at_once() {
        let mut window = Window::default();
        for tag in 1..=5 {
            assert_eq!(window.next(), tag);
        }
        let confirm = |window: &mut Window, tag, multiple| {
            let mut count = 0;
            window.confirm(tag, multiple, |_| count += 1);
            count
        };
        assert_eq!(confirm(&mut window, 2, false), 1);
        assert_eq!(confirm(&mut window, 3, true), 2);
        assert_eq!(confirm(&mut window, 3, true), 0);
        assert_eq!((window.under_way, window.next()), (2, 6));
        assert_eq!(confirm(&mut window, 6, true), 3);
    }

    #[test]
    fn the_hundredth_of_a_hundred_is_the_worst() {
        let millis = (1..=100).map(|ms| ms * 1_000_000).collect();
        let (p50, p99) = percentiles(millis);
        assert!((p50, p99) == (51.0, 100.0), "{p50} {p99}");
        assert!(percentiles(Vec::new()).0.is_nan());
    }
}
