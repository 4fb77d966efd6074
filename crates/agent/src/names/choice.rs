//! Which upstream is asked, and how a loop is noticed.
//!
//! A loop cannot be seen from addresses alone: an upstream may be a program that asks us, such as
//! systemd-resolved with this server for its own. So a name that nobody else can know is asked of an
//! upstream; if that very question comes back to us, the upstream leads back. It is asked once of each
//! new upstream, and again when a question comes in that is just being asked of others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mainstay_ids::Instant;
use mainstay_model::directory::UPSTREAMS_MAX;

/// How long an upstream that leads back is not asked. Somebody has to change a setting before it is any
/// use, and if nobody did, a look costs one round through the loop.
const LEFT_OUT: Duration = Duration::from_mins(1);

/// How long a name that was asked to find a loop is waited for: longer than all upstreams may take.
const ECHO_TIME: Duration = Duration::from_secs(10);

/// At most one look after a loop per upstream in this time.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// The same question as often at once is a loop, or a program with more threads than a machine should
/// have that all ask at once. Before a loop is noticed it turns as often.
const SAME_MAX: usize = 128;

/// The name below which loops are looked for: none of ours, since what asks us for ours leads no other
/// name back. `test` is nobody's (RFC 6761, 6.2), and resolvers do pass it on.
pub(super) const ECHO_NAME: [&str; 3] = ["loop-check", "mainstay", "test"];

/// The upstreams with what is known of them.
#[derive(Debug, Default)]
pub(super) struct Choice {
    upstreams: Vec<Upstream>,
    /// Who is asked first: whoever answered last.
    preferred: usize,
    /// The questions that are being asked, in lower case, and how often.
    asked: BTreeMap<Vec<u8>, usize>,
    /// At most one of each upstream.
    echoes: Vec<Echo>,
}

#[derive(Debug, Clone, Copy)]
struct Upstream {
    address: SocketAddr,
    /// It leads back to us, as far as we know, until then.
    left_out: Option<Instant>,
    /// When it may be looked after again.
    next_look: Instant,
}

/// A name that only we know.
#[derive(Debug, Clone, Copy)]
struct Echo {
    nonce: u64,
    upstream: SocketAddr,
    until: Instant,
}

/// Whether a question may be asked of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// It may.
    Yes,
    /// It may, and is being asked already: that may be a loop.
    Again,
    /// It is being asked so often that it is not asked any more.
    TooOften,
}

impl Choice {
    /// Takes other upstreams; what is known of those that stay, is kept.
    pub(super) fn replace(&mut self, addresses: &[SocketAddr]) {
        let known = |address: &SocketAddr| {
            let same = |upstream: &&Upstream| upstream.address == *address;
            let found = self.upstreams.iter().find(same).copied();
            found.unwrap_or(Upstream {
                address: *address,
                left_out: None,
                next_look: Instant::START,
            })
        };
        let upstreams = addresses.iter().take(UPSTREAMS_MAX).map(known).collect();
        self.upstreams = upstreams;
        self.preferred = 0;
    }

    /// Whether there is nobody to ask.
    pub(super) fn is_empty(&self) -> bool {
        self.upstreams.is_empty()
    }

    /// Who is asked, one after the other.
    pub(super) fn order(&self, now: Instant) -> Vec<SocketAddr> {
        let (before, from) = self
            .upstreams
            .split_at(self.preferred.min(self.upstreams.len()));
        let asked = |upstream: &&Upstream| upstream.left_out.is_none_or(|until| until <= now);
        let order = from.iter().chain(before).filter(asked);
        order.map(|upstream| upstream.address).collect()
    }

    /// Whoever answers is asked first from now on.
    pub(super) fn answered(&mut self, address: SocketAddr) {
        let position = self.upstreams.iter().position(|one| one.address == address);
        self.preferred = position.unwrap_or(self.preferred);
    }

    /// A question begins to be asked. Unless it is asked too often, [`Choice::end`] must follow.
    pub(super) fn begin(&mut self, question: &[u8]) -> Asking {
        let count = self.asked.entry(question.to_ascii_lowercase()).or_default();
        if *count >= SAME_MAX {
            return Asking::TooOften;
        }
        *count += 1;
        if *count > 1 {
            Asking::Again
        } else {
            Asking::Yes
        }
    }

    /// It has its answer, or gets none.
    pub(super) fn end(&mut self, question: &[u8]) {
        let question = question.to_ascii_lowercase();
        if let Some(count) = self.asked.get_mut(&question) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.asked.remove(&question);
            }
        }
    }

    /// Of whom a name that only we know should be asked now, with the name's number out of `nonces`.
    pub(super) fn looks(
        &mut self,
        now: Instant,
        mut nonces: impl FnMut() -> u64,
    ) -> Vec<(SocketAddr, u64)> {
        self.echoes.retain(|echo| now < echo.until);
        let mut looks = Vec::new();
        for upstream in &mut self.upstreams {
            if now < upstream.next_look || upstream.left_out.is_some_and(|until| now < until) {
                continue;
            }
            upstream.next_look = now.after(LOOK_PAUSE);
            let address = upstream.address;
            let nonce = nonces();
            self.echoes.retain(|echo| echo.upstream != address);
            self.echoes.push(Echo {
                nonce,
                upstream: address,
                until: now.after(ECHO_TIME),
            });
            looks.push((address, nonce));
        }
        looks
    }

    /// Whether this question is one that we ask of an upstream: then that leads back to us, and is left
    /// out. `Some` names it.
    pub(super) fn recognise<'n>(
        &mut self,
        mut labels: impl Iterator<Item = &'n [u8]>,
        now: Instant,
    ) -> Option<SocketAddr> {
        let nonce = nonce(labels.next()?)?;
        for own in ECHO_NAME {
            if !labels.next()?.eq_ignore_ascii_case(own.as_bytes()) {
                return None;
            }
        }
        let echo = self.echoes.iter().find(|echo| echo.nonce == nonce)?;
        let address = echo.upstream;
        let upstream = self.upstreams.iter_mut();
        let upstream = upstream.into_iter().find(|one| one.address == address)?;
        upstream.left_out = Some(now.after(LEFT_OUT));
        Some(address)
    }
}

/// The label of a number.
pub(super) fn echo_label(nonce: u64) -> String {
    format!("{nonce:016x}")
}

fn nonce(label: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(label).ok()?;
    let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 53).into()
    }

    fn choice() -> Choice {
        let mut choice = Choice::default();
        choice.replace(&[at(1), at(2), at(3), at(4)]);
        choice
    }

    #[test]
    fn whoever_answered_is_asked_first_and_the_others_behind() {
        let mut choice = choice();
        assert_eq!(choice.order(Instant::START), [at(1), at(2), at(3)]);
        choice.answered(at(2));
        assert_eq!(choice.order(Instant::START), [at(2), at(3), at(1)]);
        choice.replace(&[]);
        assert!(choice.order(Instant::START).is_empty() && choice.is_empty());
    }

    #[test]
    fn an_upstream_whose_echo_comes_back_is_left_out_for_a_while() {
        let mut choice = choice();
        let mut next = 0;
        let looks = choice.looks(Instant::START, || {
            next += 1;
            next
        });
        assert_eq!(looks, [(at(1), 1), (at(2), 2), (at(3), 3)]);
        assert!(
            choice.looks(Instant::START, || 9).is_empty(),
            "not so soon again"
        );
        let label = echo_label(2);
        let name = |label: &str, parent: [&str; 3]| {
            let labels = [label, parent[0], parent[1], parent[2]];
            labels.map(|label| label.to_uppercase().into_bytes())
        };
        let mut seen = |label: &str, parent| {
            let labels = name(label, parent);
            choice.recognise(labels.iter().map(Vec::as_slice), Instant::START)
        };
        assert_eq!(
            seen(&echo_label(7), ECHO_NAME),
            None,
            "that of somebody else"
        );
        assert_eq!(seen(&label, ["loop-check", "mainstay", "com"]), None);
        assert_eq!(seen("2", ECHO_NAME), None);
        assert_eq!(seen(&label, ECHO_NAME), Some(at(2)));
        assert_eq!(choice.order(Instant::START), [at(1), at(3)]);
        // Told the same upstreams again, it knows.
        choice.replace(&[at(1), at(2)]);
        assert_eq!(choice.order(Instant::START), [at(1)]);
        let later = Instant::START.after(LEFT_OUT);
        assert_eq!(choice.order(later), [at(1), at(2)]);
    }

    #[test]
    fn a_question_that_is_being_asked_is_noticed_and_not_asked_without_end() {
        let mut choice = choice();
        assert_eq!(choice.begin(b"a"), Asking::Yes);
        assert_eq!(choice.begin(b"A"), Asking::Again);
        for _ in 2..SAME_MAX {
            assert_eq!(choice.begin(b"a"), Asking::Again);
        }
        assert_eq!(choice.begin(b"a"), Asking::TooOften);
        assert_eq!(choice.begin(b"b"), Asking::Yes);
        for _ in 0..SAME_MAX {
            choice.end(b"a");
        }
        choice.end(b"b");
        assert!(choice.asked.is_empty());
    }
}
