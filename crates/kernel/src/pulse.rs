//! Whether the threads of a process make progress: each counts up a number now and then, in memory that another process
//! reads through `/proc/PID/fd`. No file stands behind it, so that neither side ever waits for a disk.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};

/// The most threads of which is told: more than a machine has processors.
pub const BEATERS_MAX: usize = 1024;

/// One number.
const LEN: usize = size_of::<u64>();

/// What is counted when a thread ends on purpose.
const LEAVING: u64 = u64::MAX;

/// The memory, in the process whose threads are looked at.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<File>);

impl Pulse {
    /// For so many threads, [`BEATERS_MAX`] at most.
    pub fn new(beaters: usize) -> io::Result<Self> {
        let memory = File::from(memfd_create("pulse", MemfdFlags::CLOEXEC)?);
        memory.set_len((beaters.min(BEATERS_MAX) * LEN) as u64)?;
        Ok(Self(Arc::new(memory)))
    }

    /// The number under which `/proc/PID/fd` shows it, as long as a copy of it lives.
    pub fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// For the thread of this number, from 0.
    pub fn beater(&self, at: usize) -> Beater {
        Beater {
            memory: Arc::clone(&self.0),
            at: (at * LEN) as u64,
            count: 0,
        }
    }
}

/// With which one thread says that it goes on. Its end says that the thread ends.
#[derive(Debug)]
pub struct Beater {
    memory: Arc<File>,
    at: u64,
    count: u64,
}

impl Beater {
    /// The thread goes on.
    pub fn beat(&mut self) {
        if self.count < LEAVING - 1 {
            self.count += 1;
        }
        self.write();
    }

    /// The thread ends on purpose: it takes nothing new.
    pub fn leave(&mut self) {
        self.count = LEAVING;
        self.write();
    }

    fn write(&self) {
        // Into memory that is there; what failed all the same is seen as a thread that stands still.
        self.memory
            .write_all_at(&self.count.to_ne_bytes(), self.at)
            .ok();
    }
}

impl Drop for Beater {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What a thread was last seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// It has counted so far.
    Counted(u64),
    /// It ends on purpose.
    Leaving,
}

/// The memory, in another process.
#[derive(Debug)]
pub struct Pulses {
    memory: File,
    room: Box<[u8]>,
}

impl Pulses {
    /// That of a process, by the number that [`Pulse::descriptor`] gave there.
    pub fn open(pid: u32, descriptor: i32) -> io::Result<Self> {
        let memory = File::open(format!("/proc/{pid}/fd/{descriptor}"))?;
        let len = usize::try_from(memory.metadata()?.len()).unwrap_or(usize::MAX);
        // Another number by now is another file, which is not what was meant.
        if len == 0 || !len.is_multiple_of(LEN) || len > BEATERS_MAX * LEN {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self {
            memory,
            room: vec![0; len].into_boxed_slice(),
        })
    }

    /// What each thread has said.
    pub fn read(&mut self) -> io::Result<impl ExactSizeIterator<Item = Beat>> {
        self.memory.read_exact_at(&mut self.room, 0)?;
        Ok(self
            .room
            .as_chunks::<LEN>()
            .0
            .iter()
            .map(|bytes| match u64::from_ne_bytes(*bytes) {
                LEAVING => Beat::Leaving,
                count => Beat::Counted(count),
            }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_descriptor_sees_who_goes_on_and_who_ends() -> io::Result<()> {
        let pulse = Pulse::new(2)?;
        let mut pulses = Pulses::open(std::process::id(), pulse.descriptor())?;
        let (mut first, mut second) = (pulse.beater(0), pulse.beater(1));
        let mut seen = || pulses.read().map(Iterator::collect::<Vec<Beat>>);
        assert_eq!(seen()?, [Beat::Counted(0); 2]);
        second.beat();
        second.beat();
        first.beat();
        assert_eq!(seen()?, [Beat::Counted(1), Beat::Counted(2)]);
        drop(first);
        second.beat();
        assert_eq!(seen()?, [Beat::Leaving, Beat::Counted(3)]);
        Ok(())
    }

    #[test]
    fn what_is_no_pulse_is_refused() -> io::Result<()> {
        let empty = File::open("/dev/null")?;
        assert!(Pulses::open(std::process::id(), empty.as_raw_fd()).is_err());
        assert!(Pulses::open(std::process::id(), -1).is_err());
        Ok(())
    }
}
