//! Ending what a program left behind when it ended.

use std::io;
use std::time::{Duration, Instant};

use mainstay_kernel::cgroup::Cgroup;
use mainstay_kernel::{Reaped, reap_any, strays};
use mainstay_model::Exit;

use crate::record::AttemptSpec;

/// How often it is looked again for what is left. Mostly a reaped child wakes us sooner.
const LOOK: Duration = Duration::from_millis(20);

/// What is still there after this can only be a process that sleeps in the kernel for ever, or one
/// that became another account's; the instance's end is recorded all the same.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program has ended; its descendants have not all.
///
/// The shim is their subreaper: each that loses its parent becomes a child of the shim. So nothing
/// is left exactly when the shim has no children, whatever groups and sessions they made. The
/// cgroup, where there is one, makes it quicker.
#[derive(Debug)]
pub(crate) struct Ending {
    exit: Exit,
    cgroup: Option<Cgroup>,
    limiting: Vec<Cgroup>,
    look_at: Instant,
    give_up_at: Instant,
}

impl Ending {
    pub(crate) fn new(exit: Exit, spec: &AttemptSpec, now: Instant) -> Self {
        Self {
            exit,
            cgroup: spec.cgroup.as_ref().map(Cgroup::at),
            limiting: spec.limiting.iter().map(Cgroup::at).collect(),
            look_at: now + LOOK,
            give_up_at: now + PATIENCE,
        }
    }

    /// Reaps and kills; `Some` when nothing is left, or the patience is over.
    pub(crate) fn advance(&mut self, now: Instant) -> io::Result<Option<Exit>> {
        loop {
            match reap_any()? {
                Reaped::Child { .. } => {}
                Reaped::NoChildren => break,
                Reaped::AllRun if now >= self.give_up_at => break,
                Reaped::AllRun => {
                    if let Some(cgroup) = &self.cgroup {
                        cgroup.kill_now()?;
                    }
                    strays::kill_children()?;
                    self.look_at = now + LOOK;
                    return Ok(None);
                }
            }
        }
        if let Some(cgroup) = &self.cgroup {
            // Who is in it without being our descendant was put there by somebody else.
            cgroup.kill_now()?;
            // Still in use at the worst; the agent removes it when it forgets the instance.
            let _ = cgroup.remove();
        }
        for group in &self.limiting {
            let _ = group.remove();
        }
        Ok(Some(self.exit))
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        self.look_at.min(self.give_up_at)
    }
}
