//! Whether the gateway of this node serves. It says so in its claim; that one of its workers hangs is seen by the memory
//! in which they say that they go on.

use std::time::Duration;

use mainstay_ids::Instant;
use mainstay_kernel::Identity;

use super::namesake::Held;
use super::{Found, Works};
use crate::host::Host;
use crate::seams::Successor;
use crate::signed::{Claim, Pace, Progress, Stage};

/// The claims of the two places of gateways, in the state directory.
const CLAIMS: [&str; 2] = ["processes/gateway.json", "processes/gateway-2.json"];
/// How often one that does not serve yet is looked for: two small files.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often its workers are looked at.
const BEATS_EVERY: Duration = Duration::from_millis(50);
/// The silence of a worker that counts. It says ten times a second that it goes on, and the longest turn of a worker, a
/// table of five thousand services, takes some ten milliseconds; the rest is for a machine whose processors are busy:
/// moving the address for nothing costs more than a second of half the clients.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// One that serves.
#[derive(Debug)]
struct Serving {
    identity: Identity,
    held: Held,
    progress: Option<Progress>,
    pace: Pace,
    look: Instant,
}

/// The gateway, whichever place it has.
#[derive(Debug)]
pub(super) struct Gateway {
    serving: Option<Serving>,
    look: Instant,
    successor: Successor,
}

impl Gateway {
    pub(super) fn new(successor: Successor) -> Self {
        Self {
            serving: None,
            look: Instant::START,
            successor,
        }
    }

    pub(super) fn turn(&mut self, host: &Host) -> Found {
        if let Some(serving) = &mut self.serving {
            match serving.look(host) {
                Some((works, Pace::GoesOn)) => return Found::Surely(works),
                Some((_, Pace::Stuck(_))) => return Found::Surely(Works::No),
                // Another one has taken over from it, or nobody lets clients in.
                Some((_, Pace::Leaving)) => {
                    if self.successor == Successor::Followed
                        && let Some(next) = find(host, Some(&serving.identity))
                    {
                        self.serving = Some(next);
                        return Found::Surely(Works::Yes);
                    }
                    return Found::Surely(Works::No);
                }
                // Another one may have taken over from it: looked for at once.
                None => {
                    self.serving = None;
                    self.look = host.now();
                }
            }
        }
        if host.now() < self.look {
            return Found::Nothing;
        }
        self.look = host.now().after(LOOK_EVERY);
        self.serving = find(host, None);
        match self.serving {
            Some(_) => Found::Surely(Works::Yes),
            None => Found::Surely(Works::No),
        }
    }

    pub(super) fn next_deadline(&self) -> Instant {
        self.serving.as_ref().map_or(self.look, |serving| {
            serving.held.next_deadline().min(serving.look)
        })
    }
}

impl Serving {
    /// Whether it runs, and how its workers get on; `None`: it has ended.
    fn look(&mut self, host: &Host) -> Option<(Works, Pace)> {
        let works = self.held.look(host)?;
        let now = host.now();
        if now < self.look {
            return Some((works, self.pace));
        }
        self.look = now.after(BEATS_EVERY);
        let before = self.pace;
        if let Some(progress) = &mut self.progress {
            self.pace = progress.look(now, STUCK_AFTER);
        }
        let pid = self.identity.pid;
        match (before, self.pace) {
            (Pace::GoesOn | Pace::Leaving, Pace::Stuck(silent)) => {
                tracing::warn!(
                    "a worker of the gateway ({pid}) has made no progress for {silent:.1?}"
                );
            }
            (Pace::Stuck(_), Pace::GoesOn) => {
                tracing::info!("all workers of the gateway ({pid}) make progress again");
            }
            (Pace::GoesOn | Pace::Leaving, Pace::GoesOn | Pace::Leaving)
            | (Pace::Stuck(_), Pace::Stuck(_) | Pace::Leaving) => {}
        }
        Some((works, self.pace))
    }
}

/// A process that signed a claim, lives and serves, other than this one.
fn find(host: &Host, other_than: Option<&Identity>) -> Option<Serving> {
    CLAIMS.iter().find_map(|claim| {
        let claim = Claim::read(&host.state.join(claim))?;
        if claim.stage != Stage::Serves || other_than == Some(&claim.identity) {
            return None;
        }
        let now = host.now();
        let (handle, mut progress) = claim.open(now)?;
        let pace = progress
            .as_mut()
            .map(|progress| progress.look(now, STUCK_AFTER));
        if pace == Some(Pace::Leaving) {
            return None;
        }
        Some(Serving {
            held: Held::new(host, claim.identity.clone(), handle),
            identity: claim.identity,
            progress,
            pace: Pace::GoesOn,
            look: now.after(BEATS_EVERY),
        })
    })
}
