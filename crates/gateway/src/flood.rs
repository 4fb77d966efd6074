//! Floods by frames of HTTP/2 that cost their sender nothing: pings, settings, priorities, resets,
//! empty data. The library bounds what they may hold in memory; this bounds how often they come.
//! Pure: fed with the bytes of a connection as they are read.

use mainstay_ids::Instant;

/// The client's first bytes (RFC 9113, 3.4).
const PREFACE_LEN: u32 = 24;

/// RFC 9113, 4.1: length, type, flags, stream.
const FRAME_HEAD_LEN: usize = 9;

// RFC 9113, 6: types of frames, and the one flag that matters here.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;

/// Frames that say nothing of a request: a client pings every ten seconds, changes its settings
/// once, and older browsers send a priority with each request.
const IDLE_TALK: Allowance = Allowance {
    burst: 1000,
    per_second: 100,
};

/// Requests that are taken back. A page that is left cancels as many as it had under way.
const RESETS: Allowance = Allowance {
    burst: 500,
    per_second: 100,
};

/// Windows are opened once per some kilobytes of answers, of all streams together.
const WINDOW_UPDATES: Allowance = Allowance {
    burst: 100_000,
    per_second: 50_000,
};

/// How often something may come.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    burst: u32,
    per_second: u32,
}

/// What is left of an allowance.
#[derive(Debug)]
struct Bucket {
    allowance: Allowance,
    left: f64,
    since: Instant,
}

impl Bucket {
    fn new(allowance: Allowance) -> Self {
        Self {
            allowance,
            left: f64::from(allowance.burst),
            since: Instant::START,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = f64::from(self.allowance.per_second) * now.since(self.since).as_secs_f64();
        self.left = (self.left + gained).min(f64::from(self.allowance.burst));
        self.since = self.since.max(now);
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

/// Of what there were too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flood {
    #[error("too many pings, settings, priorities or empty frames")]
    IdleTalk,
    #[error("too many requests that are taken back")]
    Resets,
    #[error("too many changes of windows")]
    WindowUpdates,
}

/// Watches the frames of one connection.
#[derive(Debug)]
pub(crate) struct FrameWatch {
    /// Bytes that are not looked at.
    skip: u32,
    head: [u8; FRAME_HEAD_LEN],
    head_len: usize,
    idle_talk: Bucket,
    resets: Bucket,
    window_updates: Bucket,
}

impl FrameWatch {
    /// For a connection from its first byte on.
    pub(crate) fn new() -> Self {
        Self {
            skip: PREFACE_LEN,
            head: [0; FRAME_HEAD_LEN],
            head_len: 0,
            idle_talk: Bucket::new(IDLE_TALK),
            resets: Bucket::new(RESETS),
            window_updates: Bucket::new(WINDOW_UPDATES),
        }
    }

    /// Looks at the next bytes.
    pub(crate) fn look(&mut self, now: Instant, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            bytes = &bytes[skipped..];
            // Not longer than `skip` itself.
            self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
            let taken = bytes.len().min(FRAME_HEAD_LEN - self.head_len);
            self.head[self.head_len..self.head_len + taken].copy_from_slice(&bytes[..taken]);
            self.head_len += taken;
            bytes = &bytes[taken..];
            if self.head_len == FRAME_HEAD_LEN {
                self.head_len = 0;
                self.frame(now)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, now: Instant) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.head;
        let len = u32::from_be_bytes([0, a, b, c]);
        self.skip = len;
        let (bucket, flood) = match kind {
            DATA if len > 0 || flags & END_STREAM != 0 => return Ok(()),
            HEADERS => return Ok(()),
            RST_STREAM => (&mut self.resets, Flood::Resets),
            WINDOW_UPDATE => (&mut self.window_updates, Flood::WindowUpdates),
            _ => (&mut self.idle_talk, Flood::IdleTalk),
        };
        if bucket.take(now) { Ok(()) } else { Err(flood) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(body);
        bytes
    }

    fn started() -> FrameWatch {
        let mut watch = FrameWatch::new();
        watch
            .look(Instant::START, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        watch
    }

    #[test]
    fn each_kind_of_flood_is_noticed_whatever_the_cuts() {
        let floods = [
            (frame(6, 0, &[0; 8]), Flood::IdleTalk),
            (frame(4, 0, &[]), Flood::IdleTalk),
            (frame(0, 0, &[]), Flood::IdleTalk),
            (frame(9, 0, b"x"), Flood::IdleTalk),
            (frame(3, 0, &[0; 4]), Flood::Resets),
            (frame(8, 0, &[0; 4]), Flood::WindowUpdates),
        ];
        for (frame, flood) in floods {
            for cut in [1, 5, 9, frame.len()] {
                let mut watch = started();
                let mut seen = Ok(());
                'flood: for _ in 0..200_000 {
                    for piece in frame.chunks(cut) {
                        seen = watch.look(Instant::START, piece);
                        if seen.is_err() {
                            break 'flood;
                        }
                    }
                }
                assert_eq!(seen, Err(flood), "cut at {cut}");
            }
        }
    }

    #[test]
    fn requests_and_bodies_are_never_a_flood() {
        let mut watch = started();
        for _ in 0..10_000 {
            watch.look(Instant::START, &frame(1, 4, b"head")).unwrap();
            watch.look(Instant::START, &frame(0, 0, b"body")).unwrap();
            watch.look(Instant::START, &frame(0, 1, b"")).unwrap();
        }
    }

    #[test]
    fn a_client_that_pings_now_and_then_may_do_so_for_ever() {
        let mut watch = started();
        let ping = frame(6, 0, &[0; 8]);
        for second in 0..100_000 {
            let now = Instant::from_start(Duration::from_secs(second));
            for _ in 0..10 {
                watch.look(now, &ping).unwrap();
            }
        }
    }
}
