//! Whether a process of a name runs. Its end is known at once, by a handle on it.

use std::time::Duration;

use mainstay_ids::Instant;
use mainstay_kernel::{Identity, Pidfd, procfs};

use super::{Found, Works};
use crate::host::Host;

/// How often a process that is not there is looked for: a walk through all processes takes some ten microseconds for each.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is asked whether one that runs was stopped.
const STOPPED_EVERY: Duration = Duration::from_millis(50);

/// One that is held by a handle.
#[derive(Debug)]
pub(super) struct Held {
    identity: Identity,
    handle: Pidfd,
    look: Instant,
    works: Works,
}

impl Held {
    pub(super) fn new(host: &Host, identity: Identity, handle: Pidfd) -> Self {
        if let Err(error) = host.watch(&handle) {
            tracing::warn!("cannot await the end of process {}: {error}", identity.pid);
        }
        let look = host.now();
        Self {
            identity,
            handle,
            look,
            works: Works::Yes,
        }
    }

    /// Whether it runs; `None`: it has ended. One that is stopped (SIGSTOP) does not.
    pub(super) fn look(&mut self, host: &Host) -> Option<Works> {
        if self.handle.has_ended().unwrap_or(true) {
            return None;
        }
        let now = host.now();
        if now >= self.look {
            self.look = now.after(STOPPED_EVERY);
            let stopped = procfs::is_stopped(self.identity.pid).unwrap_or(false);
            self.works = if stopped { Works::No } else { Works::Yes };
        }
        Some(self.works)
    }

    pub(super) fn next_deadline(&self) -> Instant {
        self.look
    }
}

/// A process of this name, whichever.
#[derive(Debug)]
pub(super) struct Namesake {
    name: String,
    held: Option<Held>,
    look: Instant,
}

impl Namesake {
    pub(super) fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            held: None,
            look: Instant::START,
        }
    }

    pub(super) fn turn(&mut self, host: &Host) -> Found {
        if let Some(held) = &mut self.held {
            if let Some(works) = held.look(host) {
                return Found::Surely(works);
            }
            // Another one of its name may run: looked for at once.
            self.held = None;
            self.look = host.now();
        }
        if host.now() < self.look {
            return Found::Nothing;
        }
        self.look = host.now().after(LOOK_EVERY);
        self.held = self.find(host);
        match self.held {
            Some(_) => Found::Surely(Works::Yes),
            None => Found::Surely(Works::No),
        }
    }

    fn find(&self, host: &Host) -> Option<Held> {
        let found = procfs::named(&self.name).unwrap_or_default();
        found.into_iter().find_map(|pid| {
            let identity = Identity::of(pid).ok()??;
            let handle = identity.open().ok()??;
            Some(Held::new(host, identity, handle))
        })
    }

    pub(super) fn next_deadline(&self) -> Instant {
        self.held.as_ref().map_or(self.look, Held::next_deadline)
    }
}
