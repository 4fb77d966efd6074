//! Waiting for the end of a process in a tokio runtime.
#![expect(unsafe_code, reason = "registering a descriptor with the runtime")]

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::identity::Pidfd;

/// A process whose end can be awaited.
#[derive(Debug)]
pub struct Watched(AsyncFd<Pidfd>);

impl Watched {
    /// Registers with the runtime in which it is called.
    pub fn new(process: Pidfd) -> io::Result<Self> {
        // SAFETY: a `Pidfd` owns its descriptor, open from its making to its drop; it is never
        // exchanged, so `as_raw_fd` always gives the same number.
        let registered = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Returns when it has ended; again and again then. Fails only when the runtime shuts down.
    pub async fn ended(&self) -> io::Result<()> {
        // The readiness is not cleared: a process that has ended stays so.
        self.0.readable().await.map(drop)
    }

    /// The handle.
    pub fn handle(&self) -> &Pidfd {
        self.0.get_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ended, Identity, Life, Spawn};
    use rustix::process::Signal;

    #[tokio::test]
    async fn system_the_end_of_a_process_is_awaited_and_stays_known() {
        let child = Spawn::new(mainstay_testkit::program("python3"))
            .arguments(["-c", "import signal; signal.pause()"])
            .life(Life::EndsWithParent)
            .start()
            .unwrap();
        let identity = Identity::of(child.pid()).unwrap().unwrap();
        let watched = Watched::new(identity.open().unwrap().unwrap()).unwrap();
        child.handle().signal(Signal::KILL).unwrap();
        watched.ended().await.unwrap();
        watched.ended().await.unwrap();
        assert!(watched.handle().has_ended().unwrap());
        assert_eq!(child.try_reap().unwrap(), Some(Ended::Signal(9)));
    }
}
